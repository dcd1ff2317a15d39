#include "postgres/server.h"

#include <gtest/gtest.h>

#include <fcntl.h>

#include <cstdlib>

#include "base/error.h"
#include "postgres/control_file.h"
#include "postgres/session.h"

namespace holdfast::postgres {
namespace {

/// A place that the user whom servers run as can reach.
class Place {
 public:
  Place() : directory_("holdfast-server") {
    base::fs::permissions(directory_.path(), base::fs::perms(0755));
  }
  base::fs::path data() const { return directory_.path() / "data"; }

 private:
  base::TemporaryDirectory directory_;
};

Installation fifteen() {
  return find_installation(15).value();
}

TEST(Installation, is_found_by_its_version) {
  const Installation found = fifteen();
  EXPECT_EQ(found.major, 15);
  EXPECT_TRUE(found.program("initdb"));
  EXPECT_TRUE(found.program("postgres"));
  EXPECT_FALSE(found.program("no-such-program"));
  EXPECT_FALSE(find_installation(12345));
  EXPECT_GE(find_installation()->major, 15);
}

TEST(Installation, may_be_named_by_the_environment) {
  const base::TemporaryDirectory directory("holdfast-bin");
  const base::fs::path program = directory.path() / "postgres";
  base::replace_file(program, base::view("#!/bin/sh\necho 'postgres (PostgreSQL) 99beta1'\n"),
                     0755);
  const std::string list = "/nonexistent:" + directory.path().string() + ":";
  ::setenv("HOLDFAST_PG_BIN", list.c_str(), 1);
  const auto found = find_installation(99);
  const auto newest = find_installation();
  ::unsetenv("HOLDFAST_PG_BIN");
  ASSERT_TRUE(found);
  EXPECT_EQ(found->bin, directory.path());
  EXPECT_EQ(newest->major, 99);
}

TEST(Installation, is_not_made_of_something_else) {
  const base::TemporaryDirectory directory("holdfast-bin");
  EXPECT_THROW(installation_in(directory.path()), base::Error);
  base::replace_file(directory.path() / "postgres", base::view("#!/bin/sh\necho hello\n"), 0755);
  EXPECT_THROW(installation_in(directory.path()), base::Error);
}

// B29: a cluster may have segments of another size.
TEST(Server, runs_a_new_cluster_and_stops_cleanly_B29) {
  const Place place;
  make_cluster(fifteen(), place.data(), {.checksums = true, .wal_segment_bytes = 1 << 20});
  Server server(fifteen(), place.data(), {{"fsync", "off"}, {"work_mem", "123kB"}, {"port", "1"}});
  Session session(server.connection());
  EXPECT_EQ(session.setting("work_mem"), "123kB");
  EXPECT_EQ(session.setting("listen_addresses"), "");
  EXPECT_EQ(session.setting("data_checksums"), "on");
  server.await_recovery_end(std::chrono::seconds(10));
  EXPECT_TRUE(server.running());
  server.stop();
  EXPECT_FALSE(server.running());
  const ControlFile control = read_control_file(place.data()).control;
  EXPECT_TRUE(was_shut_down(control));
  EXPECT_EQ(control.wal_segment_size.bytes, 1U << 20);
  EXPECT_THROW(session.query("SELECT 1"), base::Error);
}

TEST(Server, that_was_killed_has_not_shut_down_and_recovers) {
  const Place place;
  make_cluster(fifteen(), place.data(), {.checksums = false});
  {
    Server server(fifteen(), place.data());
    Session(server.connection()).query("CREATE TABLE public.kept AS SELECT 42 AS answer");
    server.kill();
    EXPECT_FALSE(server.running());
  }
  const ControlFile control = read_control_file(place.data()).control;
  EXPECT_FALSE(was_shut_down(control));
  EXPECT_EQ(control.checksum_version, 0U);
  Server again(fifteen(), place.data(), {{"fsync", "off"}});
  again.await_recovery_end(std::chrono::seconds(10));
  EXPECT_EQ(Session(again.connection()).value("SELECT answer FROM public.kept"), "42");
}

TEST(Server, that_cannot_start_says_why) {
  const Place place;
  base::make_directories(place.data());
  try {
    const Server server(fifteen(), place.data());
    FAIL() << "an empty directory was started";
  } catch (const base::Error& error) {
    EXPECT_EQ(error.code(), base::Code::postgres);
    EXPECT_NE(error.message().find("postgresql.conf"), std::string::npos) << error.message();
  }
}

// B19, RS4: what a restore leaves without its backup_label must not start.
TEST(Server, refuses_a_control_file_without_checkpoint_B19) {
  const Place place;
  make_cluster(fifteen(), place.data());
  const base::fs::path control = place.data() / "global" / "pg_control";
  const auto file = base::open_file(control, O_WRONLY);
  base::write_at(file, without_checkpoint(base::read_existing_file(control)), 0, control);
  try {
    const Server server(fifteen(), place.data(), {{"fsync", "off"}});
    FAIL() << "it started";
  } catch (const base::Error& error) {
    EXPECT_NE(error.message().find("checkpoint record"), std::string::npos) << error.message();
  }
}

}  // namespace
}  // namespace holdfast::postgres
