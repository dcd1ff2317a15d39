// Files that are cut off and grow again between two backups for which the server sends changes
// only.
//
// It merges its WAL summaries in the order of their directory (17 and 18), and what was cut off
// early then takes blocks with it that were written later. So the server is watched: what it leaves
// out is not believed, and backups of before that are suspect.
//
// HOLDFAST_LONG=1 tries it forty times on a file system as it is.

#include <cstdlib>
#include <iostream>

#include "faults/faults.h"
#include "harness/witness.h"
#include "operations/catalog.h"

namespace holdfast::tests {
namespace {

using base::Code;
using nlohmann::json;

bool is_long() {
  return std::getenv("HOLDFAST_LONG") != nullptr;
}

class CutOf : public testing::Test {
 protected:
  /// `newest_first`: the server reads its summaries in the order that shows the fault.
  explicit CutOf(int major, bool newest_first) : cluster_(place_.cluster(major)) {
    make_agentless(place_);
    cluster_->stop();
    postgres::Settings settings = {{"autovacuum", "off"},          {"summarize_wal", "on"},
                                   {"wal_keep_size", "256MB"},     {"checkpoint_timeout", "1h"},
                                   {"bgwriter_lru_maxpages", "0"}, {"max_wal_size", "4GB"}};
    for (const auto& each : archiving(place_)) settings.push_back(each);
    const fs::path library = place_.path("newest_first.so");
    fs::copy_file(NEWEST_FIRST, library);
    if (newest_first) ::setenv("LD_PRELOAD", library.c_str(), 1);
    cluster_->start(settings);
    ::unsetenv("LD_PRELOAD");
    point_configuration_at(place_, *cluster_);
  }

  /// A checkpoint, and the summary that ends with it.
  void summarize() const {
    cluster_->sql("CHECKPOINT");
    const std::string redo = cluster_->sql("SELECT redo_lsn FROM pg_control_checkpoint()");
    eventually("there is a summary up to the checkpoint", [&] {
      return cluster_->sql("SELECT max(end_lsn) >= '" + redo +
                           "' FROM pg_available_wal_summaries()") == "t";
    });
  }
  void fill(const std::string& table) const {
    cluster_->sql("CREATE TABLE " + table + " (a int, b text)");
    cluster_->sql("INSERT INTO " + table +
                  " SELECT g, repeat('x', 200) FROM generate_series(1, 3000) g");
    // Else a backup that looks at rows writes hint bits, and an older summary names the pages, too.
    cluster_->sql("VACUUM FREEZE " + table);
  }
  /// 72 of its 86 pages go.
  void cut(const std::string& table) const {
    cluster_->sql("DELETE FROM " + table + " WHERE a > 500");
    cluster_->sql("VACUUM " + table);
    ASSERT_LT(std::stoi(cluster_->sql("SELECT pg_relation_size('" + table + "') / 8192")), 30);
  }
  void grow(const std::string& table) const {
    cluster_->sql("INSERT INTO " + table +
                  " SELECT g, repeat('y', 203) FROM generate_series(10001, 11500) g");
  }

