// Several repositories: every backup and all WAL to each, and reading from the first that can.

#include "faults/faults.h"
#include "harness/witness.h"

namespace holdfast::tests {
namespace {

/// A cluster with a repository "local" (where Place expects it) and another one, "offsite".
class Repositories : public testing::Test {
 protected:
  Repositories() : cluster_(place_.cluster()) {
    overwrite(place_.configuration(),
              text_of(place_.configuration()) +
                  fmt::format("\n[repository.offsite]\nurl = \"file://{}\"\nkey_file = \"{}\"\n",
                              offsite().string(), place_.path("offsite.key").string()));
    EXPECT_NE(place_.must({"init"}).output.find("recovery kit"), std::string::npos);
    cluster_->sql("CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) AS i");
  }
  fs::path offsite() const { return place_.path("offsite"); }
  /// A disk that is not there.
  static void take_away(const fs::path& repository) {
    fs::rename(repository, repository.string() + ".away");
  }
  static void bring_back(const fs::path& repository) {
    fs::remove_all(repository);
    fs::rename(repository.string() + ".away", repository);
  }
  std::vector<std::string> ids(const std::string& repository) const {
    std::vector<std::string> found;
    const auto listed = place_.must({"list", "--json", "--repository", repository}).json();
    for (const auto& each : listed.at("backups")) found.push_back(each.at("id"));
    return found;
  }
  /// The segments.
  static std::set<std::string> wal_of(const fs::path& repository) {
    std::set<std::string> names;
    for (const fs::path& file : files_below(repository / "clusters")) {
      const std::string name = file.filename();
      if (name.size() == 24 && name == file.parent_path().filename().string() + name.substr(8)) {
        names.insert(name);
      }
    }
    return names;
  }
  std::string rows() const { return cluster_->sql("SELECT count(*) || ' ' || sum(i) FROM t"); }

