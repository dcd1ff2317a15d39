#include "repository/wal_archive.h"

#include <gtest/gtest.h>

#include <atomic>
#include <barrier>

#include "base/workers.h"
#include "repository/testing.h"
#include "store/directory_store.h"

namespace holdfast::repository {
namespace {

using base::Bytes;
using base::Code;
using testing::code_of;
using testing::place;
using Put = WalArchive::Put;

constexpr std::size_t mib = 1 << 20;
const std::string segment = "000000010000000000000001";
const std::string object_of_segment = place.directory() + "/wal/00000001/" + segment;

class WalArchiveTest : public ::testing::TestWithParam<bool> {
 protected:
  testing::TestRepository made_{GetParam()};
  WalArchive archive_{made_.repository, place};
};

INSTANTIATE_TEST_SUITE_P(Each, WalArchiveTest, ::testing::Bool(),
                         [](const auto& tested) { return tested.param ? "sealed" : "plain"; });

TEST_P(WalArchiveTest, gives_back_files_of_every_size) {
  // Half of it compresses, and no two frames are alike.
  Bytes bytes = base::testing::Random(1).bytes(3 * mib + 1);
  for (std::size_t i = 0; i < bytes.size(); i += 2) bytes[i] = 0;
  int number = 0;
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, mib - 1, mib, mib + 1, 2 * mib - 1,
                                 2 * mib, 2 * mib + 1, 3 * mib + 1}) {
    for (const unsigned workers : {0U, 1U, 3U, 8U}) {
      const std::string name = fmt::format("0000000100000000{:08X}", number++);
      const base::View part = base::View(bytes).first(size);
      EXPECT_EQ(archive_.put(name, part, workers), Put::stored);
      const auto back = archive_.get(name);
      ASSERT_TRUE(back) << size;
      EXPECT_TRUE(std::ranges::equal(*back, part)) << size;
      if (size == 3 * mib + 1) return;  // the largest once is enough
    }
  }
}

TEST_P(WalArchiveTest, accepts_the_same_bytes_again_B22) {
  const Bytes bytes(100000, 5);
  EXPECT_EQ(archive_.put(segment, bytes, 1), Put::stored);
  const Bytes stored = made_.objects->at(object_of_segment);
  EXPECT_EQ(archive_.put(segment, bytes, 2), Put::identical);
  EXPECT_EQ(made_.objects->at(object_of_segment), stored);
}

TEST_P(WalArchiveTest, refuses_other_bytes_and_keeps_the_first_B22) {
  const Bytes bytes(100000, 5);
  ASSERT_EQ(archive_.put(segment, bytes, 1), Put::stored);
  const auto refused = [&](const Bytes& other) {
    return code_of([&] { archive_.put(segment, other, 1); }) == Code::conflict;
  };
  Bytes other = bytes;
  other.back() ^= 1;
  EXPECT_TRUE(refused(other));
  EXPECT_TRUE(refused(Bytes(99999, 5)));
  EXPECT_TRUE(refused(Bytes(100001, 5)));
  EXPECT_TRUE(refused({}));
  EXPECT_EQ(archive_.get(segment), bytes);
}

TEST_P(WalArchiveTest, refuses_other_bytes_than_nothing_B22) {
  ASSERT_EQ(archive_.put(segment, {}, 1), Put::stored);
  EXPECT_EQ(archive_.put(segment, {}, 1), Put::identical);
  EXPECT_EQ(code_of([&] { archive_.put(segment, Bytes(1), 1); }), Code::conflict);
}

TEST_P(WalArchiveTest, compares_also_with_one_that_came_in_between_B22) {
  const Bytes bytes(1000, 5);
  for (const bool same : {true, false}) {
    const std::string name = same ? segment : "000000010000000000000002";
    made_.objects->before = [&](std::string_view call, const std::string&) {
      if (call != "commit") return;
      made_.objects->before = [](std::string_view, const std::string&) {};
      EXPECT_EQ(archive_.put(name, same ? bytes : Bytes(1000, 6), 1), Put::stored);
    };
    if (same) {
      EXPECT_EQ(archive_.put(name, bytes, 1), Put::identical);
    } else {
      EXPECT_EQ(code_of([&] { archive_.put(name, bytes, 1); }), Code::conflict);
      EXPECT_EQ(archive_.get(name), Bytes(1000, 6));
    }
  }
}

