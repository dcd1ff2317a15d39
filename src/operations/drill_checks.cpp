#include "operations/drill_checks.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <random>

#include "base/error.h"
#include "base/workers.h"
#include "operations/data_checksums.h"
#include "operations/wal_coverage.h"
#include "operations/wal_end.h"
#include "postgres/amcheck.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using postgres::Lsn;
using std::chrono::steady_clock;
using Kind = RecoveryTarget::Kind;

constexpr std::size_t names_shown = 5;
constexpr std::size_t most_details = 1000;

/// What a sample does not look at: an index that alone would take up its time, ...
constexpr std::uint64_t largest_sampled_index = (1 << 30) / 8192;
/// ... the rows behind an index of a larger table than this, and more blocks of a table than these.
constexpr std::uint64_t largest_thorough = (64 << 20) / 8192;
constexpr std::uint64_t sampled_blocks = 2048;

/// The first few of a list.
std::string first_of(const std::vector<std::string>& names) {
  std::string text;
  for (std::size_t i = 0; i < std::min(names.size(), names_shown); ++i) {
    text += (i == 0 ? "" : "; ") + names[i];
  }
  if (names.size() > names_shown) {
    text += fmt::format("; and {} more", names.size() - names_shown);
  }
  return text;
}

}  // namespace

TargetExpectation expect_target(const Site& site, const RestorePlan& plan) {
  const BackupInfo& backup = plan.backup;
  const RecoveryTarget& target = plan.target;
  TargetExpectation expected{backup.stop, {}};
  if (target.kind == Kind::immediate) return expected;
  const repository::WalArchive archive(site.repository, backup.place);
  const WalCoverage coverage(archive, backup.segment_size);
  if (target.kind == Kind::latest || plan.replay_everything) {
    expected.at_least = find_wal_end(archive, coverage, plan.history, backup.stop).lsn;
    return expected;
  }
  if (target.kind == Kind::time) expected.not_after = target.time;
  if (!target.inclusive) return expected;
  if (target.kind == Kind::lsn) expected.at_least = target.lsn;
  if (target.kind == Kind::lsn) return expected;
  read_events(archive, coverage, plan.history, backup.stop, [&](const postgres::WalEvent& event) {
    const bool is_point = event.kind == postgres::WalEvent::Kind::restore_point;
    if (target.kind == Kind::time) {
      if (is_point) return true;
      if (event.time > target.time) return false;
    } else if (target.kind == Kind::name ? !is_point || event.name != target.name
                                         : is_point || event.transaction != target.transaction) {
      return true;
    }
    // It must have been replayed, and ends somewhere behind its start.
    expected.at_least = std::max(expected.at_least, Lsn{event.start.value + 1});
    return target.kind == Kind::time;
  });
  return expected;
}

Checked check_target(const TargetExpectation& expected, const postgres::Recovered& recovered) {
  Checked result{{"recovery reached its target", CheckOutcome::passed, {}}, {}};
  std::string& found = result.check.found;
  found = fmt::format("replayed to {}", postgres::to_string(recovered.replayed));
  if (recovered.last_commit) {
    found += fmt::format(", the last commit of {}", base::to_string(*recovered.last_commit));
  }
  if (recovered.replayed < expected.at_least) {
    result.check.outcome = CheckOutcome::failed;
    found = fmt::format("replayed only to {}, and the archive says that the target is at {}",
                        postgres::to_string(recovered.replayed),
                        postgres::to_string(expected.at_least));
  } else if (expected.not_after && recovered.last_commit > *expected.not_after) {
    result.check.outcome = CheckOutcome::failed;
    found += fmt::format(", which is after the target {}", base::to_string(*expected.not_after));
  }
  return result;
}

Checked check_checksums(const ScratchCluster& cluster, Budget budget, unsigned workers,
                        base::Progress& progress) {
  Checked result{{"page checksums", CheckOutcome::passed, {}}, {}};
  if (!cluster.plan().backup.checksums) {
    result.check.outcome = CheckOutcome::switched_off;
    result.check.found = "the cluster was made without data checksums";
    return result;
  }
  const ChecksumReport report = check_data_checksums(
      cluster.data_directory(), cluster.plan().backup, budget, workers, progress);
  result.check.found = fmt::format("{} of {} pages read", report.pages, report.of_pages);
  if (report.pages == 0) result.check.outcome = CheckOutcome::not_run;
  if (report.damaged.empty()) return result;
  result.check.outcome = CheckOutcome::failed;
  std::vector<std::string> files;
  for (const DamagedFile& file : report.damaged) {
    files.push_back(fmt::format("{} bad pages in {}, the first at {}", file.pages, file.path,
                                file.first.front()));
  }
  result.check.found += ": " + first_of(files);
  result.details = std::move(files);
  return result;
}

std::vector<std::string> databases_of(ScratchCluster& cluster) {
  std::vector<std::string> names;
  postgres::Session session = cluster.server().session();
  for (const postgres::Row& row : session.query("SELECT datname FROM pg_database WHERE "
                                                "datallowconn AND datconnlimit <> -2 ORDER BY 1")) {
    names.push_back(row.at(0).value_or(""));
  }
  return names;
}

namespace {

class Structures {
 public:
  Structures(ScratchCluster& cluster, Budget budget)
      : cluster_(cluster),
        sampled_(budget.has_value()),
        end_(steady_clock::now() + budget.value_or(std::chrono::hours(24 * 365))) {}

