#include "repository/lease.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <barrier>
#include <nlohmann/json.hpp>

#include "base/workers.h"
#include "repository/testing.h"
#include "store/directory_store.h"

namespace {

/// How far the clocks are ahead of the real ones, shared with children. Steps take the place of
/// waits.
struct Clocks {
  std::atomic<std::int64_t> everyone_set{0};  ///< seconds that only the wall clock is ahead
  std::atomic<std::int64_t> passed{0};        ///< seconds that have passed for every clock
};
Clocks& clocks() {
  static auto* shared = new (::mmap(nullptr, sizeof(Clocks), PROT_READ | PROT_WRITE,
                                    MAP_SHARED | MAP_ANONYMOUS, -1, 0)) Clocks;
  return *shared;
}

}  // namespace

/// Stands in for the one of the C library in this test program.
extern "C" int clock_gettime(clockid_t clock, struct timespec* time) noexcept {
  const auto result = static_cast<int>(::syscall(SYS_clock_gettime, clock, time));
  if (clock == CLOCK_REALTIME) time->tv_sec += clocks().everyone_set + clocks().passed;
  if (clock == CLOCK_BOOTTIME) time->tv_sec += clocks().passed;
  return result;
}

namespace holdfast::repository {
namespace {

using namespace std::chrono_literals;
using base::Code;
using nlohmann::json;
using testing::code_of;
using testing::Objects;
using testing::place;

const std::string directory = place.directory() + "/leases/backup";
std::string object(const std::string& name) {
  return directory + "/" + name;
}

class LeaseTest : public ::testing::Test {
 protected:
  ~LeaseTest() override {
    clocks().everyone_set = 0;
    clocks().passed = 0;
  }
  std::unique_ptr<Lease> take(std::chrono::seconds term = 60s) {
    return std::make_unique<Lease>(made_.repository, place, "backup", term);
  }
  Code refusal() {
    return code_of([&] { take(); });
  }
  std::vector<std::string> names() { return made_.repository.store().names(directory); }
  json read(const std::string& name) { return json::parse(base::text(objects_->at(object(name)))); }
  void write(const std::string& name, const json& content) {
    const std::lock_guard lock(objects_->mutex);
    objects_->all[object(name)] = base::copy(base::view(content.dump()));
  }
  /// Lets `step` happen once, right after (or before) such a call.
  void once(Objects::Hook& hook, std::string wanted, std::function<void()> step) {
    objects_->set(hook, [this, &hook, wanted = std::move(wanted), step = std::move(step)](
                            std::string_view call, const std::string& name) {
      if (call != wanted || name.find("/leases/") == std::string::npos) return;
      objects_->set(hook, [](std::string_view, const std::string&) {});
      step();
    });
  }
  /// Waits for what the renewing thread does next: at most ten real seconds.
  static bool comes(auto&& condition) {
    const auto end = std::chrono::steady_clock::now() + 10s;
    while (!condition() && std::chrono::steady_clock::now() < end) std::this_thread::sleep_for(1ms);
    return condition();
  }
  static bool is_held(const Lease& lease) {
    return testing::succeeds_or(Code::busy, [&] { lease.check(); });
  }

