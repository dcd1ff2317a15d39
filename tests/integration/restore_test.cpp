// A restored directory: nothing half done can be started, and nothing in it is other than it was.

#include <signal.h>
#include <unistd.h>

#include "base/error.h"
#include "harness/witness.h"

namespace holdfast::tests {
namespace {

constexpr int refused = 19;

class Restore : public testing::Test {
 protected:
  Restore() : source_(place_.cluster()) {
    source_->sql(
        "CREATE TABLE t AS SELECT g AS id, md5(g::text) AS v FROM generate_series(1, 20000) g");
    place_.must({"backup"});
    source_->sql("INSERT INTO t VALUES (0, 'last')");
    place_.archive_all(*source_);
  }

  std::string directory() const { return place_.path("restored").string(); }
  Result restore(std::vector<std::string> arguments = {}) const {
    arguments.insert(arguments.begin(), {"restore", directory()});
    return place_.holdfast(arguments);
  }
  fs::path in_restored(std::string_view name) const { return place_.path("restored") / name; }
  std::string table_file() const { return source_->sql("SELECT pg_relation_filepath('t')"); }

  /// "" if a server started on it and recovered; else what it said.
  std::string start() const {
    try {
      postgres::Server server(source_->installation(), directory());
      server.await_recovery_end(std::chrono::seconds(60));
      postgres::Session session(server.connection());
      return session.value("SELECT count(*) FROM public.t") == "20001" ? "" : "rows are missing";
    } catch (const base::Error& error) {
      return error.message();
    }
  }