  json take(const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments = {"backup", "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Result result = place_.must(arguments);
    said_ = result.errors;
    return result.json();
  }
  /// What a restore of that backup alone has otherwise than the server's disk.
  std::string differences(const std::string& backup) {
    const fs::path target = place_.path(fmt::format("restored-{}", ++restores_));
    place_.must({"restore", target.string(), "--backup", backup, "--to", "immediate"});
    const std::string found = differences_on_disk(cluster_->data_directory(), target);
    fs::remove_all(target);
    return found;
  }

  Place place_;
  std::unique_ptr<Cluster> cluster_;
  std::string said_;
  int restores_ = 0;
};

class Cut : public CutOf, public testing::WithParamInterface<int> {
 protected:
  Cut() : CutOf(GetParam(), true) {}
};

TEST_P(Cut, what_was_written_behind_it_is_in_the_backup) {
  fill("t");
  take();
  cut("t");
  summarize();
  grow("t");
  summarize();
  const json made = take();
  EXPECT_EQ(made.at("compared"), "summaries") << said_;
  EXPECT_EQ(differences(made.at("id")), "");
}

TEST_P(Cut, of_any_kind_loses_nothing) {
  for (const char* table : {"to_nothing", "twice", "before", "last", "anew", "moved"}) fill(table);
  cut("before");  // in the summary that ends where the first backup begins
  grow("before");
  take();
  cluster_->sql("DELETE FROM to_nothing");
  cluster_->sql("VACUUM to_nothing");
  cut("twice");
  grow("twice");
  cut("twice");
  grow("twice");
  summarize();
  grow("to_nothing");
  grow("twice");
  grow("before");
  cluster_->sql("TRUNCATE anew");
  cluster_->sql("CREATE DATABASE copied STRATEGY file_copy");
  cluster_->sql("CREATE DATABASE logged STRATEGY wal_log");
  summarize();
  grow("to_nothing");
  grow("anew");
  cut("twice");
  cluster_->sql("VACUUM FULL moved");
  for (const char* database : {"copied", "logged"}) {
    cluster_->sql("CREATE TABLE t AS SELECT generate_series(1, 5000)", database);
  }
  summarize();
  grow("twice");
  cut("moved");
  cut("last");  // in the summary that ends where the second backup begins
  grow("last");
  const json made = take();
  EXPECT_EQ(made.at("compared"), "summaries") << said_;
  EXPECT_EQ(differences(made.at("id")), "");
  // And everything is in order for the next one.
  grow("last");
  grow("moved");
  const json next = take();
  EXPECT_EQ(next.at("compared"), "summaries") << said_;
  EXPECT_EQ(differences(next.at("id")), "");
  place_.must({"verify"});
}

/// A process of the server that does not go on until this goes.
class Held {
 public:
  explicit Held(const std::string& pid) : pid_(std::stoi(pid)) { ::kill(pid_, SIGSTOP); }
  ~Held() { ::kill(pid_, SIGCONT); }
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;

