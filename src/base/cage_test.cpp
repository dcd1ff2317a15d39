#include "base/cage.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <functional>
#include <thread>

#include "base/process.h"

namespace holdfast::base {
namespace {

/// What `attempt` leaves in errno inside of a cage; 0 if it returns true.
int inside(const Cage& cage, const std::function<bool()>& attempt) {
  const pid_t child = ::fork();
  if (child == 0) {
    if (!cage.enter()) ::_exit(255);
    errno = 0;
    ::_exit(attempt() ? 0 : errno);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

class CageTest : public ::testing::Test {
 protected:
  CageTest() {
    replace_file(path("in/file"), view("inside"));
    replace_file(path("out/file"), view("outside"));
  }
  fs::path path(const std::string& name) const { return place_.path() / name; }
  std::string shell(const Cage& cage, const std::string& script) const {
    Command command;
    command.argv = {"/bin/sh", "-c", script};
    command.directory = place_.path();
    const Outcome outcome = run(command, cage);
    return outcome.status == 0 ? "done" : outcome.errors + outcome.output;
  }
  std::string outside() const { return std::string(text(read_existing_file(path("out/file")))); }

  TemporaryDirectory place_{"cage"};
  const bool made_ = fs::create_directory(path("in")) && fs::create_directory(path("out"));
  Cage cage_{{path("in")}};
};

TEST_F(CageTest, lets_everything_be_done_below_its_place) {
  EXPECT_EQ(shell(cage_,
                  "cd in && echo 1 > new && echo 2 >> file && mkdir -p a/b && mv new a/b/ && "
                  "ln a/b/new a/link && ln -s /etc/passwd sym && mkfifo pipe && : > file && "
                  "rm a/b/new && rm -r a sym pipe && chmod 600 file && echo x > /dev/null && "
                  "cat ../out/file | grep -q outside"),
            "done");
}

TEST_F(CageTest, keeps_everything_outside_as_it_is) {
  for (const std::string script :
       {"echo 1 > out/new", "echo 2 >> out/file", ": > out/file", "rm out/file", "mkdir out/new",
        "rmdir out/old", "mv in/file out/", "mv out/file in/", "ln in/file out/link",
        "ln out/file in/link && echo 2 >> in/link", "ln -s /etc out/sym", "mkfifo out/pipe",
        "ln -s ../out in/way && echo 2 >> in/way/file", "touch out/file", "chown 1 out/file"}) {
    fs::create_directory(path("out/old"));
    EXPECT_NE(shell(cage_, script), "done") << script;
    EXPECT_EQ(outside(), "outside") << script;
    EXPECT_EQ(std::distance(fs::directory_iterator(path("out")), fs::directory_iterator()), 2)
        << script;
  }
  EXPECT_EQ(inside(cage_, [&] { return ::truncate(path("out/file").c_str(), 0) == 0; }), EACCES);
}

TEST_F(CageTest, changes_no_mode_owner_or_time_and_says_of_modes_that_it_did) {
  ASSERT_EQ(::chmod(path("out/file").c_str(), 0600), 0);
  EXPECT_EQ(inside(cage_, [&] { return ::chmod(path("out/file").c_str(), 0) == 0; }), 0);
  struct stat status {};
  ASSERT_EQ(::stat(path("out/file").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0600U);
  EXPECT_EQ(inside(cage_, [&] { return ::chown(path("out/file").c_str(), 1, 1) == 0; }), EPERM);
  EXPECT_EQ(
      inside(cage_,
             [&] { return ::utimensat(AT_FDCWD, path("out/file").c_str(), nullptr, 0) == 0; }),
      EPERM);
}

TEST_F(CageTest, is_inherited_and_cannot_be_left) {
  EXPECT_NE(shell(cage_, "sh -c 'sh -c \"echo 1 > out/new\"'"), "done");
  EXPECT_EQ(inside(cage_,
                   [&] {
                     Cage wider({path("out")});
                     if (!wider.enter()) return true;
                     return ::open(path("out/file").c_str(), O_WRONLY) >= 0;
                   }),
            EACCES);
}

sockaddr_un unix_address(const fs::path& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.native().copy(&address.sun_path[0], sizeof address.sun_path - 1);
  return address;
}

TEST_F(CageTest, connects_to_no_unix_socket_wherever_it_is) {
  for (const char* where : {"out/socket", "in/socket"}) {
    const sockaddr_un address = unix_address(path(where));
    const auto* at = reinterpret_cast<const sockaddr*>(&address);
    const Fd server(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::bind(server.get(), at, sizeof address), 0);
    ASSERT_EQ(::listen(server.get(), 4), 0);
    EXPECT_EQ(inside(cage_,
                     [&] {
                       const int guest = ::socket(AF_UNIX, SOCK_STREAM, 0);
                       return ::connect(guest, at, sizeof address) == 0;
                     }),
              EACCES);
  }
  const sockaddr_un own = unix_address(path("in/own"));
  EXPECT_EQ(inside(cage_,
                   [&] {
                     const int server = ::socket(AF_UNIX, SOCK_STREAM, 0);
                     return ::bind(server, reinterpret_cast<const sockaddr*>(&own), sizeof own) ==
                                0 &&
                            ::listen(server, 1) == 0;
                   }),
            0)
      << "a server may listen in its place";
}

TEST_F(CageTest, has_no_socket_that_needs_no_connection_and_none_of_another_family) {
  for (const auto& [family, type] : {std::pair<int, int>{AF_INET, SOCK_STREAM},
                                     {AF_INET, SOCK_DGRAM},
                                     {AF_INET6, SOCK_STREAM},
                                     {AF_NETLINK, SOCK_RAW},
                                     {40 /* AF_VSOCK */, SOCK_STREAM},
                                     {AF_UNIX, SOCK_DGRAM},
                                     {AF_UNIX, SOCK_SEQPACKET}}) {
    const int wanted = family;
    const int kind = type;
    EXPECT_EQ(inside(cage_, [&] { return ::socket(wanted, kind | SOCK_CLOEXEC, 0) >= 0; }), EACCES)
        << family << " " << type;
  }
  std::array<int, 2> pair{};
  EXPECT_EQ(inside(cage_, [&] { return ::socketpair(AF_UNIX, SOCK_DGRAM, 0, pair.data()) == 0; }),
            EACCES);
  EXPECT_EQ(inside(cage_, [&] { return ::socketpair(AF_UNIX, SOCK_STREAM, 0, pair.data()) == 0; }),
            0);
}

TEST_F(CageTest, reaches_no_process_outside) {
  const pid_t victim = ::fork();
  if (victim == 0) {
    ::pause();
    ::_exit(0);
  }
  const bool knows_signals = landlock_version() >= 6;
  EXPECT_EQ(inside(cage_, [&] { return ::kill(victim, knows_signals ? SIGTERM : 0) == 0; }),
            knows_signals ? EPERM : 0);
  EXPECT_EQ(inside(cage_,
                   [&] {
                     const rlimit none{0, 0};
                     return ::prlimit(victim, RLIMIT_NOFILE, &none, nullptr) == 0;
                   }),
            EPERM);
  EXPECT_EQ(inside(cage_, [&] { return ::setpriority(PRIO_PROCESS, 0, 19) == 0; }), EPERM);
  EXPECT_EQ(::waitpid(victim, nullptr, WNOHANG), 0) << "it lives";
  ::kill(victim, SIGKILL);
  ::waitpid(victim, nullptr, 0);
  rlimit own{};
  EXPECT_EQ(inside(cage_, [&] { return ::getrlimit(RLIMIT_NOFILE, &own) == 0; }), 0);
}

TEST_F(CageTest, works_with_whatever_version_of_landlock_there_is) {
  for (int version = landlock_version(); version >= 1; --version) {
    const Cage older({path("in")}, Cage::Connections::none, version);
    EXPECT_EQ(shell(older, "echo 1 >> in/file && mkdir in/d && rmdir in/d"), "done") << version;
    EXPECT_NE(shell(older, "echo 1 >> out/file"), "done") << version;
    EXPECT_NE(shell(older, "mv in/file out/"), "done") << version;
  }
  const Cage none({path("in")}, Cage::Connections::none, 0);
  EXPECT_EQ(inside(none, [] { return ::socket(AF_INET, SOCK_STREAM, 0) >= 0; }), EACCES)
      << "what needs no Landlock holds";
}

TEST_F(CageTest, lets_connect_who_cannot_do_without) {
  const Cage open({path("in")}, Cage::Connections::any);
  EXPECT_EQ(inside(open, [] { return ::socket(AF_INET, SOCK_STREAM, 0) >= 0; }), 0);
  EXPECT_NE(shell(open, "echo 1 > out/new"), "done") << "and everything else holds";
}

TEST(CageGaps, says_what_a_kernel_cannot_hold_back) {
  EXPECT_TRUE(cage_gaps(7, true).empty());
  EXPECT_EQ(cage_gaps(4, true).size(), 1U);
  EXPECT_EQ(cage_gaps(2, true).size(), 2U);
  EXPECT_NE(cage_gaps(0, true).front().find("no Landlock"), std::string::npos);
  EXPECT_EQ(cage_gaps(7, false).size(), 1U);
  EXPECT_EQ(cage_gaps(0, false).size(), 4U);
}

TEST_F(CageTest, does_not_cage_who_makes_it) {
  replace_file(path("out/file"), view("changed"));
  EXPECT_EQ(outside(), "changed");
  EXPECT_GE(Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)).get(), 0);
}

}  // namespace
}  // namespace holdfast::base
