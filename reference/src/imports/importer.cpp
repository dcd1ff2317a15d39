#include "imports/importer.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <stdexcept>

#include "http/problem.h"
#include "imports/csv.h"
#include "imports/insert.h"
#include "imports/rows.h"
#include "log.h"
#include "resources/table.h"

namespace reference::imports {
namespace {

using nlohmann::json;

// A batch ends at whichever comes first.
constexpr std::size_t lines_in_batch = 500;
constexpr std::uint64_t bytes_in_batch = 1UL << 20;
constexpr std::chrono::seconds longest_batch{30};

struct Job {
  ImportOf of;
  std::uint64_t bytes = 0;
  Position position;
  std::size_t failed_before = 0;
};

/// What became of a batch.
struct Outcome {
  Position position;
  std::size_t rows_done = 0;
  std::vector<BadLine> bad;
  bool is_end = false;
  std::string failure;  // of the job as a whole; "" if there is none
};

std::optional<Job> lock_job(database::Transaction& transaction) {
  const database::Rows found = transaction.run(
      "SELECT id, organisation, created_by, kind, bytes, bytes_done, lines_done, rows_failed"
      " FROM import_jobs WHERE state IN ('queued', 'running')"
      " ORDER BY updated_at LIMIT 1 FOR UPDATE SKIP LOCKED");
  if (found.empty()) return std::nullopt;
  const auto text = [&](std::size_t column) { return std::string(found.text(0, column)); };
  return Job{.of = {.job = text(0), .organisation = text(1), .actor = text(2), .kind = text(3)},
             .bytes = std::stoull(text(4)),
             .position = {std::stoull(text(5)), std::stoull(text(6))},
             .failed_before = std::stoull(text(7))};
}

/// Opens the staged file where the job goes on. Throws std::runtime_error if it is not as it was
/// staged, std::invalid_argument if its header is not one.
class Source {
 public:
  Source(const std::filesystem::path& path, const Job& job)
      : header_(path), rows_(read_header(path, job)), file_(path, job_position(job)) {}

  Outcome read_batch(std::vector<json>& good) {
    Outcome outcome;
    const std::uint64_t stop = file_.position().offset + bytes_in_batch;
    for (std::size_t lines = 0; lines < lines_in_batch && file_.position().offset < stop; ++lines) {
      const std::optional<Record> record = file_.next();
      if (!record) {
        outcome.is_end = true;
        break;
      }
      const std::uint64_t line = file_.position().line;
      if (!record->fault.empty()) {
        outcome.bad.push_back({line, record->fault});
        continue;
      }
      auto row = rows_.read(record->fields);
      if (auto* reason = std::get_if<std::string>(&row)) {
        outcome.bad.push_back({line, std::move(*reason)});
      } else {
        good.push_back(std::move(std::get<json>(row)));
        good.back()["line"] = line;
      }
    }
    outcome.position = file_.position();
    return outcome;
  }

 private:
  RowReader read_header(const std::filesystem::path& path, const Job& job) {
    if (std::filesystem::file_size(path) != job.bytes) {
      throw std::runtime_error("the staged file is not as it was uploaded");
    }
    const std::optional<Record> header = header_.next();
    if (!header) throw std::invalid_argument("the file is empty");
    if (!header->fault.empty()) throw std::invalid_argument("the first line: " + header->fault);
    return RowReader(job.of.kind, header->fields);
  }
  Position job_position(const Job& job) const {
    return job.position.offset == 0 ? header_.position() : job.position;
  }

