// changes_by_wal and changes_in_archive of changed_since.h.

#include <atomic>
#include <memory>

#include "base/error.h"
#include "base/workers.h"
#include "operations/changed_since.h"
#include "postgres/wal_changes.h"
#include "postgres/wal_reader.h"

namespace holdfast::operations {

namespace {

using postgres::FileChange;
using postgres::Lsn;
using postgres::WalRecord;

/// So many segments are decoded in one go by one worker.
constexpr std::uint64_t chunk_segments = 8;
/// A map of changes that takes more memory than this is not worth it.
constexpr std::size_t footprint_limit = std::size_t{512} << 20;

/// Notes what a record changes. Returns why nothing can be concluded from it; nullptr is good.
const char* note(const WalRecord& record, ChangedBlocks& blocks) {
  const char* why_not = nullptr;
  const bool known = postgres::changes_of(record, [&](const FileChange& change) {
    using Kind = FileChange::Kind;
    switch (change.kind) {
      case Kind::block:
        if (change.fork == 0) blocks.add(change.relation, change.block);
        break;
      case Kind::create_file:
      case Kind::drop_relation:
        if (change.fork == 0) blocks.add_from(change.relation, 0);
        break;
      case Kind::truncate:
        if (change.fork == 0) blocks.add_from(change.relation, change.block);
        break;
      case Kind::create_database:
      case Kind::create_database_by_log:
      case Kind::drop_database:
        blocks.add_database(change.relation.tablespace, change.relation.database);
        break;
      case Kind::parameters:
        if (change.value == 0) why_not = "wal_level was minimal for a while";
        break;
      case Kind::create_tablespace:
      case Kind::drop_tablespace:
      case Kind::relation_map:
      case Kind::full_page_writes:
        break;  // no relation's main fork
    }
  });
  return known ? why_not : "the WAL holds records of an unknown kind";
}

/// What one worker found in consecutive segments.
struct Chunk {
  ChangedBlocks blocks;
  Lsn first_previous;  ///< the record before its first one, as that says
  Lsn last;            ///< where its last one begins
  std::string why_not;
};

/// The WAL that is read, and where it is.
struct Range {
  const postgres::TimelineHistory& history;
  postgres::SegmentSize size;
  Lsn from;
  Lsn until;
  base::fs::path wal_directory;  ///< of segments from local_from on; empty: all are in the archive
  Lsn local_from;
};

class Decoder {
 public:
  Decoder(const repository::WalArchive& archive, Range range)
      : archive_(archive),
        history_(range.history),
        wal_directory_(std::move(range.wal_directory)),
        local_from_(range.local_from),
        size_(range.size),
        from_(range.from),
        until_(range.until) {}

  ChangesSince run(unsigned workers) {
    const std::uint64_t first = from_.value / size_.bytes;
    const std::uint64_t last = until_.value / size_.bytes;
    std::vector<Chunk> chunks((last - first) / chunk_segments + 1);
    std::atomic<std::size_t> next{0};
    std::atomic<std::size_t> footprint{0};
    const auto count = static_cast<unsigned>(std::min<std::size_t>(workers, chunks.size()));
    base::run_workers(count, [&](unsigned, const std::stop_token& stop) {
      for (std::size_t i = 0; (i = next++) < chunks.size() && !stop.stop_requested();) {
        if (footprint > footprint_limit) {
          chunks[i].why_not = "too much has changed";
          continue;
        }
        decode(first + i * chunk_segments, chunks[i]);
        footprint += chunks[i].blocks.footprint();
      }
    });
    return join(chunks);
  }

 private:
  /// A segment's bytes, wherever they are.
  struct Bytes {
    std::unique_ptr<base::MappedFile> file;
    std::optional<base::Bytes> archived;
    base::View view() const { return file ? file->bytes() : base::View(*archived); }
  };

