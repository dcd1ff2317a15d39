#include "operations/wal_receive.h"

#include <poll.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/workers.h"
#include "operations/owed_backup.h"
#include "operations/resume_point.h"
#include "postgres/replication_slot.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using postgres::Lsn;
using postgres::Replication;
using postgres::Segment;
using postgres::Timeline;
using postgres::TimelineHistory;
using postgres::WalStream;

constexpr auto longest_pause = std::chrono::milliseconds(5000);
constexpr int poll_interval = 200;
constexpr const char* undefined_file = "58P01";
constexpr const char* wrong_state = "55000";

class Receiver {
 public:
  Receiver(const Site& site, const ReceiveRequest& request)
      : site_(site),
        request_(request),
        backup_(site,
                {.label = "holdfast after a gap",
                 .compare = BackupRequest::Compare::automatic,
                 .workers = request.workers},
                request.backup_retry, request.say) {}

  ReceiveOutcome run();

 private:
  /// What stays the same from the first connection on.
  struct System {
    System(const Site& site, const repository::ClusterPlace& where, postgres::SystemId system,
           std::chrono::seconds term)
        : id(system),
          place(where),
          archive(site.repository, where),
          lease(std::in_place, site.repository, where, "receive", term) {}
    postgres::SystemId id;
    repository::ClusterPlace place;
    repository::WalArchive archive;
    std::optional<repository::Lease> lease;
  };

  void connect_for_a_while(std::chrono::milliseconds& pause);
  bool has_lost_lease() const;
  void take_lease_again();
  void connect_and_stream();
  void connect();
  void check_identity(const Replication::System& server);
  void check_is_primary(const Replication::System& server, const WalCoverage& coverage);
  TimelineHistory fetch_histories(Timeline timeline);
  ResumePoint choose_start(const TimelineHistory& history, Lsn flushed);
  void remove_leftovers(const WalCoverage& coverage);
  void stream(const TimelineHistory& history, const ResumePoint& from, Lsn flushed);
  std::optional<WalStream::Next> stream_leg();
  void begin_leg(Timeline timeline, Lsn start, Lsn durable);
  void take(base::View bytes);
  void settle();
  void await_news();
  void say_synchronous();
  void patiently(const std::function<void()>& work) const;
  void trouble(const Error& error);
  void disconnect();
  ReceiveOutcome finish();

  const Site& site_;
  const ReceiveRequest& request_;
  OwedBackup backup_;
  std::optional<System> system_;
  postgres::SegmentSize size_;
  std::optional<ReceivedWal> wal_;
  std::optional<Replication> connection_;
  std::optional<WalStream> stream_;
  std::optional<ResumePoint> unsettled_;  ///< tried, but the server has not sent anything yet
  std::optional<TimelineHistory> history_;
  Timeline timeline_;
  std::set<Lsn> removed_;  ///< places from which the server has no WAL any more
  std::set<Lsn> told_gaps_;
  bool slot_is_useless_ = false;
  bool told_synchronous_ = false;
  bool gap_is_recorded_ = true;
  std::string said_;
  Lsn server_end_;
  Lsn stored_;  ///< by what was received before the lease ran out
};

void Receiver::patiently(const std::function<void()>& work) const {
  with_patience(request_.patience, request_.say, base::interrupted, work);
}

/// Each trouble is said once, however often it comes again.
void Receiver::trouble(const Error& error) {
  if (error.message() == said_) return;
  said_ = error.message();
  request_.say(said_ + (error.hint().empty() ? "" : fmt::format(" ({})", error.hint())) +
               "; trying again");
}

