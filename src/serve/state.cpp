#include "serve/state.h"

#include <fcntl.h>
#include <sys/file.h>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace holdfast::serve {

namespace {

using base::Code;
using base::Error;
using base::Timestamp;
using nlohmann::json;

constexpr std::chrono::seconds longest_wait{2};
constexpr std::chrono::seconds hangs_after{10};
constexpr std::chrono::seconds try_again_after{10};

json time_json(const std::optional<Timestamp>& time) {
  return time ? json(base::to_iso(*time)) : json();
}

std::optional<Timestamp> time_of(const json& value) {
  if (value.is_null()) return std::nullopt;
  return base::from_iso(value.get<std::string>());
}

json to_json(const std::map<std::string, Alarm>& all) {
  json alarms = json::object();
  for (const auto& [id, alarm] : all) {
    alarms[id] = {{"bad", alarm.bad},
                  {"what", alarm.what},
                  {"remedy", alarm.remedy},
                  {"since", base::to_iso(alarm.since)},
                  {"told", base::to_iso(alarm.told)}};
  }
  return alarms;
}

std::map<std::string, Alarm> alarms_of(const json& document) {
  std::map<std::string, Alarm> alarms;
  for (const auto& [id, alarm] : document.items()) {
    alarms[id] = {id,
                  alarm.at("bad").get<bool>(),
                  alarm.at("what").get<std::string>(),
                  alarm.at("remedy").get<std::string>(),
                  time_of(alarm.at("since")).value(),
                  time_of(alarm.at("told")).value()};
  }
  return alarms;
}

json to_json(const State::Content& content) {
  json jobs = json::object();
  for (const auto& [name, job] : content.jobs) {
    jobs[name] = {{"known_since", base::to_iso(job.known_since)},
                  {"slot", time_json(job.slot)},
                  {"succeeded", time_json(job.succeeded)},
                  {"ended", time_json(job.ended)},
                  {"status", job.status ? json(*job.status) : json()}};
  }
  json outbox = json::array();
  for (const Message& each : content.outbox) {
    outbox.push_back({{"number", each.number},
                      {"channel", each.channel},
                      {"subject", each.subject},
                      {"document", each.document}});
  }
  return {{"version", 1},
          {"jobs", jobs},
          {"alarms", to_json(content.alarms)},
          {"outbox", outbox},
          {"next_message", content.next_message}};
}

State::Content content_of(const json& document) {
  if (document.at("version") != 1) base::fail(Code::unsupported, "its version is not known");
  State::Content content;
  for (const auto& [name, job] : document.at("jobs").items()) {
    JobRecord& record = content.jobs[name];
    record.known_since = time_of(job.at("known_since")).value();
    record.slot = time_of(job.at("slot"));
    record.succeeded = time_of(job.at("succeeded"));
    record.ended = time_of(job.at("ended"));
    if (!job.at("status").is_null()) record.status = job.at("status").get<int>();
  }
  content.alarms = alarms_of(document.at("alarms"));
  for (const json& each : document.at("outbox")) {
    content.outbox.push_back(
        {each.at("number").get<std::uint64_t>(), each.at("channel").get<std::string>(),
         each.at("subject").get<std::string>(), each.at("document").get<std::string>()});
  }
  content.next_message = document.at("next_message").get<std::uint64_t>();
  return content;
}

}  // namespace

std::string alarms_text(const std::map<std::string, Alarm>& alarms) {
  return to_json(alarms).dump(1, ' ', false, json::error_handler_t::replace) + "\n";
}

std::map<std::string, Alarm> alarms_from(const std::string& text) {
  return alarms_of(json::parse(text));
}

State::State(const base::fs::path& file) : file_(file) {
  if (!file_.parent_path().empty()) base::make_directories(file_.parent_path());
  lock_ = base::open_file(file_.string() + ".lock", O_RDWR | O_CREAT);
  if (::flock(lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    throw Error(Code::busy, fmt::format("could not begin: another daemon uses {}", file_.string()),
                "stop it, or give each its own \"state\" in [serve]");
  }
  read();
  writer_ = std::jthread([this](const std::stop_token& stop) { work(stop); });
}

void State::read() {
  const auto bytes = base::read_file(file_);
  if (!bytes) return;
  try {
    content_ = content_of(json::parse(base::text(*bytes)));
  } catch (const std::exception& error) {
    content_ = {};
    const base::fs::path aside = file_.string() + ".damaged";
    base::fs::rename(file_, aside);
    unreadable_ = fmt::format(
        "{} could not be understood ({}) and is now {}: what ran before is "
        "not known",
        file_.string(), error.what(), aside.string());
  }
}

State::Content State::content() const {
  const std::lock_guard lock(mutex_);
  return content_;
}

JobRecord State::job(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  const auto found = content_.jobs.find(name);
  return found == content_.jobs.end() ? JobRecord{} : found->second;
}

void State::change(const std::function<void(Content&)>& change) {
  std::unique_lock lock(mutex_);
  change(content_);
  const std::uint64_t mine = ++changes_;
  changed_.notify_all();
  // Once it hangs nobody waits for it any more.
  const bool hangs = writing_since_ && Clock::now() - *writing_since_ > longest_wait;
  if (!hangs) changed_.wait_for(lock, longest_wait, [&] { return written_ >= mine; });
}

bool State::idle() const {
  const std::lock_guard lock(mutex_);
  return written_ == changes_;
}

void State::work(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  for (;;) {
    const auto is_changed = [&] { return written_ != changes_; };
    if (unwritable_.empty()) {
      changed_.wait(lock, stop, is_changed);
    } else {
      changed_.wait_for(lock, stop, try_again_after, is_changed);
    }
    if (stop.stop_requested() && !is_changed()) return;
    const std::uint64_t now = changes_;
    const std::string text =
        to_json(content_).dump(1, ' ', false, json::error_handler_t::replace) + "\n";
    writing_since_ = Clock::now();
    lock.unlock();
    std::string why;
    try {
      base::replace_file(file_, base::view(text));
    } catch (const std::exception& error) {
      why = fmt::format("what the daemon does could not be noted: {}", error.what());
    }
    lock.lock();
    writing_since_.reset();
    written_ = now;
    unwritable_ = why;
    changed_.notify_all();
  }
}

std::string State::trouble() const {
  const std::lock_guard lock(mutex_);
  if (writing_since_ && Clock::now() - *writing_since_ > hangs_after) {
    return fmt::format("what the daemon does could not be noted: the disk of {} hangs",
                       file_.string());
  }
  return unwritable_.empty() ? unreadable_ : unwritable_;
}

}  // namespace holdfast::serve