 private:
  pid_t pid_;
};

// What is left out of the manifest cannot help here: the cut comes when that has been sent.
TEST_P(Cut, while_a_backup_begins_is_noticed_by_what_did_not_come) {
  fill("t");
  take();
  const std::string of_sender =
      " FROM pg_stat_activity WHERE backend_type = 'walsender' AND wait_event = 'CheckpointStart'";
  auto checkpointer = std::make_unique<Held>(
      cluster_->sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"));
  Running backup(place_, {"backup"});
  eventually("the server waits for the checkpoint of a backup", [&] {
    if (backup.over()) throw std::runtime_error("it ended: " + backup.said());
    return cluster_->sql("SELECT count(*)" + of_sender) == "1";
  });
  {
    const Held sender(cluster_->sql("SELECT pid" + of_sender));
    const std::string redo = "SELECT redo_lsn FROM pg_control_checkpoint()";
    const std::string before = cluster_->sql(redo);
    checkpointer.reset();
    // Else the rows that are deleted for the cut may stand before it, in a summary of their own
    // that names the same pages.
    eventually("the checkpoint is there", [&] { return cluster_->sql(redo) != before; });
    cut("t");
    summarize();
    grow("t");
    summarize();
  }
  EXPECT_EQ(backup.wait(), 0) << backup.said();
  EXPECT_NE(backup.said().find("the server did not send page"), std::string::npos) << backup.said();
  const json made = place_.must({"list", "--json"}).json().at("backups").back();
  EXPECT_EQ(made.at("compared"), "content");
  EXPECT_EQ(differences(made.at("id")), "");
}

// Row by row it looks like a list that is wrong: zeros where nothing was changed.
TEST_P(Cut, a_file_that_is_dropped_while_it_is_sent_is_understood) {
  postgres::Session watch = cluster_->session();
  bool caught = false;
  for (int i = 0; i < 5 && !caught; ++i) {
    // Sent as a whole because most of it has changed; and not all of it, so that it shows.
    const std::string table = fmt::format("big{}", i);
    cluster_->sql("CREATE TABLE " + table + " (a int, b text) WITH (fillfactor = 40)");
    cluster_->sql("INSERT INTO " + table +
                  " SELECT g, repeat('x', 400) FROM generate_series(1, 70000) g");
    cluster_->sql("VACUUM FREEZE " + table);
    take();
    cluster_->sql("UPDATE " + table + " SET b = repeat('y', 400) WHERE " +
                  "(ctid::text::point)[0]::int % 20 <> 0 AND (ctid::text::point)[1] = 1");
    Running backup(place_, {"backup"});
    const auto sent = [&]() -> long long {
      const auto rows = watch.query("SELECT backup_streamed FROM pg_stat_progress_basebackup");
      return rows.empty() ? 0 : std::stoll(rows[0][0].value_or("0"));
    };
    while (!backup.over() && sent() < (32 << 20)) {
    }
    if (!backup.over()) {
      const Held sender(watch.value("SELECT pid FROM pg_stat_progress_basebackup"));
      const long long at = sent();
      caught = at > (32 << 20) && at < (70 << 20);
      cluster_->sql("DROP TABLE " + table);
    }
    EXPECT_EQ(backup.wait(), 0) << backup.said();
    EXPECT_EQ(backup.said().find("is not among the changes"), std::string::npos) << backup.said();
  }
  ASSERT_TRUE(caught) << "no file was ever dropped while it was sent, so this shows nothing";
  const json made = place_.must({"list", "--json"}).json().at("backups").back();
  EXPECT_EQ(made.at("compared"), "summaries");
  place_.archive_all(*cluster_);
  const auto restored =
      place_.restored(*cluster_, "restored", {"--backup", made.at("id").get<std::string>()});
  EXPECT_EQ(digest(*restored), digest(*cluster_));
}

std::vector<int> majors() {
  return is_long() ? std::vector<int>{17, 18} : std::vector<int>{17};
}
INSTANTIATE_TEST_SUITE_P(Versions, Cut, testing::ValuesIn(majors()),
                         [](const auto& each) { return std::to_string(each.param); });

/// On 17 and 18, on a file system as it is.
class CutTrials : public CutOf, public testing::WithParamInterface<int> {
 protected:
  CutTrials() : CutOf(GetParam(), false) {}
};

TEST_P(CutTrials, lose_no_rows) {
  const int trials = is_long() ? 40 : 2;
  int lost = 0;
  int by_summaries = 0;
  for (int i = 0; i < trials; ++i) {
    const std::string table = fmt::format("t{}", i);
    fill(table);
    summarize();
    take();
    cut(table);
    summarize();
    grow(table);
    summarize();
    const json made = take();
    by_summaries += made.at("compared") == "summaries" ? 1 : 0;
    lost += differences(made.at("id")).empty() ? 0 : 1;
  }
  std::cout << fmt::format("PostgreSQL {}: rows lost in {} of {} trials, {} by summaries\n",
                           GetParam(), lost, trials, by_summaries);
  EXPECT_EQ(lost, 0);
  EXPECT_EQ(by_summaries, trials) << said_;
}

INSTANTIATE_TEST_SUITE_P(Versions, CutTrials, testing::ValuesIn(majors()),
                         [](const auto& each) { return std::to_string(each.param); });

class Suspect : public CutOf {
 protected:
  Suspect() : CutOf(17, false) {}

  /// Makes backup.json what it was before anything was checked.
  void make_old(const std::string& id) const {
    const auto configuration = operations::read_configuration(place_.configuration());
    const auto site = operations::open_site(configuration, "main");
    const repository::Backups backups(site.repository,
                                      {"main", site.repository.systems("main").front()});
    json document = backups.read({id}).value();
    EXPECT_EQ(document.erase("changes_checked"), 1U) << "a new backup says that it was checked";
    document.erase("check");
    const std::string name = backups.object_name({id}, "backup.json");
    site.repository.store().remove(name);
    backups.commit({id}, document);
    place_.give_to_server_user(place_.repository() / name);
  }
  json change_and_take(const std::vector<std::string>& more = {}) {
    cluster_->sql("INSERT INTO t VALUES (0, 'changed')");
    return take(more);
  }
};

TEST_F(Suspect, backups_are_named_and_not_built_upon) {
  fill("t");
  take();
  const std::string old = change_and_take().at("id");
  EXPECT_EQ(place_.must({"list", "--json"}).json().at("backups").back().at("suspect"), false);
  place_.must({"verify"});
  make_old(old);
  const int not_well = status_of(Code::check_failed);
  // Named by all who speak of backups.
  const Result listed = place_.holdfast({"list", "--json"});
  EXPECT_EQ(listed.status, not_well);
  EXPECT_EQ(listed.json().at("backups").front().at("suspect"), false);
  EXPECT_EQ(listed.json().at("backups").back().at("suspect"), true);
  const Result table = place_.holdfast({"list"});
  EXPECT_NE(table.output.find(old + "  SUSPECT"), std::string::npos) << table.output;
  EXPECT_NE(table.errors.find(old + " is suspect: "), std::string::npos) << table.errors;
  const Result verified = place_.holdfast({"verify", "--json"});
  EXPECT_EQ(verified.status, not_well);
  EXPECT_EQ(verified.json().at("ok"), false);
  EXPECT_EQ(verified.json().at("backups").back().at("suspect"), true);
  EXPECT_NE(place_.holdfast({"verify"}).output.find(old + "  restorable, but SUSPECT"),
            std::string::npos);
  const Result status = place_.holdfast({"status"});
  EXPECT_EQ(status.status, not_well);
  EXPECT_NE(status.output.find("backup " + old), std::string::npos) << status.output;
  const Result drilled = place_.holdfast({"drill", "--backup", old});
  EXPECT_NE(drilled.errors.find(old + " is suspect: "), std::string::npos) << drilled.errors;
  const Result restored =
      place_.must({"restore", place_.path("r").string(), "--backup", old, "--to", "immediate"});
  EXPECT_NE(restored.errors.find(old + " is suspect: "), std::string::npos) << restored.errors;
  // One that can be trusted is taken where it serves.
  place_.archive_all(*cluster_);
  const Result latest = place_.must({"restore", place_.path("s").string()});
  EXPECT_EQ(latest.errors.find("is suspect"), std::string::npos) << latest.errors;
  // Nothing is built on it.
  const json next = change_and_take();
  EXPECT_EQ(next.at("compared"), "content");
  EXPECT_EQ(next.at("compared_with"), old);
  EXPECT_NE(said_.find("was not checked"), std::string::npos) << said_;
  EXPECT_EQ(differences(next.at("id")), "");
  const Result after = place_.holdfast({"status", "--json"});
  EXPECT_EQ(after.json().at("newest_good_backup").at("id"), next.at("id")) << after.output;
  EXPECT_EQ(change_and_take().at("compared"), "summaries") << said_;
}

TEST_F(Suspect, are_only_those_for_which_the_server_chose) {
  fill("t");
  std::string configuration = text_of(place_.configuration());
  const auto at = configuration.find("connection = ");
  configuration.insert(
      at, fmt::format("data_directory = \"{}\"\n", cluster_->data_directory().string()));
  overwrite(place_.configuration(), configuration);
  take();
  const json made = change_and_take({"--compare", "summaries"});
  ASSERT_EQ(made.at("compared"), "summaries") << said_;
  make_old(made.at("id"));
  const json listed = place_.must({"list", "--json"}).json();
  EXPECT_EQ(listed.at("backups").back().at("suspect"), false);
  place_.must({"verify"});
}

}  // namespace
}  // namespace holdfast::tests
