#pragma once

// Alarms: what is wrong now, told once when it begins, every 24 hours while it lasts, and once when
// it ends. What is raised and what was not delivered yet outlive the daemon.
//
// Each channel (webhook, command, e-mail) has a thread and a time limit of its own, so that one
// that hangs delays nothing else. What it cannot deliver it tries again, every minute at most.

#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "operations/serve_settings.h"
#include "serve/state.h"

namespace holdfast::serve {

/// What the alarms of `scope` ("status/main") are now: those that were not raised begin, those that
/// are not in `current` any more end. What is to be told to each of `channels` is in the outbox
/// then. `silent`: another daemon tells; nothing is, and what begins counts as never told.
void settle_alarms(State::Content& content, const std::string& scope,
                   const std::vector<Alarm>& current, base::Timestamp now,
                   const std::vector<std::string>& channels, const std::string& host,
                   bool silent = false);
/// Goes on where another daemon has stopped telling.
void adopt_alarms(State::Content& content, const std::string& scope,
                  const std::map<std::string, Alarm>& told);
/// Those of one scope that somebody was told of.
std::map<std::string, Alarm> told_alarms(const State::Content& content, const std::string& scope);

/// The names of the channels that are configured: "webhook", "command", "email".
std::vector<std::string> channels_of(const operations::AlertSettings& settings);

/// Tells one message; throws Error if it was not taken.
void deliver(const operations::AlertSettings& settings, const Message& message);

class Alarms {
 public:
  explicit Alarms(State& state);
  ~Alarms();
  Alarms(const Alarms&) = delete;
  Alarms& operator=(const Alarms&) = delete;

  /// From now on; what was meant for a channel that is gone is dropped.
  void configure(const operations::AlertSettings& settings);
  void settle(const std::string& scope, const std::vector<Alarm>& current, bool silent = false);
  void adopt(const std::string& scope, const std::map<std::string, Alarm>& told);
  std::map<std::string, Alarm> told(const std::string& scope) const;
  /// No message is begun any more; true once none is at work.
  bool stop();
  /// Channels that do not deliver at present, and why: for the log, as a URL may be in it.
  std::map<std::string, std::string> failing() const;

 private:
  void work(const std::string& name, const std::stop_token& stop);

  State& state_;
  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::uint64_t changes_ = 0;
  operations::AlertSettings settings_;
  std::map<std::string, std::string> failing_;
  int working_ = 0;  ///< threads
  std::vector<std::jthread> threads_;
};

}  // namespace holdfast::serve
