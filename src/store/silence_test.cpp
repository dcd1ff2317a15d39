#include "store/silence.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>

#include "base/testing.h"

namespace holdfast::store {
namespace {

class Said {
 public:
  void add(const std::string& what) {
    const std::lock_guard lock(mutex_);
    all_ += what + "\n";
    changed_.notify_all();
  }
  bool await(const std::string& what) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(30),
                             [&] { return all_.find(what) != std::string::npos; });
  }
  bool empty() {
    const std::lock_guard lock(mutex_);
    return all_.empty();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string all_;
};

TEST(Silence, is_spoken_of_while_it_lasts_and_when_it_ends) {
  Said said;
  const SilenceWatch watch(std::chrono::milliseconds(20),
                           [&](const std::string& what) { said.add(what); });
  {
    const Asking call("/some/where");
    EXPECT_TRUE(said.await("/some/where has not answered"));
  }
  EXPECT_TRUE(said.await("/some/where answers again"));
}

TEST(Silence, is_not_spoken_of_when_all_calls_are_answered_or_nobody_watches) {
  Said said;
  const Asking unwatched("/before");
  {
    const SilenceWatch watch(std::chrono::hours(1),
                             [&](const std::string& what) { said.add(what); });
    for (int i = 0; i < 1000; ++i) const Asking call("/some/where");
  }
  const Asking after("/after");
  EXPECT_TRUE(said.empty());
}

TEST(Silence, what_is_not_there_answers_too) {
  EXPECT_EQ(answering({"/", "file:///no/such/directory"}, std::chrono::seconds(30)),
            (std::vector<bool>{true, true}));
}

}  // namespace
}  // namespace holdfast::store
