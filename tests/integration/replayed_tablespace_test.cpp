// A tablespace that was made after the backup: replay would make it at the absolute place that
// the WAL names, where the running server has its own. Nothing that is brought back may go there.

#include <fstream>
#include <map>

#include "base/error.h"
#include "faults/faults.h"
#include "harness/instant.h"

namespace holdfast::tests {
namespace {

using base::Code;

/// Every file below a directory, with its content.
std::map<std::string, std::string> files_of(const fs::path& directory) {
  std::map<std::string, std::string> files;
  for (const auto& each : fs::recursive_directory_iterator(directory)) {
    files[each.path().string()] = each.is_regular_file() ? text_of(each.path()) : "";
  }
  return files;
}

class ReplayedTablespace : public ::testing::TestWithParam<int> {
 protected:
  ReplayedTablespace() : cluster_(place_.cluster(GetParam())), space_(place_.path("space")) {
    cluster_->sql("ALTER SYSTEM SET autovacuum = off");
    cluster_->sql("SELECT pg_reload_conf()");
    // Where a recovery starts it again.
    std::ofstream file(cluster_->data_directory() / "postgresql.conf", std::ios::app);
    file << fmt::format("unix_socket_directories = '{}'\nlisten_addresses = ''\n",
                        cluster_->server().socket_directory().string());
    file.close();
    cluster_->sql("CREATE TABLE before (id int)");
    place_.must({"backup"});
    fs::create_directories(space_);
    place_.give_to_server_user(space_);
    cluster_->sql(fmt::format("CREATE TABLESPACE space LOCATION '{}'", space_.string()));
    wal_ = cluster_->sql("SELECT pg_walfile_name(pg_current_wal_lsn())");
    cluster_->sql("CREATE TABLE made (id int) TABLESPACE space");
    cluster_->sql("INSERT INTO made SELECT generate_series(1, 1000)");
    place_.archive_all(*cluster_);
    // What only the running server has.
    cluster_->sql("UPDATE made SET id = -id");
    cluster_->sql("CHECKPOINT");
    oid_ = cluster_->sql("SELECT oid FROM pg_tablespace WHERE spcname = 'space'");
    files_ = files_of(space_);
  }

  void expect_untouched() const {
    EXPECT_EQ(files_of(space_), files_);
    EXPECT_EQ(cluster_->sql("SELECT count(*) FROM made WHERE id < 0"), "1000");
  }
  /// The rows of the archive are there, and no more.
  static void expect_rows(const Cluster& restored) {
    EXPECT_EQ(restored.sql("SELECT count(*) || ' ' || min(id) FROM made"), "1000 1");
    restored.sql("INSERT INTO made SELECT generate_series(1, 1000)");
    restored.sql("CHECKPOINT");
  }

