#pragma once

// `holdfast serve`: keeps the schedule, WAL receivers and probes going, looks at how things are,
// and raises alarms.
//
// Everything that can hang is in a thread or a process of its own; this one only looks at signals,
// at whether a worker is stuck, and tells systemd that it is alive. SIGHUP reads the configuration
// again; one that is wrong changes nothing and raises an alarm. SIGTERM and SIGINT end it: children
// are asked to end, and it waits for them for at most 40 seconds, and for threads that wait for a
// repository for at most 10: they end with the process, as none can be torn from a system call.
// With [serve] listen it shows how things are (serve/pages.h).

#include <map>
#include <memory>

#include "serve/pages.h"
#include "serve/service_manager.h"
#include "serve/watch.h"
#include "serve/worker.h"

namespace holdfast::serve {

class Daemon {
 public:
  /// Blocks the signals that it waits for: must be made before any other thread is. Throws
  /// Error(configuration), Error(busy) if another daemon has the state file.
  explicit Daemon(const base::fs::path& configuration);
  ~Daemon();
  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;

  /// Returns when a signal has asked it to end and all is ended.
  void run();

 private:
  using Settings = std::shared_ptr<const operations::Configuration>;
  void check(const operations::Configuration& configuration) const;
  void apply(const operations::Configuration& configuration);
  void reload();
  void listen(const std::string& wanted);
  Picture picture() const;
  void take_picture();
  void look_after_workers();
  void forget_those_who_left();
  void forget_what_is_not_configured();
  void end();
  bool has_children() const;
  bool all_over() const;

  base::fs::path path_;
  ServiceManager manager_;
  Settings settings_;
  std::unique_ptr<State> state_;
  std::unique_ptr<Alarms> alarms_;
  base::fs::path program_;
  std::map<std::string, std::unique_ptr<Worker>> workers_;
  std::map<std::string, std::unique_ptr<Watch>> watches_;
  std::vector<std::unique_ptr<Worker>> leaving_;  ///< of jobs that the configuration has no more
  std::vector<std::unique_ptr<Watch>> leaving_watches_;
  const base::Timestamp started_ = base::now();
  std::mutex picture_mutex_;
  Picture picture_;
  std::chrono::steady_clock::time_point taken_{};
  std::string listens_at_;
  std::unique_ptr<service::HttpListener> listener_;  ///< the last: its thread uses the others
};

}  // namespace holdfast::serve
