#include "serve/daemon.h"

#include <signal.h>

#include <algorithm>
#include <cstdlib>

#include "base/error.h"
#include "operations/evidence.h"
#include "serve/log.h"

namespace holdfast::serve {

namespace {

using base::Error;
using Clock = std::chrono::steady_clock;
using std::chrono::seconds;

/// A repository that has not said for so long whose turn it is hangs.
constexpr seconds stuck_after{60};
constexpr seconds end_within{40};
/// Without a child what is left are threads that wait for a repository: none of them does anything
/// that a killed daemon would not leave undone as well.
constexpr seconds end_without_children_within{10};

sigset_t awaited_signals() {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int number : {SIGTERM, SIGINT, SIGHUP}) ::sigaddset(&set, number);
  return set;
}

/// 0 if none came.
int await_signal(std::chrono::milliseconds limit) {
  const sigset_t set = awaited_signals();
  timespec time{};
  time.tv_sec = limit.count() / 1000;
  time.tv_nsec = limit.count() % 1000 * 1'000'000;
  return std::max(0, ::sigtimedwait(&set, nullptr, &time));
}

}  // namespace

Daemon::Daemon(const base::fs::path& configuration)
    : path_(configuration), program_(base::own_program()) {
  const sigset_t set = awaited_signals();
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  const operations::Configuration first = operations::read_configuration(path_);
  check(first);
  state_ = std::make_unique<State>(first.serve.state);
  alarms_ = std::make_unique<Alarms>(*state_);
  // Who asks before there is anything to tell waits.
  const std::lock_guard lock(picture_mutex_);
  listen(first.serve.listen);
  apply(first);
  forget_what_is_not_configured();
  picture_ = picture();
  taken_ = Clock::now();
}

Daemon::~Daemon() = default;

/// Throws if it cannot be put in force.
void Daemon::check(const operations::Configuration& configuration) const {
  jobs_of(configuration);
  if (settings_ && settings_->serve.state != configuration.serve.state) {
    throw Error(base::Code::configuration, "\"state\" cannot be changed while the daemon runs",
                "restart it");
  }
}

void Daemon::apply(const operations::Configuration& configuration) {
  const std::vector<Job> jobs = jobs_of(configuration);
  settings_ = std::make_shared<const operations::Configuration>(configuration);
  alarms_->configure(settings_->alert);
  const Surroundings surroundings{*state_, *alarms_, program_, operations::host_name()};
  std::map<std::string, std::unique_ptr<Worker>> workers;
  for (const Job& job : jobs) {
    const auto known = workers_.find(job.name);
    if (known != workers_.end()) {
      known->second->update(job, settings_);
      workers.insert(workers_.extract(known));
    } else {
      workers[job.name] = std::make_unique<Worker>(surroundings, job, settings_);
    }
  }
  for (auto& [name, worker] : workers_) {
    worker->stop();
    leaving_.push_back(std::move(worker));
  }
  workers_ = std::move(workers);
  std::map<std::string, std::unique_ptr<Watch>> watches;
  for (const auto& cluster : settings_->clusters) {
    const auto known = watches_.find(cluster.name);
    if (known != watches_.end()) {
      known->second->update(settings_);
      watches.insert(watches_.extract(known));
    } else {
      watches[cluster.name] = std::make_unique<Watch>(*alarms_, program_, cluster.name, settings_);
    }
  }
  for (auto& [name, watch] : watches_) {
    watch->stop();
    leaving_watches_.push_back(std::move(watch));
  }
  watches_ = std::move(watches);
}

/// Alarms of jobs and clusters that the configuration lost while no daemon ran.
void Daemon::forget_what_is_not_configured() {
  for (const auto& [id, alarm] : state_->content().alarms) {
    const std::size_t first = id.find('/');
    const std::string kind = id.substr(0, first);
    const std::string whose = id.substr(first + 1, id.find('/', first + 1) - first - 1);
    const bool known =
        kind == "job" ? workers_.contains(whose) : kind == "daemon" || watches_.contains(whose);
    if (!known) alarms_->settle(id, {});
  }
}

void Daemon::reload() {
  manager_.tell("RELOADING=1");
  try {
    const operations::Configuration fresh = operations::read_configuration(path_);
    check(fresh);
    listen(fresh.serve.listen);
    apply(fresh);
    alarms_->settle("daemon/configuration", {});
    say("read the configuration again");
  } catch (const Error& error) {
    alarms_->settle("daemon/configuration",
                    {{"",
                      true,
                      "the old configuration stays in force: " + error.message(),
                      error.hint(),
                      {},
                      {}}});
  }
  manager_.tell("READY=1");
}

/// Throws if the address cannot be had; then the old one stays.
void Daemon::listen(const std::string& wanted) {
  if (wanted == listens_at_) return;
  std::unique_ptr<service::HttpListener> fresh;
  if (!wanted.empty()) {
    try {
      fresh = std::make_unique<service::HttpListener>(
          service::find_address(wanted),
          [this](const service::HttpRequest& request) {
            const std::lock_guard lock(picture_mutex_);
            return answer(request, picture_, Clock::now() - taken_ < seconds(10));
          },
          service::Audience::readers);
    } catch (const Error& error) {
      throw Error(error.code(), error.message(),
                  "change \"listen\" in [serve]; another program may have that port, and ports "
                  "below 1024 are root's");
    }
    say(fmt::format("shows how things are at http://{}/", fresh->address().text()));
  }
  listener_ = std::move(fresh);
  listens_at_ = wanted;
}

