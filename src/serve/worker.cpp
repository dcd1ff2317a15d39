#include "serve/worker.h"

#include <condition_variable>

#include "base/error.h"
#include "serve/child.h"
#include "serve/log.h"
#include "serve/meeting.h"
#include "serve/turn.h"

namespace holdfast::serve {

namespace {

using base::Code;
using base::Error;
using base::Timestamp;
using std::chrono::seconds;

/// A command that is to run all the time is well once it has run for so long.
constexpr seconds well_after{5};

void pause(const std::stop_token& stop, std::chrono::milliseconds time) {
  std::mutex mutex;
  std::condition_variable_any woken;
  std::unique_lock lock(mutex);
  woken.wait_for(lock, stop, time, [] { return false; });
}

/// Whether the same command may end otherwise later. A signal (128 and more) says nothing of it. A
/// repository that is not there may be on a disk that is not mounted.
bool may_pass(int status) {
  for (const base::CodeInfo& each : base::all_codes()) {
    if (each.exit_status != status) continue;
    return each.code == Code::not_found || (each.transient && each.code != Code::inconclusive);
  }
  return status >= 126;
}

bool is_busy(int status) {
  return status == base::info(Code::busy).exit_status;
}

constexpr seconds longest_pause{1800};

/// What took an hour to fail is not begun again after seconds; and a disk that is full has others
/// who need its last room.
seconds least_pause(int status, base::Microseconds took) {
  const bool is_full = status == base::info(Code::no_space).exit_status;
  return std::max(is_full ? seconds(300) : seconds(5), std::chrono::ceil<seconds>(took));
}

}  // namespace

/// A turn, and what it stands on.
struct Worker::Claim {
  std::unique_ptr<Meeting> meeting;
  std::unique_ptr<Turn> turn;  ///< nullptr: `done` was done by somebody else
  Timestamp done;
};

Worker::Worker(Surroundings surroundings, Job job, Settings settings)
    : surroundings_(std::move(surroundings)), work_{std::move(job), std::move(settings), 0} {
  surroundings_.state.change([&](State::Content& content) {
    content.jobs.try_emplace(work_.job.name, JobRecord{base::now(), {}, {}, {}, {}});
  });
  thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
}

void Worker::update(Job job, Settings settings) {
  const std::lock_guard lock(mutex_);
  work_ = {std::move(job), std::move(settings), work_.generation + 1};
}

Worker::Work Worker::work() const {
  const std::lock_guard lock(mutex_);
  return work_;
}

Worker::View Worker::view() const {
  const Work now = work();
  View view;
  view.name = now.job.name;
  view.running = running_;
  view.successes = successes_;
  view.failures = failures_;
  if (const auto since = claiming_since_.load(); since != 0) {
    view.claiming = std::chrono::duration_cast<base::Microseconds>(Clock::now().time_since_epoch() -
                                                                   Clock::duration(since));
  }
  if (now.job.schedule && !now.job.schedule->after_backup()) {
    const operations::ScheduleSettings& settings = now.settings->schedule;
    const Timestamp last = std::max(surroundings_.state.job(now.job.name).last(), base::now());
    view.next = now.job.schedule->next(last, find_zone(settings.timezone));
    if (view.next) *view.next += jitter_of(surroundings_.host, now.job.name, settings.jitter);
  }
  return view;
}

void Worker::run(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    const Work now = work();
    if (now.generation != generation_) {  // what was in the way may have been mended
      generation_ = now.generation;
      pause_ = seconds(0);
      not_before_ = {};
    }
    try {
      now.job.schedule ? look(now, stop) : keep_running(now, stop);
    } catch (const std::exception& error) {
      claiming_since_ = 0;
      running_ = false;
      alarm(now, error.what());
      try_later(seconds(5), longest_pause);
    }
    pause(stop, std::chrono::milliseconds(500));
  }
  over_ = true;
}

std::optional<Timestamp> Worker::due(const Work& work) const {
  const JobRecord record = surroundings_.state.job(work.job.name);
  if (!work.job.follows.empty()) {
    const JobRecord first = surroundings_.state.job(work.job.follows);
    if (!first.slot || first.status.value_or(0) != 0) return std::nullopt;
    // A run that was caught up was due long before it was done.
    const Timestamp done = std::max(*first.slot, first.succeeded.value_or(*first.slot));
    const bool fresh = record.slot ? *first.slot > *record.slot : done > record.known_since;
    return fresh ? first.slot : std::nullopt;
  }
  const operations::ScheduleSettings& settings = work.settings->schedule;
  const Timestamp now = base::now() - jitter_of(surroundings_.host, work.job.name, settings.jitter);
  return work.job.schedule->due(record.last(), now, find_zone(settings.timezone));
}

void Worker::look(const Work& work, const std::stop_token& stop) {
  if (Clock::now() < not_before_) return;
  const auto slot = due(work);
  if (!slot) return;
  std::unique_ptr<Claim> claimed;
  try {
    claimed = claim(work, *slot);
  } catch (const Error& error) {
    claiming_since_ = 0;
    // Somebody else is at it, and if he fails it is our turn again.
    if (error.code() == Code::busy) return try_later(seconds(1), seconds(60));
    alarm(work, "it could not be begun: " + error.message());
    return try_later(seconds(5), seconds(60));
  }
  if (!claimed->turn) {
    say(fmt::format("{} was done by another daemon", work.job.name));
    note(work, claimed->done, std::nullopt);
    pause_ = seconds(0);
    return alarm_over(work);
  }
  say(fmt::format("{} begins; it was due at {}", work.job.name, base::to_string(*slot)));
  do_run(work, *slot, stop);
  const JobRecord record = surroundings_.state.job(work.job.name);
  if (!record.slot || *record.slot < *slot) return;
  try {
    claimed->turn->finish();
  } catch (const Error& error) {
    // Another daemon may do it once more, which does no harm.
    say(fmt::format("{}: others could not be told that it is done: {}", work.job.name,
                    error.message()));
  }
}

