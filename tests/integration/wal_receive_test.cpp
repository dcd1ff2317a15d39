// `wal receive`: what was committed a moment ago can be restored, with nothing archived (INV-4),
// and what can no longer be had is never passed over in silence (INV-7).

#include "harness/receiver.h"

namespace holdfast::tests {
namespace {

class Receive : public ReceiveTest {};
class ReceiveOn : public ReceiveTest, public testing::WithParamInterface<int> {
 protected:
  ReceiveOn() : ReceiveTest(GetParam()) {}
};
INSTANTIATE_TEST_SUITE_P(Versions, ReceiveOn, testing::Values(15, 17),
                         [](const auto& each) { return "on_" + std::to_string(each.param); });

TEST_P(ReceiveOn, brings_back_what_was_written_a_moment_before_the_loss_of_everything) {
  const auto receiver = receive();
  insert("one");
  source_->sql("SELECT pg_switch_wal()");
  insert("two");
  await_all_stored(*source_);
  const std::string segment = current_segment(*source_);
  const std::string written = text_of(source_->data_directory() / "pg_wal" / segment);
  source_->server().kill();
  EXPECT_EQ(rows(*place_.restored(*source_, "restored")), "one two");

  // The last segment is the server's own as far as it goes, and then zeros.
  place_.must({"wal", "fetch", segment, place_.path("fetched").string()});
  const std::string fetched = text_of(place_.path("fetched"));
  ASSERT_EQ(fetched.size(), written.size());
  const std::size_t end =
      postgres::parse_lsn(listed()["recovery_windows"][0]["to_lsn"].get<std::string>())->value %
      written.size();
  EXPECT_EQ(fetched.substr(0, end), written.substr(0, end));
  EXPECT_EQ(fetched.find_last_not_of('\0') / 8192, (end - 1) / 8192);
  place_.must({"verify"});
}

TEST_F(Receive, is_enough_for_doctor_while_it_runs) {
  const Result without = place_.holdfast({"doctor"});
  EXPECT_EQ(without.status, status_of(base::Code::check_failed)) << without.output;
  EXPECT_NE(without.output.find("archive_mode = off"), std::string::npos) << without.output;
  const auto receiver = receive();
  const Result with = place_.must({"doctor", "--fix"});
  EXPECT_NE(with.output.find("WAL is received"), std::string::npos) << with.output;
  EXPECT_EQ(with.output.find("restart"), std::string::npos) << with.output;
}

TEST_F(Receive, stops_cleanly_and_goes_on_where_it_stopped_WR19) {
  for (const int number : {SIGTERM, SIGINT}) {
    const auto receiver = receive();
    insert(number == SIGTERM ? "one" : "two");
    receiver->signal(number);
    EXPECT_EQ(receiver->wait(), 0) << receiver->said();
    EXPECT_NE(receiver->said().find("stopped: all WAL that was received"), std::string::npos);
    // What it says is there is there, and the server knows.
    const std::string up_to = "received, up to ";
    const std::string said = receiver->said();
    const std::size_t at = said.find(up_to) + up_to.size();
    const std::string stored = said.substr(at, said.find(',', at) - at);
    EXPECT_GE(end(), postgres::parse_lsn(stored).value());
    eventually("the server knows", [&] {
      return source_->sql("SELECT restart_lsn FROM pg_replication_slots") == stored;
    });
    if (number == SIGTERM) source_->sql("SELECT pg_switch_wal()");
  }
  const auto receiver = receive();
  insert("three");
  await_all_stored(*source_);
  EXPECT_TRUE(listed().at("gaps").empty());
  EXPECT_EQ(rows(*place_.restored(*source_, "restored")), "one two three");
}

TEST_F(Receive, a_fast_stop_of_the_server_waits_for_the_last_byte_but_not_for_long_WR15) {
  // Without being asked it would not store anything for an hour.
  overwrite(place_.configuration(),
            text_of(place_.configuration()) + "[wal]\nslice_interval = \"1h\"\n");
  const auto receiver = receive();
  insert("one");
  const auto begun = std::chrono::steady_clock::now();
  source_->stop(postgres::Server::StopMode::fast);
  EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(10));
  const auto checkpoint = postgres::read_control_file(source_->data_directory()).control.checkpoint;
  EXPECT_GT(end(), checkpoint) << "the shutdown checkpoint is missing";
  // The server comes again, and it goes on by itself.
  EXPECT_FALSE(receiver->over());
  receiver->signal(SIGTERM);
  EXPECT_EQ(receiver->wait(), 0) << receiver->said();
  EXPECT_EQ(rows(*place_.restored(*source_, "restored")), "one");
}

TEST_F(Receive, and_push_of_the_same_segments_get_along_WP3) {
  source_->stop();
  source_->start();  // archiving is on again
  point_configuration_at(place_, *source_);
  const auto receiver = receive();
  std::string last;
  for (int i = 0; i < 3; ++i) {
    insert(std::to_string(i));
    await_all_stored(*source_);  // so that there are slices
    last = finish_segment(place_, *source_);
  }
  insert("last");
  await_all_stored(*source_);
  eventually("slices of complete segments are gone", [&] {
    return std::ranges::all_of(
        slices(), [&](const fs::path& slice) { return slice.parent_path().stem() > last; });
  });
  EXPECT_EQ(source_->sql("SELECT failed_count FROM pg_stat_archiver"), "0");
  EXPECT_FALSE(receiver->over()) << receiver->said();
  place_.must({"verify"});
  EXPECT_EQ(rows(*place_.restored(*source_, "restored")), "0 1 2 last");
}

TEST_F(Receive, there_is_one_at_a_time) {
  const auto receiver = receive();
  const Result second = place_.holdfast({"wal", "receive"});
  EXPECT_EQ(second.status, status_of(base::Code::busy)) << second.errors;
}

TEST_F(Receive, a_lost_slot_is_a_recorded_gap_and_a_new_backup_B30_B34_INV_7) {
  restart({{"max_slot_wal_keep_size", "48MB"}, {"max_wal_size", "32MB"}, {"min_wal_size", "32MB"}});
  {
    const auto receiver = receive();
    insert("one");
    await_all_stored(*source_);
    receiver->signal(SIGTERM);
    EXPECT_EQ(receiver->wait(), 0);
  }
  const std::string gap_begins = postgres::to_string(end());
  insert("lost");
  for (int i = 0; i < 8; ++i) source_->sql("SELECT pg_create_restore_point('x'), pg_switch_wal()");
  eventually("the slot is lost", [&] {
    source_->sql("CHECKPOINT");
    return source_->sql("SELECT wal_status FROM pg_replication_slots") == "lost";
  });
  {
    const auto receiver = receive();
    eventually("a backup is taken", [&] { return backup_ids(place_).size() == 2; });
    insert("two");
    await_all_stored(*source_);
    EXPECT_NE(receiver->said().find("ALARM: WAL from " + gap_begins), std::string::npos)
        << receiver->said();
    eventually("it knows",
               [&] { return receiver->said().find("took backup") != std::string::npos; });
    receiver->signal(SIGTERM);
    EXPECT_EQ(receiver->wait(), 0) << receiver->said();
  }
  const auto listing = listed();
  ASSERT_EQ(listing.at("gaps").size(), 1U);
  EXPECT_EQ(listing.at("gaps")[0].at("from_lsn"), gap_begins);
  ASSERT_EQ(listing.at("recovery_windows").size(), 2U);
  EXPECT_EQ(listing.at("recovery_windows")[0].at("to_lsn"), gap_begins);
  EXPECT_EQ(listing.at("recovery_windows")[0].at("ends_in_hole"), true);
  EXPECT_EQ(rows(*place_.restored(*source_, "restored")), "one lost two");
  // The same gap is one record, and no reason for one more backup.
  const auto receiver = receive();
  insert("three");
  await_all_stored(*source_);
  EXPECT_EQ(listed().at("gaps").size(), 1U);
  EXPECT_EQ(backup_ids(place_).size(), 2U);
}

TEST_F(Receive, WR8_WR9_a_slot_that_is_ahead_is_no_gap_while_the_server_has_the_wal) {
  insert("one");
  source_->sql("SELECT pg_switch_wal()");
  insert("two");
  source_->sql("SELECT pg_switch_wal()");
  source_->sql("SELECT pg_create_physical_replication_slot('holdfast', true)");
  const auto receiver = receive();
  await_all_stored(*source_);
  EXPECT_TRUE(listed().at("gaps").empty()) << listed().at("gaps");
  EXPECT_EQ(rows(*place_.restored(*source_, "restored")), "one two");
}

/// A standby of the source, and its promotion.
class Failover : public ReceiveTest {
 protected:
  Failover() {
    const Result copied = run_tool(
        source_->installation(), "pg_basebackup",
        {"-D", place_.path("standby").string(), "-d", source_->connection(), "-c", "fast"});
    EXPECT_EQ(copied.status, 0) << copied.errors;
    overwrite(place_.path("standby/standby.signal"), "");
    standby_ = adopt(source_->installation(), place_.path("standby"));
    standby_->start({{"archive_mode", "off"}, {"primary_conninfo", source_->connection()}});
    // As whoever runs standbys has to: else it may let go of WAL before it leads.
    standby_->sql("SELECT pg_create_physical_replication_slot('holdfast', true)");
  }
  std::string both() const {
    return fmt::format(
        "host='{},{}' port={},{} user=postgres dbname=postgres target_session_attrs=read-write",
        source_->server().socket_directory().string(),
        standby_->server().socket_directory().string(), source_->server().port(),
        standby_->server().port());
  }
  void await_replay() const {
    const std::string lsn = source_->sql("SELECT pg_current_wal_insert_lsn()");
    source_->sql("SELECT pg_create_restore_point('behind')");
    eventually("the standby has replayed all", [&] {
      return standby_->sql("SELECT pg_last_wal_replay_lsn() >= '" + lsn + "'") == "t";
    });
  }
  std::unique_ptr<Cluster> standby_;
};

TEST_F(Failover, a_promotion_is_followed_from_the_old_timelines_end_WR1) {
  connect_to(place_, both());
  const auto receiver = receive();
  insert("one");
  await_all_stored(*source_);
  await_replay();
  source_->server().kill();
  EXPECT_EQ(standby_->sql("SELECT pg_promote()"), "t");
  standby_->sql("INSERT INTO t (v) VALUES ('two')");
  await_all_stored(*standby_);
  EXPECT_EQ(listed().at("recovery_windows").back().at("timeline"), 2);
  EXPECT_TRUE(listed().at("gaps").empty());
  EXPECT_EQ(rows(*place_.restored(*source_, "restored")), "one two");
  standby_->sql("SELECT pg_switch_wal()");
  standby_->sql("INSERT INTO t (v) VALUES ('three')");
  await_all_stored(*standby_);
  EXPECT_EQ(rows(*place_.restored(*source_, "again")), "one two three");
  place_.must({"verify"});
}

TEST_F(Failover, WR7_nothing_is_received_from_a_standby_until_it_leads) {
  connect_to(place_, standby_->connection());
  Running receiver(place_, {"wal", "receive"});
  eventually("it gives the alarm", [&] {
    return receiver.said().find("ALARM: the server is a standby") != std::string::npos;
  });
  insert("one");
  await_replay();
  EXPECT_TRUE(slices().empty());
  source_->stop();
  standby_->sql("SELECT pg_promote()");
  standby_->sql("INSERT INTO t (v) VALUES ('two')");
  await_all_stored(*standby_);
  // The old primary comes back, and is left where it is.
  source_->start({{"archive_mode", "off"}});
  connect_to(place_, source_->connection());
  receiver.signal(SIGTERM);
  EXPECT_EQ(receiver.wait(), 0) << receiver.said();
  Running second(place_, {"wal", "receive"});
  eventually("it gives the alarm", [&] {
    return second.said().find("ALARM: the server is on timeline 1") != std::string::npos;
  });
  EXPECT_EQ(rows(*place_.restored(*source_, "restored")), "one two");
}

TEST_F(Receive, WR18_another_system_behind_the_same_address_is_refused) {
  const auto other = adopt(source_->installation(), place_.path("other"));
  other->start();
  const std::string directory = source_->server().socket_directory().string();
  fs::create_symlink(directory, place_.path("socket"));
  std::string through = source_->connection();
  through.replace(through.find(directory), directory.size(), place_.path("socket").string());
  connect_to(place_, through);
  const auto receiver = receive();
  insert("one");
  await_all_stored(*source_);
  fs::remove(place_.path("socket"));
  fs::create_symlink(other->server().socket_directory(), place_.path("socket"));
  source_->server().kill();
  EXPECT_EQ(receiver->wait(), status_of(base::Code::foreign)) << receiver->said();
  const std::string system = postgres::to_string(other->session().system_id());
  EXPECT_FALSE(fs::exists(place_.repository() / "clusters" / "main" / system));
  // What the first one wrote last may have come in, and nothing else.
  EXPECT_EQ(place_.must({"verify", "--json"}).json().at("problems").size(), 0U);
  EXPECT_EQ(Running(place_, {"wal", "receive"}).wait(), status_of(base::Code::foreign));
  EXPECT_EQ(other->sql("SELECT count(*) FROM pg_replication_slots"), "0");
}

TEST_F(Receive, B31_INV_6_slices_that_are_damaged_or_lost_stop_recovery) {
  {
    const auto receiver = receive();
    insert("one");
    await_all_stored(*source_);
    insert("two");
    await_all_stored(*source_);
    insert("three");
    await_all_stored(*source_);
  }
  const std::string segment = current_segment(*source_);
  const auto fetch = [&](const std::string& name) {
    return place_.holdfast({"wal", "fetch", name, place_.path("fetched").string()}).status;
  };
  const auto found = slices();
  ASSERT_GE(found.size(), 3U);
  EXPECT_EQ(fetch(segment), 0);
  for (const std::size_t which : {std::size_t{0}, std::size_t{1}, found.size() - 1}) {
    const Damage damage(found[which]);
    for (const std::uint64_t at : {std::uint64_t{3}, damage.size() / 2, damage.size() - 30}) {
      damage.flip(at);
      EXPECT_EQ(fetch(segment), 200) << which << " " << at;
    }
    EXPECT_EQ(place_.holdfast({"verify"}).status, status_of(base::Code::check_failed));
  }
  for (const std::size_t which : {std::size_t{0}, std::size_t{1}}) {
    const Damage damage(found[which]);
    damage.remove();
    EXPECT_EQ(fetch(segment), 200) << which;
    EXPECT_EQ(listed().at("recovery_windows")[0].at("ends_in_hole"), true);
    EXPECT_EQ(place_.holdfast({"restore", place_.path("x").string()}).status,
              status_of(base::Code::wal_missing));
  }
  EXPECT_EQ(fetch(segment), 0);
  EXPECT_EQ(rows(*place_.restored(*source_, "restored")), "one two three");
}

}  // namespace
}  // namespace holdfast::tests