Picture Daemon::picture() const {
  Picture fresh;
  fresh.at = base::now();
  fresh.started = started_;
  fresh.look_every = settings_->serve.check_every;
  fresh.content = state_->content();
  for (const auto& [name, worker] : workers_) fresh.jobs.push_back(worker->view());
  for (const auto& [name, watch] : watches_) fresh.looks[name] = watch->last();
  const auto failing = alarms_->failing();
  for (const std::string& each : channels_of(settings_->alert)) {
    fresh.channels[each] = !failing.contains(each);
  }
  return fresh;
}

void Daemon::take_picture() {
  Picture fresh = picture();
  const std::lock_guard lock(picture_mutex_);
  picture_ = std::move(fresh);
  taken_ = Clock::now();
}

void Daemon::look_after_workers() {
  std::vector<Alarm> stuck;
  for (const auto& [name, worker] : workers_) {
    if (worker->view().claiming < stuck_after) continue;
    stuck.push_back({name,
                     true,
                     fmt::format("{} waits for a repository that hangs", name),
                     "see whether the repository's file system answers",
                     {},
                     {}});
  }
  alarms_->settle("daemon/stuck", stuck);
  const std::string trouble = state_->trouble();
  std::vector<Alarm> state;
  if (!trouble.empty()) state.push_back({"", true, trouble, "", {}, {}});
  alarms_->settle("daemon/state", state);
  std::vector<Alarm> channels;
  for (const auto& [name, why] : alarms_->failing()) {
    channels.push_back({name,
                        true,
                        fmt::format("{} does not take messages", name),
                        "see the daemon's log, and [alert]",
                        {},
                        {}});
  }
  alarms_->settle("daemon/channel", channels);
  forget_those_who_left();
}

/// Their alarms end with them, unless the configuration has them again.
void Daemon::forget_those_who_left() {
  std::erase_if(leaving_, [&](const auto& each) {
    if (!each->over()) return false;
    const std::string name = each->view().name;
    if (!workers_.contains(name)) alarms_->settle("job/" + name, {});
    return true;
  });
  std::erase_if(leaving_watches_, [&](const auto& each) {
    if (!each->over()) return false;
    if (!watches_.contains(each->cluster())) {
      alarms_->settle("status/" + each->cluster(), {});
      alarms_->settle("watch/" + each->cluster(), {});
    }
    return true;
  });
}

void Daemon::run() {
  say(fmt::format("serving {}: {} {}", path_.string(), workers_.size(),
                  workers_.size() == 1 ? "job" : "jobs"));
  if (workers_.empty()) say("nothing is to be done: add [schedule] to the configuration");
  if (channels_of(settings_->alert).empty()) say("nobody is told of alarms: there is no [alert]");
  for (const auto& [id, alarm] : state_->content().alarms) {
    say(fmt::format("still raised: {}: {}", id, alarm.what));
  }
  take_picture();
  manager_.tell("READY=1");
  auto next_look = Clock::now();
  auto next_sign = Clock::now();
  for (;;) {
    const int signal = await_signal(std::chrono::milliseconds(200));
    if (signal == SIGTERM || signal == SIGINT) break;
    if (signal == SIGHUP) reload();
    const auto now = Clock::now();
    if (now >= next_look) {
      look_after_workers();
      take_picture();
      next_look = now + seconds(1);
    }
    if (manager_.watchdog() && now >= next_sign) {
      manager_.tell("WATCHDOG=1");
      next_sign = now + *manager_.watchdog() / 3;
    }
  }
  end();
}

bool Daemon::has_children() const {
  return std::ranges::any_of(leaving_, [](const auto& each) { return each->runs(); }) ||
         std::ranges::any_of(workers_, [](const auto& each) { return each.second->runs(); });
}

bool Daemon::all_over() const {
  const auto is_over = [](const auto& each) { return each->over(); };
  return std::ranges::all_of(leaving_, is_over) && std::ranges::all_of(leaving_watches_, is_over) &&
         std::ranges::all_of(workers_, [](const auto& each) { return each.second->over(); }) &&
         std::ranges::all_of(watches_, [](const auto& each) { return each.second->over(); });
}

void Daemon::end() {
  say("stopping: children are asked to end");
  manager_.tell("STOPPING=1");
  for (const auto& [name, worker] : workers_) worker->stop();
  for (const auto& [name, watch] : watches_) watch->stop();
  const auto limit = Clock::now() + end_within;
  auto last_child = Clock::now();
  while (!all_over() && Clock::now() < limit &&
         Clock::now() < last_child + end_without_children_within) {
    await_signal(std::chrono::milliseconds(50));
    if (has_children()) last_child = Clock::now();
  }
  const auto last_words = std::min(limit, Clock::now() + seconds(3));
  while (!alarms_->stop() && Clock::now() < last_words) {
    await_signal(std::chrono::milliseconds(50));
  }
  if (all_over() && alarms_->stop() && state_->idle()) return say("stopped");
  // A thread that the system does not give back cannot be waited for; its children get SIGTERM.
  say("stopped, though not all that ran has ended");
  std::_Exit(0);
}

}  // namespace holdfast::serve