void Receiver::check_identity(const Replication::System& server) {
  const repository::ClusterPlace place{site_.cluster.name, postgres::to_string(server.id)};
  if (system_ && system_->id != server.id) {
    throw Error(Code::foreign,
                fmt::format("cannot go on receiving WAL: the server is system {} now, and was {}",
                            place.system_id, system_->place.system_id),
                "the connection in holdfast.toml leads to another server than before");
  }
  if (system_) return;
  bool known = false;
  patiently([&] { known = site_.repository.is_registered(place); });
  if (!known) {
    throw Error(Code::foreign,
                fmt::format("cannot receive WAL: the server is system {}, which is not known as "
                            "cluster {} here",
                            place.system_id, place.cluster),
                "if this is the cluster after pg_upgrade or initdb, run `holdfast init "
                "--new-system`; else correct the connection");
  }
  patiently([&] { system_.emplace(site_, place, server.id, request_.lease_term); });
  patiently([&] { site_.repository.store().sweep_unfinished(); });
}

/// TRAPS WR7: a demoted server streams happily, but not what the leader writes.
void Receiver::check_is_primary(const Replication::System& server, const WalCoverage& coverage) {
  const auto standby = connection_->setting(
      connection_->major_version() >= 14 ? "in_hot_standby" : "transaction_read_only");
  if (standby == "on") {
    throw Error(Code::postgres, "ALARM: the server is a standby: no WAL is received",
                "name all servers in the connection, with target_session_attrs=read-write");
  }
  const Timeline newest = coverage.timelines().back();
  if (server.timeline < newest) {
    throw Error(Code::postgres,
                fmt::format("ALARM: the server is on timeline {}, but the repository knows "
                            "timeline {}: no WAL is received from a server that was left behind",
                            server.timeline.value, newest.value),
                "name all servers in the connection, with target_session_attrs=read-write");
  }
}

/// TRAPS WR14: all that lead to this timeline, the oldest first, and each time anew.
TimelineHistory Receiver::fetch_histories(Timeline timeline) {
  if (timeline.value == 1) return TimelineHistory(timeline);
  const std::string text = connection_->timeline_history(timeline);
  TimelineHistory history(timeline, text);
  const repository::WalArchive& archive = system_->archive;
  for (const TimelineHistory::Switch& each : history.switches()) {
    const std::string name = postgres::history_file_name(each.from);
    bool there = each.from.value == 1;
    if (!there) patiently([&] { there = archive.has(name); });
    if (there) continue;
    try {
      const std::string older = connection_->timeline_history(each.from);
      patiently([&] { archive.put(name, base::view(older), 1); });
    } catch (const Error& error) {
      if (error.code() != Code::postgres) throw;
      request_.say(
          fmt::format("ALARM: {} is not in the repository, and the server does not have "
                      "it either: {}",
                      name, error.message()));
    }
  }
  patiently([&] { archive.put(postgres::history_file_name(timeline), base::view(text), 1); });
  return history;
}

/// Slices whose segment is complete: their receiver died before he could remove them.
void Receiver::remove_leftovers(const WalCoverage& coverage) {
  const repository::WalSlices slices = system_->archive.slices();
  for (const auto& [timeline, spans] : coverage.spans()) {
    for (const std::string& file : slices.segments(fmt::format("{:08X}", timeline.value))) {
      const auto name = postgres::parse_wal_file_name(file);
      const auto segment = name ? name->segment(size_) : std::nullopt;
      if (segment && coverage.has(*segment)) slices.remove(file);
    }
  }
}

ResumePoint Receiver::choose_start(const TimelineHistory& history, Lsn flushed) {
  postgres::ReplicationSlot slot(*connection_, site_.cluster.connection,
                                 site_.configuration.wal.slot);
  if (slot_is_useless_) slot.drop();
  slot_is_useless_ = false;
  const Lsn slot_start = slot.ensure(request_.say);
  std::vector<ResumePoint> points;
  patiently([&] {
    const Catalog catalog = read_catalog(site_);
    std::vector<BackupInfo> backups;
    for (const BackupInfo& backup : catalog.backups) {
      if (backup.place.system_id == system_->place.system_id) backups.push_back(backup);
    }
    const WalCoverage coverage(system_->archive, size_);
    remove_leftovers(coverage);
    // What an earlier receiver left counts as stored now, and is confirmed (INV-4).
    system_->archive.settle();
    points = resume_points(coverage, backups, history, slot_start, flushed);
    if (backups.empty() && said_.empty()) {
      request_.say("there is no backup of this cluster yet: take one with `holdfast backup`");
    }
  });
  // TRAPS WR9: only what the server itself says it has removed is passed over.
  for (const ResumePoint& point : points) {
    if (!removed_.contains(point.start)) return point;
  }
  removed_.clear();
  throw Error(Code::postgres, "ALARM: the server has removed all WAL that could be received");
}

