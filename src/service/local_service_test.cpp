#include "service/local_service.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "base/file.h"

namespace holdfast::service {
namespace {

template <typename Condition>
bool becomes(const Condition& condition) {
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > limit) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

/// Starts a service that starts another process, whose number it writes down.
LocalServiceOptions with_grandchild(const base::fs::path& directory) {
  LocalServiceOptions options;
  options.command = "sleep 300 & echo $! > number.new; mv number.new number; wait";
  options.directory = directory;
  options.log = directory / "log";
  return options;
}

bool is_there(pid_t process) {
  // One that was killed and that nobody has waited for yet does nothing any more.
  const auto status = base::read_file("/proc/" + std::to_string(process) + "/stat");
  return status && base::text(*status).find(") Z ") == std::string_view::npos;
}

pid_t number_in(const base::fs::path& directory) {
  return static_cast<pid_t>(
      std::stol(std::string(base::text(base::read_existing_file(directory / "number")))));
}

TEST(LocalService, leaves_nothing_behind_when_we_are_killed) {
  const base::TemporaryDirectory directory("service");
  const pid_t owner = ::fork();
  if (owner == 0) {
    const LocalService service(with_grandchild(directory.path()));
    for (;;) ::pause();
  }
  ASSERT_TRUE(becomes([&] { return base::status_of(directory.path() / "number").has_value(); }));
  const pid_t grandchild = number_in(directory.path());
  EXPECT_TRUE(is_there(grandchild));
  ::kill(owner, SIGKILL);
  ::waitpid(owner, nullptr, 0);
  EXPECT_TRUE(becomes([&] { return !is_there(grandchild); }));
}

TEST(LocalService, leaves_nothing_behind_when_it_goes) {
  const base::TemporaryDirectory directory("service");
  std::optional<LocalService> service(std::in_place, with_grandchild(directory.path()));
  ASSERT_TRUE(becomes([&] { return base::status_of(directory.path() / "number").has_value(); }));
  service.reset();
  EXPECT_TRUE(becomes([&] { return !is_there(number_in(directory.path())); }));
}

}  // namespace
}  // namespace holdfast::service