  Place place_;
  std::unique_ptr<Cluster> cluster_;
};

TEST_F(Repositories, a_restore_that_is_interrupted_leaves_an_empty_directory) {
  cluster_->sql(
      "CREATE TABLE noise AS SELECT md5(random()::text) || md5(random()::text) AS v "
      "FROM generate_series(1, 300000)");
  place_.must({"backup"});
  const fs::path target = place_.path("restored");
  Running restore(place_, {"restore", target.string(), "--to", "immediate"});
  await([&] { return restore.over() || fs::exists(target / "base" / "1" / "1259"); }, "some files");
  restore.signal(SIGINT);
  EXPECT_EQ(restore.wait(), status_of(base::Code::interrupted)) << restore.said();
  EXPECT_TRUE(is_empty_or_absent(target));
}

TEST_F(Repositories, a_restore_that_fails_from_each_leaves_an_empty_directory) {
  place_.must({"backup"});
  for (const fs::path& pack : files_below(place_.repository())) {
    if (pack.string().find("/packs/") != std::string::npos) overwrite(pack, "lost");
  }
  const fs::path target = place_.path("restored");
  const fs::path key = place_.path("offsite.key");
  fs::rename(key, key.string() + ".away");
  EXPECT_NE(place_.holdfast({"restore", target.string(), "--to", "immediate"}).status, 0);
  EXPECT_TRUE(is_empty_or_absent(target));
  fs::rename(key.string() + ".away", key);
  place_.must({"restore", target.string(), "--to", "immediate"});
}

TEST_F(Repositories, all_get_every_backup_and_all_wal) {
  place_.must({"backup"});
  place_.archive_all(*cluster_);
  EXPECT_EQ(ids("local").size(), 1U);
  EXPECT_EQ(ids("offsite").size(), 1U);
  eventually("both have all WAL", [&] { return wal_of(place_.repository()) == wal_of(offsite()); });
  for (const std::string command : {"verify", "list", "status"}) {
    const Result both = place_.holdfast({command});
    EXPECT_NE(both.output.find("Repository local"), std::string::npos) << command << both.errors;
    EXPECT_NE(both.output.find("Repository offsite"), std::string::npos) << command;
  }
  EXPECT_EQ(place_.holdfast({"list", "--repository", "nowhere"}).status,
            status_of(base::Code::not_found));
}

TEST_F(Repositories, that_was_down_is_caught_up_and_shown_as_behind_until_then) {
  place_.must({"backup"});
  place_.archive_all(*cluster_);
  take_away(offsite());
  for (int i = 0; i < 3; ++i) {
    cluster_->sql("INSERT INTO t VALUES (-1)");
    place_.archive_all(*cluster_);  // the archiver goes on: one copy is enough
  }
  const Result failed = place_.holdfast({"backup"});
  EXPECT_NE(failed.status, 0) << "one of two failed";
  EXPECT_EQ(ids("local").size(), 2U);
  bring_back(offsite());
  const Result status = place_.holdfast({"status"});
  EXPECT_NE(status.output.find("behind another one"), std::string::npos) << status.output;
  // The next segment brings those before it along.
  cluster_->sql("INSERT INTO t VALUES (-2)");
  place_.archive_all(*cluster_);
  eventually("the other one has caught up", [&] {
    const auto theirs = wal_of(offsite());
    return std::ranges::includes(theirs, wal_of(place_.repository()));
  });
  place_.must({"verify", "--repository", "offsite"});
}

TEST_F(Repositories, restore_and_fetch_use_the_one_that_is_left) {
  place_.must({"backup"});
  cluster_->sql("INSERT INTO t VALUES (4711)");
  place_.archive_all(*cluster_);
  eventually("both have all WAL", [&] { return wal_of(place_.repository()) == wal_of(offsite()); });
  const std::string before = rows();
  cluster_->stop();
  take_away(place_.repository());
  const auto restored = place_.restored(*cluster_, "restored");
  EXPECT_EQ(restored->sql("SELECT count(*) || ' ' || sum(i) FROM t"), before);
}

TEST_F(Repositories, a_restore_falls_over_to_the_next_on_the_way) {
  place_.must({"backup"});
  place_.archive_all(*cluster_);
  eventually("both have all WAL", [&] { return wal_of(place_.repository()) == wal_of(offsite()); });
  // The largest pack of the first one is damaged: that is found in the middle of it.
  auto packs = files_below(system_directory(place_) / "packs");
  std::ranges::sort(packs, {}, [](const fs::path& file) { return fs::file_size(file); });
  const Damage damage(packs.back());
  damage.flip(damage.size() / 3);
  const Result result = place_.must({"restore", place_.path("restored").string()});
  EXPECT_NE(result.errors.find("trying offsite"), std::string::npos) << result.errors;
  const auto restored = adopt(cluster_->installation(), place_.path("restored"));
  restored->start();
  restored->server().await_recovery_end(std::chrono::seconds(120));
  EXPECT_EQ(restored->sql("SELECT count(*) || ' ' || sum(i) FROM t"), rows());
}

TEST_F(Repositories, that_lacks_a_segment_leaves_it_to_the_other) {
  place_.must({"backup"});
  cluster_->sql("INSERT INTO t VALUES (1)");
  const std::string segment = finish_segment(place_, *cluster_);
  cluster_->sql("INSERT INTO t VALUES (2)");
  place_.archive_all(*cluster_);
  eventually("both have all WAL", [&] { return wal_of(place_.repository()) == wal_of(offsite()); });
  fs::remove(object_of(place_, *cluster_, "wal/" + segment.substr(0, 8) + "/" + segment));
  place_.must({"wal", "fetch", segment, place_.path("fetched").string()});
  EXPECT_EQ(fs::file_size(place_.path("fetched")), 16U << 20);
}

TEST_F(Repositories, SR5_that_is_gone_does_not_stop_the_others) {
  place_.must({"backup"});
  take_away(place_.repository());
  EXPECT_NE(place_.holdfast({"backup"}).status, 0);
  EXPECT_EQ(ids("offsite").size(), 2U);
  const std::string newest = ids("offsite").back();
  place_.must({"pin", newest, "--for", "1d", "--reason", "test", "--repository", "offsite"});
}

TEST_F(Repositories, INV_4_push_wants_as_many_copies_as_are_asked_for) {
  overwrite(place_.configuration(), text_of(place_.configuration()) + "\n[wal]\ncopies = 2\n");
  const std::string segment = finish_segment(place_, *cluster_);
  take_away(offsite());
  const fs::path file = cluster_->data_directory() / "pg_wal" / segment;
  const Result refused = place_.holdfast({"wal", "push", file.string()});
  EXPECT_NE(refused.status, 0);
  bring_back(offsite());
  place_.must({"wal", "push", file.string()});
}

}  // namespace
}  // namespace holdfast::tests