void Receiver::connect() {
  connection_.emplace(site_.cluster.connection, "holdfast");
  const Replication::System server = connection_->identify();
  check_identity(server);
  size_ = connection_->segment_size();
  std::optional<WalCoverage> coverage;
  patiently([&] { coverage.emplace(system_->archive, size_); });
  check_is_primary(server, *coverage);
  history_ = fetch_histories(server.timeline);
  const ResumePoint from = choose_start(*history_, server.flushed);
  // POSTGRES U4: a server that has less than the repository lost it, and writes something else now.
  if (from.start > server.flushed) {
    throw Error(Code::conflict,
                fmt::format("cannot receive WAL: the server's ends at {}, before the repository's "
                            "at {}: the server has lost WAL or was set back without a new timeline",
                            postgres::to_string(server.flushed), postgres::to_string(from.start)),
                "what it writes now contradicts what is stored; restore it, or promote another");
  }
  if (request_.synchronous && !told_synchronous_) say_synchronous();
  if (!wal_) {
    wal_.emplace(system_->archive, *system_->lease, system_->id, size_,
                 ReceivedWal::Options{site_.configuration.wal.slice_interval, request_.synchronous,
                                      request_.patience, request_.workers, request_.say});
  }
  stream(*history_, from, server.flushed);
}

/// What is received goes on the bytes that slices hold already, or begins with the segment.
void Receiver::begin_leg(Timeline timeline, Lsn start, Lsn durable) {
  const Segment segment = postgres::segment_at(timeline, start, size_);
  const Lsn segment_start = postgres::start_of(segment, size_);
  base::Bytes known;
  if (start > segment_start) {
    try {
      patiently([&] {
        known = system_->archive.slices()
                    .assemble(postgres::file_name(segment, size_), segment_start.value)
                    .bytes;
      });
    } catch (const Error& error) {
      if (error.code() != Code::corrupt) throw;
      request_.say(fmt::format("{}; receiving it again", error.message()));
      durable = segment_start;  // those that are good are put again, and found to be there
    }
    const std::size_t wanted = start.value - segment_start.value;
    if (known.size() < wanted) known.clear();
    known.resize(std::min(known.size(), wanted));
  }
  const Lsn begin{segment_start.value + known.size()};
  stream_.reset();
  timeline_ = timeline;
  wal_->begin(timeline, segment_start, std::move(known), durable);
  stream_.emplace(*connection_, site_.configuration.wal.slot, timeline, begin, durable,
                  request_.stream);
}

void Receiver::stream(const TimelineHistory& history, const ResumePoint& from, Lsn flushed) {
  unsettled_ = from;
  Timeline timeline = history.timeline_at(from.start);
  Lsn start = from.start;
  Lsn durable = from.start;
  // A server that has nothing more to send says nothing that would prove that it could.
  const bool at_end = from.start >= flushed;
  for (;;) {
    begin_leg(timeline, start, durable);
    if (at_end) settle();
    const auto next = stream_leg();
    if (!next) throw Error(Code::unreachable, "PostgreSQL has ended the stream of WAL");
    if (next->timeline <= timeline || history.end_of(timeline) != next->start) {
      base::fail(Code::postgres, "PostgreSQL leaves timeline {} at {}, which its history does not",
                 timeline.value, postgres::to_string(next->start));
    }
    request_.say(fmt::format("timeline {} ends at {}: going on with timeline {}", timeline.value,
                             postgres::to_string(next->start), next->timeline.value));
    timeline = next->timeline;
    durable = next->start;
    start = postgres::start_of(postgres::segment_at(timeline, next->start, size_), size_);
  }
}

