#pragma once

// WAL that was removed on purpose. A gap in WAL is an alarm (INV-7), unless retention made it: so
// before `expire` removes segments it writes down which, in `expired-wal/ID`. A record that cannot
// be read excuses nothing.

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "operations/wal_coverage.h"
#include "repository/repository.h"

namespace holdfast::operations {

class ExpiredWal {
 public:
  /// Reads what was written down.
  ExpiredWal(const repository::Repository& repository, repository::ClusterPlace place);

  bool contains(postgres::Segment segment) const;
  /// Is the segment that replay on `history` needs at `lsn` one of them?
  bool explains(const postgres::TimelineHistory& history, postgres::Lsn lsn,
                postgres::SegmentSize size) const;

  /// The segments `first` to `last` of one timeline.
  void add(postgres::Timeline timeline, std::uint64_t first, std::uint64_t last);
  /// Durable on return; the records from before, which this one contains, are removed then.
  void write(postgres::SegmentSize size) const;

 private:
  bool read();
  void read_record(const nlohmann::json& record);

  const repository::Repository* repository_;
  repository::ClusterPlace place_;
  std::vector<std::string> records_;
  /// First and last numbers of spans that neither touch nor overlap.
  std::map<postgres::Timeline, std::map<std::uint64_t, std::uint64_t>> spans_;
};

}  // namespace holdfast::operations
