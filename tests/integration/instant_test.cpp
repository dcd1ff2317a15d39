// `restore --instant`, `mount`, `unmount` and `settle` on real servers.

#include "harness/instant.h"
#include "faults/faults.h"

namespace holdfast::tests {
namespace {

using base::Code;

class Instant : public ::testing::Test {
 protected:
  void SetUp() override {
    NEEDS_FUSE();
    cluster_ = place_.cluster();
    cluster_->sql(
        "CREATE TABLE t AS SELECT g AS id, md5(g::text) AS v FROM "
        "generate_series(1, 50000) g");
    cluster_->sql("CREATE INDEX ON t (v)");
  }
  std::string content_of(const Cluster& cluster) const {
    postgres::Session session = cluster.session();
    return content(session);
  }

  Place place_;
  std::unique_ptr<Cluster> cluster_;
};

TEST_F(Instant, serves_at_once_goes_on_after_settling_and_is_right_throughout) {
  place_.must({"backup"});
  cluster_->sql("UPDATE t SET v = 'new' WHERE id % 7 = 0");
  const std::string before = content_of(*cluster_);
  cluster_->sql("SELECT pg_create_restore_point('before')");
  cluster_->sql("DROP TABLE t");
  place_.archive_all(*cluster_);
  Mounted mounted(place_, *cluster_, "restored", {"--to", "before"});
  mounted.start();
  EXPECT_EQ(content_of(mounted.cluster()), before);
  EXPECT_EQ(amcheck(mounted.cluster()), "");
  mounted.cluster().sql("INSERT INTO t SELECT g, 'later' FROM generate_series(1, 1000) g");
  const std::string later = content_of(mounted.cluster());
  mounted.await_hydrated();
  EXPECT_EQ(mounted.run({"settle", mounted.directory()}).status, status_of(Code::refused))
      << "a server runs";
  mounted.cluster().stop();
  mounted.must({"settle", mounted.directory()});
  EXPECT_FALSE(mount::is_mounted(mounted.directory()));
  EXPECT_FALSE(fs::exists(mounted.instant().state()));
  EXPECT_EQ(bad_pages(mounted.cluster()), "");
  mounted.start();
  EXPECT_EQ(content_of(mounted.cluster()), later);
}

TEST_F(Instant, settled_it_is_what_the_ordinary_restore_writes) {
  cluster_->sql("CREATE UNLOGGED TABLE u AS SELECT 1 AS x");
  place_.must({"backup"});
  Mounted mounted(place_, *cluster_, "instant");
  mounted.must({"settle", mounted.directory()});
  place_.must({"restore", place_.path("ordinary").string()});
  const auto instant = tree_of(mounted.directory());
  const auto ordinary = tree_of(place_.path("ordinary"));
  ASSERT_GT(ordinary.size(), 500U);
  for (const auto& [name, bytes] : ordinary) {
    ASSERT_TRUE(instant.contains(name)) << name;
    EXPECT_TRUE(instant.at(name) == bytes) << name;
    const auto here = base::status_of(mounted.instant().directory / name, false);
    const auto there = base::status_of(place_.path("ordinary") / name, false);
    EXPECT_EQ(here->st_mode, there->st_mode) << name;
    EXPECT_EQ(here->st_uid, there->st_uid) << name;
  }
  EXPECT_EQ(instant.size(), ordinary.size());
}

TEST_F(Instant, brings_tablespaces_and_puts_them_where_they_belong) {
  for (const char* name : {"space", "moved"}) {
    fs::create_directory(place_.path(name));
    place_.give_to_server_user(place_.path(name));
  }
  cluster_->sql("CREATE TABLESPACE s LOCATION '" + place_.path("space").string() + "'");
  cluster_->sql("CREATE TABLE in_s TABLESPACE s AS SELECT g FROM generate_series(1, 10000) g");
  place_.must({"backup"});
  const std::string before = content_of(*cluster_);
  const std::string mapping = place_.path("space").string() + "=" + place_.path("moved").string();
  Mounted mounted(place_, *cluster_, "restored", {"--tablespace", mapping});
  mounted.start();
  EXPECT_EQ(content_of(mounted.cluster()), before);
  mounted.cluster().sql("CREATE TABLE more TABLESPACE s AS SELECT 1 AS x");
  const std::string after = content_of(mounted.cluster());
  mounted.await_hydrated();
  mounted.cluster().stop();
  mounted.must({"settle", mounted.directory()});
  const std::string oid = cluster_->sql("SELECT oid FROM pg_tablespace WHERE spcname = 's'");
  EXPECT_EQ(fs::read_symlink(mounted.instant().directory / "pg_tblspc" / oid),
            place_.path("moved"));
  mounted.start();
  EXPECT_EQ(content_of(mounted.cluster()), after);
}

TEST_F(Instant, cannot_be_started_while_it_is_not_mounted) {
  place_.must({"backup"});
  Mounted mounted(place_, *cluster_, "restored");
  mounted.must({"unmount", mounted.directory()});
  EXPECT_FALSE(mount::is_mounted(mounted.directory()));
  EXPECT_THROW(mounted.cluster().start(), base::Error) << "an empty directory";
  EXPECT_THROW(adopt(cluster_->installation(), mounted.instant().data())->start(), base::Error)
      << "what is local, but not all of it";
  mounted.must({"mount", mounted.directory()});
  mounted.start();
  EXPECT_EQ(content_of(mounted.cluster()), content_of(*cluster_));
}

TEST_F(Instant, rests_while_it_is_paused) {
  place_.must({"backup"});
  begin_paused(place_, "restored");
  Mounted mounted(place_, *cluster_, "restored");
  mounted.start();
  EXPECT_EQ(content_of(mounted.cluster()), content_of(*cluster_));
  EXPECT_TRUE(mounted.status().paused);
  EXPECT_FALSE(mounted.status().complete);
  EXPECT_EQ(mounted.run({"settle", mounted.directory()}).status, status_of(Code::refused));
  mounted.must({"mount", "--resume", mounted.directory()});
  mounted.await_hydrated();
  const auto told = mounted.must({"mount", "--status", "--json", mounted.directory()}).json();
  EXPECT_TRUE(told.at("complete").get<bool>());
  EXPECT_EQ(told.at("done_bytes"), told.at("total_bytes"));
}

TEST_F(Instant, refuses_what_would_destroy_it) {
  place_.must({"backup"});
  Mounted mounted(place_, *cluster_, "restored");
  const std::string directory = mounted.directory();
  const int refused = status_of(Code::refused);
  EXPECT_EQ(mounted.run({"restore", directory, "--instant"}).status, refused);
  EXPECT_EQ(mounted.run({"restore", directory, "--delta"}).status, refused);
  EXPECT_EQ(mounted.run({"mount", directory}).status, status_of(Code::busy));
  mounted.start();
  EXPECT_EQ(mounted.run({"unmount", "--discard", "--yes", directory}).status, refused);
  EXPECT_EQ(mounted.run({"unmount", "--discard", directory}).status, refused) << "nobody said yes";
  for (const char* command : {"mount", "unmount", "settle"}) {
    EXPECT_EQ(mounted.run({command, ""}).status, status_of(Code::usage)) << command;
    const Result result = mounted.run({command, place_.path("nothing").string()});
    EXPECT_EQ(result.status, status_of(Code::not_found)) << command;
    EXPECT_NE(result.errors.find("hint:"), std::string::npos) << command;
  }
}

TEST_F(Instant, gives_an_error_and_never_wrong_data_for_a_damaged_pack) {
  place_.must({"backup"});
  const auto pins = [&] {
    return place_.must({"list", "--json"}).json().at("backups").at(0).at("pins").size();
  };
  const std::string before = content_of(*cluster_);
  std::vector<fs::path> packs = objects(place_, "packs");
  ASSERT_FALSE(packs.empty());
  // A byte in the middle of what is stored of t.
  std::map<fs::path, std::string> whole;
  for (const fs::path& pack : packs) {
    whole[pack] = text_of(pack);
    flip_byte(pack, fs::file_size(pack) / 2);
  }
  Mounted mounted(place_, *cluster_, "restored");
  bool failed = false;
  try {
    mounted.start();
    failed = content_of(mounted.cluster()) != before;
    EXPECT_FALSE(failed) << "wrong data";
  } catch (const base::Error& error) {
    failed = true;
    EXPECT_TRUE(error.message().find("Input/output error") != std::string::npos) << error.message();
  }
  eventually("the trouble is told", [&] { return !mounted.status().trouble.empty(); });
  EXPECT_FALSE(mounted.status().complete);
  EXPECT_EQ(pins(), 1U) << "what is still needed is not to be expired";
  for (const auto& [pack, bytes] : whole) overwrite(pack, bytes);
  mounted.start();
  EXPECT_EQ(content_of(mounted.cluster()), before);
  mounted.await_hydrated();
  eventually("the pin is gone", [&] { return pins() == 0; });
}

TEST(InstantWithoutFuse, is_an_ordinary_restore_and_says_so) {
  Place place;
  const auto cluster = place.cluster();
  place.must({"backup"});
  // Whoever is not root needs fusermount3, which is not found there.
  const auto result = place.holdfast({"restore", place.path("restored").string(), "--instant"},
                                     {{"PATH", "/nonexistent"}});
  ASSERT_EQ(result.status, 0) << result.errors;
  EXPECT_FALSE(mount::is_mounted(place.path("restored")));
  EXPECT_NE(result.errors.find("not an instant restore but an ordinary one"), std::string::npos)
      << result.errors;
  const auto restored = adopt(cluster->installation(), place.path("restored"));
  restored->start();
}

}  // namespace
}  // namespace holdfast::tests
