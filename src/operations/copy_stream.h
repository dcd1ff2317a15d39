#pragma once

// Copying a base backup into packs and map shards, while it arrives: what copy_files is for a data
// directory.
//
// One thread receives, cuts files into pieces and queues them; workers check, compress, seal and
// store them. What the server sends and a backup must not hold (signal files, for example) is left
// out by the same rules that hold for a data directory. backup_label, tablespace_map and pg_control
// are kept apart.

#include <functional>
#include <string>

#include "base/report.h"
#include "operations/copy_files.h"
#include "operations/increment.h"
#include "operations/sent_blocks.h"
#include "postgres/base_backup.h"

namespace holdfast::operations {

struct CopyStreamRequest {
  std::string backup;      ///< id, for the packs' descriptions
  bool checksums = false;  ///< verify pages
  std::uint32_t segment_blocks = postgres::default_segment_blocks;
  /// With what it is compared: always by content, because nobody says which file it was.
  ComparisonBase compare;
  /// Unless the server was asked for changes only.
  const Increment* increment = nullptr;
  unsigned workers = 1;
  /// Called every few seconds; may throw, which ends the copying.
  std::function<void()> check;
};

/// A file that came whole, but with zeros at its end where nothing was said to have changed: it was
/// dropped or cut off while the server sent it, or else the server is wrong.
struct CutMeanwhile {
  std::string path;
  RelationSegment segment;
  std::uint32_t page = 0;  ///< from this one on
};

struct CopiedStream {
  CopyResult files;
  postgres::BackupEnd end;
  std::string backup_label;
  std::string tablespace_map;  ///< empty if there are no tablespaces
  base::Bytes control;         ///< global/pg_control
  SentBlocks sent;             ///< of files that came in part
  std::vector<CutMeanwhile> cut;
};

/// Receives `stream` to its end. Everything is durable on return, and is proven to be what the
/// server sent. Throws WrongList if what it leaves out cannot be believed.
CopiedStream copy_stream(const repository::Repository& repository,
                         const repository::Backups& backups, postgres::BaseBackup& stream,
                         const CopyStreamRequest& request, base::Progress& progress);

}  // namespace holdfast::operations
