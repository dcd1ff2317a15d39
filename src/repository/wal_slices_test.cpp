#include "repository/wal_slices.h"

#include <gtest/gtest.h>

#include "repository/testing.h"
#include "repository/wal_archive.h"
#include "store/directory_store.h"

namespace holdfast::repository {
namespace {

using base::Bytes;
using base::Code;
using base::View;
using testing::code_of;
using testing::place;

constexpr std::uint64_t start = 0x1'0500'0000;
const std::string segment = "000000020000000100000005";
const std::string directory = place.directory() + "/wal/00000002/" + segment + ".d";
const std::string second_object = directory + "/0000000105000064";

class WalSlicesTest : public ::testing::TestWithParam<bool> {
 protected:
  testing::TestRepository made_{GetParam()};
  WalSlices slices_{made_.repository, place};
  Bytes bytes_ = base::testing::Random(7).bytes(1000);

  View part(std::size_t from, std::size_t to) const {
    return View(bytes_).subspan(from, to - from);
  }
  void store_three() const {
    EXPECT_EQ(slices_.put(segment, start, part(0, 100)), 100U);
    EXPECT_EQ(slices_.put(segment, start + 100, part(100, 350)), 250U);
    EXPECT_EQ(slices_.put(segment, start + 350, part(350, 1000)), 650U);
  }
  Bytes assembled() const { return slices_.assemble(segment, start).bytes; }
};

INSTANTIATE_TEST_SUITE_P(Each, WalSlicesTest, ::testing::Bool(),
                         [](const auto& tested) { return tested.param ? "sealed" : "plain"; });

TEST_P(WalSlicesTest, gives_back_what_slices_hold_from_the_segments_start) {
  EXPECT_FALSE(slices_.first(segment));
  store_three();
  EXPECT_EQ(assembled(), bytes_);
  EXPECT_FALSE(slices_.assemble(segment, start).hole);
  EXPECT_EQ(slices_.reach(segment, start).end, start + 1000);
  EXPECT_EQ(slices_.first(segment), start);
  EXPECT_EQ(slices_.segments("00000002"), std::vector{segment});
  EXPECT_TRUE(made_.objects->all.contains(second_object));
}

TEST_P(WalSlicesTest, a_hole_ends_what_can_be_used_and_is_told) {
  store_three();
  slices_.remove("000000020000000100000006");  // another segment's are not there, and no matter
  made_.objects->all.erase(second_object);
  EXPECT_EQ(slices_.reach(segment, start).end, start + 100);
  EXPECT_TRUE(slices_.reach(segment, start).hole);
  const auto read = slices_.assemble(segment, start);
  EXPECT_EQ(read.bytes.size(), 100U);
  EXPECT_TRUE(read.hole);
  // Without the first one there is nothing.
  made_.objects->all.erase(directory + "/0000000105000000");
  EXPECT_EQ(slices_.reach(segment, start).end, start);
  EXPECT_TRUE(slices_.reach(segment, start).hole);
}

TEST_P(WalSlicesTest, INV_5_the_same_bytes_again_are_accepted_and_others_are_not) {
  store_three();
  const auto before = made_.objects->all;
  EXPECT_EQ(slices_.put(segment, start + 100, part(100, 350)), 250U);
  Bytes other = bytes_;
  other[349] ^= 1;
  EXPECT_EQ(code_of([&] { slices_.put(segment, start + 100, View(other).subspan(100, 250)); }),
            Code::conflict);
  EXPECT_EQ(made_.objects->all, before);
}

TEST_P(WalSlicesTest, a_slice_that_is_there_counts_for_as_much_as_it_holds) {
  // The answer to the first one was lost; meanwhile more has come.
  EXPECT_EQ(slices_.put(segment, start, part(0, 100)), 100U);
  EXPECT_EQ(slices_.put(segment, start, part(0, 300)), 100U);
  EXPECT_EQ(slices_.put(segment, start + 100, part(100, 600)), 500U);
  EXPECT_EQ(slices_.put(segment, start + 100, part(100, 400)), 300U);
  EXPECT_EQ(slices_.put(segment, start + 400, part(400, 1000)), 600U);  // overlaps
  EXPECT_EQ(assembled(), bytes_);
  EXPECT_EQ(slices_.reach(segment, start).end, start + 1000);
}

TEST_P(WalSlicesTest, slices_that_do_not_agree_are_corrupt) {
  slices_.put(segment, start, part(0, 500));
  slices_.put(segment, start + 400, part(500, 800));
  EXPECT_EQ(code_of([&] { assembled(); }), Code::corrupt);
}

TEST_P(WalSlicesTest, damage_is_found_wherever_it_is_and_gives_way_to_a_new_slice) {
  store_three();
  const Bytes good = made_.objects->at(second_object);
  for (std::size_t at = 0; at < good.size(); at += 7) {
    made_.objects->at(second_object)[at] ^= 0x10;
    EXPECT_EQ(code_of([&] { assembled(); }), Code::corrupt) << at;
    made_.objects->at(second_object) = good;
  }
  made_.objects->at(second_object)[50] ^= 1;
  EXPECT_EQ(slices_.put(segment, start + 100, part(100, 350)), 250U);
  EXPECT_EQ(assembled(), bytes_);
}

TEST_P(WalSlicesTest, a_slice_under_another_name_does_not_open) {
  store_three();
  const Bytes moved = made_.objects->at(second_object);
  made_.objects->all[directory + "/0000000105000065"] = moved;
  made_.objects->all.erase(second_object);
  slices_.put(segment, start + 100, part(100, 101));
  EXPECT_EQ(code_of([&] { assembled(); }), Code::corrupt);
}

TEST_P(WalSlicesTest, removed_slices_are_gone_from_the_end_so_that_there_is_never_a_hole) {
  store_three();
  std::size_t left = 3;
  made_.objects->set(made_.objects->after, [&](std::string_view call, const std::string&) {
    if (call != "remove") return;
    --left;
    EXPECT_FALSE(slices_.reach(segment, start).hole) << left;
  });
  slices_.remove(segment);
  EXPECT_EQ(left, 0U);
  EXPECT_TRUE(slices_.segments("00000002").empty());
}

TEST(WalSlicesInADirectory, leave_no_directory_behind_and_can_come_again) {
  const base::TemporaryDirectory root("slices");
  const testing::KeyFile key;
  auto made = Repository::create(
      std::make_unique<store::DirectoryStore>(root.path() / "repository"), key.source());
  const WalArchive archive(made.repository, place);
  const WalSlices slices = archive.slices();
  const Bytes bytes(100, 1);
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(slices.put(segment, start, bytes), 100U);
    EXPECT_TRUE(archive.files("00000002").empty());
    slices.remove(segment);
    EXPECT_FALSE(base::status_of(root.path() / "repository" / directory));
  }
}

}  // namespace
}  // namespace holdfast::repository