/// Until the server ends the timeline, or itself (then there is no next one).
std::optional<WalStream::Next> Receiver::stream_leg() {
  for (;;) {
    wal_->check();
    stream_->confirm(wal_->durable());
    const WalStream::Event event = stream_->next(std::chrono::milliseconds(0));
    server_end_ = std::max(server_end_, stream_->server_end());
    if (event == WalStream::Event::data) {
      if (unsettled_) settle();
      take(stream_->bytes());
    } else if (event == WalStream::Event::asked) {
      wal_->hurry();  // TRAPS WR15: a server that shuts down waits for the last byte
    } else if (event == WalStream::Event::nothing) {
      await_news();
    } else {
      break;
    }
  }
  const auto next = stream_->finish();
  stream_.reset();
  while (next && !wal_->flush(std::chrono::milliseconds(poll_interval))) wal_->check();
  return next;
}

/// Memory is bounded: while the repository is slower than the server, nothing is read.
void Receiver::take(base::View bytes) {
  while (!wal_->has_room() && !base::interrupted()) {
    wal_->check();
    stream_->confirm(wal_->durable());
    stream_->keep_alive();
    pollfd room{wal_->signal(), POLLIN, 0};
    ::poll(&room, 1, poll_interval);
    wal_->calm();
  }
  wal_->append(bytes);
}

void Receiver::await_news() {
  std::array<pollfd, 2> sources{pollfd{connection_->socket(), POLLIN, 0},
                                pollfd{wal_->signal(), POLLIN, 0}};
  ::poll(sources.data(), sources.size(), poll_interval);
  wal_->calm();
}

/// The server does send from where it was asked to: what is missing before that is lost.
void Receiver::settle() {
  const ResumePoint point = *std::exchange(unsettled_, std::nullopt);
  removed_.clear();
  said_.clear();
  request_.say(fmt::format("receiving WAL of cluster {} from {} on timeline {} through slot \"{}\"",
                           site_.cluster.name, postgres::to_string(point.start), timeline_.value,
                           site_.configuration.wal.slot));
  gap_is_recorded_ = point.missing.empty();
  for (const MissingWal& missing : point.missing) {
    const repository::Gap gap{history_->timeline_at(missing.from).value, missing.from.value,
                              missing.to.value, base::now(),
                              "the server had removed it before it was received"};
    bool fresh = false;
    patiently(
        [&] { fresh = repository::Gaps(site_.repository, system_->place).record(gap) || fresh; });
    if (!told_gaps_.insert(missing.from).second) continue;
    request_.say(fmt::format("ALARM: WAL from {} to {} of timeline {} is lost for ever{}",
                             postgres::to_string(missing.from), postgres::to_string(missing.to),
                             gap.timeline, fresh ? "" : " (known before)"));
  }
  gap_is_recorded_ = true;
  if (point.needs_backup) backup_.want();
}

void Receiver::say_synchronous() {
  told_synchronous_ = true;
  const std::string name = connection_->setting("application_name").value_or("holdfast");
  const std::string names = connection_->setting("synchronous_standby_names").value_or("");
  if (names.find(name) != std::string::npos || names.find('*') != std::string::npos) {
    request_.say(
        fmt::format("commits wait for this receiver: synchronous_standby_names = '{}'", names));
  } else {
    request_.say(
        fmt::format("WARNING: commits do not wait for this receiver: synchronous_standby_names = "
                    "'{}' does not name it (ALTER SYSTEM SET synchronous_standby_names = '{}', and "
                    "reload)",
                    names, name));
  }
}

void Receiver::disconnect() {
  stream_.reset();
  connection_.reset();
  unsettled_.reset();
}

void Receiver::connect_and_stream() {
  try {
    connect();
  } catch (const Error&) {
    const std::string state = connection_ ? connection_->error_state() : "";
    if (state == undefined_file && unsettled_) removed_.insert(unsettled_->start);
    if (state == wrong_state && unsettled_) slot_is_useless_ = true;
    throw;
  }
}

