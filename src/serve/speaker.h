#pragma once

// Who speaks: of several daemons that share a repository one tells people what `status` finds of a
// cluster, the one that holds the lease "serve-alarms".
//
// What it has told it leaves in the repository, so that whoever speaks after it goes on from there:
// nothing is told twice, and what ends is said to have ended. A daemon that reaches no repository
// speaks for itself, as it cannot know whether another one does.
//
// All that may hang is done in a thread of its own.

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "operations/configuration.h"
#include "repository/lease.h"

namespace holdfast::serve {

class Speaker {
 public:
  using Settings = std::shared_ptr<const operations::Configuration>;
  Speaker(std::string cluster, Settings settings);
  ~Speaker() = default;

  /// Another daemon tells. False until it is known: nothing is kept from people for want of an
  /// answer.
  bool listens() const { return listens_; }
  /// Waits for the first answer of a repository, but not long.
  void await_first_answer(const std::stop_token& stop) const;
  /// What had been told when it became our turn; each once.
  std::optional<std::string> take_over();
  /// What has been told by now. Kept for whoever comes next, as soon as that can be done.
  void leave(std::string told);
  /// The lease is taken anew, where these settings say.
  void update(Settings settings);
  void stop() { thread_.request_stop(); }
  bool over() const { return over_; }

 private:
  void run(const std::stop_token& stop);
  void hold(const std::stop_token& stop);
  std::uint64_t generation() const;

  const std::string cluster_;
  mutable std::mutex mutex_;
  Settings settings_;
  std::uint64_t generation_ = 0;
  std::optional<std::string> found_;
  std::optional<std::string> told_;
  std::atomic<bool> answered_{false};
  std::atomic<bool> listens_{false};
  std::atomic<bool> over_{false};
  std::jthread thread_;
};

/// The record of what was told, among the objects of a cluster: the newest is the one that counts.
std::optional<std::string> read_told(const repository::Repository& repository,
                                     const repository::ClusterPlace& place);
/// Only by the holder of lease number `lease`; `count` grows. Older ones go.
void write_told(const repository::Repository& repository, const repository::ClusterPlace& place,
                std::uint64_t lease, std::uint64_t count, const std::string& told);

}  // namespace holdfast::serve
