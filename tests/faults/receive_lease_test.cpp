// A receiver that stood still, or whose repository was full, for longer than its lease lasts.

#include <fstream>

#include "base/workers.h"
#include "fault_store.h"
#include "harness/receiver.h"
#include "operations/wal_receive.h"

namespace holdfast::tests {
namespace {

using base::Code;

constexpr std::chrono::seconds term{1};

/// Receives in a process of its own, under a lease that lasts a second.
class ShortLease {
 public:
  ShortLease(const Place& place, std::string_view name)
      : said_(place.path(name)), thread_([this, &place] {
          ended_ = in_a_process([&] {
            base::catch_interrupts();
            std::ofstream said(said_);
            said << ::getpid() << std::endl;
            const auto configuration = operations::read_configuration(place.configuration());
            const operations::Site site = operations::open_site(configuration, "");
            operations::ReceiveRequest request;
            request.lease_term = term;
            request.say = [&](const std::string& line) { said << line << std::endl; };
            operations::receive_wal(site, request);
          });
          over_ = true;
        }) {}
  ~ShortLease() {
    if (!over_) signal(SIGKILL);
  }

  std::string said() const { return fs::exists(said_) ? text_of(said_) : ""; }
  void await(std::string_view words) const {
    eventually(words, [&] {
      if (over_) throw std::runtime_error("it ended: " + ended_.why + said());
      return said().find(words) != std::string::npos;
    });
  }
  void signal(int number) const { ::kill(std::stoi(said()), number); }
  Ended wait() {
    thread_.join();
    return ended_;
  }

 private:
  fs::path said_;
  Ended ended_;
  std::atomic<bool> over_ = false;
  std::jthread thread_;
};

void let_pass(std::chrono::milliseconds time) {
  const auto until = std::chrono::steady_clock::now() + time;
  eventually("time passes", [&] { return std::chrono::steady_clock::now() > until; });
}

class ReceiveLease : public ReceiveTest {};

TEST_F(ReceiveLease, that_ran_out_while_the_process_stood_still_is_taken_again) {
  ShortLease receiver(place_, "said");
  receiver.await("receiving WAL");
  insert("before");
  await_all_stored(*source_);
  receiver.signal(SIGSTOP);
  insert("meanwhile");
  let_pass(term + std::chrono::milliseconds(500));
  receiver.signal(SIGCONT);
  receiver.await("the lease had run out");
  insert("after");
  await_all_stored(*source_);
  receiver.signal(SIGTERM);
  const Ended ended = receiver.wait();
  EXPECT_EQ(ended.status, 0) << ended.why;
  EXPECT_EQ(rows(*place_.restored(*source_, "restored")), "before meanwhile after");
}

TEST_F(ReceiveLease, that_somebody_else_took_meanwhile_is_his) {
  ShortLease first(place_, "first");
  first.await("receiving WAL");
  first.signal(SIGSTOP);
  let_pass(2 * term + std::chrono::milliseconds(500));
  source_->sql("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active");
  ShortLease second(place_, "second");
  second.await("receiving WAL");
  first.signal(SIGCONT);
  EXPECT_EQ(first.wait().status, status_of(Code::busy)) << first.said();
  insert("after");
  await_all_stored(*source_);
  second.signal(SIGTERM);
  EXPECT_EQ(second.wait().status, 0);
}

TEST_F(ReceiveLease, that_ran_out_on_a_full_repository_is_taken_again_once_there_is_room) {
  source_->sql("SELECT 1");
  const fs::path moved = place_.path("moved");
  fs::rename(place_.repository(), moved);
  const SmallDisk disk(place_, place_.repository(), "64m");
  fs::copy(moved, place_.repository(), fs::copy_options::recursive);
  for (const auto& each : fs::recursive_directory_iterator(place_.repository())) {
    place_.give_to_server_user(each.path());
  }
  ShortLease receiver(place_, "said");
  receiver.await("receiving WAL");
  disk.grow(std::to_string(disk.used()));
  insert("while it is full");
  receiver.await("trying again");
  let_pass(term + std::chrono::milliseconds(500));
  const Result status = place_.holdfast({"status"});
  EXPECT_NE(status.status, 0);
  EXPECT_NE(status.output.find("file system is full"), std::string::npos) << status.output;
  EXPECT_NE(status.output.find("the last commit in it is of"), std::string::npos) << status.output;
  disk.grow("64m");
  receiver.await("the lease had run out");
  await_all_stored(*source_);
  receiver.signal(SIGTERM);
  const Ended ended = receiver.wait();
  EXPECT_EQ(ended.status, 0) << ended.why << receiver.said();
}

}  // namespace
}  // namespace holdfast::tests