  Place place_;
  std::unique_ptr<Cluster> cluster_;
  fs::path space_;
  std::string oid_;
  std::string wal_;  ///< the segment that makes it
  std::map<std::string, std::string> files_;
};

/// Where PostgreSQL's own tools are needed.
using ReplayedTablespaceOnce = ReplayedTablespace;
INSTANTIATE_TEST_SUITE_P(On, ReplayedTablespaceOnce, ::testing::Values(15),
                         [](const auto& each) { return std::to_string(each.param); });
INSTANTIATE_TEST_SUITE_P(On, ReplayedTablespace, ::testing::Values(15, 17),
                         [](const auto& each) { return std::to_string(each.param); });

TEST_P(ReplayedTablespace, a_drill_leaves_productions_files_alone) {
  const Result drill = holdfast_as_self(place_, {"drill"});
  EXPECT_EQ(drill.status, 0) << drill.errors << drill.output;
  expect_untouched();
}

TEST_P(ReplayedTablespaceOnce, an_extract_leaves_productions_files_alone) {
  const fs::path dump = place_.path("dump.sql");
  const Result extract = holdfast_as_self(place_, {"extract", "made", "--output", dump.string()});
  EXPECT_EQ(extract.status, 0) << extract.errors << extract.output;
  EXPECT_NE(text_of(dump).find("\n1000\n"), std::string::npos);
  expect_untouched();
}

TEST_P(ReplayedTablespace, a_restore_needs_a_place_for_it_and_keeps_to_that) {
  const fs::path directory = place_.path("restored");
  const Result refused = place_.holdfast({"restore", directory.string()});
  EXPECT_EQ(refused.status, base::info(Code::refused).exit_status) << refused.errors;
  EXPECT_NE(refused.errors.find(space_.string()), std::string::npos) << refused.errors;
  EXPECT_NE(refused.errors.find("--tablespace " + oid_ + "="), std::string::npos);
  EXPECT_FALSE(fs::exists(directory)) << "nothing is written before";
  const fs::path there = place_.path("there/it/is");
  const auto restored =
      place_.restored(*cluster_, "restored", {"--tablespace", oid_ + "=" + there.string()});
  expect_rows(*restored);
  EXPECT_EQ(restored->sql("SELECT pg_tablespace_location(" + oid_ + ")"), there.string());
  EXPECT_FALSE(fs::is_empty(there));
  expect_untouched();
  restored->stop();
  restored->start();
  EXPECT_EQ(restored->sql("SELECT count(*) FROM made"), "2000");
}

TEST_P(ReplayedTablespace, wal_that_comes_after_the_restore_is_held_back_as_well) {
  const fs::path late = place_.path("late");
  const fs::path directory = place_.path("restored");
  place_.must(
      {"restore", directory.string(), "--tablespace", oid_ + "=" + place_.path("there").string()});
  fs::create_directories(late);
  place_.give_to_server_user(late);
  cluster_->sql(fmt::format("CREATE TABLESPACE late LOCATION '{}'", late.string()));
  cluster_->sql("CREATE TABLE last TABLESPACE late AS SELECT 1 AS one");
  place_.archive_all(*cluster_);
  cluster_->sql("CHECKPOINT");
  const auto files = files_of(late);
  const auto restored = adopt(cluster_->installation(), directory);
  restored->start();
  restored->server().await_recovery_end(std::chrono::seconds(120));
  EXPECT_EQ(restored->sql("SELECT one FROM last"), "1");
  restored->sql("UPDATE last SET one = 2");
  restored->sql("CHECKPOINT");
  EXPECT_EQ(files_of(late), files);
  const std::string oid = cluster_->sql("SELECT oid FROM pg_tablespace WHERE spcname = 'late'");
  EXPECT_TRUE(fs::is_directory(fs::symlink_status(directory / "pg_tblspc" / oid)));
  // As an ordinary part of it from then on: after a crash, and in its own backup.
  restored->stop(postgres::Server::StopMode::immediate);
  restored->start();
  EXPECT_EQ(restored->sql("SELECT one FROM last"), "2");
}

TEST_P(ReplayedTablespace, a_tablespace_that_is_free_to_be_where_it_was_goes_there) {
  cluster_->stop();
  fs::rename(space_, place_.path("away"));
  const auto restored = place_.restored(*cluster_, "restored", {});
  EXPECT_EQ(restored->sql("SELECT pg_tablespace_location(" + oid_ + ")"), space_.string());
  restored->stop();
  fs::remove_all(space_);
  fs::rename(place_.path("away"), space_);
  cluster_->start();
  expect_untouched();
}

TEST_P(ReplayedTablespaceOnce, what_is_fetched_differs_from_what_is_stored_in_that_record_only) {
  const std::string& name = wal_;
  const fs::path plain = place_.path("plain");
  const fs::path moved = place_.path("moved");
  for (const fs::path& each : {plain, moved}) {
    fs::create_directories(each);
    place_.give_to_server_user(each);
  }
  place_.must({"wal", "fetch", name, (plain / name).string()});
  place_.must({"wal", "fetch", "--tablespaces-in-place", name, (moved / name).string()});
  const auto tablespaces = [&](const fs::path& where) {
    const Result dump = run_tool(cluster_->installation(), "pg_waldump",
                                 {"--rmgr", "Tablespace", (where / name).string()});
    return dump.output;
  };
  EXPECT_NE(tablespaces(plain).find("CREATE " + oid_ + " \"" + space_.string()), std::string::npos)
      << tablespaces(plain);
  EXPECT_NE(tablespaces(moved).find("CREATE " + oid_ + " \"\""), std::string::npos)
      << tablespaces(moved);
  const std::string before = text_of(plain / name);
  const std::string after = text_of(moved / name);
  ASSERT_EQ(before.size(), after.size());
  std::size_t differing = 0;
  for (std::size_t i = 0; i < before.size(); ++i) differing += before[i] != after[i] ? 1U : 0U;
  EXPECT_LE(differing, space_.string().size() + 4);
  EXPECT_GE(differing, space_.string().size());
}

TEST_P(ReplayedTablespace, a_recovery_leaves_the_old_clusters_files_alone) {
  const Result done = place_.holdfast({"recover", "--yes"});
  EXPECT_EQ(done.status, 0) << done.errors;
  EXPECT_EQ(files_of(space_), files_);
  EXPECT_EQ(cluster_->sql("SELECT count(*) FROM made WHERE id < 0"), "1000") << done.output;
  EXPECT_NE(cluster_->sql("SELECT pg_tablespace_location(" + oid_ + ")"), space_.string());
  run_tool(cluster_->installation(), "pg_ctl",
           {"-D", cluster_->data_directory().string(), "-m", "immediate", "-w", "stop"});
  EXPECT_EQ(files_of(space_), files_);
}

/// A tablespace that is in the backup, and that production still uses.
class TablespacePlace : public ::testing::Test {
 protected:
  TablespacePlace() : cluster_(place_.cluster()), space_(place_.path("space")) {
    fs::create_directories(space_);
    place_.give_to_server_user(space_);
    cluster_->sql(fmt::format("CREATE TABLESPACE space LOCATION '{}'", space_.string()));
    cluster_->sql("CREATE TABLE t TABLESPACE space AS SELECT generate_series(1, 1000) AS id");
    oid_ = cluster_->sql("SELECT oid FROM pg_tablespace WHERE spcname = 'space'");
    place_.must({"backup"});
    cluster_->sql("UPDATE t SET id = -id");
    cluster_->sql("CHECKPOINT");
    files_ = files_of(space_);
  }
  Result restore(const std::vector<std::string>& arguments) const {
    std::vector<std::string> all = {"restore", directory().string(), "--to", "immediate"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    return place_.holdfast(all);
  }
  void expect_refused(const Result& result, const std::string& why) const {
    EXPECT_EQ(result.status, base::info(Code::refused).exit_status) << result.errors;
    EXPECT_NE(result.errors.find(why), std::string::npos) << result.errors;
    EXPECT_EQ(files_of(space_), files_);
  }
  fs::path directory() const { return place_.path("restored"); }

  Place place_;
  std::unique_ptr<Cluster> cluster_;
  fs::path space_;
  std::string oid_;
  std::map<std::string, std::string> files_;
};

TEST_F(TablespacePlace, delta_never_writes_into_one_that_is_not_the_directorys_own) {
  expect_refused(restore({"--delta"}), space_.string());
  expect_refused(restore({"--delta", "--tablespace", oid_ + "=" + space_.string()}),
                 space_.string());
  const fs::path home = place_.path("home");
  fs::create_directories(home);
  overwrite(home / "letter", "dear");
  place_.give_to_server_user(home);
  expect_refused(restore({"--delta", "--tablespace", oid_ + "=" + home.string()}), home.string());
  EXPECT_EQ(text_of(home / "letter"), "dear");
  // A copy of production's directory has production's links.
  cluster_->stop();
  fs::copy(cluster_->data_directory(), directory(),
           fs::copy_options::recursive | fs::copy_options::copy_symlinks);
  for (const auto& each : fs::recursive_directory_iterator(directory())) {
    if (!each.is_symlink()) place_.give_to_server_user(each.path());
  }
  place_.give_to_server_user(directory());
  expect_refused(restore({"--delta"}), space_.string());
  // Production's own directory may be made right, with its tablespace.
  const Result own = place_.holdfast({"restore", cluster_->data_directory().string(), "--delta"});
  EXPECT_EQ(own.status, 0) << own.errors;
  cluster_->start();
  EXPECT_EQ(cluster_->sql("SELECT count(*) FROM t"), "1000");
}

TEST_F(TablespacePlace, delta_keeps_the_place_that_was_chosen_before) {
  const fs::path there = place_.path("there");
  ASSERT_EQ(restore({"--tablespace", oid_ + "=" + there.string()}).status, 0);
  for (const bool finished : {true, false}) {
    if (!finished) {
      fs::remove(directory() / "global/pg_control");
      overwrite(directory() / "holdfast.restore", "of a try that died\n");
      place_.give_to_server_user(directory() / "holdfast.restore");
    }
    const Result again = restore({"--delta"});
    EXPECT_EQ(again.status, 0) << again.errors;
    EXPECT_EQ(fs::read_symlink(directory() / "pg_tblspc" / oid_), there);
  }
  EXPECT_EQ(files_of(space_), files_);
}

TEST_F(TablespacePlace, no_place_is_within_another_one) {
  for (const std::string& to : {directory().string(), (directory() / "inside").string(),
                                directory().parent_path().string()}) {
    const Result result = restore({"--tablespace", oid_ + "=" + to});
    EXPECT_EQ(result.status, base::info(Code::refused).exit_status) << to << result.errors;
  }
  fs::create_directories(place_.path("second"));
  place_.give_to_server_user(place_.path("second"));
  cluster_->sql(
      fmt::format("CREATE TABLESPACE second LOCATION '{}'", place_.path("second").string()));
  place_.must({"backup"});
  const std::string second =
      cluster_->sql("SELECT oid FROM pg_tablespace WHERE spcname = 'second'");
  const std::string there = place_.path("there").string();
  expect_refused(
      restore({"--tablespace", oid_ + "=" + there, "--tablespace", second + "=" + there}), there);
}

TEST_F(TablespacePlace, delta_over_a_cluster_of_another_system_needs_its_name) {
  const auto other = std::make_unique<Cluster>(cluster_->installation(), directory());
  const std::string system =
      run_tool(cluster_->installation(), "pg_controldata", {directory().string()}).output;
  const std::string label = "Database system identifier:";
  std::string id = system.substr(system.find(label) + label.size());
  id = id.substr(id.find_first_not_of(' '));
  id.resize(id.find('\n'));
  const std::string there = oid_ + "=" + place_.path("there").string();
  expect_refused(restore({"--delta", "--tablespace", there}), "--replace-system " + id);
  EXPECT_TRUE(fs::exists(directory() / "global/pg_control"));
  EXPECT_EQ(restore({"--delta", "--tablespace", there, "--replace-system", id}).status, 0);
}

}  // namespace
}  // namespace holdfast::tests
