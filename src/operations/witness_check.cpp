#include "operations/witness_check.h"

#include <fcntl.h>

#include <algorithm>

#include "base/error.h"
#include "postgres/data_directory.h"
#include "postgres/page.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using postgres::Lsn;
using std::chrono::steady_clock;

constexpr const char* check_name = "rows and tables of the backup's witness";
constexpr std::size_t names_shown = 5;

std::string first_of(const std::vector<std::string>& names) {
  std::string text;
  for (std::size_t i = 0; i < std::min(names.size(), names_shown); ++i) {
    text += (i == 0 ? "" : "; ") + names[i];
  }
  if (names.size() > names_shown) text += fmt::format("; and {} more", names.size() - names_shown);
  return text;
}

/// Of a page on disk; nullopt if the file ends before it.
std::optional<Lsn> lsn_of_page(const base::fs::path& data_directory,
                               const postgres::TableFacts& table, std::uint32_t block) {
  const std::uint32_t segment = block / postgres::default_segment_blocks;
  const std::uint32_t page = block % postgres::default_segment_blocks;
  const base::fs::path path =
      data_directory / (segment == 0 ? table.path : fmt::format("{}.{}", table.path, segment));
  const auto file = base::open_if_exists(path, O_RDONLY);
  if (!file) return std::nullopt;
  base::Bytes bytes(postgres::page_size);
  const std::uint64_t offset = std::uint64_t{page} * postgres::page_size;
  if (base::read_at(*file, bytes, offset, path) < bytes.size()) return std::nullopt;
  return postgres::page_lsn(bytes);
}

class Comparison {
 public:
  Comparison(const Site& site, ScratchCluster& cluster, const Witness& witness)
      : site_(site),
        cluster_(cluster),
        witness_(witness),
        to_the_backup_(cluster.plan().target.kind == RecoveryTarget::Kind::immediate) {}

  Checked run() {
    if (cluster_.server().recovered().replayed < witness_.holds_from) {
      return {{check_name, CheckOutcome::not_run,
               fmt::format("the witness holds from {} on, beyond what was replayed",
                           postgres::to_string(witness_.holds_from))},
              {}};
    }
    // Pages must be on disk for their positions to be read there.
    cluster_.server().session().query("CHECKPOINT");
    const std::vector<std::string> databases = databases_of(cluster_);
    for (auto first = witness_.tables.begin(); first != witness_.tables.end();) {
      const auto last = std::find_if(first, witness_.tables.end(), [&](const auto& table) {
        return table.database != first->database;
      });
      const bool is_there = std::ranges::find(databases, first->database) != databases.end();
      compare_database(first, last, is_there);
      first = last;
    }
    return sum_up();
  }

 private:
  using Iterator = std::vector<WitnessedTable>::const_iterator;

  void compare_database(Iterator first, Iterator last, bool is_there) {
    std::map<std::string, postgres::TableFacts> there;
    std::optional<postgres::Session> session;
    if (is_there) {
      session.emplace(cluster_.server().connection(first->database));
      postgres::be_brief(*session, std::chrono::milliseconds(0));
      for (auto& table : postgres::list_tables(*session, 1'000'000)) {
        there.emplace(table.schema + "." + table.name, std::move(table));
      }
    }
    for (; first != last; ++first) {
      const auto found = there.find(first->facts.schema + "." + first->facts.name);
      if (found == there.end()) {
        (to_the_backup_ ? problems_ : gone_).push_back(first->name() + " is gone");
        continue;
      }
      ++tables_;
      if (first->sampled) compare_rows(*session, *first, found->second);
    }
  }

  void compare_rows(postgres::Session& session, const WitnessedTable& seen,
                    const postgres::TableFacts& now) {
    rows_ += seen.sample.size();
    if (now.file != seen.facts.file || now.columns != seen.facts.columns) {
      changed_ += seen.sample.size();
      return;
    }
    std::vector<std::string> places;
    std::map<std::string, std::optional<Lsn>> pages;
    for (const WitnessedRow& row : seen.sample) {
      places.push_back(row.place);
      pages[row.place] = lsn_of_page(cluster_.data_directory(), now, postgres::block_of(row.place));
    }
    if (places.empty()) return;
    const auto found = postgres::read_rows(session, now, places);
    std::uint64_t lost = 0;
    std::uint64_t different = 0;
    for (const WitnessedRow& row : seen.sample) {
      const auto there = found.find(row.place);
      if (there != found.end() && there->second.transaction == row.transaction) {
        const bool same = row_digest(site_.repository, there->second) == row.digest;
        (same ? same_ : different) += 1;
        continue;
      }
      const auto& lsn = pages[row.place];
      const bool excused = lsn ? *lsn > seen.at : !to_the_backup_;
      (excused ? changed_ : lost) += 1;
    }
    const auto tell = [&](std::uint64_t count, const char* what) {
      if (count > 0) problems_.push_back(fmt::format("{}: {} rows {}", seen.name(), count, what));
    };
    tell(lost, "that the backup's witness saw are lost");
    tell(different, "are not what the backup's witness saw");
  }