  testing::TestRepository made_{false};
  std::shared_ptr<Objects> objects_ = made_.objects;
};

TEST_F(LeaseTest, is_held_by_one_and_free_again_when_it_goes) {
  {
    const auto lease = take();
    EXPECT_EQ(lease->number(), 1U);
    lease->check();
    try {
      take();
      FAIL();
    } catch (const base::Error& error) {
      EXPECT_EQ(error.code(), Code::busy);
      EXPECT_NE(error.message().find(std::to_string(::getpid())), std::string::npos);
      EXPECT_NE(error.message().find("cluster main"), std::string::npos) << error.message();
    }
    const Lease other(made_.repository, place, "expire");  // another work, another lease
  }
  EXPECT_EQ(take()->number(), 2U);
}

TEST_F(LeaseTest, is_won_by_one_of_many_racers_LC1) {
  const base::TemporaryDirectory files("lease");
  const Repository::Created made =
      Repository::create(std::make_unique<store::DirectoryStore>(files.path()), {});
  constexpr unsigned racers = 4;
  for (std::uint64_t round = 1; round <= 10; ++round) {
    std::barrier together(racers);
    std::atomic<unsigned> winners = 0;
    base::run_workers(racers, [&](unsigned, const std::stop_token&) {
      std::unique_ptr<Lease> lease;
      together.arrive_and_wait();
      winners += testing::succeeds_or(Code::busy, [&] {
        lease = std::make_unique<Lease>(made.repository, place, "backup");
        EXPECT_EQ(lease->number(), round);
      });
      together.arrive_and_wait();
    });
    EXPECT_EQ(winners, 1U);
  }
}

TEST_F(LeaseTest, tells_since_when_it_is_held_and_stays_as_it_was) {
  testing::TestRepository test(false);
  EXPECT_EQ(held_since(test.repository, place, "backup"), std::nullopt);
  const base::Timestamp before = base::now();
  {
    const Lease lease(test.repository, place, "backup");
    const auto objects = test.objects->all;
    const auto since = held_since(test.repository, place, "backup");
    ASSERT_TRUE(since);
    EXPECT_GE(*since, before);
    EXPECT_LE(*since, base::now());
    EXPECT_EQ(held_since(test.repository, place, "migration"), std::nullopt);
    EXPECT_EQ(test.objects->all, objects);
    lease.check();
  }
  EXPECT_EQ(held_since(test.repository, place, "backup"), std::nullopt) << "it was released";
}

TEST_F(LeaseTest, of_a_holder_that_was_killed_is_taken_over_at_once) {
  const base::TemporaryDirectory files("lease");
  const auto open_store = [&] { return std::make_unique<store::DirectoryStore>(files.path()); };
  Repository::create(open_store(), {});
  for (std::uint64_t crash = 1; crash <= 3; ++crash) {  // LC5: three crashes in turn
    std::array<int, 2> ends{};
    ASSERT_EQ(::pipe(ends.data()), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      const Repository repository = Repository::open(open_store(), {});
      const Lease lease(repository, place, "backup");
      [[maybe_unused]] const ssize_t ignored = ::write(ends[1], "x", 1);
      while (true) ::pause();
    }
    char byte = 0;
    ASSERT_EQ(::read(ends[0], &byte, 1), 1);
    const Repository repository = Repository::open(open_store(), {});
    EXPECT_EQ(code_of([&] { const Lease early(repository, place, "backup"); }), Code::busy);
    EXPECT_NE(held_since(repository, place, "backup"), std::nullopt);
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    EXPECT_EQ(held_since(repository, place, "backup"), std::nullopt);
    if (crash == 3) {
      EXPECT_EQ(Lease(repository, place, "backup").number(), 4U);
    }
    ::close(ends[0]);
    ::close(ends[1]);
  }
}

// The child is stopped while its lease runs out and we take it. When it goes on, it knows that it
// lost.
TEST_F(LeaseTest, of_a_holder_that_was_stopped_is_lost_when_it_wakes_LC4) {
  const base::TemporaryDirectory files("lease");
  const auto open_store = [&] { return std::make_unique<store::DirectoryStore>(files.path()); };
  Repository::create(open_store(), {});
  std::array<int, 2> told{};
  std::array<int, 2> asked{};
  ASSERT_EQ(::pipe(told.data()) | ::pipe(asked.data()), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const Repository repository = Repository::open(open_store(), {});
    const Lease lease(repository, place, "backup", 1s);
    char byte = is_held(lease) ? 'H' : 'L';
    [[maybe_unused]] ssize_t ignored = ::write(told[1], &byte, 1);
    ignored = ::read(asked[0], &byte, 1);
    byte = is_held(lease) ? 'H' : 'L';
    ignored = ::write(told[1], &byte, 1);
    ::_exit(0);
  }
  char byte = 0;
  ASSERT_EQ(::read(told[0], &byte, 1), 1);
  EXPECT_EQ(byte, 'H');
  ::kill(child, SIGSTOP);
  ::waitpid(child, nullptr, WUNTRACED);
  const Repository repository = Repository::open(open_store(), {});
  EXPECT_EQ(code_of([&] { const Lease early(repository, place, "backup", 1s); }), Code::busy);
  clocks().passed += 100;
  const Lease successor(repository, place, "backup", 60s);
  const auto before = repository.store().names(directory);
  ::kill(child, SIGCONT);
  ASSERT_EQ(::write(asked[1], "?", 1), 1);
  ASSERT_EQ(::read(told[0], &byte, 1), 1);
  EXPECT_EQ(byte, 'L');
  ::waitpid(child, nullptr, 0);
  EXPECT_EQ(successor.number(), 2U);
  EXPECT_TRUE(is_held(successor));
  EXPECT_EQ(repository.store().names(directory), before);  // it wrote nothing more
  for (const int end : {told[0], told[1], asked[0], asked[1]}) ::close(end);
}

TEST_F(LeaseTest, is_over_when_its_term_is_LC4) {
  const auto lease = take(60s);
  clocks().passed += 59;
  EXPECT_TRUE(is_held(*lease));
  clocks().passed += 2;
  EXPECT_FALSE(is_held(*lease));
}

TEST_F(LeaseTest, of_an_unknown_holder_waits_for_one_more_term) {
  const auto lease = take();
  json holder = read("0000000001");
  holder["boot"] = "another machine";
  write("0000000001", holder);
  clocks().passed += 119;
  EXPECT_EQ(refusal(), Code::busy);
  clocks().passed += 2;
  EXPECT_EQ(take()->number(), 2U);
}

TEST_F(LeaseTest, is_extended_by_each_renewal_LC7) {
  const auto lease = take(1s);
  const std::string taken = read("0000000001").at("expires");
  EXPECT_TRUE(comes([&] { return objects_->names_with("-renewed-2").size() == 1; }));
  EXPECT_TRUE(is_held(*lease));
  EXPECT_GT(read("0000000001-renewed-2").at("expires").get<std::string>(), taken);
  EXPECT_EQ(refusal(), Code::busy);
  EXPECT_TRUE(comes([&] { return objects_->names_with("-renewed-1").empty(); }));
}

TEST_F(LeaseTest, is_lost_when_the_clock_is_put_back_and_no_renewal_extends_it_LC7) {
  const auto lease = take(1s);
  clocks().everyone_set -= 3600;
  EXPECT_TRUE(comes([&] { return !is_held(*lease); }));
  for (const std::string& name : names()) EXPECT_EQ(name.find("renewed"), std::string::npos);
}

TEST_F(LeaseTest, is_lost_at_once_when_the_clock_is_put_forward_LC7) {
  const auto lease = take(60s);
  clocks().everyone_set += 3600;
  EXPECT_FALSE(is_held(*lease));
}

TEST_F(LeaseTest, runs_out_even_if_the_clock_is_put_back_LC7) {
  const auto lease = take(60s);
  clocks().everyone_set -= 3600;
  clocks().passed += 61;
  EXPECT_FALSE(is_held(*lease));
}

TEST_F(LeaseTest, is_lost_to_a_higher_number_and_not_renewed_over_it_LC3) {
  const auto lease = take(1s);
  write("0000000002", read("0000000001"));
  EXPECT_TRUE(comes([&] { return !is_held(*lease); }));
  EXPECT_TRUE(objects_->names_with("-renewed-").empty());
}

TEST_F(LeaseTest, breaks_no_lease_that_was_broken_and_taken_meanwhile_LC2) {
  take();
  std::unique_ptr<Lease> winner;
  once(objects_->before, "commit", [&] { winner = take(); });
  EXPECT_EQ(refusal(), Code::busy);
  ASSERT_TRUE(winner);
  EXPECT_EQ(winner->number(), 2U);
  EXPECT_TRUE(is_held(*winner));
}

// Who slept after he had read the names finds his number free again, as it was used and removed.
TEST_F(LeaseTest, is_not_taken_by_a_sleeper_who_finds_an_old_number_free_LC5) {
  take();
  std::unique_ptr<Lease> winner;
  once(objects_->before, "commit", [&] {
    for (int i = 0; i < 3; ++i) take();
    winner = take();
  });
  EXPECT_EQ(refusal(), Code::busy);
  ASSERT_TRUE(winner);
  EXPECT_EQ(winner->number(), 5U);
  EXPECT_EQ(code_of([&] { take(); }), Code::busy);
}

TEST_F(LeaseTest, that_is_renewed_while_we_read_it_is_not_over) {
  auto lease = take();
  json holder = read("0000000001");
  holder["boot"] = "another machine";
  holder["expires"] = "2020-01-01T00:00:00.000000Z";
  write("0000000001", holder);
  write("0000000001-renewed-1", {{"expires", base::to_iso(base::now() + 60s)}});
  once(objects_->after, "names", [&] {
    write("0000000001-renewed-2", {{"expires", base::to_iso(base::now() + 60s)}});
    made_.repository.store().remove(object("0000000001-renewed-1"));
  });
  EXPECT_EQ(refusal(), Code::busy);
}

TEST_F(LeaseTest, survives_calls_that_fail_in_between) {
  const auto lease = take(1s);
  // Stored, but the answer was lost; and an old renewal that cannot be removed.
  once(objects_->after, "commit", [] { base::fail(Code::io, "the answer was lost"); });
  once(objects_->before, "remove", [] { base::fail(Code::io, "the store was down"); });
  EXPECT_TRUE(comes([&] { return objects_->names_with("-renewed-3").size() == 1; }));
  EXPECT_TRUE(is_held(*lease));
}

TEST_F(LeaseTest, is_over_if_it_cannot_be_renewed_in_time) {
  std::atomic<int> tries = 0;
  const auto lease = take(1s);
  objects_->set(objects_->before, [&](std::string_view, const std::string& name) {
    if (name.find("renewed") == std::string::npos) return;
    ++tries;
    base::fail(Code::io, "the store is down");
  });
  EXPECT_TRUE(comes([&] { return tries > 0; }));
  EXPECT_TRUE(is_held(*lease));
  clocks().passed += 1;
  EXPECT_FALSE(is_held(*lease));
}

class DeadHolder : public LeaseTest {
 protected:
  DeadHolder() {
    take();
    objects_->all.erase(object("0000000001-released"));
    holder_ = read("0000000001");
    holder_["pid"] = 1 << 23;  // more than Linux counts to
  }
  bool is_taken_over() {
    write("0000000001", holder_);
    return testing::succeeds_or(Code::busy, [&] { take(); });
  }
  json holder_;
};

TEST_F(DeadHolder, is_one_whose_process_is_gone) {
  EXPECT_TRUE(is_taken_over());
}

TEST_F(DeadHolder, is_one_whose_number_another_process_has_now) {
  holder_["pid"] = 1;
  holder_["process_started"] = "999999999999";
  EXPECT_TRUE(is_taken_over());
}

TEST_F(DeadHolder, is_none_on_another_machine_or_before_another_boot) {
  holder_["boot"] = "00000000-0000-0000-0000-000000000000";
  EXPECT_FALSE(is_taken_over());
}

TEST_F(DeadHolder, is_none_in_another_container_of_the_same_machine) {
  holder_["pid_namespace"] = "pid:[1]";
  EXPECT_FALSE(is_taken_over());
}

TEST_F(DeadHolder, is_none_of_whom_too_little_is_known) {
  for (const char* member : {"boot", "pid_namespace", "process_started"}) {
    const json known = holder_;
    holder_[member] = "";
    EXPECT_FALSE(is_taken_over()) << member;
    holder_ = known;
  }
  holder_["pid"] = 0;
  EXPECT_FALSE(is_taken_over());
}

TEST_F(LeaseTest, that_cannot_be_read_is_held_by_somebody_GC5) {
  take();
  objects_->all.erase(object("0000000001-released"));
  const json good = read("0000000001");
  for (const char* text : {"", "x", "[]", "{}", "null", "{\"expires\": 7}"}) {
    objects_->all[object("0000000001")] = base::copy(base::view(text));
    EXPECT_EQ(refusal(), Code::corrupt) << text;
  }
  for (const auto& [member, value] : good.items()) {
    json odd = good;
    odd[member] = json::array();
    write("0000000001", odd);
    EXPECT_EQ(refusal(), Code::corrupt) << member;
  }
  objects_->before = [](std::string_view call, const std::string&) {
    if (call == "open") base::fail(Code::io, "the store is down");
  };
  EXPECT_EQ(refusal(), Code::io);
}

TEST_F(LeaseTest, is_read_or_refused_however_damaged) {
  const auto lease = take();
  const base::Bytes whole = objects_->at(object("0000000001"));
  base::testing::Random random(1);
  for (std::size_t i = 0; i < base::testing::fuzz_iterations(300); ++i) {
    objects_->at(object("0000000001")) = base::testing::mutated(whole, random);
    try {
      take();
    } catch (const base::Error& error) {
      EXPECT_TRUE(error.code() == Code::busy || error.code() == Code::corrupt) << error.message();
    }
    for (const std::string& name : names()) {
      if (name != "0000000001") objects_->all.erase(object(name));
    }
  }
}

}  // namespace
}  // namespace holdfast::repository
