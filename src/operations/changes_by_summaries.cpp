// changes_by_summaries and cuts_by_summaries of changed_since.h.

#include <charconv>
#include <thread>

#include "base/error.h"
#include "base/workers.h"
#include "operations/changed_since.h"

namespace holdfast::operations {

namespace {

using postgres::Lsn;

/// Summaries are written from 17 on. The known faults of theirs concern visibility maps, which we
/// never take from them, and promotions, across which we do not ask (pitfalls B2 to B4); 17.0 could
/// miss periods of wal_level = minimal (B5).
constexpr int first_good_version = 170001;
constexpr std::chrono::seconds patience(10);

std::uint32_t number(const std::optional<std::string>& text) {
  std::uint32_t value = 0;
  if (text) std::from_chars(text->data(), text->data() + text->size(), value);
  return value;
}

struct Summary {
  Lsn begin;
  Lsn end;
};

/// What is needed of them, in the order of the WAL.
struct Summaries {
  std::vector<Summary> files;
  bool complete = false;  ///< they follow each other without a gap, from and to where they must
  bool overlap = false;   ///< then nobody knows what came first
};

Summaries find_summaries(postgres::Session& session, const std::string& timeline, Lsn from,
                         Lsn until) {
  Summaries found;
  Lsn reached = from;
  for (const postgres::Row& row :
       session.query("SELECT start_lsn, end_lsn FROM pg_available_wal_summaries()"
                     " WHERE tli = $1::bigint AND end_lsn > $2::pg_lsn ORDER BY start_lsn, end_lsn",
                     {timeline, postgres::to_string(from)})) {
    const auto begin = postgres::parse_lsn(row[0].value_or(""));
    const auto end = postgres::parse_lsn(row[1].value_or(""));
    if (!begin || !end || *begin > reached || reached >= until) break;
    if (!found.files.empty() && *begin < reached) found.overlap = true;
    found.files.push_back({*begin, *end});
    reached = std::max(reached, *end);
  }
  found.complete = reached >= until;
  return found;
}

Summaries await_summaries(postgres::Session& session, const std::string& timeline, Lsn from,
                          Lsn until) {
  const auto give_up = std::chrono::steady_clock::now() + patience;
  for (;;) {
    Summaries found = find_summaries(session, timeline, from, until);
    if (found.complete || std::chrono::steady_clock::now() > give_up) return found;
    base::stop_if_interrupted();
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

/// Within one summary, blocks that stand behind a cut were written after it (it forgets others).
void add_summary(postgres::Session& session, const std::string& timeline, const Summary& summary,
                 ChangedBlocks& blocks) {
  const postgres::Rows rows = session.query(
      "SELECT reltablespace, reldatabase, relfilenode, relblocknumber, is_limit_block"
      " FROM pg_wal_summary_contents($1::bigint, $2::pg_lsn, $3::pg_lsn)"
      " WHERE relforknumber = 0",
      {timeline, postgres::to_string(summary.begin), postgres::to_string(summary.end)});
  for (const bool cuts : {true, false}) {
    for (const postgres::Row& row : rows) {
      if ((row[4] == "t") != cuts) continue;
      const postgres::RelationId relation{number(row[0]), number(row[1]), number(row[2])};
      if (relation.relation == 0) {
        blocks.add_database(relation.tablespace, relation.database);  // it was copied as files
      } else if (cuts) {
        blocks.add_from(relation, number(row[3]));
      } else {
        blocks.add(relation, number(row[3]));
      }
    }
  }
}

}  // namespace

std::string why_no_summaries(postgres::Session& session) {
  if (session.version_number() < first_good_version) {
    return "the server has no WAL summaries, or such that are not trusted";
  }
  return session.setting("summarize_wal") == "on" ? "" : "summarize_wal is off";
}

ChangesSince changes_by_summaries(const Baseline& baseline, postgres::Session& session,
                                  postgres::Timeline timeline, Lsn until) {
  if (std::string why = why_no_summaries(session); !why.empty()) return {{}, std::move(why)};
  if (baseline.backup.timeline != timeline) return {{}, "the timeline has changed"};
  const std::string name = std::to_string(timeline.value);
  try {
    const Summaries found = await_summaries(session, name, baseline.backup.start, until);
    if (!found.complete) {
      return {{}, "the server's WAL summaries do not cover the time between the two backups"};
    }
    if (found.overlap) return {{}, "the server's WAL summaries overlap"};
    ChangedBlocks blocks;
    for (const Summary& each : found.files) add_summary(session, name, each, blocks);
    return {std::move(blocks), {}};
  } catch (const base::Error& error) {
    if (error.code() != base::Code::postgres && error.code() != base::Code::permission) throw;
    return {{}, error.message()};
  }
}

ChangesSince cuts_by_summaries(const Baseline& baseline, postgres::Session& session) {
  try {
    ChangedBlocks cuts;
    for (const postgres::Row& row :
         session.query("SELECT c.reltablespace, c.reldatabase, c.relfilenode, min(c.relblocknumber)"
                       " FROM pg_available_wal_summaries() AS s,"
                       " LATERAL pg_wal_summary_contents(s.tli, s.start_lsn, s.end_lsn) AS c"
                       " WHERE s.tli = $1::bigint AND s.end_lsn > $2::pg_lsn"
                       " AND c.relforknumber = 0 AND c.is_limit_block GROUP BY 1, 2, 3",
                       {std::to_string(baseline.backup.timeline.value),
                        postgres::to_string(baseline.backup.start)})) {
      cuts.add_from({number(row[0]), number(row[1]), number(row[2])}, number(row[3]));
    }
    return {std::move(cuts), {}};
  } catch (const base::Error& error) {
    if (error.code() != base::Code::postgres && error.code() != base::Code::permission) throw;
    return {{}, error.message()};
  }
}

}  // namespace holdfast::operations
