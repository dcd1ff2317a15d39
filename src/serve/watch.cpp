#include "serve/watch.h"

#include <condition_variable>
#include <sstream>

#include "base/error.h"
#include "serve/child.h"

namespace holdfast::serve {

namespace {

using base::Code;
using nlohmann::json;

constexpr std::chrono::minutes look_limit{2};

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
        alarms.push_back({repository.empty() ? about : repository + "/" + about,
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
      settings_(std::move(settings)) {
  thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
}

void Watch::update(Settings settings) {
  const std::lock_guard lock(mutex_);
  settings_ = std::move(settings);
}

std::optional<StatusLook> Watch::last() const {
  const std::lock_guard lock(mutex_);
  return last_;
}

void Watch::run(const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any woken;
  while (!stop.stop_requested()) {
    Settings settings;
    {
      const std::lock_guard lock(mutex_);
      settings = settings_;
    }
    std::vector<Alarm> trouble;
    try {
      look(settings, stop);
    } catch (const std::exception& error) {
      trouble.push_back({"",
                         true,
                         fmt::format("status could not be found out: {}", error.what()),
                         "run `holdfast status`",
                         {},
                         {}});
    }
    if (!stop.stop_requested()) alarms_.settle("watch/" + cluster_, trouble);
    std::unique_lock lock(mutex);
    woken.wait_for(lock, stop, settings->serve.check_every, [] { return false; });
  }
  over_ = true;
}

void Watch::look(const Settings& settings, const std::stop_token& stop) {
  const base::fs::path log = settings->serve.state.string() + ".logs/status." + cluster_;
  const base::fs::path answer = log.string() + ".json";
  base::make_directories(log.parent_path());
  base::Command command;
  // What it prints is the answer; what it warns of is not.
  command.argv = {"/bin/sh",
                  "-c",
                  "answer=$1; shift; exec \"$@\" >\"$answer\"",
                  "holdfast-status",
                  answer,
                  program_.string(),
                  "--config",
                  settings->path.string(),
                  "status",
                  "--json",
                  "--cluster",
                  cluster_};
  const ChildEnd end = run_child(command, log, look_limit, stop, [] { return true; });
  if (end.how == ChildEnd::How::stopped) return;
  if (end.how == ChildEnd::How::too_late) {
    base::fail(Code::unreachable, "it did not end within {}", base::to_string_short(look_limit));
  }
  const int not_well = base::info(Code::check_failed).exit_status;
  if (end.status != 0 && end.status != not_well) {
    base::fail(Code::io, "it ended with status {}: {}", end.status, end.last_words);
  }
  std::vector<json> reports =
      parse_documents(std::string(base::text(base::read_existing_file(answer))));
  alarms_.settle("status/" + cluster_, alarms_of(reports));
  const std::lock_guard lock(mutex_);
  last_ = StatusLook{base::now(), std::move(reports)};
}

}  // namespace holdfast::serve
