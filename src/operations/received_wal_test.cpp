#include "operations/received_wal.h"

#include <gtest/gtest.h>

#include <condition_variable>

#include "operations/resume_point.h"
#include "postgres/wal_builder.h"
#include "repository/testing.h"

namespace holdfast::operations {
namespace {

using base::Bytes;
using base::Code;
using base::View;
using postgres::Lsn;
using postgres::Timeline;
using postgres::TimelineHistory;
using postgres::WalBuilder;
using repository::testing::place;
using namespace std::chrono_literals;

constexpr auto size = WalBuilder::segment_size;
constexpr Timeline timeline{3};
constexpr Lsn origin = WalBuilder::origin;
const std::string first_segment = postgres::file_name({timeline, 5}, size);

/// Three segments and a half of WAL, and a repository that takes it.
class Receiving : public ::testing::Test {
 protected:
  Receiving() {
    WalBuilder wal;
    while (wal.position().value < origin.value + 7 * size.bytes / 2) wal.append(5000, 7);
    const std::uint64_t length = wal.position().value - origin.value;
    for (const Bytes& segment : wal.segments()) {
      bytes_.insert(bytes_.end(), segment.begin(), segment.end());
    }
    bytes_.resize(length);
  }

  std::unique_ptr<ReceivedWal> receiver(std::chrono::milliseconds patience = 10s,
                                        bool synchronous = false) {
    ReceivedWal::Options options;
    options.slice_interval = 1h;
    options.synchronous = synchronous;
    options.patience = patience;
    return std::make_unique<ReceivedWal>(archive_, lease_, postgres::SystemId{77}, size, options);
  }
  /// Hands over what the stream brings, in pieces, from the beginning.
  void send(ReceivedWal& wal, std::size_t end) const {
    constexpr std::size_t piece = 100000;
    for (std::size_t at = 0; at < end; at += piece) {
      while (!wal.has_room()) std::this_thread::yield();
      wal.append(View(bytes_).subspan(at, std::min(piece, end - at)));
    }
  }
  Lsn end() const { return {origin.value + bytes_.size()}; }
  /// Counts from 0 again, and lets call number `at` fail, before or after it is done.
  void plant(std::size_t at, bool after) {
    calls_ = 0;
    const auto fail = [this, at](std::string_view, const std::string& name) {
      if (name.find("/leases/") != std::string::npos) return;
      if (++calls_ == at) base::fail(Code::io, "a planted fault");
    };
    made_.objects->set(after ? made_.objects->after : made_.objects->before, fail);
  }
  void expect_all_stored() const {
    for (std::uint64_t number = 5; number < 8; ++number) {
      const auto stored = archive_.get(postgres::file_name({timeline, number}, size));
      ASSERT_TRUE(stored) << number;
      EXPECT_TRUE(
          std::ranges::equal(*stored, View(bytes_).subspan((number - 5) * size.bytes, size.bytes)));
    }
    const auto tail = archive_.slices().assemble(postgres::file_name({timeline, 8}, size),
                                                 origin.value + 3 * size.bytes);
    EXPECT_TRUE(std::ranges::equal(tail.bytes, View(bytes_).subspan(3 * size.bytes)));
    EXPECT_EQ(archive_.slices().segments("00000003").size(), 1U) << "slices that are not needed";
  }

