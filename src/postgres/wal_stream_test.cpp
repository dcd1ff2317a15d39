#include "postgres/wal_stream.h"

#include <gtest/gtest.h>
#include <signal.h>

#include "base/error.h"
#include "postgres/replication_slot.h"
#include "postgres/server.h"

namespace holdfast::postgres {
namespace {

using base::Bytes;
using Event = WalStream::Event;

Bytes message(char kind, std::initializer_list<std::uint64_t> numbers, std::string_view rest) {
  Bytes bytes{static_cast<std::uint8_t>(kind)};
  for (const std::uint64_t number : numbers) {
    for (int shift = 56; shift >= 0; shift -= 8) {
      bytes.push_back(static_cast<std::uint8_t>(number >> shift));
    }
  }
  bytes.insert(bytes.end(), rest.begin(), rest.end());
  return bytes;
}

TEST(WalMessage, says_where_its_bytes_belong) {
  const Bytes bytes = message('w', {0x1'02030405, 0x2'00000000, 77}, "WAL");
  const auto data = std::get<WalData>(parse_wal_message(bytes));
  EXPECT_EQ(data.start, Lsn{0x1'02030405});
  EXPECT_EQ(data.server_end, Lsn{0x2'00000000});
  EXPECT_EQ(base::text(data.bytes), "WAL");
}

TEST(WalMessage, may_ask_for_a_reply) {
  const Bytes asks = message('k', {5, 77}, "\x01");
  EXPECT_TRUE(std::get<WalKeepalive>(parse_wal_message(asks)).wants_reply);
  const Bytes tells = message('k', {5, 77}, std::string_view("\0", 1));
  EXPECT_FALSE(std::get<WalKeepalive>(parse_wal_message(tells)).wants_reply);
}

TEST(WalMessage, that_is_cut_or_unknown_is_refused) {
  const Bytes data = message('w', {1, 2, 3}, "");
  for (std::size_t size = 0; size < data.size(); ++size) {
    EXPECT_THROW(parse_wal_message(base::View(data).first(size)), base::Error) << size;
  }
  EXPECT_NO_THROW(parse_wal_message(data));
  const Bytes keepalive = message('k', {1, 2}, "");
  EXPECT_THROW(parse_wal_message(keepalive), base::Error);
  EXPECT_THROW(parse_wal_message(message('x', {1, 2, 3}, "")), base::Error);
}

TEST(WalStatus, WR4_reports_one_position_as_written_flushed_and_applied) {
  const auto moment = base::from_iso("2000-01-01T00:00:01.000000Z");
  EXPECT_EQ(wal_status({0x1'02030405}, moment, true),
            message('r', {0x1'02030405, 0x1'02030405, 0x1'02030405, 1'000'000}, "\x01"));
  EXPECT_EQ(wal_status({7}, moment, false).back(), 0);
}

class Sequence : public ::testing::Test {
 protected:
  std::size_t take(std::uint64_t at, std::size_t size) {
    return sequence_.take({{at}, {~0ULL}, base::View(bytes_).first(size)}).size();
  }
  Bytes bytes_ = Bytes(1 << 20);
  WalSequence sequence_{Lsn{0x3000000}};
};

TEST_F(Sequence, WR2_a_stream_that_opens_behind_what_was_asked_for_is_refused) {
  EXPECT_THROW(take(0x3000001, 10), base::Error);
  EXPECT_EQ(take(0x2F00000, 1 << 20), 0U);  // it ends where we begin
  EXPECT_EQ(take(0x2FFFFF0, 0x20), 0x10U);
  EXPECT_EQ(sequence_.end(), Lsn{0x3000010});
  EXPECT_THROW(take(0x3000000, 0x20), base::Error);
  EXPECT_EQ(take(0x3000010, 5), 5U);
  EXPECT_THROW(take(0x3000016, 5), base::Error);
}

TEST_F(Sequence, WR3_a_segment_that_is_left_out_is_noticed) {
  for (std::uint64_t at = 0x3000000; at < 0x4000000; at += 1 << 20) take(at, 1 << 20);
  EXPECT_EQ(sequence_.end(), Lsn{0x4000000});
  EXPECT_THROW(take(0x5000000, 10), base::Error);
  EXPECT_EQ(take(0x4000000, 10), 10U);
}

class Streaming : public ::testing::Test {
 protected:
  Streaming() : directory_("holdfast-stream") {
    base::fs::permissions(directory_.path(), base::fs::perms(0755));
    const Installation installation = find_installation(15).value();
    make_cluster(installation, directory_.path() / "data");
    server_.emplace(installation, directory_.path() / "data",
                    Settings{{"fsync", "off"}, {"max_wal_senders", "3"}});
    replication_.emplace(server_->connection(), "receiver");
    slot_start_ = ReplicationSlot(*replication_, server_->connection(), "s").ensure([](auto&) {});
  }
  WalStream stream(WalStream::Limits limits = {}) {
    start_ = segment_start(slot_start_);
    return {*replication_, "s", {1}, start_, start_, limits};
  }
  static Lsn segment_start(Lsn lsn) { return {lsn.value - lsn.value % (16 << 20)}; }
  Session session() const { return Session(server_->connection()); }
  std::string slot(const std::string& column) const {
    return session().value("SELECT coalesce(" + column +
                           "::text, '') FROM pg_replication_slots WHERE slot_name = 's'");
  }
  /// Reads until all is there that the server had flushed.
  void read_all(WalStream& stream) const {
    const Lsn end = session().current_lsn();
    while (stream.end() < end) ASSERT_NE(stream.next(std::chrono::seconds(10)), Event::end);
  }

  base::TemporaryDirectory directory_;
  std::optional<Server> server_;
  std::optional<Replication> replication_;
  Lsn slot_start_;
  Lsn start_;
};

TEST_F(Streaming, brings_wal_without_a_gap_and_confirms_what_it_is_told_and_no_more) {
  WalStream stream = this->stream();
  Lsn at = start_;
  session().query("CREATE TABLE public.t AS SELECT generate_series(1, 100000)");
  const Lsn end = session().current_lsn();
  while (at < end) {
    if (stream.next(std::chrono::seconds(10)) != Event::data) continue;
    at.value += stream.bytes().size();
    EXPECT_EQ(stream.end(), at);
  }
  EXPECT_GE(stream.server_end(), end);
  // WR5: the server's end is not what was confirmed.
  EXPECT_EQ(slot("restart_lsn"), to_string(start_));
  const Lsn durable{start_.value + 12345};
  stream.confirm(durable);
  while (slot("restart_lsn") != to_string(durable)) stream.next(std::chrono::milliseconds(10));
  stream.leave();
}

TEST_F(Streaming, a_server_that_shuts_down_asks_and_ends_when_all_is_confirmed_WR15) {
  WalStream stream = this->stream();
  read_all(stream);
  ::kill(server_->pid(), SIGINT);
  bool asked = false;
  for (Event event = Event::nothing; event != Event::end;) {
    event = stream.next(std::chrono::milliseconds(100));
    asked = asked || event == Event::asked;
    if (asked) stream.confirm(stream.end());
  }
  EXPECT_TRUE(asked);
  EXPECT_FALSE(stream.finish());
}

TEST_F(Streaming, WR17_a_server_that_falls_silent_is_noticed_in_time) {
  WalStream stream = this->stream({std::chrono::milliseconds(300), std::chrono::milliseconds(900)});
  read_all(stream);
  // It answers for as long as it lives, however quiet it is: three times the limit.
  for (int i = 0; i < 9; ++i) EXPECT_NE(stream.next(std::chrono::milliseconds(300)), Event::end);
  const std::string pid = session().value("SELECT pid FROM pg_stat_replication");
  ASSERT_EQ(::kill(std::stoi(pid), SIGSTOP), 0);
  const auto begun = std::chrono::steady_clock::now();
  EXPECT_THROW(
      {
        while (std::chrono::steady_clock::now() - begun < std::chrono::seconds(20)) {
          stream.next(std::chrono::milliseconds(100));
        }
      },
      base::Error);
  EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(5));
  ::kill(std::stoi(pid), SIGCONT);
}

TEST_F(Streaming, WAL_that_the_server_has_removed_is_an_error_that_says_so) {
  session().run_script("SELECT pg_switch_wal(); CHECKPOINT;");
  WalStream stream(*replication_, "s", {1}, {1 << 20}, {1 << 20}, {});
  EXPECT_THROW(
      {
        while (stream.next(std::chrono::seconds(5)) != Event::end) {
        }
        stream.finish();
      },
      base::Error);
  EXPECT_EQ(replication_->error_state(), "58P01");
}

TEST_F(Streaming, a_slot_is_made_once_and_anew_when_it_keeps_nothing) {
  ReplicationSlot again(*replication_, server_->connection(), "s");
  const auto quiet = [](const std::string& said) { ADD_FAILURE() << said; };
  EXPECT_EQ(again.ensure(quiet), slot_start_);
  session().query("SELECT pg_create_physical_replication_slot('empty')");
  int said = 0;
  ReplicationSlot empty(*replication_, server_->connection(), "empty");
  EXPECT_TRUE(empty.ensure([&](const std::string&) { ++said; }));
  EXPECT_EQ(said, 1);
  EXPECT_EQ(replication_->segment_size(), SegmentSize{});
}

}  // namespace
}  // namespace holdfast::postgres
