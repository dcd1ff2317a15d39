#pragma once

// Reading records out of WAL (xlogreader.c, xlogrecord.h), for PostgreSQL 13 to 18.
//
// Only what a backup tool asks for is interpreted: where records begin and end, which transactions
// committed when, and named restore points. Everything else is passed over by its length.

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/time.h"
#include "postgres/control_file.h"
#include "postgres/lsn.h"

namespace holdfast::postgres {

struct WalRecord {
  Lsn start;
  Lsn end;       ///< the position after it (where the next one may start, before alignment)
  Lsn previous;  ///< where the one before it begins
  std::uint32_t transaction = 0;
  std::uint8_t resource_manager = 0;
  std::uint8_t info = 0;
  int major = 0;    ///< the version that wrote it, by the magic number of its page
  base::View body;  ///< all after the 24-byte record header; valid during the call only
};

/// What restore targets look for.
struct WalEvent {
  enum class Kind { commit, abort, restore_point };
  Kind kind = Kind::commit;
  Lsn start;  ///< of its record
  Lsn end;
  base::Timestamp time;           ///< commit or abort time, or when the restore point was made
  std::uint32_t transaction = 0;  ///< the (top-level or prepared) transaction that ended
  std::vector<std::uint32_t> subtransactions;  ///< that ended with it
  std::string name;                            ///< of a restore point
};
/// nullopt if the record is none of these. COMMIT PREPARED and ABORT PREPARED name their
/// transaction.
std::optional<WalEvent> event_of(const WalRecord& record);
/// XLOG_SWITCH: it ends its segment, whatever bytes the file has behind it.
bool is_switch(const WalRecord& record);

/// Reads records in order from segments that are handed to it one after the other.
class WalReader {
 public:
  /// Starts at the first record that begins at or after `start`. The first segment to hand over is
  /// the one that holds `start`. (It usually begins inside a record that began before; that one is
  /// passed over.)
  WalReader(Lsn start, SegmentSize size);
  /// Starts at the first record that begins on the page at `page` or behind it, wherever in its
  /// segment that is; nothing before it is looked at.
  static WalReader at_page(Lsn page, SegmentSize size);

  /// Takes the bytes of the next segment (or its beginning, if the rest is not there yet) and calls
  /// `visit` for each record that is complete by now; `visit` returns false to stop. Segments must
  /// come without a gap; on a timeline switch hand over the one that replay would read. While a
  /// segment has not been read to its end, the next call takes the same one again, with more bytes.
  /// Returns false if `visit` stopped, or if the end of WAL was found: zeros, a broken CRC, or a
  /// page or record that does not follow. That is normal for the last segment only; `end()` tells
  /// where.
  bool feed(base::View segment, const std::function<bool(const WalRecord&)>& visit);

  /// The end of the last complete record; 0 before the first.
  Lsn end() const { return end_; }
  /// A record began, and the rest of it is in what has not been handed over yet.
  bool is_inside_record() const { return wanted_ != 0; }

 private:
  using Visit = std::function<bool(const WalRecord&)>;
  /// What became of a piece: go on behind it, wait for more bytes, or end.
  enum class Step { on, more, stop };
  struct Page;
  bool accept(const Page& page);
  Step read_page(const Page& page, const Visit& visit);
  Step enter(const Page& page, const Visit& visit);
  Step continue_record(const Page& page, const Visit& visit);
  Step read_record(const Page& page, const Visit& visit);
  bool follows(base::View header, Lsn start) const;
  Step deliver(base::View record, Lsn start, Lsn behind, const Visit& visit);

  Lsn next_;  ///< what to read next: a record, or a page that one goes on in
  Lsn start_;
  SegmentSize size_;
  Lsn end_;
  Lsn previous_;               ///< where the last record began; each one names its predecessor
  bool synchronised_ = false;  ///< the end of a record has been seen
  std::uint64_t passing_ = 0;  ///< what is left of a record whose beginning was not seen
  base::Bytes record_;         ///< what there is of a record that is split over pages,
  std::size_t wanted_ = 0;     ///< of this length (0: there is none),
  Lsn record_start_;           ///< from here
  std::uint16_t magic_ = 0;    ///< what all pages have in common:
  std::optional<SystemId> system_;
  Timeline timeline_;  ///< of the last page; it never falls
};

}  // namespace holdfast::postgres