TEST_P(WalArchiveTest, says_absent_only_for_what_was_never_put_INV_6) {
  EXPECT_FALSE(archive_.get(segment));
  EXPECT_FALSE(archive_.has(segment));
  archive_.put(segment, Bytes(10), 1);
  EXPECT_TRUE(archive_.has(segment));
  made_.objects->at(object_of_segment)[40] ^= 1;
  EXPECT_EQ(code_of([&] { archive_.get(segment); }), Code::corrupt);
  EXPECT_EQ(code_of([&] { archive_.put(segment, Bytes(10), 1); }), Code::corrupt);
  made_.objects->before = [](std::string_view, const std::string&) {
    base::fail(Code::io, "the store is down");
  };
  EXPECT_EQ(code_of([&] { archive_.get(segment); }), Code::io);
  EXPECT_EQ(code_of([&] { archive_.has(segment); }), Code::io);
}

TEST_P(WalArchiveTest, takes_no_file_for_another_one) {
  archive_.put(segment, Bytes(10), 1);
  made_.objects->all[place.directory() + "/wal/00000001/000000010000000000000002"] =
      made_.objects->at(object_of_segment);
  EXPECT_EQ(code_of([&] { archive_.get("000000010000000000000002"); }), Code::corrupt);
}

TEST_P(WalArchiveTest, lists_files_by_timeline_and_histories_apart) {
  const std::vector<std::string> names = {"00000001000000000000000A",
                                          "00000001000000000000000A.00000028.backup",
                                          "00000001000000000000000B.partial", segment};
  for (const std::string& name : names) archive_.put(name, Bytes(10), 1);
  archive_.put("00000010000000000000000C", Bytes(10), 1);
  archive_.put("00000010.history", Bytes(10), 1);
  archive_.put("00000002.history", Bytes(10), 1);
  EXPECT_EQ(archive_.timelines(), (std::vector<std::string>{"00000001", "00000010"}));
  EXPECT_EQ(archive_.histories(),
            (std::vector<std::string>{"00000002.history", "00000010.history"}));
  std::vector<std::string> listed;
  for (const WalArchive::File& file : archive_.files("00000001")) {
    listed.push_back(file.name);
    EXPECT_GT(file.stored_bytes, 10U);
  }
  std::vector<std::string> sorted = names;
  std::ranges::sort(sorted);
  EXPECT_EQ(listed, sorted);
  EXPECT_TRUE(archive_.files("00000003").empty());
}

TEST_P(WalArchiveTest, refuses_names_that_lead_elsewhere) {
  for (const char* name :
       {"", "..", "../x", "00000001/../../x", "0000000100000000 0000001", "a\nb"}) {
    EXPECT_EQ(code_of([&] { archive_.put(name, Bytes(1), 1); }), Code::usage) << name;
  }
}

TEST(WalArchive, of_racers_with_one_name_keeps_one_and_tells_the_others_B22) {
  const base::TemporaryDirectory directory("wal");
  const Repository::Created made =
      Repository::create(std::make_unique<store::DirectoryStore>(directory.path()), {});
  const WalArchive archive(made.repository, place);
  for (int round = 0; round < 10; ++round) {
    const std::string name = fmt::format("0000000100000000{:08X}", round);
    constexpr unsigned racers = 4;
    std::barrier together(racers);
    std::atomic<unsigned> stored = 0;
    std::atomic<unsigned> identical = 0;
    base::run_workers(racers, [&](unsigned index, const std::stop_token&) {
      together.arrive_and_wait();
      testing::succeeds_or(Code::conflict, [&] {
        const auto put = archive.put(name, Bytes(5000, static_cast<std::uint8_t>(index % 2)), 1);
        ++(put == Put::stored ? stored : identical);
      });
    });
    EXPECT_EQ(stored, 1U);
    EXPECT_EQ(identical, 1U);  // of the two with other bytes none
  }
}

}  // namespace
}  // namespace holdfast::repository
