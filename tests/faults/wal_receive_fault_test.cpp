// Machines that die and stores that fail under `wal receive`: what was confirmed is there (INV-4,
// TRAPS WR4, WR16, WR20), what may be lost is about a second, and the next run simply goes on.

#include "base/workers.h"
#include "fault_store.h"
#include "harness/receiver.h"
#include "operations/recovery_window.h"
#include "operations/wal_receive.h"

namespace holdfast::tests {
namespace {

using base::Code;
using Kind = Fault::Kind;

int rounds() {
  return std::getenv("HOLDFAST_LONG") == nullptr ? 1 : 10;
}

class Loss : public ReceiveTest {};

TEST_F(Loss, of_server_and_receiver_at_once_costs_about_a_second) {
  for (int round = 0; round < rounds(); ++round) {
    SCOPED_TRACE(round);
    if (round > 0) {
      source_->start({{"archive_mode", "off"}});
      point_configuration_at(place_, *source_);
    }
    source_->sql("DROP TABLE IF EXISTS ticks");
    const auto receiver = receive();
    Writers writers(*source_, 4);
    eventually("much is written", [&] { return writers.count() > 500U * (round + 1); });
    const auto enough = Writers::Clock::now() + std::chrono::milliseconds(1700 + 137 * round);
    eventually("it goes on for a while", [&] { return Writers::Clock::now() > enough; });
    const auto killed = Writers::Clock::now();
    source_->server().kill();
    receiver->signal(SIGKILL);
    receiver->wait();
    const auto rows = writers.finish();
    ASSERT_LT(rows.front().when, killed - std::chrono::milliseconds(1500)) << "too quick to tell";
    const auto restored = place_.restored(*source_, fmt::format("restored{}", round));
    EXPECT_EQ(Writers::missing(rows, *restored, killed - std::chrono::milliseconds(1500)), 0);
  }
}

/// How a commit waits.
class Synchronous : public ReceiveTest, public testing::WithParamInterface<const char*> {};
INSTANTIATE_TEST_SUITE_P(Modes, Synchronous, testing::Values("remote_write", "on", "remote_apply"),
                         [](const auto& each) { return std::string(each.param); });

TEST_P(Synchronous, WR4_WR20_commits_that_were_acknowledged_are_never_lost) {
  restart({{"synchronous_standby_names", "holdfast"},
           {"synchronous_commit", GetParam()},
           {"fsync", "on"}});
  const auto receiver = receive({"--synchronous"});
  EXPECT_NE(receiver->said().find("commits wait for this receiver"), std::string::npos)
      << receiver->said();
  Writers writers(*source_, 4);
  const auto begun = Writers::Clock::now();
  eventually("much is written", [&] { return writers.count() > 400; });
  const auto took = Writers::Clock::now() - begun;
  // Group commit: four writers do not wait for an interval each.
  EXPECT_LT(took, std::chrono::seconds(20));
  receiver->signal(SIGKILL);
  source_->server().kill();
  receiver->wait();
  const auto rows = writers.finish();
  const auto restored = place_.restored(*source_, "restored");
  EXPECT_EQ(Writers::missing(rows, *restored, Writers::Clock::time_point::max()), 0);
}

/// Receives over a store with a fault, in a process of its own, until all is there that the server
/// has written.
class OverFaults : public ReceiveTest {
 protected:
  OverFaults() {
    overwrite(place_.configuration(),
              text_of(place_.configuration()) + "[wal]\nslice_interval = \"20ms\"\n");
  }
  Ended receive_over(const Fault& fault, std::chrono::milliseconds patience) const {
    const std::string connection = source_->connection();
    const std::string target = source_->sql("SELECT pg_current_wal_lsn()");
    return in_a_process([&] {
      base::catch_interrupts();
      const auto configuration = operations::read_configuration(place_.configuration());
      const operations::Site site = faulty_site(configuration, fault);
      const std::jthread stopper([&](const std::stop_token& stop) {
        postgres::Session session(connection);
        while (!stop.stop_requested()) {
          const auto there = session.query(
              "SELECT 1 FROM pg_replication_slots WHERE restart_lsn >= $1::pg_lsn", {target});
          if (!there.empty()) {
            ::kill(::getpid(), SIGTERM);
            return;
          }
          std::this_thread::sleep_for(std::chrono::milliseconds(5));
        }
      });
      operations::ReceiveRequest request;
      request.say = [](const std::string&) {};
      request.patience = patience;
      operations::receive_wal(site, request);
    });
  }
  postgres::Lsn confirmed() const {
    const std::string lsn = source_->sql("SELECT max(restart_lsn) FROM pg_replication_slots");
    return postgres::parse_lsn(lsn).value_or(postgres::Lsn{});
  }
  /// How far the repository goes without a hole from its backup on.
  postgres::Lsn durable() const {
    const auto configuration = operations::read_configuration(place_.configuration());
    const operations::Site site = faulty_site(configuration, {});
    const auto systems = operations::view_systems(site, operations::read_catalog(site));
    const operations::SystemView& system = systems.at(0);
    return system.coverage.contiguous_end(system.history({}), system.backups.at(0).start);
  }
};

class StoreFails : public OverFaults, public testing::WithParamInterface<Kind> {};
std::string name_of(const testing::TestParamInfo<Kind>& each) {
  if (each.param == Kind::once) return "once";
  if (each.param == Kind::lost_reply) return "lost_reply";
  return each.param == Kind::death ? "death" : "death_after";
}
INSTANTIATE_TEST_SUITE_P(Kinds, StoreFails,
                         testing::Values(Kind::once, Kind::lost_reply, Kind::death,
                                         Kind::death_after),
                         name_of);

TEST_P(StoreFails, WR4_INV_4_at_any_call_what_was_confirmed_is_in_the_repository) {
  source_->sql("SELECT pg_create_physical_replication_slot('holdfast', true)");
  const bool dies = GetParam() == Kind::death || GetParam() == Kind::death_after;
  std::uint64_t at = 1;
  int failed = 0;
  // A failure is survived, and each call is much like the next one: some of them will do.
  const std::uint64_t usual = dies ? 2 : 4;
  const std::uint64_t step = std::getenv("HOLDFAST_LONG") != nullptr ? 1 : usual;
  for (;; at += step) {
    SCOPED_TRACE(at);
    // A complete segment, and a part of the next one.
    insert(std::to_string(at));
    source_->sql("SELECT pg_switch_wal()");
    insert("and");
    source_->sql("SELECT pg_create_restore_point('x')");
    const Ended ended = receive_over({GetParam(), at}, std::chrono::seconds(10));
    EXPECT_LE(confirmed(), durable()) << "confirmed, and not there: " << ended.why;
    if (ended.status == 0 && dies) break;
    if (dies) {
      EXPECT_EQ(ended.status, Fault::dead) << ended.why;
      EXPECT_EQ(receive_over({}, std::chrono::seconds(10)).status, 0) << "the next run";
    } else {
      // Before anything is received it may give up; then it does so loudly.
      EXPECT_TRUE(ended.status == 0 || ended.status == status_of(Code::io) ||
                  ended.status == status_of(Code::busy))
          << ended.status << ended.why;
      failed += ended.status == 0 ? 0 : 1;
    }
    if (!dies && at >= 60) break;
    ASSERT_LT(at, 200U);
  }
  EXPECT_GT(at, 20U) << "the fault did not fire";
  EXPECT_LT(failed, 20);
  EXPECT_EQ(receive_over({}, std::chrono::seconds(10)).status, 0);
  EXPECT_TRUE(listed().at("gaps").empty());
  place_.must({"verify"});
  EXPECT_EQ(place_.restored(*source_, "restored")->sql("SELECT count(*) FROM t"),
            source_->sql("SELECT count(*) FROM t"));
}

TEST_F(OverFaults, WR16_a_store_that_fails_for_ever_ends_it_loudly) {
  insert("one");
  const Ended ended = receive_over({Kind::for_ever, 25}, std::chrono::milliseconds(500));
  EXPECT_EQ(ended.status, status_of(Code::io)) << ended.why;
  EXPECT_NE(ended.why.find("nothing could be stored"), std::string::npos) << ended.why;
  EXPECT_LE(confirmed(), durable());
}

}  // namespace
}  // namespace holdfast::tests
