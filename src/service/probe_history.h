#pragma once

// What probes found, in a SQLite file, and what that says of a span of time.
//
// A sample speaks for the time until the next one of its probe, if that came within twice the
// interval; else for one interval. All other time is unknown, and never counts as up. Time that was
// declared as planned work does not count as down. No moment counts twice, however the clock jumps;
// samples of the future count for nothing.
//
// Samples older than 40 days are folded into sums by day (UTC), so that the file stays small. Any
// number of processes may use it at once. Throws Error(io) if the file cannot be used,
// Error(corrupt) if it is damaged or something else, Error(unsupported) if a later version made it.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/file.h"
#include "service/probe.h"

struct sqlite3;

namespace holdfast::service {

struct PlannedWork {
  base::Timestamp from;
  base::Timestamp to;
  std::string reason;
  base::Timestamp declared;  ///< when somebody said so
};

/// How a span of time was for one probe. What is left is unknown.
struct Uptime {
  base::Microseconds up{};
  base::Microseconds down{};
  base::Microseconds planned{};  ///< down, as was declared
  std::uint64_t samples = 0;
  std::uint64_t failed = 0;

  base::Microseconds known() const { return up + down + planned; }
  Uptime& operator+=(const Uptime& other);
};

class ProbeHistory {
 public:
  static constexpr base::Microseconds kept_raw = std::chrono::days(40);

  /// Makes the file if there is none.
  explicit ProbeHistory(const base::fs::path& file);
  ~ProbeHistory();
  ProbeHistory(const ProbeHistory&) = delete;
  ProbeHistory& operator=(const ProbeHistory&) = delete;

  void record(const ProbeSample& sample);
  /// Folds whole days that are older than kept_raw at `now`.
  void fold(base::Timestamp now);

  /// All that have ever been recorded, and since when.
  std::vector<std::pair<std::string, base::Timestamp>> probes();
  Uptime uptime(const std::string& probe, base::Timestamp from, base::Timestamp to);

  /// Throws Error(usage) for a span that is none, Error(refused) for one that is folded already.
  void declare(const PlannedWork& work);
  /// What overlaps this span, in order.
  std::vector<PlannedWork> planned(base::Timestamp from, base::Timestamp to);

  std::uint64_t raw_samples();

 private:
  struct Close {
    void operator()(sqlite3* database) const;
  };
  class Statement;
  class Transaction;
  void run(const char* sql);
  void begin_journal();
  void prepare_schema();
  Uptime raw_uptime(const std::string& probe, base::Timestamp from, base::Timestamp to);
  void fold_day(const std::string& probe, std::int64_t day);

  base::fs::path file_;
  std::unique_ptr<sqlite3, Close> database_;
};

}  // namespace holdfast::service
