#include "operations/store_wal.h"

#include <thread>
#include <utility>

#include "base/error.h"
#include "base/workers.h"
#include "operations/wal_push.h"

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

void store_file(const repository::WalArchive& archive, const NeededWal& wanted,
                const WalFiles& files, unsigned workers, base::Progress& progress,
                const std::string& name) {
  const base::fs::path file = files.data_directory / "pg_wal" / name;
  const auto give_up = std::chrono::steady_clock::now() + wanted.patience;
  bool said = false;
  for (;;) {
    const bool complete = is_complete(files, name, wanted.size);
    // What was archived already is compared: it may be of another life of the server.
    if (archive.has(name) && !(complete && base::status_of(file))) return;
    if (!complete && !std::exchange(said, true)) {
      progress.warn("waiting up to {} s for the primary to end WAL segment {}",
                    wanted.patience.count(), name);
    }
    if (complete && base::status_of(file)) {
      try {
        push_wal_of(archive, wanted.system, file, workers);
        return;
      } catch (const Error&) {
        // The server may have recycled it while we read; then somebody archived it before.
        if (base::status_of(file)) throw;
      }
    }
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