/// One connection, and what it leaves; then a pause.
void Receiver::connect_for_a_while(std::chrono::milliseconds& pause) {
  const std::size_t removed = removed_.size();
  try {
    connect_and_stream();
  } catch (const StoreGaveUp&) {
    throw;
  } catch (const Error& error) {
    if (base::interrupted()) return;
    if (wal_) wal_->check();
    if (error.code() != Code::unreachable && error.code() != Code::postgres) throw;
    if (stream_ && !unsettled_) pause = std::chrono::milliseconds(100);
    if (removed_.size() <= removed) trouble(error);
  }
  disconnect();
  // What was received before stays good, and counts where the next connection goes on.
  while (wal_ && !base::interrupted() && !wal_->flush(std::chrono::milliseconds(poll_interval))) {
    wal_->check();
  }
  if (removed_.size() > removed) return;  // another place is to be tried
  for (auto slept = std::chrono::milliseconds(0); slept < pause && !base::interrupted();
       slept += std::chrono::milliseconds(50)) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  pause = std::min(pause * 2, longest_pause);
}

bool Receiver::has_lost_lease() const {
  try {
    if (system_) system_->lease->check();
    return false;
  } catch (const Error&) {
    return true;
  }
}

/// A process that stood still, or a store that could not be written for a minute. Nothing that was
/// not durable has been confirmed, so that the server sends it once more; what somebody else has
/// stored meanwhile is found as after any start.
void Receiver::take_lease_again() {
  disconnect();
  if (wal_) stored_ = wal_->durable();
  wal_.reset();
  system_->lease.reset();
  // Where its end could not be written down, as the store is full, it counts for one term more.
  const auto limit =
      std::chrono::steady_clock::now() + 2 * request_.lease_term + std::chrono::seconds(1);
  while (!base::interrupted()) {
    try {
      patiently([this] {
        system_->lease.emplace(site_.repository, system_->place, "receive", request_.lease_term);
      });
      return request_.say("the lease had run out, and nobody else has taken it: going on");
    } catch (const Error& error) {
      if (error.code() != Code::busy || std::chrono::steady_clock::now() > limit) throw;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

ReceiveOutcome Receiver::run() {
  auto pause = std::chrono::milliseconds(100);
  while (!base::interrupted()) {
    try {
      connect_for_a_while(pause);
    } catch (const Error& error) {
      if (error.code() != Code::busy || !has_lost_lease()) throw;
      if (base::interrupted()) break;
      take_lease_again();
    }
  }
  return finish();
}

/// TRAPS WR19: stopped cleanly means that all that was received is durable, and confirmed.
ReceiveOutcome Receiver::finish() {
  ReceiveOutcome outcome;
  outcome.timeline = timeline_;
  outcome.server_end = server_end_;
  outcome.durable = stored_;
  if (wal_) {
    const bool stored = wal_->flush(request_.patience);
    outcome.durable = wal_->durable();
    if (!stored) {
      std::string why = "storing took too long";
      try {
        wal_->check();
      } catch (const std::exception& error) {
        why = error.what();
      }
      throw Error(
          Code::io,
          fmt::format("stopped before all was stored: WAL from {} to {} ({} bytes) was "
                      "received, but is not in the repository: {}",
                      postgres::to_string(outcome.durable), postgres::to_string(wal_->received()),
                      wal_->received().value - outcome.durable.value, why),
          "nothing of it was confirmed: the slot keeps it for the next start");
    }
    wal_->check();
  }
  try {
    if (stream_) {
      stream_->confirm(outcome.durable);
      stream_->leave();
    }
  } catch (const Error& error) {
    request_.say(
        fmt::format("could not tell the server how far it is stored: {}", error.message()));
  }
  backup_.stop();
  // TRAPS WR13: nothing behind it was stored, so the next start finds it again.
  if (!gap_is_recorded_) {
    base::fail(Code::wal_missing, "stopped before a gap in WAL could be recorded");
  }
  outcome.needs_backup = backup_.owed();
  return outcome;
}

}  // namespace

ReceiveOutcome receive_wal(const Site& site, const ReceiveRequest& request) {
  return Receiver(site, request).run();
}

}  // namespace holdfast::operations