std::unique_ptr<Worker::Claim> Worker::claim(const Work& work, Timestamp slot) {
  auto claim = std::make_unique<Claim>();
  claiming_since_ = Clock::now().time_since_epoch().count();
  claim->meeting = meet(*work.settings, work.job.cluster, [&](const Meeting& at) {
    claim->turn = Turn::take(at.repository(), at.place, work.job.name, slot, claim->done);
  });
  claiming_since_ = 0;
  return claim;
}

base::Command Worker::command(const Work& work) const {
  base::Command command;
  command.argv = {surroundings_.program.string(), "--config", work.settings->path.string()};
  command.argv.insert(command.argv.end(), work.job.arguments.begin(), work.job.arguments.end());
  return command;
}

base::fs::path Worker::log(const Work& work) const {
  return work.settings->serve.state.string() + ".logs/" + work.job.name + ".log";
}

void Worker::do_run(const Work& work, Timestamp slot, const std::stop_token& stop) {
  const auto begun = Clock::now();
  const auto too_late = [&] {
    alarm(work, fmt::format("it did not end within {} and is stopped",
                            base::to_string_short(work.settings->schedule.limit)));
  };
  running_ = true;
  base::Command due_since = command(work);
  if (work.job.knows_what_is_done) {
    due_since.argv.insert(due_since.argv.end(), {"--unless-since", base::to_iso(slot)});
  }
  const ChildEnd end = run_child(
      due_since, log(work), work.settings->schedule.limit, stop, [] { return true; }, too_late);
  running_ = false;
  if (end.how == ChildEnd::How::stopped) return;  // it is done after the restart
  if (end.how == ChildEnd::How::too_late) {
    ++failures_;
    return note(work, slot, end.status);
  }
  if (is_busy(end.status)) {
    say(fmt::format("{} waits: {}", work.job.name, end.last_words));
    return try_later(seconds(5), seconds(60));
  }
  const auto took = std::chrono::duration_cast<base::Microseconds>(Clock::now() - begun);
  if (end.status == 0) {
    ++successes_;
    say(fmt::format("{} ended well after {}", work.job.name, base::to_string_short(took)));
    alarm_over(work);
  } else {
    ++failures_;
    say(fmt::format("{} ended with status {} after {}: {}", work.job.name, end.status,
                    base::to_string_short(took), end.last_words));
    alarm(work, fmt::format("it ended with status {}: {}", end.status, end.last_words));
  }
  if (may_pass(end.status)) {
    note(work, std::nullopt, end.status);
    try_later(least_pause(end.status, took), longest_pause);
    return say(fmt::format("{} is tried again in {} s", work.job.name, pause_.count()));
  }
  note(work, slot, end.status);
  pause_ = seconds(0);
}

void Worker::keep_running(const Work& now, const std::stop_token& stop) {
  if (Clock::now() < not_before_) return;
  const auto begun = Clock::now();
  bool well = false;
  running_ = true;
  const auto tick = [&] {
    if (!well && Clock::now() - begun > well_after) {
      well = true;
      pause_ = seconds(0);
      alarm_over(now);
      say(fmt::format("{} runs", now.job.name));
    }
    return work().generation == now.generation;
  };
  const ChildEnd end = run_child(command(now), log(now), std::nullopt, stop, tick, [] {});
  running_ = false;
  if (end.how == ChildEnd::How::stopped) return;
  note(now, std::nullopt, end.status);
  try_later(seconds(1), seconds(60));
  if (is_busy(end.status)) return alarm_over(now);  // another daemon does it
  ++failures_;
  say(fmt::format("{} ended with status {}, and is begun again in {} s: {}", now.job.name,
                  end.status, pause_.count(), end.last_words));
  alarm(now, fmt::format("it ended with status {}: {}", end.status, end.last_words));
}

void Worker::note(const Work& work, std::optional<Timestamp> slot, std::optional<int> status) {
  surroundings_.state.change([&](State::Content& content) {
    JobRecord& record = content.jobs[work.job.name];
    if (slot) record.slot = slot;
    // What another daemon did has no status here.
    if (status || slot) record.status = status;
    if (!status) return;
    record.ended = base::now();
    if (*status == 0) record.succeeded = record.ended;
  });
}

void Worker::alarm(const Work& work, const std::string& what) {
  surroundings_.alarms.settle(
      "job/" + work.job.name,
      {{"", true, what, fmt::format("see {}", log(work).string()), {}, {}}});
}

void Worker::alarm_over(const Work& work) {
  surroundings_.alarms.settle("job/" + work.job.name, {});
}

void Worker::try_later(seconds least, seconds most) {
  pause_ = std::min(std::max(pause_ * 2, least), most);
  not_before_ = Clock::now() + pause_;
}

}  // namespace holdfast::serve