  Place place_;
  std::unique_ptr<Cluster> source_;
};

TEST_F(Restore, B19_RS4_INV_8_without_backup_label_the_server_refuses_to_start) {
  ASSERT_EQ(restore().status, 0);
  fs::remove(in_restored("backup_label"));
  // With WAL at hand PostgreSQL would believe the checkpoint in pg_control and start, with pages
  // that are older or newer than it thinks.
  for (const auto& entry : fs::directory_iterator(source_->data_directory() / "pg_wal")) {
    if (entry.path().filename().string().size() != 24) continue;
    const fs::path copy = in_restored("pg_wal") / entry.path().filename();
    fs::copy_file(entry.path(), copy);
    place_.give_to_server_user(copy);
  }
  EXPECT_NE(start(), "");
  // Nor without what says that it is to recover.
  fs::remove(in_restored("recovery.signal"));
  EXPECT_NE(start(), "");
}

TEST_F(Restore, without_any_of_that_being_removed_it_starts) {
  ASSERT_EQ(restore().status, 0);
  EXPECT_EQ(start(), "");
}

TEST_F(Restore, RS6_INV_8_a_promoted_restore_writes_nothing_into_the_archive) {
  const auto restored = place_.restored(*source_, "restored");
  const auto before = tree_of(place_.repository());
  EXPECT_EQ(restored->sql("SHOW archive_mode"), "off");
  restored->sql("INSERT INTO t SELECT g, 'new' FROM generate_series(1, 1000) g");
  restored->sql("SELECT pg_switch_wal()");
  restored->sql("CHECKPOINT");
  restored->stop();
  EXPECT_EQ(tree_of(place_.repository()), before);
  // Not even a file that says there is something to be archived.
  for (const auto& entry : fs::directory_iterator(in_restored("pg_wal/archive_status"))) {
    EXPECT_NE(entry.path().extension(), ".ready") << entry.path();
  }
}

TEST_F(Restore, RS5_B9_half_done_it_cannot_be_started_and_delta_finishes_it) {
  ASSERT_EQ(place_.holdfast({"restore", place_.path("whole").string()}).status, 0);
  const auto whole = tree_of(place_.path("whole"));
  int half_done = 0;
  // Killed at the first sight of each of these, and so at many steps of the work.
  for (const char* sight : {"holdfast.restore", "PG_VERSION", "global/1262", "recovery.signal"}) {
    base::Command command;
    command.argv = {holdfast_binary().string(),
                    "--config",
                    place_.configuration().string(),
                    "restore",
                    directory(),
                    "--workers",
                    "1"};
    command.directory = place_.path();
    command.user = postgres::server_user();
    base::Child child(command, place_.path("restore.log"));
    while (!fs::exists(in_restored(sight)) && !child.finished()) {
    }
    child.signal(SIGKILL);
    child.wait();
    if (fs::exists(in_restored("global/pg_control"))) {  // it was faster
      fs::remove_all(directory());
      continue;
    }
    ++half_done;
    EXPECT_NE(start(), "") << sight;
    const Result again = restore();
    EXPECT_EQ(again.status, refused) << sight << again.errors;
    EXPECT_NE(again.errors.find("--delta finishes it"), std::string::npos) << again.errors;
    EXPECT_EQ(restore({"--delta"}).status, 0) << sight;
    EXPECT_EQ(tree_of(directory()), whole) << sight;
    fs::remove_all(directory());
  }
  EXPECT_GE(half_done, 2) << "too few of the kills hit";
}

TEST_F(Restore, RS10_remains_of_another_backup_are_not_mixed_in) {
  source_->sql("UPDATE t SET v = 'changed'");
  place_.must({"backup"});
  place_.archive_all(*source_);
  const auto backups = place_.must({"list", "--json"}).json().at("backups");
  const std::string first = backups[0].at("id");
  const std::string second = backups[1].at("id");
  ASSERT_EQ(restore({"--backup", first, "--to", "immediate"}).status, 0);
  fs::remove(in_restored("global/pg_control"));
  overwrite(in_restored("holdfast.restore"), first + "\n");
  place_.give_to_server_user(in_restored("holdfast.restore"));

  EXPECT_EQ(restore({"--backup", second}).status, refused);
  EXPECT_EQ(restore({"--backup", second, "--delta"}).status, 0);
  place_.must({"restore", place_.path("whole").string(), "--backup", second});
  EXPECT_EQ(tree_of(directory()), tree_of(place_.path("whole")));
}

class Delta : public Restore {
 protected:
  Delta() {
    place_.must({"restore", directory()});
    whole_ = tree_of(directory());
  }
  void expect_repaired() {
    const Result result = restore({"--delta"});
    ASSERT_EQ(result.status, 0) << result.errors;
    EXPECT_TRUE(tree_of(directory()) == whole_);
  }
  std::map<std::string, std::string> whole_;
};

TEST_F(Delta, RS3_B17_a_byte_changed_at_equal_size_and_time_is_put_right) {
  for (const std::string& name : {table_file(), std::string("PG_VERSION"),
                                  std::string("base/1/1259"), std::string("postgresql.conf")}) {
    const auto time = fs::last_write_time(in_restored(name));
    flip_byte(in_restored(name), fs::file_size(in_restored(name)) - 1);
    fs::last_write_time(in_restored(name), time);
  }
  expect_repaired();
}

TEST_F(Delta, what_is_missing_cut_longer_strange_or_of_another_kind_is_put_right) {
  fs::remove(in_restored(table_file()));
  fs::resize_file(in_restored("base/1/1259"), 100);
  fs::resize_file(in_restored("base/1/1249"), 100 << 20);
  overwrite(in_restored("base/1/99999"), "nobody knows this");
  overwrite(in_restored("stranger"), "nor this");
  fs::create_directories(in_restored("base/777/deep"));
  overwrite(in_restored("base/777/deep/file"), "nor this");
  for (const char* name : {"base/777", "base/777/deep", "stranger"}) {
    place_.give_to_server_user(in_restored(name));
  }
  fs::remove(in_restored("base/1/1255"));
  fs::create_directory(in_restored("base/1/1255"));
  fs::remove_all(in_restored("pg_subtrans"));
  expect_repaired();
  EXPECT_EQ(start(), "");
}

TEST_F(Delta, a_directory_that_was_promoted_and_written_to_becomes_the_backup_again) {
  {
    const auto cluster = adopt(source_->installation(), directory());
    cluster->start();
    cluster->server().await_recovery_end(std::chrono::seconds(60));
    cluster->sql("UPDATE t SET v = 'x'");
    cluster->sql("CREATE TABLE more AS SELECT generate_series(1, 10000)");
    cluster->stop();
  }
  expect_repaired();
  EXPECT_EQ(start(), "");
}

TEST_F(Delta, writes_only_what_differs) {
  flip_byte(in_restored(table_file()), 5000);
  const auto result = restore({"--delta", "--json"}).json();
  EXPECT_LE(result.at("written_bytes"), 8 * 8192) << result;
  EXPECT_GT(result.at("bytes"), 10 << 20) << result;
}

TEST_F(Delta, is_refused_while_a_server_runs_there) {
  const auto cluster = adopt(source_->installation(), directory());
  cluster->start();
  cluster->server().await_recovery_end(std::chrono::seconds(60));
  const Result result = restore({"--delta"});
  EXPECT_EQ(result.status, refused) << result.errors;
  EXPECT_EQ(cluster->sql("SELECT count(*) FROM t"), "20001");
}

TEST_F(Restore, delta_finishes_one_that_died_before_its_first_file) {
  const fs::path target = place_.path("restored");
  fs::create_directory(target);
  // What replacing a file leaves when it is killed.
  base::replace_file(target / "holdfast.restore.tmp.4jDIKl", base::view("a backup\n"));
  place_.give_to_server_user(target);
  place_.give_to_server_user(target / "holdfast.restore.tmp.4jDIKl");
  const Result result =
      place_.holdfast({"restore", target.string(), "--to", "immediate", "--delta"});
  EXPECT_EQ(result.status, 0) << result.errors;
  EXPECT_FALSE(fs::exists(target / "holdfast.restore.tmp.4jDIKl"));
}

TEST_F(Restore, refuses_what_holds_files_and_delta_refuses_what_is_no_data_directory) {
  fs::create_directory(place_.path("home"));
  overwrite(place_.path("home/letter"), "dear");
  place_.give_to_server_user(place_.path("home"));
  const std::string home = place_.path("home").string();
  EXPECT_EQ(place_.holdfast({"restore", home}).status, refused);
  EXPECT_EQ(place_.holdfast({"restore", home, "--delta"}).status, refused);
  EXPECT_EQ(place_.holdfast({"restore", (place_.path("home/letter")).string()}).status, refused);
  EXPECT_EQ(text_of(place_.path("home/letter")), "dear");
  // The source itself, running: the worst that could be asked for.
  EXPECT_EQ(place_.holdfast({"restore", source_->data_directory().string()}).status, refused);
  EXPECT_EQ(place_.holdfast({"restore", source_->data_directory().string(), "--delta"}).status,
            refused);
  EXPECT_EQ(source_->sql("SELECT count(*) FROM t"), "20001");
}

TEST_F(Restore, an_empty_directory_with_or_without_a_slash_is_welcome) {
  fs::create_directory(directory());
  place_.give_to_server_user(directory());
  EXPECT_EQ(place_.holdfast({"restore", directory() + "/"}).status, 0);
  EXPECT_EQ(start(), "");
}

TEST_F(Restore, files_belong_to_whom_they_belonged_also_when_root_restores) {
  base::Command command;
  command.argv = {holdfast_binary().string(), "--config", place_.configuration().string(),
                  "restore", directory()};
  command.directory = place_.path();
  base::run_checked(command);
  const auto owner = base::status_of(source_->data_directory() / "PG_VERSION");
  std::size_t seen = 0;
  std::vector<fs::path> paths{directory()};
  for (const auto& entry : fs::recursive_directory_iterator(directory())) {
    paths.push_back(entry.path());
  }
  for (const fs::path& path : paths) {
    const auto status = base::status_of(path, false);
    EXPECT_EQ(status->st_uid, owner->st_uid) << path;
    EXPECT_EQ(status->st_gid, owner->st_gid) << path;
    EXPECT_EQ(status->st_mode & 0007, 0U) << path;
    ++seen;
  }
  EXPECT_GT(seen, 500U);
  EXPECT_EQ(start(), "");
}

}  // namespace
}  // namespace holdfast::tests
