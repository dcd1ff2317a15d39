#pragma once

// Looking regularly, as `holdfast status` does: its findings are the alarms, and nothing else is
// (TRAPS DS6). It is asked as a command, so that one that hangs can be ended.

#include <condition_variable>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "operations/configuration.h"
#include "serve/alarms.h"
#include "serve/speaker.h"

namespace holdfast::serve {

/// What `status --json` printed: a document for each repository.
struct StatusLook {
  base::Timestamp at;
  std::vector<nlohmann::json> reports;
};

/// Alarms of all findings that are not good. Throws Error(corrupt) for what is no such document.
std::vector<Alarm> alarms_of(const std::vector<nlohmann::json>& reports);

/// Documents that follow each other.
std::vector<nlohmann::json> parse_documents(const std::string& text);

/// Looks at one cluster, every so often, until it is destroyed.
class Watch {
 public:
  using Settings = std::shared_ptr<const operations::Configuration>;
  Watch(Alarms& alarms, base::fs::path program, std::string cluster, Settings settings);

  void update(Settings settings);
  void stop();
  bool over() const { return over_ && speaker_.over(); }
  /// The last look that succeeded.
  std::optional<StatusLook> last() const;
  const std::string& cluster() const { return cluster_; }

 private:
  void run(const std::stop_token& stop);
  bool look(const Settings& settings, const std::stop_token& stop);
  void tell(const std::vector<Alarm>& found);
  void trouble(const std::string& why);

  Alarms& alarms_;
  base::fs::path program_;
  std::string cluster_;
  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  Settings settings_;
  Speaker speaker_;
  std::optional<StatusLook> last_;
  std::atomic<bool> over_{false};
  std::jthread thread_;
};

}  // namespace holdfast::serve
