// An instant restore whose repository is slow, or does not answer for a while: what is read comes
// later, and is right. (Repositories that fail or hold corrupt bytes: instant_test, tree_test.)

#include <future>

#include "faults.h"
#include "harness/instant.h"
#include "lossy_disk.h"

namespace holdfast::tests {
namespace {

class MountStore : public ::testing::Test {
 protected:
  void SetUp() override {
    NEEDS_FUSE();
    if (const auto why = LossyDisk::missing()) GTEST_SKIP() << *why;
    cluster_ = place_.cluster();
    cluster_->sql(
        "CREATE TABLE t AS SELECT g AS id, md5(g::text) AS v FROM "
        "generate_series(1, 50000) g");
    place_.must({"backup"});
    place_.archive_all(*cluster_);
    const fs::path before = place_.path("before");
    fs::rename(place_.repository(), before);
    disk_.emplace(place_, place_.repository());
    const std::string copy =
        fmt::format("cp -a {}/. {}", before.string(), place_.repository().string());
    ASSERT_EQ(shell(place_, copy).status, 0);
    before_ = content_of(*cluster_);
    begin_paused(place_, "restored");
    mounted_.emplace(place_, *cluster_, "restored");
  }
  void TearDown() override {
    if (disk_) disk_->release();
    mounted_.reset();
  }
  static std::string content_of(const Cluster& cluster) {
    postgres::Session session = cluster.session();
    return content(session);
  }

  Place place_;
  std::unique_ptr<Cluster> cluster_;
  std::optional<LossyDisk> disk_;
  std::optional<Mounted> mounted_;
  std::string before_;
};

TEST_F(MountStore, that_is_slow_makes_reads_slow_and_nothing_else) {
  disk_->slow(std::chrono::milliseconds(3));
  mounted_->start();
  EXPECT_EQ(content_of(mounted_->cluster()), before_);
  mounted_->must({"mount", "--resume", mounted_->directory()});
  mounted_->cluster().sql("INSERT INTO t SELECT g, 'later' FROM generate_series(1, 1000) g");
  const std::string later = content_of(mounted_->cluster());
  disk_->slow(std::chrono::milliseconds(0));
  mounted_->await_hydrated();
  EXPECT_EQ(content_of(mounted_->cluster()), later);
  EXPECT_EQ(amcheck(mounted_->cluster()), "");
}

TEST_F(MountStore, that_does_not_answer_makes_reads_wait_and_they_are_right_when_it_does) {
  mounted_->start();
  postgres::Session session = mounted_->cluster().session();
  session.run_script("CREATE TEMP TABLE local AS SELECT 1 AS x");
  EXPECT_EQ(session.query("SELECT x FROM pg_temp.local").at(0).at(0), "1");
  disk_->hang();
  auto answer = std::async(std::launch::async, [&] { return content_of(mounted_->cluster()); });
  const std::shared_ptr<LossyDisk> at_the_end(&*disk_, [](LossyDisk* disk) { disk->release(); });
  await([&] { return disk_->waiting() > 0; }, "a read that waits for the store");
  EXPECT_EQ(session.query("SELECT x FROM pg_temp.local").at(0).at(0), "1")
      << "what is local does not wait";
  EXPECT_NE(answer.wait_for(std::chrono::seconds(0)), std::future_status::ready);
  disk_->release();
  EXPECT_EQ(answer.get(), before_);
  mounted_->must({"mount", "--resume", mounted_->directory()});
  mounted_->await_hydrated();
}

TEST(MountFullDisk, fails_the_writer_and_loses_nothing_that_was_committed) {
  NEEDS_FUSE();
  Place place;
  const SmallDisk disk(place, place.path("small"), "500m");
  const auto cluster = place.cluster();
  cluster->sql("CREATE TABLE t AS SELECT g AS id FROM generate_series(1, 20000) g");
  place.must({"backup"});
  place.archive_all(*cluster);
  begin_paused(place, "small/restored");
  Mounted mounted(place, *cluster, "small/restored");
  mounted.start();
  mounted.cluster().sql("INSERT INTO t VALUES (0)");
  const auto content_of = [](const Cluster& of) {
    postgres::Session session = of.session();
    return content(session);
  };
  const std::string before = content_of(mounted.cluster());
  disk.grow(std::to_string(disk.used() + (8U << 20)));
  EXPECT_THROW(mounted.cluster().sql("CREATE TABLE big AS SELECT repeat(md5(g::text), 16) FROM "
                                     "generate_series(1, 100000) g"),
               base::Error);
  disk.grow("500m");
  if (!mounted.cluster().server().running()) mounted.start();
  EXPECT_EQ(content_of(mounted.cluster()), before);
  mounted.cluster().sql("INSERT INTO t VALUES (-1)");
  mounted.must({"mount", "--resume", mounted.directory()});
  mounted.await_hydrated();
  EXPECT_EQ(mounted.cluster().sql("SELECT count(*), sum(id) FROM t WHERE id <= 0"), "2");
  EXPECT_EQ(amcheck(mounted.cluster()), "");
}

}  // namespace
}  // namespace holdfast::tests
