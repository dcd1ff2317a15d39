#include "base/workers.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>

#include "base/error.h"

namespace holdfast::base {
namespace {

void wait_for_stop(const std::stop_token& stop) {
  while (!stop.stop_requested()) std::this_thread::yield();
}

TEST(Workers, each_do_their_part_once) {
  std::mutex mutex;
  std::multiset<unsigned> seen;
  run_workers(5, [&](unsigned index, const std::stop_token&) {
    const std::lock_guard lock(mutex);
    seen.insert(index);
  });
  EXPECT_EQ(seen, (std::multiset<unsigned>{0, 1, 2, 3, 4}));
  run_workers(0, [](unsigned, const std::stop_token&) { FAIL(); });
}

TEST(Workers, stop_when_one_of_them_fails_and_tell_why) {
  std::atomic<int> stopped = 0;
  try {
    run_workers(4, [&](unsigned index, const std::stop_token& stop) {
      // Holds up the one that fails while the others hear of it: they are quicker to say why.
      const std::stop_callback hold_up(
          stop, [] { std::this_thread::sleep_for(std::chrono::milliseconds(20)); });
      if (index == 2) throw Error(Code::corrupt, "the first reason");
      wait_for_stop(stop);
      ++stopped;
      throw std::runtime_error("a later reason");
    });
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.message(), "the first reason");
  }
  EXPECT_EQ(stopped, 3);
}

TEST(Workers, are_as_many_as_there_are_processors_or_one) {
  EXPECT_GE(default_workers(), 1U);
}

TEST(Interrupts, are_nothing_without_a_signal) {
  EXPECT_FALSE(interrupted());
  stop_if_interrupted();
}

/// Ends with 7 if the workers stopped with Error(interrupted).
[[noreturn]] void work_until_a_signal_comes() {
  catch_interrupts();
  try {
    run_workers(2, [](unsigned index, const std::stop_token& stop) {
      if (index == 0) ::kill(::getpid(), SIGTERM);
      wait_for_stop(stop);
    });
  } catch (const Error& error) {
    ::_exit(error.code() == Code::interrupted && interrupted() ? 7 : 8);
  }
  ::_exit(9);
}

TEST(Interrupts, stop_the_workers_and_are_told) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(work_until_a_signal_comes(), ::testing::ExitedWithCode(7), "");
}

[[noreturn]] void ignore_three_signals() {
  catch_interrupts();
  for (int i = 0; i < 2; ++i) ::raise(SIGINT);
  if (!interrupted()) ::_exit(8);
  ::raise(SIGTERM);
  ::_exit(9);
}

TEST(Interrupts, end_the_process_when_they_come_three_times) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(ignore_three_signals(),
              ::testing::ExitedWithCode(info(Code::interrupted).exit_status), "");
}

}  // namespace
}  // namespace holdfast::base
