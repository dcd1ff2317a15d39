#include "service/probe_history.h"

#include <sqlite3.h>

#include <algorithm>
#include <thread>

#include "base/error.h"

namespace holdfast::service {

namespace {

using base::Code;
using base::Error;
using base::Microseconds;
using base::Timestamp;

constexpr int schema_version = 1;
/// "SELECT" of it says that the file is ours; SQLite keeps the number in its header.
constexpr int application = 0x48464831;
constexpr std::int64_t day_length =
    std::chrono::duration_cast<Microseconds>(std::chrono::days(1)).count();

std::int64_t number(Timestamp time) {
  return time.time_since_epoch().count();
}
Timestamp moment(std::int64_t value) {
  return Timestamp(Microseconds(value));
}
std::int64_t day_of(std::int64_t time) {
  return (time - (time % day_length + day_length) % day_length) / day_length;
}

[[noreturn]] void fail_database(sqlite3* database, const base::fs::path& file) {
  const int code = sqlite3_errcode(database);
  const std::string why = sqlite3_errmsg(database);
  switch (code & 0xff) {
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
      throw Error(Code::corrupt, fmt::format("cannot use {} as a history: {}", file.string(), why),
                  "move it away; a new one is begun");
    case SQLITE_FULL:
      throw Error(Code::no_space, fmt::format("could not write {}: {}", file.string(), why),
                  "make room on that file system and run it again");
    case SQLITE_BUSY:
      throw Error(Code::busy, fmt::format("could not use {}: {}", file.string(), why));
    case SQLITE_PERM:
    case SQLITE_READONLY:
    case SQLITE_AUTH:
      throw Error(Code::permission, fmt::format("could not write {}: {}", file.string(), why));
    default:
      throw Error(Code::io, fmt::format("could not use {}: {}", file.string(), why));
  }
}

/// What of [from, to) lies in `work`, which is in order. Windows may overlap each other.
std::int64_t covered(std::int64_t from, std::int64_t to, const std::vector<PlannedWork>& work) {
  std::int64_t sum = 0;
  for (const PlannedWork& each : work) {
    const std::int64_t begin = std::max(from, number(each.from));
    const std::int64_t end = std::min(to, number(each.to));
    if (begin >= end) continue;
    sum += end - begin;
    from = end;
  }
  return sum;
}

}  // namespace

/// One statement. A row is there after step() said so.
class ProbeHistory::Statement {
 public:
  Statement(ProbeHistory& history, const char* sql) : history_(history) {
    if (sqlite3_prepare_v2(history.database_.get(), sql, -1, &statement_, nullptr) != SQLITE_OK) {
      fail_database(history.database_.get(), history.file_);
    }
  }
  ~Statement() { sqlite3_finalize(statement_); }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  Statement& with(std::int64_t value) {
    sqlite3_bind_int64(statement_, ++bound_, value);
    return *this;
  }
  Statement& with(const std::string& value) {
    // A null destructor: SQLite need not copy, as the value outlives the statement's run.
    sqlite3_bind_text(statement_, ++bound_, value.data(), static_cast<int>(value.size()), nullptr);
    return *this;
  }
  bool step() {
    const int result = sqlite3_step(statement_);
    if (result == SQLITE_ROW) return true;
    if (result != SQLITE_DONE) fail_database(history_.database_.get(), history_.file_);
    return false;
  }
  std::int64_t integer(int column) const { return sqlite3_column_int64(statement_, column); }
  std::string text(int column) const {
    const auto* bytes = static_cast<const char*>(sqlite3_column_blob(statement_, column));
    const auto size = static_cast<std::size_t>(sqlite3_column_bytes(statement_, column));
    return bytes == nullptr ? std::string() : std::string(bytes, size);
  }

 private:
  ProbeHistory& history_;
  sqlite3_stmt* statement_ = nullptr;
  int bound_ = 0;
};

/// All or nothing.
class ProbeHistory::Transaction {
 public:
  explicit Transaction(ProbeHistory& history) : history_(history) {
    history.run("BEGIN IMMEDIATE");
  }
  ~Transaction() {
    if (!done_) sqlite3_exec(history_.database_.get(), "ROLLBACK", nullptr, nullptr, nullptr);
  }
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  void commit() {
    history_.run("COMMIT");
    done_ = true;
  }

