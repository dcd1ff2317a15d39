#include "serve/watch.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <sstream>

#include "base/error.h"
#include "serve/child.h"
#include "serve/log.h"

namespace holdfast::serve {

namespace {

using base::Code;
using nlohmann::json;

constexpr std::chrono::minutes look_limit{2};

/// Of several findings about one thing (two holes in WAL) the worst is the alarm.
void add_worst(std::vector<Alarm>& alarms, Alarm alarm) {
  const auto known = std::ranges::find(alarms, alarm.id, &Alarm::id);
  if (known == alarms.end()) {
    alarms.push_back(std::move(alarm));
  } else if (alarm.bad && !known->bad) {
    *known = std::move(alarm);
  }
}

}  // namespace

std::vector<json> parse_documents(const std::string& text) {
  std::vector<json> documents;
  std::istringstream in(text);
  try {
    while ((in >> std::ws).good()) {
      json document;
      in >> document;
      documents.push_back(std::move(document));
    }
  } catch (const json::exception& error) {
    base::fail(Code::corrupt, "what it printed is not JSON: {}", error.what());
  }
  return documents;
}

std::vector<Alarm> alarms_of(const std::vector<json>& reports) {
  if (reports.empty()) base::fail(Code::corrupt, "it printed nothing");
  std::vector<Alarm> alarms;
  try {
    for (const json& report : reports) {
      const std::string repository = report.value("repository", "");
      // A repository that could not be looked at prints an error instead.
      if (report.contains("error")) {
        alarms.push_back(
            {repository + "/error", true, report.at("message"), report.value("hint", ""), {}, {}});
        continue;
      }
      for (const json& finding : report.at("findings")) {
        const std::string level = finding.at("level");
        if (level == "ok") continue;
        const std::string what = finding.at("what");
        const std::string about = finding.value("about", what);
        // That is the same whichever repository was looked at.
        const bool is_of_cluster = finding.value("of", "") == "cluster";
        add_worst(alarms, {repository.empty() || is_of_cluster ? about : repository + "/" + about,
                           level == "BAD",
                           what,
                           finding.at("remedy"),
                           {},
                           {}});
      }
    }
  } catch (const json::exception& error) {
    base::fail(Code::corrupt, "what it printed is not a status: {}", error.what());
  }
  return alarms;
}

Watch::Watch(Alarms& alarms, base::fs::path program, std::string cluster, Settings settings)
    : alarms_(alarms),
      program_(std::move(program)),
      cluster_(std::move(cluster)),
      settings_(settings),
      speaker_(cluster_, std::move(settings)) {
  thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
}

void Watch::update(Settings settings) {
  speaker_.update(settings);
  const std::lock_guard lock(mutex_);
  settings_ = std::move(settings);
  changed_.notify_all();
}

void Watch::stop() {
  thread_.request_stop();
}

std::optional<StatusLook> Watch::last() const {
  const std::lock_guard lock(mutex_);
  return last_;
}

void Watch::run(const std::stop_token& stop) {
  speaker_.await_first_answer(stop);
  while (!stop.stop_requested()) {
    Settings settings;
    {
      const std::lock_guard lock(mutex_);
      settings = settings_;
    }
    try {
      if (look(settings, stop)) trouble({});
    } catch (const std::exception& error) {
      trouble(error.what());
    }
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, stop, settings->serve.check_every,
                      [&] { return settings_ != settings; });
  }
  // What was told is left behind before that.
  speaker_.stop();
  over_ = true;
}

void Watch::trouble(const std::string& why) {
  std::vector<Alarm> alarms;
  if (!why.empty()) {
    alarms.push_back(
        {"", true, "status could not be found out: " + why, "run `holdfast status`", {}, {}});
  }
  alarms_.settle("watch/" + cluster_, alarms);
}

/// False if it was stopped, or took too long.
bool Watch::look(const Settings& settings, const std::stop_token& stop) {
  // In memory: what is wrong must be found out also when the disk is full.
  const base::Fd answer(::memfd_create("holdfast-status", MFD_CLOEXEC));
  if (!answer) base::fail_errno("make a file in memory", errno);
  const base::fs::path path = fmt::format("/proc/{}/fd/{}", ::getpid(), answer.get());
  base::Command command;
  // What it prints is the answer; what it warns of is not.
  command.argv = {"/bin/sh",
                  "-c",
                  "answer=$1; shift; exec \"$@\" >\"$answer\"",
                  "holdfast-status",
                  path.string(),
                  program_.string(),
                  "--config",
                  settings->path.string(),
                  "status",
                  "--json",
                  "--cluster",
                  cluster_};
  const ChildEnd end = run_child(
      command, settings->serve.state.string() + ".logs/status." + cluster_ + ".log", look_limit,
      stop, [] { return true; },
      [&] { trouble("it did not end within " + base::to_string_short(look_limit)); },
      std::chrono::seconds(5));
  if (end.how != ChildEnd::How::by_itself) return false;
  const int not_well = base::info(Code::check_failed).exit_status;
  if (end.status != 0 && end.status != not_well) {
    base::fail(Code::io, "it ended with status {}: {}", end.status, end.last_words);
  }
  std::vector<json> reports =
      parse_documents(std::string(base::text(base::read_existing_file(path))));
  tell(alarms_of(reports));
  const std::lock_guard lock(mutex_);
  last_ = StatusLook{base::now(), std::move(reports)};
  return true;
}

void Watch::tell(const std::vector<Alarm>& found) {
  const std::string scope = "status/" + cluster_;
  if (speaker_.listens()) return alarms_.settle(scope, found, true);
  if (const auto told = speaker_.take_over()) {
    try {
      alarms_.adopt(scope, alarms_from(*told));
    } catch (const std::exception& error) {
      say(fmt::format("what another daemon told could not be understood: {}", error.what()));
    }
  }
  alarms_.settle(scope, found);
  speaker_.leave(alarms_text(alarms_.told(scope)));
}

}  // namespace holdfast::serve
