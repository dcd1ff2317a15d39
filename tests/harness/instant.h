#pragma once

// Instant restores in tests. Only root, or who may open /dev/fuse, can mount; as root the mount is
// served by root and used by the server's user.

#include "harness/witness.h"
#include "mount/fuse_mount.h"
#include "operations/instant_mount.h"

namespace holdfast::tests {

/// The binary, run as whoever runs the tests.
inline Result holdfast_as_self(const Place& place, const std::vector<std::string>& arguments) {
  base::Command command;
  command.argv = {holdfast_binary().string(), "--config", place.configuration().string()};
  command.argv.insert(command.argv.end(), arguments.begin(), arguments.end());
  base::Outcome outcome = base::run(command);
  return {outcome.status, std::move(outcome.output), std::move(outcome.errors)};
}

/// Skips the test where nobody can mount (as root that is a failure: root can).
#define NEEDS_FUSE() \
  if (const auto why = mount::cannot_mount(); why && !base::running_as_root()) GTEST_SKIP() << *why

/// Lets an instant restore that is not made yet begin with its hydration paused.
inline void begin_paused(const Place& place, std::string_view name) {
  const auto state = operations::instant_place(place.path(name)).state();
  fs::create_directory(state);
  overwrite(state / "paused", "paused\n");
}

/// An instant restore below a place. Removed, and its server stopped, at the end of its life.
class Mounted {
 public:
  Mounted(const Place& place, const Cluster& source, std::string_view name,
          const std::vector<std::string>& arguments = {})
      : place_(place), instant_(operations::instant_place(place.path(name))) {
    std::vector<std::string> restore = {"restore", instant_.directory.string(), "--instant"};
    restore.insert(restore.end(), arguments.begin(), arguments.end());
    must(restore);
    cluster_ = adopt(source.installation(), instant_.directory);
  }
  ~Mounted() {
    cluster_.reset();
    holdfast_as_self(place_, {"unmount", "--discard", "--yes", instant_.directory.string()});
  }
  Mounted(const Mounted&) = delete;
  Mounted& operator=(const Mounted&) = delete;

  Cluster& cluster() { return *cluster_; }
  const operations::InstantPlace& instant() const { return instant_; }
  std::string directory() const { return instant_.directory.string(); }
  operations::InstantStatus status() const { return operations::instant_status(instant_); }

  Result run(const std::vector<std::string>& arguments) const {
    return holdfast_as_self(place_, arguments);
  }
  Result must(const std::vector<std::string>& arguments) const {
    Result result = run(arguments);
    EXPECT_EQ(result.status, 0) << arguments.front() << ": " << result.errors << result.output;
    return result;
  }
  /// Starts the server; recovery has ended when this returns.
  void start(const postgres::Settings& settings = {}) {
    cluster_->start(settings);
    cluster_->server().await_recovery_end(std::chrono::seconds(120));
  }
  void await_hydrated() const {
    eventually("everything is local", [&] { return status().complete; });
  }
  /// kill -9 to the process that serves.
  void kill_mount() const {
    const auto pid = operations::serving_process(instant_);
    ASSERT_TRUE(pid) << "nobody serves";
    ::kill(*pid, SIGKILL);
    eventually("it is dead", [&] { return !status().mounted; });
  }

 private:
  const Place& place_;
  const operations::InstantPlace instant_;
  std::unique_ptr<Cluster> cluster_;
};

}  // namespace holdfast::tests
