#include "serve/alarms.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/http.h"
#include "base/process.h"
#include "operations/evidence.h"
#include "serve/log.h"

namespace holdfast::serve {

namespace {

using base::Code;
using base::Error;
using base::Timestamp;
using nlohmann::json;

constexpr std::chrono::hours reminder{24};
constexpr std::chrono::seconds delivery_limit{30};
constexpr std::chrono::seconds pause_after_failure{60};
/// What nobody could be told for so long that there are more is dropped, the oldest first.
constexpr std::size_t largest_outbox = 1000;

void tell(State::Content& content, const Alarm& alarm, std::string_view event, Timestamp now,
          const std::vector<std::string>& channels, const std::string& host) {
  const json document = {{"event", event},
                         {"alarm", alarm.id},
                         {"severity", alarm.bad ? "bad" : "warning"},
                         {"what", alarm.what},
                         {"remedy", alarm.remedy},
                         {"since", base::to_iso(alarm.since)},
                         {"time", base::to_iso(now)},
                         {"host", host}};
  for (const std::string& channel : channels) {
    content.outbox.push_back(
        {content.next_message++, channel,
         fmt::format("holdfast on {}: {} {}: {}", host, alarm.id, event, alarm.what),
         document.dump(-1, ' ', false, json::error_handler_t::replace)});
  }
  if (content.outbox.size() > largest_outbox) {
    content.outbox.erase(content.outbox.begin(), content.outbox.end() - largest_outbox);
  }
}

/// A program that gets `input`; ended when it takes too long.
void run_limited(std::vector<std::string> argv, std::string input,
                 std::vector<std::pair<std::string, std::string>> environment) {
  argv.insert(argv.begin(), {"timeout", "-k", "5", std::to_string(delivery_limit.count())});
  base::Command command;
  command.argv = std::move(argv);
  command.input = std::move(input);
  command.environment = std::move(environment);
  base::run_checked(command);
}

std::string mail_of(const operations::AlertSettings& settings, const Message& message) {
  std::string to;
  for (const std::string& each : settings.emails) to += (to.empty() ? "" : ", ") + each;
  const json document = json::parse(message.document);
  return fmt::format(
      "To: {}\nSubject: {}\nContent-Type: text/plain; charset=utf-8\n\n{}\n\n{}\n\nSince: {}\n", to,
      one_line(message.subject).substr(0, 500), document.at("what").get<std::string>(),
      document.at("remedy").get<std::string>(), document.at("since").get<std::string>());
}

bool is_of(const std::string& id, const std::string& scope) {
  return id == scope || id.starts_with(scope + "/");
}

}  // namespace

void settle_alarms(State::Content& content, const std::string& scope,
                   const std::vector<Alarm>& current, Timestamp now,
                   const std::vector<std::string>& channels, const std::string& host, bool silent) {
  std::set<std::string> lasting;
  for (Alarm alarm : current) {
    alarm.id = alarm.id.empty() ? scope : scope + "/" + alarm.id;
    if (!lasting.insert(alarm.id).second) continue;
    const auto [raised, is_new] = content.alarms.try_emplace(alarm.id, alarm);
    Alarm& known = raised->second;
    if (is_new) known.since = now;
    if (is_new) known.told = {};
    const bool begins = known.told == Timestamp();
    const bool is_worse = alarm.bad && !known.bad;
    // A clock that was put back must not silence the reminder for as long.
    const bool is_late = now - known.told >= reminder || known.told > now + reminder;
    known.bad = alarm.bad;
    known.what = alarm.what;
    known.remedy = alarm.remedy;
    if (silent || (!begins && !is_worse && !is_late)) continue;
    known.told = now;
    tell(content, known, begins ? "begins" : is_worse ? "worsens" : "lasts", now, channels, host);
  }
  std::erase_if(content.alarms, [&](const auto& each) {
    const auto& [id, alarm] = each;
    if (lasting.contains(id) || !is_of(id, scope)) return false;
    if (!silent && alarm.told != Timestamp()) tell(content, alarm, "ends", now, channels, host);
    return true;
  });
}

void adopt_alarms(State::Content& content, const std::string& scope,
                  const std::map<std::string, Alarm>& told) {
  for (const auto& [id, alarm] : told) {
    if (is_of(id, scope)) content.alarms[id] = alarm;
  }
}

std::map<std::string, Alarm> told_alarms(const State::Content& content, const std::string& scope) {
  std::map<std::string, Alarm> told;
  for (const auto& [id, alarm] : content.alarms) {
    if (is_of(id, scope) && alarm.told != Timestamp()) told[id] = alarm;
  }
  return told;
}

std::vector<std::string> channels_of(const operations::AlertSettings& settings) {
  std::vector<std::string> channels;
  if (!settings.webhook.empty()) channels.emplace_back("webhook");
  if (!settings.command.empty()) channels.emplace_back("command");
  if (!settings.emails.empty()) channels.emplace_back("email");
  return channels;
}

void deliver(const operations::AlertSettings& settings, const Message& message) {
  if (message.channel == "webhook") {
    base::HttpClient client;
    const base::HttpAnswer answer = client.ask({"POST",
                                                settings.webhook,
                                                {{"Content-Type", "application/json"}},
                                                message.document,
                                                std::chrono::seconds(10)});
    if (answer.status && *answer.status >= 200 && *answer.status < 300) return;
    // The URL may hold a secret, and is not said.
    base::fail(Code::unreachable, "the webhook {}",
               answer.status ? fmt::format("answered {}", *answer.status)
                             : "did not answer: " + answer.why_not);
  }
  if (message.channel == "command") {
    return run_limited({"/bin/sh", "-c", settings.command}, message.document,
                       {{"HOLDFAST_ALERT", message.subject}});
  }
  std::vector<std::string> argv{settings.sendmail.string(), "-i", "--"};
  argv.insert(argv.end(), settings.emails.begin(), settings.emails.end());
  run_limited(argv, mail_of(settings, message), {});
}

Alarms::Alarms(State& state) : state_(state) {
  const std::lock_guard lock(mutex_);
  for (const char* name : {"webhook", "command", "email"}) {
    ++working_;
    threads_.emplace_back(
        [this, channel = std::string(name)](const std::stop_token& stop) { work(channel, stop); });
  }
}

Alarms::~Alarms() {
  for (std::jthread& each : threads_) each.request_stop();
}

void Alarms::configure(const operations::AlertSettings& settings) {
  const auto channels = channels_of(settings);
  state_.change([&](State::Content& content) {
    std::erase_if(content.outbox, [&](const Message& each) {
      return std::ranges::find(channels, each.channel) == channels.end();
    });
  });
  const std::lock_guard lock(mutex_);
  settings_ = settings;
  // Whether one that failed works now shows when it takes a message: there is one that waits.
  std::erase_if(failing_, [&](const auto& each) {
    return std::ranges::find(channels, each.first) == channels.end();
  });
  ++changes_;
  changed_.notify_all();
}

void Alarms::settle(const std::string& scope, const std::vector<Alarm>& current, bool silent) {
  std::vector<std::string> channels;
  {
    const std::lock_guard lock(mutex_);
    channels = channels_of(settings_);
  }
  const std::string host = operations::host_name();
  // Most of the time nothing changes, and then nothing is written.
  const State::Content before = state_.content();
  State::Content after = before;
  settle_alarms(after, scope, current, base::now(), channels, host, silent);
  if (after.alarms == before.alarms && after.next_message == before.next_message) return;
  for (const auto& [id, alarm] : after.alarms) {
    const auto known = before.alarms.find(id);
    if (known == before.alarms.end() || (alarm.bad && !known->second.bad)) {
      say(fmt::format("{} {}: {}", alarm.bad ? "ALARM" : "warning", id, alarm.what));
    }
  }
  for (const auto& [id, alarm] : before.alarms) {
    if (!after.alarms.contains(id)) say(fmt::format("over: {}: {}", id, alarm.what));
  }
  state_.change([&](State::Content& content) {
    settle_alarms(content, scope, current, base::now(), channels, host, silent);
  });
  const std::lock_guard lock(mutex_);
  ++changes_;
  changed_.notify_all();
}

void Alarms::adopt(const std::string& scope, const std::map<std::string, Alarm>& told) {
  state_.change([&](State::Content& content) { adopt_alarms(content, scope, told); });
}

std::map<std::string, Alarm> Alarms::told(const std::string& scope) const {
  return told_alarms(state_.content(), scope);
}

std::map<std::string, std::string> Alarms::failing() const {
  const std::lock_guard lock(mutex_);
  return failing_;
}

bool Alarms::stop() {
  for (std::jthread& each : threads_) each.request_stop();
  const std::lock_guard lock(mutex_);
  return working_ == 0;
}

void Alarms::work(const std::string& name, const std::stop_token& stop) {
  const auto mine = [&]() -> std::optional<Message> {
    const State::Content content = state_.content();
    for (const Message& each : content.outbox) {
      if (each.channel == name) return each;
    }
    return std::nullopt;
  };
  while (!stop.stop_requested()) {
    std::unique_lock lock(mutex_);
    const std::uint64_t seen = changes_;
    const auto message = mine();
    const operations::AlertSettings settings = settings_;
    const auto channels = channels_of(settings);
    if (!message || std::ranges::find(channels, name) == channels.end()) {
      changed_.wait_for(lock, stop, std::chrono::seconds(60), [&] { return changes_ != seen; });
      continue;
    }
    lock.unlock();
    std::string why;
    try {
      deliver(settings, *message);
    } catch (const std::exception& error) {
      why = error.what();
    }
    lock.lock();
    if (!why.empty()) {
      if (!failing_.contains(name)) say(fmt::format("could not tell by {}: {}", name, why));
      failing_[name] = why;
      changed_.wait_for(lock, stop, pause_after_failure, [&] { return changes_ != seen; });
      continue;
    }
    if (failing_.erase(name) > 0) say(fmt::format("{} takes messages again", name));
    lock.unlock();
    state_.change([&](State::Content& content) {
      std::erase_if(content.outbox,
                    [&](const Message& each) { return each.number == message->number; });
    });
  }
  const std::lock_guard lock(mutex_);
  --working_;
}

}  // namespace holdfast::serve
