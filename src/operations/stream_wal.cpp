#include "operations/stream_wal.h"

#include <thread>
#include <utility>

#include "base/error.h"
#include "operations/put_wal.h"
#include "postgres/timeline_history.h"
#include "postgres/wal_stream.h"
#include "repository/ids.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using postgres::Segment;

/// Whoever waits for longer should know for what.
constexpr std::chrono::seconds quiet(3);

std::string name_of(const NeededWal& wanted, Segment segment) {
  return postgres::file_name(segment, wanted.size);
}

std::optional<Segment> first_missing(const repository::WalArchive& archive,
                                     const NeededWal& wanted) {
  for (Segment segment = wanted.first; segment <= wanted.last; ++segment.number) {
    if (!archive.has(name_of(wanted, segment))) return segment;
  }
  return std::nullopt;
}

[[noreturn]] void fail_missing(const std::string& name, std::string_view why) {
  throw Error(Code::wal_missing,
              fmt::format("could not store WAL file {}, which the backup needs: {}", name, why),
              "on a standby, run pg_switch_wal() on its primary, or let archive_timeout end "
              "segments there; on a primary, let archive_command (see `holdfast doctor`) bring WAL "
              "into the repository. Then run it again");
}

/// Collects the stream into segments and stores each that is complete.
class Collector {
 public:
  Collector(const repository::WalArchive& archive, const NeededWal& wanted, unsigned workers)
      : archive_(archive), wanted_(wanted), segment_(wanted.first), workers_(workers) {
    bytes_.reserve(wanted.size.bytes);
  }

  bool complete() const { return segment_ > wanted_.last; }
  Segment segment() const { return segment_; }

  void add(base::View bytes) {
    while (!bytes.empty() && !complete()) {
      const std::size_t taken =
          std::min<std::size_t>(wanted_.size.bytes - bytes_.size(), bytes.size());
      const base::View part = bytes.first(taken);
      bytes_.insert(bytes_.end(), part.begin(), part.end());
      bytes = bytes.subspan(taken);
      if (bytes_.size() == wanted_.size.bytes) store();
    }
  }

 private:
  void store() {
    const std::string name = name_of(wanted_, segment_);
    // Or compares with what the archiver brought.
    CheckedSegment(name, bytes_, wanted_.system).put(archive_, workers_);
    ++segment_.number;
    bytes_.clear();
  }

  const repository::WalArchive& archive_;
  const NeededWal& wanted_;
  Segment segment_;
  unsigned workers_;
  base::Bytes bytes_;
};

}  // namespace

BackupWal::BackupWal(const std::string& connection) : replication_(connection, "holdfast") {
  const std::string name = "holdfast_" + repository::to_string(repository::new_object_id());
  try {
    replication_.command(fmt::format("CREATE_REPLICATION_SLOT {} TEMPORARY PHYSICAL RESERVE_WAL",
                                     postgres::quoted_identifier(name)));
    slot_ = name;
  } catch (const Error& error) {
    // All slots are taken: the WAL may have to come from elsewhere, which store() will find out.
    if (error.code() != Code::postgres) throw;
  }
}

void BackupWal::store(const repository::WalArchive& archive, const NeededWal& wanted,
                      unsigned workers, const std::function<void()>& meanwhile,
                      base::Progress& progress) {
  store_history(archive, wanted.first.timeline, true);
  std::string why = "it is not in the repository";
  try {
    return receive(archive, wanted, workers, meanwhile, progress);
  } catch (const Error& error) {
    if (error.code() != Code::postgres) throw;
    why = error.message();
  }
  // The server has removed it already, so it was archived before: perhaps to us, and slowly.
  const auto give_up = std::chrono::steady_clock::now() + wanted.patience;
  while (const auto missing = first_missing(archive, wanted)) {
    meanwhile();
    if (std::chrono::steady_clock::now() > give_up) fail_missing(name_of(wanted, *missing), why);
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
}

/// The history of a timeline says which others it came from; those belong into the archive, too, as
/// far as the server still has them.
void BackupWal::store_history(const repository::WalArchive& archive, postgres::Timeline timeline,
                              bool required) {
  const std::string name = postgres::history_file_name(timeline);
  if (timeline.value == 1 || archive.has(name)) return;
  std::string text;
  try {
    text = replication_.timeline_history(timeline);
  } catch (const Error& error) {
    if (required || error.code() != Code::postgres) throw;
    return;
  }
  const postgres::TimelineHistory history(timeline, text);
  for (const postgres::TimelineHistory::Switch& each : history.switches()) {
    store_history(archive, each.from, false);
  }
  archive.put(name, base::view(text), 1);
}

void BackupWal::receive(const repository::WalArchive& archive, const NeededWal& wanted,
                        unsigned workers, const std::function<void()>& meanwhile,
                        base::Progress& progress) {
  Collector collector(archive, wanted, workers);
  // Nothing is confirmed: a server that waits for synchronous standbys must not wait for us.
  postgres::WalStream stream(replication_, slot_, wanted.first.timeline,
                             start_of(wanted.first, wanted.size), {}, {});
  auto progressed = std::chrono::steady_clock::now();
  bool said = false;
  while (!collector.complete()) {
    meanwhile();
    const auto event = stream.next(std::chrono::milliseconds(500));
    const auto now = std::chrono::steady_clock::now();
    if (event == postgres::WalStream::Event::end) {
      stream.finish();  // throws the reason, if it is an error
      base::fail(Code::postgres, "PostgreSQL left timeline {}", wanted.first.timeline.value);
    }
    if (event == postgres::WalStream::Event::data) {
      collector.add(stream.bytes());
      progressed = now;
    }
    if (now - progressed < quiet || collector.complete()) continue;
    if (!first_missing(archive, wanted)) break;  // somebody else brought it
    const std::string name = name_of(wanted, collector.segment());
    if (now - progressed > wanted.patience) fail_missing(name, "it does not come to its end");
    if (std::exchange(said, true)) continue;
    progress.begin(fmt::format("waiting for the end of WAL segment {}", name), 0);
    progress.warn("waiting up to {} s for the server to end WAL segment {}",
                  wanted.patience.count(), name);
  }
  stream.leave();
}

}  // namespace holdfast::operations
