#pragma once

// What of a segment file is WAL.
//
// A record that ends its segment early (XLOG_SWITCH) is the last one of it; PostgreSQL reads
// nothing behind it. A primary fills the rest with zeros. But segment files are old ones used
// again, so other bytes may stand there: on a standby whose stream was cut off just behind the
// switch (it begins again with the next segment), and on a primary that crashed just there. Two
// servers then have different bytes for the same WAL. So a segment is stored, compared and handed
// out with zeros behind its switch.
//
// A segment file that is not complete may also be there under its final name: one that is being
// received, or the one in which its timeline was left.

#include "postgres/lsn.h"
#include "postgres/wal_reader.h"

namespace holdfast::postgres {

struct SegmentEnd {
  std::size_t used = 0;   ///< so many bytes are WAL, from the first one on
  bool switched = false;  ///< because a switch ends it there
  /// It is all there: up to a switch, or to the file's end, where the next segment goes on.
  bool complete = false;
};

/// Looks at the headers of all pages and the records of the last ones: quick, for files that were
/// filled by a server and are not known to be strange. A record that is not whole is not counted.
/// A file that is no segment counts wholly: check_segment() says what is wrong with it.
SegmentEnd find_segment_end(base::View file);
/// Reads every record. Finds also a switch with remains behind it that look like pages of this
/// place.
SegmentEnd read_to_segment_end(base::View file);

/// A file with zeros behind its switch, if it has one.
class SegmentContent {
 public:
  /// `file` must stay where it is.
  explicit SegmentContent(base::View file);
  SegmentContent(const SegmentContent&) = delete;
  SegmentContent& operator=(const SegmentContent&) = delete;

  base::View bytes() const { return cleaned_.empty() ? file_ : base::View(cleaned_); }
  /// There was something else than zeros behind it.
  bool had_remains() const { return !cleaned_.empty(); }

 private:
  base::View file_;
  base::Bytes cleaned_;  ///< empty if the file is as it should be
};

/// Where two files of one segment differ in what the first one has of WAL; nullopt if they do not.
std::optional<std::size_t> first_difference(base::View file, base::View other);

/// Do two files hold the same segment? Byte for byte, but for what is behind a switch.
bool is_same_segment(base::View one, base::View other);
/// Two files SEGMENT.partial are copies of one segment by servers that left its timeline, maybe at
/// different places: as far as both have WAL it must be the same. (The rest is in the first segment
/// of the timeline that each of them began.)
bool is_same_partial(base::View one, base::View other);

}  // namespace holdfast::postgres