  Bytes bytes_;
  repository::testing::TestRepository made_{false};
  repository::WalArchive archive_{made_.repository, place};
  repository::Lease lease_{made_.repository, place, "receive"};
  std::atomic<std::size_t> calls_ = 0;
};

TEST_F(Receiving, stores_complete_segments_and_a_slice_of_the_last) {
  const auto wal = receiver();
  wal->begin(timeline, origin, {}, origin);
  send(*wal, bytes_.size());
  EXPECT_TRUE(wal->flush(10s));
  EXPECT_EQ(wal->durable(), end());
  EXPECT_EQ(wal->received(), end());
  expect_all_stored();
}

TEST_F(Receiving, goes_on_behind_the_slices_that_are_there_and_removes_them) {
  {
    const auto wal = receiver();
    wal->begin(timeline, origin, {}, origin);
    send(*wal, 1000);
    EXPECT_TRUE(wal->flush(10s));
    wal->append(View(bytes_).subspan(1000, 500));
    EXPECT_TRUE(wal->flush(10s));
    wal->append(View(bytes_).subspan(1500, 500));  // never stored
  }
  const auto known = archive_.slices().assemble(first_segment, origin.value).bytes;
  EXPECT_EQ(known.size(), 1500U);
  const auto wal = receiver();
  wal->begin(timeline, origin, known, {origin.value + 1500});
  wal->append(View(bytes_).subspan(1500));
  EXPECT_TRUE(wal->flush(10s));
  expect_all_stored();
}

TEST_F(Receiving, of_a_new_timeline_nothing_is_stored_that_ends_before_what_the_old_one_holds) {
  const auto wal = receiver();
  wal->begin(timeline, origin, {}, {origin.value + 5000});
  send(*wal, 3000);
  EXPECT_TRUE(wal->flush(10s));
  EXPECT_TRUE(archive_.slices().segments("00000003").empty());
  wal->append(View(bytes_).subspan(3000, 3000));
  EXPECT_TRUE(wal->flush(10s));
  EXPECT_EQ(archive_.slices().assemble(first_segment, origin.value).bytes.size(), 6000U);
  EXPECT_EQ(wal->durable(), Lsn{origin.value + 6000});
}

TEST_F(Receiving, WR20_synchronous_slices_follow_each_other_without_an_interval) {
  const auto wal = receiver(10s, true);
  wal->begin(timeline, origin, {}, origin);
  for (std::size_t at = 0; at < 5000; at += 1000) {
    wal->append(View(bytes_).subspan(at, 1000));
    const auto limit = std::chrono::steady_clock::now() + 10s;
    while (wal->durable() < wal->received() && std::chrono::steady_clock::now() < limit) {
      std::this_thread::yield();
    }
    EXPECT_EQ(wal->durable(), Lsn{origin.value + at + 1000});
  }
}

TEST_F(Receiving, WR4_INV_4_a_store_that_fails_once_at_any_call_delays_and_loses_nothing) {
  for (const bool after : {false, true}) {
    for (std::size_t at = 1;; ++at) {
      SCOPED_TRACE(at);
      for (const std::string& name : made_.objects->names_with("/wal/")) {
        made_.objects->all.erase(name);
      }
      const auto wal = receiver();
      wal->begin(timeline, origin, {}, origin);
      wal->append(View(bytes_).first(1000));
      EXPECT_TRUE(wal->flush(10s));
      plant(at, after);
      wal->append(View(bytes_).subspan(1000));
      EXPECT_TRUE(wal->flush(10s));
      const bool fired = calls_ >= at;
      (after ? made_.objects->after : made_.objects->before) = [](auto, const auto&) {};
      EXPECT_EQ(wal->durable(), end());
      // Slices whose removal failed stay behind; they are in nobody's way.
      const WalCoverage coverage(archive_, size);
      EXPECT_EQ(coverage.contiguous_end(TimelineHistory(timeline), origin), end());
      if (!fired) break;
      ASSERT_LT(at, 100U);
    }
  }
}

TEST_F(Receiving, WR4_a_full_store_is_waited_for_and_nothing_counts_as_durable_meanwhile) {
  const auto wal = receiver(100ms);  // which is for other failures
  std::atomic<bool> broken = true;
  made_.objects->before = [&](std::string_view call, const std::string& name) {
    if (call == "commit" && name.find("/wal/") != std::string::npos && broken) {
      base::fail(Code::no_space, "full");
    }
  };
  wal->begin(timeline, origin, {}, origin);
  send(*wal, 1000);
  EXPECT_FALSE(wal->flush(200ms));
  EXPECT_EQ(wal->durable(), origin);
  wal->append(View(bytes_).subspan(1000, size.bytes));
  EXPECT_FALSE(wal->flush(200ms));
  EXPECT_EQ(wal->durable(), origin);
  broken = false;
  EXPECT_TRUE(wal->flush(20s));
  EXPECT_EQ(wal->durable(), Lsn{origin.value + 1000 + size.bytes});
}

TEST_F(Receiving, WR16_a_store_that_never_takes_anything_ends_it_loudly) {
  const auto wal = receiver(300ms);
  made_.objects->before = [](std::string_view call, const std::string& name) {
    if (call == "commit" && name.find("/wal/") != std::string::npos) base::fail(Code::io, "gone");
  };
  wal->begin(timeline, origin, {}, origin);
  send(*wal, 1000);
  EXPECT_FALSE(wal->flush(10s));
  EXPECT_EQ(repository::testing::code_of([&] { wal->check(); }), Code::io);
  EXPECT_EQ(wal->durable(), origin);
}

TEST_F(Receiving, memory_is_bounded_while_the_store_hangs) {
  std::mutex mutex;
  std::condition_variable opened;
  bool open = false;
  made_.objects->before = [&](std::string_view, const std::string& name) {
    std::unique_lock lock(mutex);
    if (name.find("/wal/") != std::string::npos) opened.wait(lock, [&] { return open; });
  };
  const auto wal = receiver();
  wal->begin(timeline, origin, {}, origin);
  std::size_t taken = 0;
  while (wal->has_room() && taken < 100) {
    wal->append(Bytes(size.bytes));
    ++taken;
  }
  EXPECT_LE(taken, 8U);
  EXPECT_EQ(wal->durable(), origin);
  {
    const std::lock_guard lock(mutex);
    open = true;
  }
  opened.notify_all();
}

TEST_F(Receiving, INV_5_other_bytes_in_the_archive_end_it_and_are_not_touched) {
  Bytes other(bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(size.bytes));
  other.back() ^= 1;
  archive_.put(first_segment, other, 1);
  const auto wal = receiver();
  wal->begin(timeline, origin, {}, origin);
  send(*wal, bytes_.size());
  EXPECT_FALSE(wal->flush(10s));
  EXPECT_EQ(repository::testing::code_of([&] { wal->check(); }), Code::conflict);
  EXPECT_LT(wal->durable(), Lsn{origin.value + size.bytes});
  EXPECT_EQ(archive_.get(first_segment), other);
}

TEST_F(Receiving, WP3_a_segment_that_push_has_stored_already_is_accepted) {
  archive_.put(first_segment, View(bytes_).first(size.bytes), 1);
  const auto wal = receiver();
  wal->begin(timeline, origin, {}, origin);
  send(*wal, bytes_.size());
  EXPECT_TRUE(wal->flush(10s));
  expect_all_stored();
}

TEST_F(Receiving, a_segment_that_is_none_is_not_stored) {
  bytes_[3 * 8192 + 9] ^= 1;  // the address in a page's header
  const auto wal = receiver();
  wal->begin(timeline, origin, {}, origin);
  send(*wal, bytes_.size());
  EXPECT_FALSE(wal->flush(10s));
  EXPECT_EQ(repository::testing::code_of([&] { wal->check(); }), Code::corrupt);
  EXPECT_LT(wal->durable(), Lsn{origin.value + size.bytes});
}

}  // namespace
}  // namespace holdfast::operations
