#include "repository/ids.h"

#include <gtest/gtest.h>

#include <set>
#include <type_traits>

#include "repository/testing.h"

namespace holdfast::repository {
namespace {

using testing::code_of;

TEST(ObjectId, is_never_given_twice) {
  std::set<ObjectId> seen;
  for (int i = 0; i < 1000; ++i) EXPECT_TRUE(seen.insert(new_object_id()).second);
}

TEST(ObjectId, begins_with_the_time_so_that_names_sort_by_age) {
  const auto millis = [](base::Timestamp time) {
    return static_cast<std::uint64_t>(time.time_since_epoch().count() / 1000);
  };
  const std::uint64_t before = millis(base::now());
  const ObjectId id = new_object_id();
  const std::uint64_t after = millis(base::now());
  std::uint64_t made = 0;
  for (std::size_t i = 0; i < 6; ++i) made = made << 8 | id.bytes[i];
  EXPECT_GE(made, before);
  EXPECT_LE(made, after);
}

TEST(ObjectId, reads_back_what_it_printed) {
  const ObjectId id = new_object_id();
  EXPECT_EQ(to_string(id).size(), 32U);
  EXPECT_EQ(parse_object_id(to_string(id)), id);
}

TEST(ObjectId, has_one_spelling) {
  const std::string right = "0193abcdef0123456789abcdef012345";
  EXPECT_EQ(to_string(parse_object_id(right)), right);
  for (const std::string& text : std::initializer_list<std::string>{
           std::string(), right.substr(1), right + "0", right + "00",
           "0193ABCDEF0123456789abcdef012345", "0193abcdef0123456789abcdef01234g",
           " " + right.substr(1), right + "\n"}) {
    EXPECT_EQ(code_of([&] { parse_object_id(text); }), base::Code::corrupt) << text;
  }
}

TEST(ObjectId, of_one_sort_is_not_taken_for_another) {
  EXPECT_FALSE((std::is_convertible_v<PackId, ShardId>));
  EXPECT_FALSE((std::is_convertible_v<ShardId, PackId>));
  EXPECT_FALSE((std::is_convertible_v<ObjectId, PackId>));
}

TEST(BackupId, says_when_it_was_begun) {
  const BackupId id = new_backup_id(base::from_iso("2026-11-23T08:30:00.999999Z"));
  EXPECT_TRUE(id.text.starts_with("20261123T083000Z-")) << id.text;
  EXPECT_TRUE(is_backup_id(id.text));
}

TEST(BackupId, is_told_from_all_other_names) {
  EXPECT_TRUE(is_backup_id("20261123T083000Z-4f2a"));
  for (const char* text :
       {"", "20261123T083000Z-4F2A", "20261123T083000Z-4f2", "20261123T083000Z-4f2ab",
        "20261123 083000Z-4f2a", "2026112aT083000Z-4f2a", "20261123T083000Z_4f2a",
        "20261123T083000Z-4f2a.tmp", "../../../../../../x/y", "20261123T083000+-4f2a"}) {
    EXPECT_FALSE(is_backup_id(text)) << text;
  }
}

}  // namespace
}  // namespace holdfast::repository
