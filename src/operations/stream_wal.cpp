#include "operations/stream_wal.h"

#include <thread>

#include "base/error.h"
#include "postgres/timeline_history.h"
#include "postgres/wal_segment.h"
#include "repository/ids.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using postgres::Lsn;
using postgres::Replication;
using postgres::Segment;

/// A message of a WAL stream: 'w', start, end of WAL, time, bytes; or 'k', end of WAL, time, "reply
/// now". Numbers are big-endian (protocol-replication.html).
constexpr std::size_t wal_header = 25;
constexpr std::size_t keepalive_size = 18;
/// Whoever waits for longer should know for what.
constexpr std::chrono::seconds quiet(3);

std::uint64_t big_endian(base::View bytes) {
  std::uint64_t value = 0;
  for (const std::uint8_t byte : bytes.first(8)) value = value << 8 | byte;
  return value;
}

void put_big_endian(base::Bytes& bytes, std::uint64_t value) {
  for (int shift = 56; shift >= 0; shift -= 8) {
    bytes.push_back(static_cast<std::uint8_t>(value >> shift));
  }
}

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
  Collector(const repository::WalArchive& archive, const NeededWal& wanted, Segment first,
            unsigned workers)
      : archive_(archive), wanted_(wanted), segment_(first), workers_(workers) {
    bytes_.reserve(wanted.size.bytes);
  }

  bool complete() const { return segment_ > wanted_.last; }
  Segment segment() const { return segment_; }
  Lsn next() const { return {start_of(segment_, wanted_.size).value + bytes_.size()}; }

  void add(Lsn start, base::View bytes) {
    if (start != next()) {  // TRAPS WR2
      base::fail(Code::postgres, "PostgreSQL sent WAL from {} on instead of {}",
                 postgres::to_string(start), postgres::to_string(next()));
    }
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
    if (!archive_.has(name)) {
      postgres::check_segment(bytes_, *postgres::parse_wal_file_name(name), wanted_.system);
      archive_.put(name, bytes_, workers_);
    }
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

WalStream::WalStream(const std::string& connection) : replication_(connection, "holdfast") {
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

void WalStream::store(const repository::WalArchive& archive, const NeededWal& wanted,
                      unsigned workers, const std::function<void()>& meanwhile,
                      base::Progress& progress) {
  store_history(archive, wanted.first.timeline, true);
  std::string why = "it is not in the repository";
  if (!first_missing(archive, wanted)) return;
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
void WalStream::store_history(const repository::WalArchive& archive, postgres::Timeline timeline,
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

void WalStream::receive(const repository::WalArchive& archive, const NeededWal& wanted,
                        unsigned workers, const std::function<void()>& meanwhile,
                        base::Progress& progress) {
  const auto first = first_missing(archive, wanted);
  if (!first) return;
  Collector collector(archive, wanted, *first, workers);
  const std::string slot =
      slot_.empty() ? "" : fmt::format("SLOT {} ", postgres::quoted_identifier(slot_));
  replication_.begin(fmt::format("START_REPLICATION {}PHYSICAL {} TIMELINE {}", slot,
                                 postgres::to_string(collector.next()),
                                 wanted.first.timeline.value));
  if (replication_.next_answer() != Replication::Answer::copy_both) {
    base::fail(Code::postgres, "PostgreSQL does not stream WAL of timeline {}",
               wanted.first.timeline.value);
  }
  auto progressed = std::chrono::steady_clock::now();
  bool said = false;
  while (!collector.complete()) {
    meanwhile();
    const auto read = replication_.read(std::chrono::milliseconds(500));
    const auto now = std::chrono::steady_clock::now();
    if (read == Replication::Read::end) {
      while (replication_.next_answer() != Replication::Answer::end) {  // throws the reason
      }
      base::fail(Code::postgres, "PostgreSQL left timeline {}", wanted.first.timeline.value);
    }
    const base::View message =
        read == Replication::Read::data ? replication_.message() : base::View();
    if (message.size() > wal_header && message[0] == 'w') {
      collector.add({big_endian(message.subspan(1))}, message.subspan(wal_header));
      progressed = now;
    } else if (message.size() == keepalive_size && message[0] == 'k' && message.back() != 0) {
      confirm(start_of(collector.segment(), wanted.size));
    }
    const std::string name = name_of(wanted, collector.segment());
    if (now - progressed > wanted.patience) fail_missing(name, "it does not come to its end");
    if (now - progressed < quiet || collector.complete()) continue;
    if (!first_missing(archive, wanted)) break;  // somebody else brought it
    if (said) continue;
    said = true;
    progress.begin(fmt::format("waiting for the end of WAL segment {}", name), 0);
    progress.warn("waiting up to {} s for the server to end WAL segment {}",
                  wanted.patience.count(), name);
  }
  replication_.finish_writing();
  while (replication_.read(std::chrono::milliseconds(500)) != Replication::Read::end) meanwhile();
  while (replication_.next_answer() != Replication::Answer::end) {
  }
}

/// Tells that we are there. That we have flushed something is not said: a server that waits for
/// synchronous standbys must not wait for us.
void WalStream::confirm(Lsn received) {
  base::Bytes reply{'r'};
  put_big_endian(reply, received.value);
  put_big_endian(reply, 0);  // flushed
  put_big_endian(reply, 0);  // applied
  put_big_endian(reply, 0);  // our clock, which the server only shows
  reply.push_back(0);
  replication_.write(reply);
}

}  // namespace holdfast::operations