 private:
  ProbeHistory& history_;
  bool done_ = false;
};

void ProbeHistory::Close::operator()(sqlite3* database) const {
  sqlite3_close_v2(database);
}

ProbeHistory::ProbeHistory(const base::fs::path& file) : file_(file) {
  if (!file.parent_path().empty()) base::make_directories(file.parent_path(), 0755);
  sqlite3* opened = nullptr;
  const int result =
      sqlite3_open_v2(file.c_str(), &opened,
                      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_FULLMUTEX, nullptr);
  database_.reset(opened);
  if (result != SQLITE_OK) fail_database(opened, file);
  sqlite3_busy_timeout(opened, 10'000);
  prepare_schema();
}

ProbeHistory::~ProbeHistory() = default;

void ProbeHistory::run(const char* sql) {
  if (sqlite3_exec(database_.get(), sql, nullptr, nullptr, nullptr) != SQLITE_OK) {
    fail_database(database_.get(), file_);
  }
}

/// Of two who open a new file at once one is told that it is busy, whatever its patience: changing
/// the journal's mode is not waited for (https://sqlite.org/wal.html).
void ProbeHistory::begin_journal() {
  constexpr int tries = 1000;
  for (int left = tries; left > 0; --left) {
    const int result =
        sqlite3_exec(database_.get(), "PRAGMA journal_mode = WAL", nullptr, nullptr, nullptr);
    if (result != SQLITE_BUSY) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  run("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL");
}

void ProbeHistory::prepare_schema() {
  begin_journal();
  Transaction transaction(*this);
  std::int64_t version = 0;
  std::int64_t whose = 0;
  std::int64_t tables = 0;
  {
    Statement asked(*this,
                    "SELECT v.user_version, a.application_id, (SELECT count(*) FROM sqlite_master)"
                    " FROM pragma_user_version v, pragma_application_id a");
    asked.step();
    version = asked.integer(0);
    whose = asked.integer(1);
    tables = asked.integer(2);
  }
  if (tables > 0 && whose != application) {
    throw Error(Code::corrupt,
                fmt::format("cannot use {} as a history: it is another program's", file_.string()),
                "name another file in [history]");
  }
  if (version > schema_version) {
    throw Error(Code::unsupported,
                fmt::format("cannot use {}: a later version of Holdfast made it", file_.string()),
                "use that version");
  }
  if (version == 0) {
    run("CREATE TABLE probe (name TEXT PRIMARY KEY, first INTEGER NOT NULL) WITHOUT ROWID;"
        "CREATE TABLE sample (name TEXT, time INTEGER, ok INTEGER NOT NULL,"
        " latency INTEGER NOT NULL, interval INTEGER NOT NULL, why TEXT NOT NULL,"
        " PRIMARY KEY (name, time)) WITHOUT ROWID;"
        "CREATE TABLE day (name TEXT, day INTEGER, up INTEGER NOT NULL, down INTEGER NOT NULL,"
        " planned INTEGER NOT NULL, samples INTEGER NOT NULL, failed INTEGER NOT NULL,"
        " latency INTEGER NOT NULL, PRIMARY KEY (name, day)) WITHOUT ROWID;"
        "CREATE TABLE planned (begin INTEGER NOT NULL, end INTEGER NOT NULL, reason TEXT NOT NULL,"
        " declared INTEGER NOT NULL);"
        "PRAGMA application_id = 1212565553; PRAGMA user_version = 1");
  }
  transaction.commit();
}

void ProbeHistory::record(const ProbeSample& sample) {
  Transaction transaction(*this);
  Statement(*this,
            "INSERT INTO probe VALUES (?1, ?2)"
            " ON CONFLICT (name) DO UPDATE SET first = min(first, ?2)")
      .with(sample.name)
      .with(number(sample.time))
      .step();
  // Two samples of one moment: the clock was set back. The failure is what must not be lost.
  Statement(*this,
            "INSERT INTO sample VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET ok = min(ok, excluded.ok), why = why || excluded.why")
      .with(sample.name)
      .with(number(sample.time))
      .with(std::int64_t{sample.ok})
      .with(sample.latency.count())
      .with(sample.interval.count())
      .with(sample.why)
      .step();
  transaction.commit();
}

std::vector<std::pair<std::string, Timestamp>> ProbeHistory::probes() {
  std::vector<std::pair<std::string, Timestamp>> found;
  Statement asked(*this, "SELECT name, first FROM probe ORDER BY name");
  while (asked.step()) found.emplace_back(asked.text(0), moment(asked.integer(1)));
  return found;
}

Uptime& Uptime::operator+=(const Uptime& other) {
  up += other.up;
  down += other.down;
  planned += other.planned;
  samples += other.samples;
  failed += other.failed;
  return *this;
}

/// By the samples themselves. Also asks for those around the span: the one before it speaks for its
/// beginning, the one after it says how far the last one speaks.
Uptime ProbeHistory::raw_uptime(const std::string& probe, Timestamp from, Timestamp to) {
  const std::vector<PlannedWork> work = planned(from, to);
  Statement asked(*this,
                  "SELECT time, ok, interval FROM sample WHERE name = ?1 AND"
                  " time >= coalesce((SELECT max(time) FROM sample WHERE name = ?1 AND time < ?2),"
                  " ?2) AND time <= coalesce((SELECT min(time) FROM sample WHERE name = ?1 AND"
                  " time >= ?3), ?3) ORDER BY time");
  asked.with(probe).with(number(from)).with(number(to));
  Uptime sum;
  bool more = asked.step();
  while (more) {
    const std::int64_t time = asked.integer(0);
    const bool ok = asked.integer(1) != 0;
    const std::int64_t interval = asked.integer(2);
    if (time >= number(to)) break;
    more = asked.step();
    const bool followed = more && asked.integer(0) - time <= 2 * interval;
    const std::int64_t begin = std::max(time, number(from));
    const std::int64_t end =
        std::min(number(to),
                 followed ? asked.integer(0)
                          : std::min(time + interval, more ? asked.integer(0) : time + interval));
    if (time >= number(from)) {
      ++sum.samples;
      if (!ok) ++sum.failed;
    }
    if (begin >= end) continue;
    const std::int64_t excused = ok ? 0 : covered(begin, end, work);
    (ok ? sum.up : sum.down) += Microseconds(end - begin - excused);
    sum.planned += Microseconds(excused);
  }
  return sum;
}

Uptime ProbeHistory::uptime(const std::string& probe, Timestamp from, Timestamp to) {
  Uptime sum;
  // Days that are folded count as they were summed; between them the samples speak.
  Timestamp raw_from = from;
  Statement folded(*this,
                   "SELECT day, up, down, planned, samples, failed FROM day WHERE name = ?"
                   " AND day >= ? AND day < ? ORDER BY day");
  folded.with(probe).with(day_of(number(from) + day_length - 1)).with(day_of(number(to)));
  while (folded.step()) {
    const Timestamp begin = moment(folded.integer(0) * day_length);
    if (begin > raw_from) sum += raw_uptime(probe, raw_from, begin);
    raw_from = begin + std::chrono::days(1);
    sum += {Microseconds(folded.integer(1)), Microseconds(folded.integer(2)),
            Microseconds(folded.integer(3)), static_cast<std::uint64_t>(folded.integer(4)),
            static_cast<std::uint64_t>(folded.integer(5))};
  }
  if (raw_from < to) sum += raw_uptime(probe, raw_from, to);
  return sum;
}

void ProbeHistory::fold_day(const std::string& probe, std::int64_t day) {
  const std::int64_t begin = day * day_length;
  const Uptime sum = raw_uptime(probe, moment(begin), moment(begin + day_length));
  Statement(*this,
            "INSERT OR IGNORE INTO day SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7,"
            " coalesce(sum(latency), 0) FROM sample WHERE name = ?1 AND time >= ?8 AND time < ?9")
      .with(probe)
      .with(day)
      .with(sum.up.count())
      .with(sum.down.count())
      .with(sum.planned.count())
      .with(static_cast<std::int64_t>(sum.samples))
      .with(static_cast<std::int64_t>(sum.failed))
      .with(begin)
      .with(begin + day_length)
      .step();
}

void ProbeHistory::fold(Timestamp now) {
  const std::int64_t boundary = day_of(number(now - kept_raw)) * day_length;
  Transaction transaction(*this);
  for (const auto& [probe, first] : probes()) {
    std::vector<std::int64_t> days;
    {
      // The last sample before the boundary stays, as it speaks for what comes after it; its day is
      // not folded a second time.
      Statement asked(
          *this,
          "SELECT DISTINCT time / ?1 FROM sample WHERE name = ?2 AND time < ?3 AND"
          " NOT EXISTS (SELECT 1 FROM day WHERE day.name = ?2 AND day.day = time / ?1)");
      asked.with(day_length).with(probe).with(boundary);
      while (asked.step()) days.push_back(asked.integer(0));
    }
    for (const std::int64_t day : days) fold_day(probe, day);
    Statement(*this,
              "DELETE FROM sample WHERE name = ?1 AND time <"
              " (SELECT max(time) FROM sample WHERE name = ?1 AND time < ?2)")
        .with(probe)
        .with(boundary)
        .step();
  }
  transaction.commit();
}

void ProbeHistory::declare(const PlannedWork& work) {
  if (work.from >= work.to) {
    throw Error(Code::usage, "planned work must end after it begins",
                "write --planned \"2026-11-23 22:00 UTC\" \"2026-11-23 23:00 UTC\"");
  }
  Transaction transaction(*this);
  {
    Statement folded(*this, "SELECT count(*) FROM day WHERE day >= ? AND day <= ?");
    folded.with(day_of(number(work.from))).with(day_of(number(work.to) - 1));
    folded.step();
    if (folded.integer(0) > 0) {
      throw Error(Code::refused,
                  "refused to declare work of so long ago: what was found then is summed up");
    }
  }
  Statement(*this, "INSERT INTO planned VALUES (?, ?, ?, ?)")
      .with(number(work.from))
      .with(number(work.to))
      .with(work.reason)
      .with(number(work.declared))
      .step();
  transaction.commit();
}

std::vector<PlannedWork> ProbeHistory::planned(Timestamp from, Timestamp to) {
  std::vector<PlannedWork> found;
  Statement asked(*this,
                  "SELECT begin, end, reason, declared FROM planned"
                  " WHERE end > ? AND begin < ? ORDER BY begin, end");
  asked.with(number(from)).with(number(to));
  while (asked.step()) {
    found.push_back({moment(asked.integer(0)), moment(asked.integer(1)), asked.text(2),
                     moment(asked.integer(3))});
  }
  return found;
}

std::uint64_t ProbeHistory::raw_samples() {
  Statement asked(*this, "SELECT count(*) FROM sample");
  asked.step();
  return static_cast<std::uint64_t>(asked.integer(0));
}

}  // namespace holdfast::service
