#pragma once

// The one way in which segments come into an archive, whoever brings them: checked against their
// name, and as what they are, not as the file was (postgres/segment_content.h).

#include "postgres/control_file.h"
#include "postgres/segment_content.h"
#include "repository/wal_archive.h"

namespace holdfast::operations {

/// A segment, or a partial one, that is what its name says (INV-5).
class CheckedSegment {
 public:
  /// `file` must stay where it is. Throws Error(corrupt) or Error(foreign) if it is something else,
  /// or of another system.
  CheckedSegment(const std::string& name, base::View file, postgres::SystemId system);

  /// Durable on return. Throws Error(conflict) if the archive has other WAL under this name. What
  /// stands behind a switch is no WAL: it is not stored, and not compared where it was stored.
  repository::WalArchive::Put put(const repository::WalArchive& archive, unsigned workers) const;

 private:
  std::string name_;
  bool partial_;
  postgres::SegmentContent content_;
};

}  // namespace holdfast::operations
