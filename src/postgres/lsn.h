#pragma once

// Positions in the write-ahead log, and the names of the files that hold it.

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace holdfast::postgres {

/// A byte position in WAL (XLogRecPtr). 0 is "none".
struct Lsn {
  std::uint64_t value = 0;
  auto operator<=>(const Lsn&) const = default;
  explicit operator bool() const { return value != 0; }
};
/// "16/B374D848", as PostgreSQL prints it.
std::string to_string(Lsn lsn);
/// nullopt unless `text` is exactly an LSN: two hexadecimal numbers of at most 8 digits and a
/// slash.
std::optional<Lsn> parse_lsn(std::string_view text);

/// A timeline. Names write it in hexadecimal (pitfall B28).
struct Timeline {
  std::uint32_t value = 0;
  auto operator<=>(const Timeline&) const = default;
};

/// The size of the cluster's WAL segments: a power of two from 1 MiB to 1 GiB.
struct SegmentSize {
  std::uint64_t bytes = 16 << 20;
  bool operator==(const SegmentSize&) const = default;
};
bool is_valid(SegmentSize size);

/// One WAL segment on one timeline. `number` counts from LSN 0: LSN / segment size.
struct Segment {
  Timeline timeline;
  std::uint64_t number = 0;
  auto operator<=>(const Segment&) const = default;
};
Segment segment_at(Timeline timeline, Lsn lsn, SegmentSize size);
Lsn start_of(Segment segment, SegmentSize size);
Lsn end_of(Segment segment, SegmentSize size);
/// "0000000100000016000000B3"
std::string file_name(Segment segment, SegmentSize size);

/// What a file in pg_wal is, by its name alone.
struct WalFileName {
  enum class Kind {
    segment,  ///< 24 hexadecimal digits
    partial,  ///< a segment + ".partial": the last one of a timeline that was left
    history,  ///< 8 digits + ".history"
    backup,   ///< a segment + "." + 8 digits + ".backup"
  };
  Kind kind = Kind::segment;
  Timeline timeline;
  std::uint32_t log = 0;  ///< the middle 8 digits
  std::uint32_t seg = 0;  ///< the last 8 digits
  /// The segment, given the segment size (not for history files); nullopt if `seg` is too large for
  /// it.
  std::optional<Segment> segment(SegmentSize size) const;
};
/// nullopt for any other name. Upper-case hexadecimal only, as PostgreSQL writes it.
std::optional<WalFileName> parse_wal_file_name(std::string_view name);
std::string history_file_name(Timeline timeline);

}  // namespace holdfast::postgres
