// changes_by_summaries of changed_since.h.

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

/// Do they follow each other without a gap from `from` to `until`?
bool covered(postgres::Session& session, const std::string& timeline, Lsn from, Lsn until) {
  Lsn reached = from;
  for (const postgres::Row& row :
       session.query("SELECT start_lsn, end_lsn FROM pg_available_wal_summaries()"
                     " WHERE tli = $1::bigint ORDER BY start_lsn, end_lsn",
                     {timeline})) {
    const auto begin = postgres::parse_lsn(row[0].value_or(""));
    const auto end = postgres::parse_lsn(row[1].value_or(""));
    if (begin && end && *begin <= reached) reached = std::max(reached, *end);
  }
  return reached >= until;
}

bool wait_until_covered(postgres::Session& session, const std::string& timeline, Lsn from,
                        Lsn until) {
  const auto give_up = std::chrono::steady_clock::now() + patience;
  while (!covered(session, timeline, from, until)) {
    if (std::chrono::steady_clock::now() > give_up) return false;
    base::stop_if_interrupted();
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  return true;
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
  const Lsn from = baseline.backup.start;
  const std::string number_of_timeline = std::to_string(timeline.value);
  try {
    if (!wait_until_covered(session, number_of_timeline, from, until)) {
      return {{}, "the server's WAL summaries do not cover the time between the two backups"};
    }
    ChangedBlocks blocks;
    for (const postgres::Row& row : session.query(
             "SELECT c.reltablespace, c.reldatabase, c.relfilenode, c.relblocknumber,"
             " c.is_limit_block"
             " FROM pg_available_wal_summaries() AS s,"
             " LATERAL pg_wal_summary_contents(s.tli, s.start_lsn, s.end_lsn) AS c"
             " WHERE s.tli = $1::bigint AND s.end_lsn > $2::pg_lsn AND s.start_lsn < $3::pg_lsn"
             " AND c.relforknumber = 0",
             {number_of_timeline, postgres::to_string(from), postgres::to_string(until)})) {
      const postgres::RelationId relation{number(row[0]), number(row[1]), number(row[2])};
      if (relation.relation == 0) {
        blocks.add_database(relation.tablespace, relation.database);  // it was copied as files
      } else if (row[4] == "t") {
        blocks.add_from(relation, number(row[3]));
      } else {
        blocks.add(relation, number(row[3]));
      }
    }
    return {std::move(blocks), {}};
  } catch (const base::Error& error) {
    if (error.code() != base::Code::postgres && error.code() != base::Code::permission) throw;
    return {{}, error.message()};
  }
}

}  // namespace holdfast::operations