  Checked run(unsigned workers, base::Progress& progress) {
    Checked result{{"tables and indexes (amcheck)", CheckOutcome::passed, {}}, {}};
    for (const std::string& database : databases_of(cluster_)) {
      postgres::Session session = cluster_.server().session(database);
      if (const auto why = cannot_borrow(session)) {
        result.check.outcome = CheckOutcome::not_run;
        result.check.found = *why;
        return result;
      }
      for (auto& relation : postgres::checkable_relations(session)) {
        work_.push_back({database, std::move(relation)});
      }
    }
    std::ranges::shuffle(work_, std::mt19937_64{std::random_device{}()});
    if (sampled_) {
      std::erase_if(work_, [&](const auto& each) {
        const bool too_large = each.second.is_index && each.second.pages > largest_sampled_index;
        skipped_ += too_large ? 1U : 0U;
        return too_large;
      });
    }
    progress.begin("checking tables and indexes", 0);
    base::run_workers(workers, [&](unsigned, const std::stop_token& stop) { work(stop); });
    return sum_up(std::move(result));
  }

 private:
  std::optional<std::string> cannot_borrow(postgres::Session& session) {
    if (!cluster_.stays()) postgres::silence_event_triggers(session);
    try {
      if (postgres::borrow_amcheck(session)) return std::nullopt;
      return "the extension amcheck is not installed for this PostgreSQL (it comes with contrib)";
    } catch (const Error& error) {
      if (error.code() == Code::interrupted || error.code() == Code::unreachable) throw;
      return "the cluster lets nobody make a function, not even a temporary one";
    }
  }

  void work(const std::stop_token& stop) {
    std::map<std::string, postgres::Session> sessions;
    for (std::size_t i = next_++; i < work_.size() && !stop.stop_requested(); i = next_++) {
      const auto& [database, relation] = work_[i];
      auto session = sessions.find(database);
      if (session == sessions.end()) {
        session = sessions.emplace(database, cluster_.server().session(database)).first;
        postgres::borrow_amcheck(session->second);
      }
      look_at(session->second, database, relation);
      if (steady_clock::now() > end_) break;
    }
  }

  void look_at(postgres::Session& session, const std::string& database,
               const postgres::CheckedRelation& relation) {
    const bool thorough = !sampled_ || relation.pages <= largest_thorough;
    std::vector<std::string> problems;
    try {
      problems = postgres::check_relation(session, relation, thorough,
                                          sampled_ ? std::optional(sampled_blocks) : std::nullopt);
    } catch (const Error& error) {
      if (error.code() != Code::not_found) throw;
      return;  // it counts among those that were not looked at
    }
    const std::lock_guard lock(mutex_);
    ++checked_;
    if (!problems.empty()) broken_.push_back(fmt::format("{}.{}", database, relation.name));
    for (const std::string& each : problems) {
      if (details_.size() < most_details) details_.push_back(database + ": " + each);
    }
  }

  Checked sum_up(Checked result) {
    result.check.found = fmt::format("{} of {} looked at{}", checked_, work_.size() + skipped_,
                                     sampled_ ? " (sampled)" : "");
    if (checked_ == 0) result.check.outcome = CheckOutcome::not_run;
    if (!broken_.empty()) {
      result.check.outcome = CheckOutcome::failed;
      std::ranges::sort(broken_);
      result.check.found += ": broken: " + first_of(broken_);
    }
    result.details = std::move(details_);
    return result;
  }

  ScratchCluster& cluster_;
  bool sampled_;
  steady_clock::time_point end_;
  std::vector<std::pair<std::string, postgres::CheckedRelation>> work_;
  std::atomic<std::size_t> next_ = 0;
  std::size_t skipped_ = 0;
  std::mutex mutex_;
  std::size_t checked_ = 0;
  std::vector<std::string> broken_;
  std::vector<std::string> details_;
};

}  // namespace

Checked check_structures(ScratchCluster& cluster, Budget budget, unsigned workers,
                         base::Progress& progress) {
  return Structures(cluster, budget).run(workers, progress);
}

Checked check_assertion(ScratchCluster& cluster, const DrillAssertion& assertion) {
  Checked result{{assertion.name, CheckOutcome::passed, "as expected"}, {}};
  try {
    postgres::Session session = cluster.server().session(assertion.database);
    session.query("RESET search_path");  // names mean what they mean to whoever wrote them
    const postgres::Rows rows = session.query(assertion.sql);
    const bool single = rows.size() == 1 && rows[0].size() == 1;
    if (single && rows[0][0] == assertion.expect) return result;
    result.check.outcome = CheckOutcome::failed;
    result.check.found =
        single ? "it yields another value than is expected" : "it does not yield one value";
    result.details.push_back(single ? fmt::format("{}: expected \"{}\", found {}", assertion.name,
                                                  assertion.expect,
                                                  rows[0][0] ? "\"" + *rows[0][0] + "\"" : "NULL")
                                    : fmt::format("{}: {} rows", assertion.name, rows.size()));
  } catch (const Error& error) {
    if (error.code() == Code::interrupted) throw;
    result.check.outcome = CheckOutcome::failed;
    result.check.found = "PostgreSQL refused the statement";
    result.details.push_back(fmt::format("{}: {}", assertion.name, error.message()));
  }
  return result;
}

}  // namespace holdfast::operations