  std::optional<Bytes> load(std::uint64_t number) const {
    const postgres::Segment segment{history_.timeline_of_segment(number, size_), number};
    const postgres::Segment older{history_.timeline_at({number * size_.bytes}), number};
    Bytes bytes;
    if (!wal_directory_.empty() && number * size_.bytes >= local_from_.value) {
      const base::fs::path local = wal_directory_ / postgres::file_name(segment, size_);
      if (base::status_of(local)) {
        bytes.file = std::make_unique<base::MappedFile>(local);
        return bytes;
      }
    }
    bytes.archived = archive_.get(postgres::file_name(segment, size_));
    if (!bytes.archived) bytes.archived = archive_.get(postgres::file_name(older, size_));
    if (!bytes.archived) return std::nullopt;
    return bytes;
  }

  /// Reads the records that begin in the segments from `number` on, as far as the chunk goes, and
  /// the one behind them: only that proves that none was left out.
  void decode(std::uint64_t number, Chunk& chunk) const {
    const Lsn begin = std::max(from_, Lsn{number * size_.bytes});
    const Lsn end = std::min(until_, Lsn{(number + chunk_segments) * size_.bytes});
    postgres::WalReader reader(begin, size_);
    bool complete = false;
    const auto visit = [&](const WalRecord& record) {
      if (!chunk.first_previous) chunk.first_previous = record.previous;
      complete = record.start >= end;
      if (complete) return false;
      chunk.last = record.start;
      const char* why_not = note(record, chunk.blocks);
      if (why_not != nullptr) chunk.why_not = why_not;
      return why_not == nullptr;
    };
    while (chunk.why_not.empty() && !complete) {
      const auto bytes = load(number++);
      if (!bytes) {
        chunk.why_not = "WAL between the two backups is missing";
      } else if (!reader.feed(bytes->view(), visit) && !complete && chunk.why_not.empty()) {
        chunk.why_not = "WAL between the two backups cannot be read through";
      }
    }
  }

  static ChangesSince join(std::vector<Chunk>& chunks) {
    ChangesSince result;
    ChangedBlocks all;
    const Chunk* before = nullptr;
    for (Chunk& chunk : chunks) {
      result.why_not = chunk.why_not;
      if (result.why_not.empty() && before != nullptr && chunk.first_previous != before->last) {
        result.why_not = "WAL between the two backups is not of one history";
      }
      if (!result.why_not.empty()) return result;
      // A chunk in which no record begins passes the one before it on.
      if (!chunk.last) chunk.last = chunk.first_previous;
      all.merge(std::move(chunk.blocks));
      before = &chunk;
    }
    if (all.footprint() > footprint_limit) {
      result.why_not = "too much has changed";
    } else {
      result.blocks = std::move(all);
    }
    return result;
  }

  const repository::WalArchive& archive_;
  const postgres::TimelineHistory& history_;
  base::fs::path wal_directory_;
  Lsn local_from_;
  postgres::SegmentSize size_;
  Lsn from_;
  Lsn until_;
};

ChangesSince decode(const repository::WalArchive& archive, Range range, unsigned workers) {
  try {
    return Decoder(archive, std::move(range)).run(workers);
  } catch (const base::Error& error) {
    if (error.code() != base::Code::corrupt && error.code() != base::Code::io) throw;
    return {{}, error.message()};
  }
}

}  // namespace

ChangesSince changes_by_wal(const Baseline& baseline, const repository::WalArchive& archive,
                            const base::fs::path& data_directory, Lsn until, unsigned workers) {
  const BackupInfo& backup = baseline.backup;
  return decode(archive,
                {baseline.history, backup.segment_size, backup.start, until,
                 data_directory.empty() ? data_directory : data_directory / "pg_wal", backup.stop},
                workers);
}

ChangesSince changes_in_archive(const postgres::TimelineHistory& history,
                                postgres::SegmentSize segment_size,
                                const repository::WalArchive& archive, Lsn from, Lsn until,
                                unsigned workers) {
  return decode(archive, {history, segment_size, from, until, {}, {}}, workers);
}

}  // namespace holdfast::operations
