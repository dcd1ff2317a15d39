#include "operations/store_wal.h"

#include <thread>
#include <utility>

#include "base/error.h"
#include "base/workers.h"
#include "operations/wal_push.h"
#include "postgres/segment_content.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;

/// A primary has ended the last segment that its backup needs.
bool is_complete(const WalFiles& files, const std::string& name, postgres::SegmentSize size) {
  const auto parsed = postgres::parse_wal_file_name(name);
  if (!files.standby || parsed->kind != postgres::WalFileName::Kind::segment) return true;
  return postgres::end_of(parsed->segment(size).value(), size) <= files.session.current_lsn();
}

[[noreturn]] void fail_missing(const std::string& name, bool standby) {
  throw Error(
      Code::wal_missing,
      fmt::format("could not store WAL file {}, which the backup needs: it is neither in "
                  "pg_wal nor in the repository",
                  name),
      standby ? "run pg_switch_wal() on the primary, or let archive_timeout end segments there, "
                "and run it again"
              : "set archive_command (see `holdfast doctor`), so that WAL is kept until it is "
                "archived, and run it again");
}

/// Stores the file if it is there and holds all of its segment. On a standby replay can be past a
/// segment whose file here is not whole: it took another file, of the archive or of the timeline
/// that came of this one (postgres/segment_content.h).
bool store_from(const repository::WalArchive& archive, const NeededWal& wanted,
                const base::fs::path& file, unsigned workers) {
  // Read once: the server may use the file again while we look at it.
  const auto bytes = base::read_file(file);
  if (!bytes) return false;
  try {
    const auto name = postgres::parse_wal_file_name(file.filename().string());
    if (name->kind == postgres::WalFileName::Kind::segment &&
        !postgres::read_to_segment_end(*bytes).complete) {
      return false;
    }
    push_wal_of(archive, wanted.system, file, *bytes, workers);
    return true;
  } catch (const Error&) {
    // Or it has done so while we read; then somebody archived the segment before.
    if (base::status_of(file)) throw;
    return false;
  }
}

void store_file(const repository::WalArchive& archive, const NeededWal& wanted,
                const WalFiles& files, unsigned workers, base::Progress& progress,
                const std::string& name) {
  const base::fs::path file = files.data_directory / "pg_wal" / name;
  const auto give_up = std::chrono::steady_clock::now() + wanted.patience;
  bool said = false;
  for (;;) {
    const bool complete = is_complete(files, name, wanted.size);
    if (!complete && !std::exchange(said, true)) {
      progress.warn("waiting up to {} s for the primary to end WAL segment {}",
                    wanted.patience.count(), name);
    }
    // What was archived already is compared: it may be of another life of the server.
    if (complete && store_from(archive, wanted, file, workers)) return;
    if (archive.has(name)) return;
    base::stop_if_interrupted();
    if (std::chrono::steady_clock::now() > give_up) fail_missing(name, files.standby);
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
}

}  // namespace

void store_wal(const repository::WalArchive& archive, const NeededWal& wanted,
               const WalFiles& files, unsigned workers, base::Progress& progress) {
  const auto store = [&](const std::string& name) {
    store_file(archive, wanted, files, workers, progress, name);
  };
  const postgres::Timeline timeline = wanted.first.timeline;
  if (timeline.value > 1) store(postgres::history_file_name(timeline));
  for (postgres::Segment segment = wanted.first; segment <= wanted.last; ++segment.number) {
    store(postgres::file_name(segment, wanted.size));
  }
}

void check_wal_stored(const repository::WalArchive& archive, const NeededWal& wanted,
                      const std::string& backup) {
  for (auto segment = wanted.first; segment <= wanted.last; ++segment.number) {
    const std::string name = postgres::file_name(segment, wanted.size);
    if (archive.has(name)) continue;
    base::fail(Code::corrupt,
               "could not finish backup {}: WAL file {} is no longer in the repository", backup,
               name);
  }
  archive.settle();
}

}  // namespace holdfast::operations
