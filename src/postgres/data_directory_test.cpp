#include "postgres/data_directory.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>

#include "base/error.h"

namespace holdfast::postgres {
namespace {

namespace fs = base::fs;

constexpr const char* version = "PG_15_202209061";

/// A directory that looks like a cluster, made of what a test puts there.
class Cluster {
 public:
  Cluster() : directory_("holdfast-data") {
    for (const char* name : {"base/5", "global", "pg_wal/archive_status", "pg_tblspc"}) {
      fs::create_directories(data() / name);
    }
    file("PG_VERSION", "15\n");
  }
  fs::path data() const { return directory_.path() / "data"; }
  fs::path beside(const std::string& name) const { return directory_.path() / name; }

  void file(const std::string& relative, std::string_view content = "x") const {
    const fs::path path = data() / relative;
    fs::create_directories(path.parent_path());
    base::write_all(base::open_file(path, O_WRONLY | O_CREAT | O_TRUNC), base::view(content), path);
  }
  void link(const fs::path& target, const std::string& relative) const {
    fs::create_symlink(target, data() / relative);
  }

  std::vector<DirectoryEntry> walk() const {
    std::vector<DirectoryEntry> entries;
    walk_data_directory(data(), version,
                        [&](const DirectoryEntry& entry) { entries.push_back(entry); });
    return entries;
  }
  /// The paths in order, directories with a slash behind.
  std::vector<std::string> paths() const {
    std::vector<std::string> paths;
    for (const DirectoryEntry& entry : walk()) {
      const bool directory = entry.kind == DirectoryEntry::Kind::directory;
      paths.push_back(entry.path + (directory ? "/" : ""));
    }
    return paths;
  }
  bool holds(const std::string& path) const {
    const auto all = paths();
    return std::find(all.begin(), all.end(), path) != all.end();
  }