  Checked sum_up() {
    Checked result{{check_name, CheckOutcome::passed, {}}, {}};
    result.check.found = fmt::format(
        "{} of {} tables are there; of {} sampled rows {} are the same and {} were changed since",
        tables_, witness_.tables.size(), rows_, same_, changed_);
    if (!gone_.empty()) {
      result.check.found += fmt::format("; since the backup: {}", first_of(gone_));
    }
    const bool none_seen = std::ranges::none_of(
        witness_.tables, [](const WitnessedTable& table) { return table.sampled; });
    if (!problems_.empty()) {
      result.check.outcome = CheckOutcome::failed;
      result.check.found = first_of(problems_) + " (" + result.check.found + ")";
      result.details = problems_;
    } else if (none_seen) {
      result.check.outcome = CheckOutcome::not_run;
      result.check.found = "the witness could look into no table";
      if (!witness_.notes.empty()) result.check.found += ": " + first_of(witness_.notes);
    }
    return result;
  }

  const Site& site_;
  ScratchCluster& cluster_;
  const Witness& witness_;
  bool to_the_backup_;  ///< nothing can have been changed since
  std::uint64_t tables_ = 0;
  std::uint64_t rows_ = 0;
  std::uint64_t same_ = 0;
  std::uint64_t changed_ = 0;
  std::vector<std::string> problems_;
  std::vector<std::string> gone_;
};

}  // namespace

Checked check_witness(const Site& site, ScratchCluster& cluster, const Witness& witness) {
  return Comparison(site, cluster, witness).run();
}

namespace {

/// In a sample, larger tables are not read whole, and of them only so many blocks.
constexpr std::uint64_t largest_whole = (64 << 20) / 8192;
constexpr std::uint64_t sampled_blocks = 128;

CountedTable count_rows(postgres::Session& session, const postgres::TableFacts& table, bool whole) {
  if (!whole) {
    const auto sample = postgres::sample_table(session, table, sampled_blocks, 0);
    return {sample.rows, sample.exact};
  }
  const std::string count =
      session.value("SELECT count(*) FROM ONLY " + postgres::quoted_name(table));
  return {std::stoull(count), true};
}

}  // namespace

Checked check_tables(ScratchCluster& cluster, Budget budget, CountedTables& counted,
                     base::Progress& progress) {
  Checked result{{"tables can be read", CheckOutcome::passed, {}}, {}};
  const auto end = steady_clock::now() + budget.value_or(std::chrono::hours(24 * 365));
  std::uint64_t rows = 0;
  std::size_t whole = 0;
  std::size_t all = 0;
  progress.begin("reading tables", 0);
  for (const std::string& database : databases_of(cluster)) {
    postgres::Session session = cluster.server().session(database);
    // The table itself is to be read, not an index of it.
    session.query("SELECT set_config('enable_indexonlyscan', 'off', false)");
    for (auto& table : postgres::list_tables(session, 1'000'000)) {
      ++all;
      if (steady_clock::now() > end) continue;
      const std::string name = fmt::format("{}.{}.{}", database, table.schema, table.name);
      try {
        table.pages = postgres::current_pages(session, table);
        const CountedTable found =
            count_rows(session, table, !budget || table.pages <= largest_whole);
        counted[name] = found;
        rows += found.rows;
        whole += found.exact ? 1U : 0U;
      } catch (const Error& error) {
        if (error.code() != Code::postgres) throw;
        result.check.outcome = CheckOutcome::failed;
        result.details.push_back(fmt::format("{}: {}", name, error.message()));
      }
    }
  }
  result.check.found =
      fmt::format("{} of {} tables with {}{} rows, {} of them in full", counted.size(), all,
                  whole < counted.size() ? "about " : "", rows, whole);
  if (!result.details.empty()) {
    result.check.found +=
        fmt::format(": {} cannot be read, the first is {}", result.details.size(),
                    result.details.front().substr(0, result.details.front().find(':')));
  } else if (counted.empty()) {
    result.check.outcome = CheckOutcome::not_run;
    result.check.found = "there is no table to read";
  }
  return result;
}

Checked check_emptied(const CountedTables& counted, const std::vector<NamedWitness>& witnesses) {
  Checked result{{"no table was emptied", CheckOutcome::passed, {}}, {}};
  constexpr std::uint64_t few = 100;    // a queue of some rows may be empty at any time
  constexpr std::uint64_t many = 1000;  // and what holds no more may shrink
  std::size_t compared = 0;
  std::string with;
  for (const auto& [name, witness] : witnesses) {
    if (witness == nullptr) continue;
    with += (with.empty() ? "" : " and ") + name;
    for (const WitnessedTable& seen : witness->tables) {
      const auto now = counted.find(seen.name());
      if (!seen.sampled || now == counted.end()) continue;
      ++compared;
      const bool exact = seen.exact && now->second.exact;
      const bool is_empty = now->second.rows == 0 && seen.rows >= few;
      // Half of it gone is too much; where we only estimate, two thirds.
      const bool shrank = seen.rows > many && now->second.rows < seen.rows / (exact ? 2 : 3);
      if (!is_empty && !shrank) continue;
      result.check.outcome = CheckOutcome::failed;
      result.details.push_back(fmt::format("{} has {}{} rows, where {} saw {}{}", seen.name(),
                                           now->second.exact ? "" : "about ", now->second.rows,
                                           name, seen.exact ? "" : "about ", seen.rows));
    }
  }
  result.check.found = result.details.empty()
                           ? with.empty() ? "no witness to compare with: not measured"
                                          : fmt::format("compared {} times with {}", compared, with)
                           : "emptied before the backup: " + first_of(result.details);
  if (with.empty()) result.check.outcome = CheckOutcome::not_run;
  return result;
}

}  // namespace holdfast::operations