  CsvFile header_;
  RowReader rows_;
  CsvFile file_;
};

Outcome import_batch(database::Transaction& transaction, const Staging& staging, const Job& job) {
  std::vector<json> good;
  Outcome outcome;
  try {
    outcome = Source(staging.path(job.of.job), job).read_batch(good);
  } catch (const std::invalid_argument& wrong) {
    outcome.failure = wrong.what();
  } catch (const std::runtime_error& gone) {
    log("imports: job {}: {}", job.of.job, gone.what());
    outcome.failure = "the staged file is gone or cannot be read; upload it again";
  }
  if (!outcome.failure.empty()) {
    outcome.position = job.position;
    return outcome;
  }
  const std::size_t bad_before = outcome.bad.size();
  insert_rows(transaction, job.of, good, outcome.bad);
  outcome.rows_done = good.size() - (outcome.bad.size() - bad_before);
  return outcome;
}

void record_errors(database::Transaction& transaction, const Job& job, std::vector<BadLine> bad) {
  std::sort(bad.begin(), bad.end(),
            [](const BadLine& one, const BadLine& other) { return one.line < other.line; });
  const std::size_t room = most_errors - std::min(most_errors, job.failed_before);
  if (bad.size() > room) bad.resize(room);
  if (bad.empty()) return;
  json list = json::array();
  for (const BadLine& each : bad) list.push_back({{"line", each.line}, {"reason", each.reason}});
  transaction.run(
      "INSERT INTO import_errors (organisation, import_job, line, reason)"
      " SELECT $1, $2::uuid, line, reason"
      " FROM jsonb_to_recordset($3::jsonb) AS bad(line bigint, reason text)",
      {job.of.organisation, job.of.job, list.dump()});
}

void record_progress(database::Transaction& transaction, const Job& job, const Outcome& outcome) {
  const bool is_failed = !outcome.failure.empty();
  const bool has_ended = is_failed || outcome.is_end;
  transaction.run(
      "UPDATE import_jobs SET state = $2, bytes_done = $3::bigint, lines_done = $4::bigint,"
      " rows_done = rows_done + $5::bigint, rows_failed = rows_failed + $6::bigint, error = $7,"
      " updated_at = clock_timestamp(),"
      " finished_at = CASE WHEN $2 = 'running' THEN NULL ELSE clock_timestamp() END"
      " WHERE id = $1::uuid",
      {job.of.job,
       is_failed   ? "failed"
       : has_ended ? "done"
                   : "running",
       std::to_string(outcome.position.offset), std::to_string(outcome.position.line),
       std::to_string(outcome.rows_done), std::to_string(outcome.bad.size()),
       is_failed ? std::optional(outcome.failure) : std::nullopt});
  if (!has_ended) return;
  transaction.run(
      "INSERT INTO audit_logs (organisation, actor, action, table_name, row_id, after)"
      " SELECT organisation, created_by, 'change', 'import_jobs', id, (" +
          resources::table_of("import_jobs").json() +
          ")::jsonb FROM import_jobs WHERE id = $1::uuid",
      {job.of.job});
}

}  // namespace

bool Importer::step() {
  database::Session session = pool_.session(longest_batch);
  database::Transaction transaction(session);
  const std::optional<Job> job = lock_job(transaction);
  if (!job) return false;
  const Outcome outcome = import_batch(transaction, staging_, *job);
  record_errors(transaction, *job, outcome.bad);
  record_progress(transaction, *job, outcome);
  try {
    transaction.commit();
  } catch (const http::Problem&) {
    // It may have been committed all the same.
    changed_(job->of.organisation);
    throw;
  }
  // Should this process die here, sweep() removes the file.
  if (outcome.is_end || !outcome.failure.empty()) staging_.remove(job->of.job);
  changed_(job->of.organisation);
  return true;
}

void Importer::sweep() {
  database::Session session = pool_.session(longest_batch);
  const database::Rows unfinished =
      session.run("SELECT id FROM import_jobs WHERE state IN ('queued', 'running')");
  std::set<std::string, std::less<>> needed;
  for (std::size_t row = 0; row < unfinished.size(); ++row) {
    needed.emplace(unfinished.text(row, 0));
  }
  staging_.sweep([&](const std::string& id) { return needed.contains(id); });
}

}  // namespace reference::imports
