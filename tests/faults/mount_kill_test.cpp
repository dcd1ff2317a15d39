// kill -9 of an instant restore's mount under load, at random moments: what was committed is there
// when it is mounted again, and no page was ever read as zeros. HOLDFAST_LONG=1 does it 50 times;
// HOLDFAST_SEED repeats a run.

#include <random>

#include "harness/instant.h"
#include "harness/receiver.h"

namespace holdfast::tests {
namespace {

TEST(MountKill, INV_9_loses_no_committed_row_and_reads_no_zero_page) {
  NEEDS_FUSE();
  const int rounds = std::getenv("HOLDFAST_LONG") != nullptr ? 50 : 4;
  const char* seed = std::getenv("HOLDFAST_SEED");
  std::mt19937 random(seed != nullptr ? static_cast<unsigned>(std::stoul(seed)) : 1U);
  const postgres::Settings durable = {{"fsync", "on"}, {"full_page_writes", "on"}};
  Place place;
  const auto source = place.cluster();
  { Load(place, *source, 5).stop(); }
  place.must({"backup"});
  source->stop();
  begin_paused(place, "restored");
  Mounted mounted(place, *source, "restored");
  mounted.start(durable);
  for (int round = 0; round < rounds; ++round) {
    SCOPED_TRACE(round);
    Writers writers(mounted.cluster(), 2);
    auto load = std::make_unique<base::Child>(
        pgbench(mounted.cluster(), {"-n", "-c", "2", "-T", "600"}), place.path("pgbench.log"));
    const auto enough = 30U + random() % 200U;
    eventually("rows are committed", [&] { return writers.count() > enough; });
    if (random() % 3 == 0) {
      // In the middle of a checkpoint, too.
      try {
        mounted.cluster().sql("CHECKPOINT");
      } catch (const base::Error&) {
      }
    }
    mounted.kill_mount();
    mounted.cluster().server().kill();
    const auto rows = writers.finish();
    load.reset();
    mounted.must({"mount", mounted.directory()});
    if (round == rounds / 2) mounted.must({"mount", "--resume", mounted.directory()});
    mounted.start(durable);
    EXPECT_EQ(Writers::missing(rows, mounted.cluster(), Writers::Clock::time_point::max()), 0);
    EXPECT_EQ(mounted.cluster().sql("SELECT count(*) FROM pgbench_accounts"), "500000");
    EXPECT_EQ(mounted.cluster().sql(
                  "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(bbalance) "
                  "FROM pgbench_branches) AND (SELECT sum(tbalance) FROM pgbench_tellers) = "
                  "(SELECT sum(delta) FROM pgbench_history)"),
              "t");
    if (::testing::Test::HasFailure()) return;
    mounted.cluster().sql("DROP TABLE ticks");
  }
  mounted.await_hydrated();
  EXPECT_EQ(amcheck(mounted.cluster()), "");
  mounted.cluster().stop();
  mounted.must({"settle", mounted.directory()});
  EXPECT_EQ(bad_pages(mounted.cluster()), "");
}

}  // namespace
}  // namespace holdfast::tests