 private:
  base::TemporaryDirectory directory_;
};

TEST(RelationFile, is_known_by_its_name) {
  const auto file = relation_file("base/5/16384");
  ASSERT_TRUE(file);
  EXPECT_EQ(file->relation, 16384U);
  EXPECT_EQ(file->segment, 0U);
  EXPECT_EQ(file->fork, RelationFile::Fork::main);
  EXPECT_FALSE(file->temporary);
  EXPECT_EQ(relation_file("global/1262")->relation, 1262U);
  EXPECT_EQ(relation_file("base/5/16384.12")->segment, 12U);
  EXPECT_EQ(relation_file("base/5/16384_vm.1")->segment, 1U);
  EXPECT_EQ(relation_file("base/5/16384_vm.1")->fork, RelationFile::Fork::visibility_map);
  EXPECT_EQ(relation_file("base/5/16384_fsm")->fork, RelationFile::Fork::free_space_map);
  EXPECT_EQ(relation_file("base/5/16384_init")->fork, RelationFile::Fork::init);
  EXPECT_EQ(relation_file("pg_tblspc/16390/PG_15_202209061/5/4294967295")->relation, 4294967295U);
  EXPECT_TRUE(relation_file("base/5/t0_16384")->temporary);
  EXPECT_TRUE(relation_file("base/5/t12_16384_fsm.1")->temporary);
  EXPECT_EQ(relation_file("base/5/t12_16384_fsm.1")->relation, 16384U);
}

// RS9: names are read whole; neighbours and look-alikes are other files.
TEST(RelationFile, is_nothing_that_only_looks_like_one_RS9) {
  for (const char* path : {"",
                           "base",
                           "base/5",
                           "base/16384",
                           "base/5/",
                           "base/5/PG_VERSION",
                           "base/5/pg_filenode.map",
                           "base/5/pg_internal.init",
                           "base/5/016384",
                           "base/5/0",
                           "base/5/16384.",
                           "base/5/16384.0",
                           "base/5/16384.01",
                           "base/5/16384_",
                           "base/5/16384_x",
                           "base/5/16384_vmx",
                           "base/5/16384_vm_fsm",
                           "base/5/16384.1_vm",
                           "base/5/4294967296",
                           "base/5/-1",
                           "base/5/+1",
                           "base/5/16384 ",
                           "base/5/16384\n",
                           "base/5/t_1",
                           "base/5/t1",
                           "base/5/t1_",
                           "base/5/tx_1",
                           "base/x/16384",
                           "base/5/6/16384",
                           "base/pgsql_tmp/1",
                           "global/5/16384",
                           "global/pg_control",
                           "pg_xact/0001",
                           "pg_xact/1",
                           "log/1",
                           "pg_tblspc/16390/5/16400",
                           "pg_tblspc/x/PG_15_202209061/5/16400",
                           "pg_tblspc/16390/PG_15_202209061/16400",
                           "pg_tblspc/16390"}) {
    EXPECT_FALSE(relation_file(path)) << path;
  }
}

TEST(DataDirectory, is_walked_in_byte_order_with_directories_before_their_contents) {
  const Cluster cluster;
  for (const char* name : {"base/5/2", "base/5/16384", "base/5/16384.1", "base/1/3", "Zoo", "a",
                           "global/pg_control", "pg_wal/000000010000000000000001", "base.txt"}) {
    cluster.file(name);
  }
  EXPECT_EQ(cluster.paths(),
            (std::vector<std::string>{"PG_VERSION", "Zoo", "a", "base/", "base/1/", "base/1/3",
                                      "base/5/", "base/5/16384", "base/5/16384.1", "base/5/2",
                                      "base.txt", "global/", "global/pg_control", "pg_tblspc/",
                                      "pg_wal/", "pg_wal/archive_status/"}));
}

TEST(DataDirectory, tells_what_the_file_system_knows_of_each_entry) {
  const Cluster cluster;
  cluster.file("base/5/16384", "12345");
  ::chmod((cluster.data() / "base/5/16384").c_str(), 0640);
  struct stat expected {};
  ASSERT_EQ(::stat((cluster.data() / "base/5/16384").c_str(), &expected), 0);
  for (const DirectoryEntry& entry : cluster.walk()) {
    if (entry.path != "base/5/16384") continue;
    EXPECT_EQ(entry.size, 5U);
    EXPECT_EQ(entry.mode, 0640U);
    EXPECT_EQ(entry.uid, expected.st_uid);
    EXPECT_EQ(entry.gid, expected.st_gid);
    EXPECT_EQ(entry.inode, expected.st_ino);
    EXPECT_LE(entry.birth, expected.st_ctim.tv_sec * 1'000'000'000 + expected.st_ctim.tv_nsec);
    return;
  }
  FAIL() << "it was not visited";
}

TEST(DataDirectory, leaves_out_what_postgres_leaves_out) {
  const Cluster cluster;
  const std::vector<std::string> before = [&] {
    for (const char* name : {"pg_dynshmem", "pg_notify", "pg_replslot", "pg_serial", "pg_snapshots",
                             "pg_stat_tmp", "pg_subtrans", "pg_wal/summaries"}) {
      fs::create_directories(cluster.data() / name);
    }
    return cluster.paths();
  }();
  for (const char* name : {"pg_dynshmem/a",
                           "pg_notify/0000",
                           "pg_replslot/slot/state",
                           "pg_serial/a",
                           "pg_snapshots/a",
                           "pg_stat_tmp/a",
                           "pg_subtrans/0000",
                           "pg_wal/00000001.history",
                           "pg_wal/archive_status/a.ready",
                           "pg_wal/summaries/a.summary",
                           "base/pgsql_tmp/pgsql_tmp1.0",
                           "base/5/pgsql_tmp",
                           "postgresql.auto.conf.tmp",
                           "current_logfiles.tmp",
                           "global/pg_internal.init",
                           "base/5/pg_internal.init",
                           "base/5/pg_internal.init.1234",
                           "backup_label",
                           "backup_label.old",
                           "tablespace_map",
                           "tablespace_map.old",
                           "backup_manifest",
                           "backup_manifest.tmp",
                           "postmaster.pid",
                           "postmaster.opts",
                           "recovery.signal",
                           "standby.signal",
                           "recovery.conf",
                           "recovery.done",
                           "base/5/t3_16384",
                           "base/5/t3_16384_fsm",
                           "base/5/t3_16384.1"}) {
    cluster.file(name);
  }
  EXPECT_EQ(cluster.paths(), before);
}

TEST(DataDirectory, keeps_what_users_put_there_under_similar_names) {
  const Cluster cluster;
  for (const char* name :
       {"log/postgresql.log", "conf/recovery.conf", "certs/backup_label", "postmaster.pid.txt",
        "extra/pg_wal/x", "current_logfiles", "postgresql.auto.conf", "base/5/tmp_1"}) {
    cluster.file(name);
    EXPECT_TRUE(cluster.holds(name)) << name;
  }
}

TEST(DataDirectory, keeps_only_the_init_fork_of_an_unlogged_relation) {
  const Cluster cluster;
  for (const char* name :
       {"base/5/100", "base/5/100.1", "base/5/100_fsm", "base/5/100_vm", "base/5/100_init",
        "base/5/1001", "base/5/101", "base/1/100", "base/5/10", "base/5/t2_101_init"}) {
    cluster.file(name);
  }
  for (const char* name : {"base/5/100", "base/5/100.1", "base/5/100_fsm", "base/5/100_vm"}) {
    EXPECT_FALSE(cluster.holds(name)) << name;
  }
  for (const char* name :
       {"base/5/100_init", "base/5/1001", "base/5/101", "base/1/100", "base/5/10"}) {
    EXPECT_TRUE(cluster.holds(name)) << name;
  }
}

// B21: names may hold anything but a slash and a zero byte.
TEST(DataDirectory, walks_names_of_any_kind_B21) {
  const Cluster cluster;
  for (const char* name : {"a=b", "a b", "a\nb", "[x]\\", "\xff\xfe", "a\"b", "-rf"}) {
    cluster.file(name);
    EXPECT_TRUE(cluster.holds(name)) << name;
  }
}

// B16: pg_wal as a link keeps its directories; the files behind it still stay out.
TEST(DataDirectory, knows_pg_wal_behind_a_link_B16) {
  const Cluster cluster;
  fs::remove_all(cluster.data() / "pg_wal");
  fs::create_directories(cluster.beside("wal") / "archive_status");
  fs::create_directories(cluster.beside("wal") / "lost+found");
  cluster.link(cluster.beside("wal"), "pg_wal");
  cluster.file("pg_wal/000000010000000000000001");
  EXPECT_TRUE(cluster.holds("pg_wal/"));
  EXPECT_TRUE(cluster.holds("pg_wal/archive_status/"));
  EXPECT_FALSE(cluster.holds("pg_wal/lost+found/"));
  EXPECT_FALSE(cluster.holds("pg_wal/000000010000000000000001"));
}

TEST(DataDirectory, follows_other_links_and_leaves_out_those_that_lead_nowhere) {
  const Cluster cluster;
  fs::create_directories(cluster.beside("etc"));
  cluster.link(cluster.beside("etc"), "conf.d");
  cluster.file("conf.d/10.conf");
  cluster.link(cluster.beside("etc") / "10.conf", "extra.conf");
  cluster.link("/nonexistent/file", "dangling");
  EXPECT_TRUE(cluster.holds("conf.d/"));
  EXPECT_TRUE(cluster.holds("conf.d/10.conf"));
  EXPECT_TRUE(cluster.holds("extra.conf"));
  EXPECT_FALSE(cluster.holds("dangling"));
}

TEST(DataDirectory, refuses_to_walk_in_circles) {
  const Cluster circle;
  circle.link("..", "base/up");
  EXPECT_THROW(circle.walk(), base::Error);
  const Cluster deeper;
  deeper.link(".", "base/5/here");
  try {
    deeper.walk();
    FAIL() << "it came to an end";
  } catch (const base::Error& error) {
    EXPECT_NE(error.message().find("leads back"), std::string::npos) << error.message();
  }
  const Cluster itself;
  itself.link("ouroboros", "ouroboros");
  EXPECT_THROW(itself.walk(), base::Error);
}

TEST(DataDirectory, leaves_out_pipes_and_sockets) {
  const Cluster cluster;
  ASSERT_EQ(::mkfifo((cluster.data() / "pipe").c_str(), 0600), 0);
  EXPECT_FALSE(cluster.holds("pipe"));
}

// B10, BK3: what is dropped meanwhile is left out, and everything else still comes.
TEST(DataDirectory, goes_on_when_files_and_directories_vanish_B10) {
  const Cluster cluster;
  for (const char* name : {"base/5/1", "base/5/2", "base/5/3", "base/6/1", "base/7/1"}) {
    cluster.file(name);
  }
  std::vector<std::string> seen;
  walk_data_directory(cluster.data(), version, [&](const DirectoryEntry& entry) {
    seen.push_back(entry.path);
    if (entry.path == "base/5/1") {
      fs::remove(cluster.data() / "base/5/2");
      fs::remove_all(cluster.data() / "base/6");
    }
  });
  for (const char* name : {"base/5/3", "base/7/1"}) {
    EXPECT_EQ(std::count(seen.begin(), seen.end(), name), 1) << name;
  }
  for (const char* name : {"base/5/2", "base/6", "base/6/1"}) {
    EXPECT_EQ(std::count(seen.begin(), seen.end(), name), 0) << name;
  }
}

TEST(DataDirectory, must_be_there) {
  EXPECT_THROW(walk_data_directory("/nonexistent", version, [](const DirectoryEntry&) {}),
               base::Error);
}

TEST(Tablespaces, are_walked_through_their_links_in_their_own_version_only) {
  const Cluster cluster;
  fs::create_directories(cluster.beside("space"));
  fs::create_symlink(cluster.beside("space"), cluster.beside("alias"));
  cluster.link(cluster.beside("alias"), "pg_tblspc/16390");
  for (const char* name : {"PG_15_202209061/5/16400", "PG_15_202209061/5/t1_9",
                           "PG_15_202209061/pgsql_tmp/pgsql_tmp1", "PG_14_202107181/5/16400",
                           "notes.txt", "PG_15_202209061/5/7", "PG_15_202209061/5/7_init"}) {
    cluster.file(std::string("pg_tblspc/16390/") + name);
  }
  const auto all = cluster.paths();
  const std::vector<std::string> expected = {"pg_tblspc/",
                                             "pg_tblspc/16390/",
                                             "pg_tblspc/16390/PG_15_202209061/",
                                             "pg_tblspc/16390/PG_15_202209061/5/",
                                             "pg_tblspc/16390/PG_15_202209061/5/16400",
                                             "pg_tblspc/16390/PG_15_202209061/5/7_init",
                                             "pg_wal/",
                                             "pg_wal/archive_status/"};
  const auto from = std::find(all.begin(), all.end(), "pg_tblspc/");
  EXPECT_EQ(std::vector<std::string>(from, all.end()), expected);
}

// B16: the location is told as recorded, one link deep.
TEST(Tablespaces, are_listed_with_the_location_that_postgres_recorded_B16) {
  const Cluster cluster;
  fs::create_directories(cluster.beside("space"));
  fs::create_symlink(cluster.beside("space"), cluster.beside("alias"));
  cluster.link(cluster.beside("alias"), "pg_tblspc/16390");
  cluster.link("/gone", "pg_tblspc/2000");
  fs::create_directories(cluster.data() / "pg_tblspc/3000");
  cluster.link("/gone", "pg_tblspc/other");
  const auto spaces = linked_tablespaces(cluster.data());
  ASSERT_EQ(spaces.size(), 2U);
  EXPECT_EQ(spaces[0].oid, 2000U);
  EXPECT_EQ(spaces[1].oid, 16390U);
  EXPECT_EQ(spaces[1].location, cluster.beside("alias").string());
}

TEST(Tablespaces, in_place_are_ordinary_directories) {
  const Cluster cluster;
  cluster.file("pg_tblspc/3000/PG_15_202209061/5/16400");
  EXPECT_TRUE(cluster.holds("pg_tblspc/3000/"));
  EXPECT_TRUE(cluster.holds("pg_tblspc/3000/PG_15_202209061/5/16400"));
}

// B16: a location inside the data directory would else be in the backup twice.
TEST(Tablespaces, inside_the_data_directory_are_walked_once_B16) {
  const Cluster cluster;
  cluster.file("space/PG_15_202209061/5/16400");
  cluster.file("space2/kept");
  cluster.link(cluster.data() / "space", "pg_tblspc/16390");
  cluster.file("PG_15_202209061/5/1");
  cluster.link(cluster.data(), "pg_tblspc/16391");
  EXPECT_TRUE(cluster.holds("space/"));
  EXPECT_FALSE(cluster.holds("space/PG_15_202209061/"));
  EXPECT_TRUE(cluster.holds("space2/kept"));
  EXPECT_TRUE(cluster.holds("pg_tblspc/16390/PG_15_202209061/5/16400"));
  EXPECT_FALSE(cluster.holds("PG_15_202209061/5/1"));
  EXPECT_TRUE(cluster.holds("pg_tblspc/16391/PG_15_202209061/5/1"));
}

TEST(MajorVersion, is_read_from_pg_version) {
  const Cluster cluster;
  EXPECT_EQ(major_version(cluster.data()), 15);
  cluster.file("PG_VERSION", "9.6\n");
  EXPECT_EQ(major_version(cluster.data()), 9);
  cluster.file("PG_VERSION", "fifteen");
  EXPECT_THROW(major_version(cluster.data()), base::Error);
  fs::remove(cluster.data() / "PG_VERSION");
  try {
    major_version(cluster.data());
    FAIL();
  } catch (const base::Error& error) {
    EXPECT_EQ(error.code(), base::Code::not_found);
    EXPECT_FALSE(error.hint().empty());
  }
}

}  // namespace
}  // namespace holdfast::postgres
