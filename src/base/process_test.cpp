#include "base/process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include "base/error.h"

namespace holdfast::base {
namespace {

Command shell(std::string script) {
  Command command;
  command.argv = {"/bin/sh", "-c", std::move(script)};
  return command;
}

TEST(Run, collects_both_outputs_and_the_status) {
  const Outcome outcome = run(shell("echo out; echo err >&2; exit 3"));
  EXPECT_EQ(outcome.status, 3);
  EXPECT_EQ(outcome.output, "out\n");
  EXPECT_EQ(outcome.errors, "err\n");
}

TEST(Run, tells_which_signal_ended_a_program) {
  EXPECT_EQ(run(shell("kill -9 $$")).status, 128 + SIGKILL);
}

TEST(Run, feeds_and_drains_more_than_a_pipe_holds) {
  Command command = shell("cat");
  command.input.assign(1 << 20, 'x');
  const Outcome outcome = run(command);
  EXPECT_EQ(outcome.status, 0);
  EXPECT_EQ(outcome.output, command.input);
  EXPECT_EQ(run(shell("yes | head -c 300000; yes | head -c 300000 >&2")).errors.size(), 300000U);
}

TEST(Run, outlives_a_program_that_does_not_read_its_input) {
  Command command = shell("exec <&-; echo done");
  command.input.assign(1 << 20, 'x');
  const Outcome outcome = run(command);
  EXPECT_EQ(outcome.status, 0);
  EXPECT_EQ(outcome.output, "done\n");
}

TEST(Run, says_not_found_for_a_program_that_is_not_there) {
  Command command;
  command.argv = {"no-such-program-anywhere"};
  try {
    run(command);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::not_found);
    EXPECT_NE(error.message().find("no-such-program-anywhere"), std::string::npos);
  }
}

TEST(Run, says_why_a_file_is_no_program) {
  const TemporaryDirectory directory("process");
  replace_file(directory.path() / "plain", view("text"), 0600);
  Command command;
  command.argv = {(directory.path() / "plain").string()};
  try {
    run(command);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::permission);
  }
}

TEST(Run, adds_to_our_environment_and_replaces_in_it) {
  ::setenv("HOLDFAST_TEST_KEPT", "kept", 1);
  ::setenv("HOLDFAST_TEST_REPLACED", "old", 1);
  Command command = shell("echo $HOLDFAST_TEST_KEPT $HOLDFAST_TEST_REPLACED $HOLDFAST_TEST_NEW");
  command.environment = {{"HOLDFAST_TEST_REPLACED", "replaced"}, {"HOLDFAST_TEST_NEW", "new"}};
  EXPECT_EQ(run_checked(command), "kept replaced new\n");
}

TEST(Run, goes_to_the_directory_first) {
  const TemporaryDirectory directory("process");
  Command command = shell("pwd -P");
  command.directory = directory.path();
  EXPECT_EQ(run_checked(command), fs::canonical(directory.path()).string() + "\n");
}

TEST(Run, hands_on_no_other_file_descriptor) {
  // Not even one that is open for programs to inherit, as those of our own parent may be.
  const Fd leaking(::open("/dev/null", O_RDONLY));
  ASSERT_TRUE(leaking);
  EXPECT_EQ(
      run_checked(shell(fmt::format("test -e /proc/self/fd/{} || echo closed", leaking.get()))),
      "closed\n");
}

TEST(Run, starts_programs_with_signals_as_they_are_by_default) {
  sigset_t blocked;
  sigset_t before;
  ::sigemptyset(&blocked);
  ::sigaddset(&blocked, SIGTERM);
  ::pthread_sigmask(SIG_BLOCK, &blocked, &before);
  EXPECT_EQ(run(shell("kill -TERM $$; exit 0")).status, 128 + SIGTERM);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

TEST(Run, becomes_another_user_if_it_may) {
  const auto nobody = find_user("nobody");
  ASSERT_TRUE(nobody);
  Command command = shell("id -u; id -G");
  command.directory = "/";
  command.user = nobody;
  if (running_as_root()) {
    EXPECT_EQ(run_checked(command), fmt::format("{}\n{}\n", nobody->uid, nobody->gid));
  } else {
    EXPECT_THROW(run(command), Error);
  }
  EXPECT_FALSE(find_user("no such user"));
}

TEST(RunChecked, quotes_the_end_of_what_a_failed_program_said) {
  try {
    run_checked(shell("yes | head -c 100000 >&2; echo the reason >&2; exit 4"));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::io);
    EXPECT_TRUE(error.message().ends_with("the reason"));
    EXPECT_NE(error.message().find("status 4"), std::string::npos);
    EXPECT_LT(error.message().size(), 1200U);
  }
}

TEST(Child, runs_beside_us_and_writes_to_its_log) {
  const TemporaryDirectory directory("process");
  const fs::path log = directory.path() / "log";
  for (int round = 0; round < 2; ++round) {
    Child child(shell("echo out; echo err >&2; exit 5"), log);
    EXPECT_EQ(child.wait(), 5);
    EXPECT_EQ(child.finished(), 5);
  }
  EXPECT_EQ(text(*read_file(log)), "out\nerr\nout\nerr\n");
}

TEST(Child, can_be_waited_for_only_so_long) {
  Child child(shell("exec sleep 100"), "/dev/null");
  EXPECT_FALSE(child.finished());
  EXPECT_FALSE(child.wait_for(std::chrono::milliseconds(10)));
  child.signal(SIGINT);
  EXPECT_EQ(child.wait_for(std::chrono::seconds(10)), 128 + SIGINT);
}

TEST(Child, ends_with_its_owner) {
  pid_t pid = 0;
  {
    const Child child(shell("exec sleep 100"), "/dev/null");
    pid = child.pid();
    EXPECT_EQ(::kill(pid, 0), 0);
  }
  EXPECT_EQ(::kill(pid, 0), -1);
}

TEST(RunDetached, goes_on_in_a_session_of_its_own) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  const Fd read(ends[0]);
  Fd write(ends[1]);
  run_detached(
      [](void* argument) {
        const std::array<pid_t, 2> who{::getpid(), ::getsid(0)};
        [[maybe_unused]] const ssize_t ignored =
            ::write(static_cast<Fd*>(argument)->get(), who.data(), sizeof who);
      },
      &write);
  std::array<pid_t, 2> who{};
  ASSERT_EQ(::read(read.get(), who.data(), sizeof who), static_cast<ssize_t>(sizeof who));
  EXPECT_NE(who[0], ::getpid());
  EXPECT_NE(who[1], ::getsid(0));
  EXPECT_NE(who[0], who[1]);  // no leader of its session, so it never gets a terminal
}

TEST(OwnProgram, is_the_file_that_runs_WF17) {
  EXPECT_TRUE(own_program().is_absolute());
  EXPECT_EQ(own_program(), fs::canonical("/proc/self/exe"));
}

}  // namespace
}  // namespace holdfast::base
