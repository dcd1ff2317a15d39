#include "repository/migrations.h"

#include <gtest/gtest.h>

#include "repository/testing.h"

namespace holdfast::repository {
namespace {

using base::Code;
using testing::code_of;
using testing::place;

const base::Timestamp day = base::from_iso("2026-11-23T08:30:00.000000Z");
const std::string id = "2026-11-23-083000Z-1a2b";

Migration migration(const std::string& name = id) {
  return {name,
          true,
          day,
          {"20261123T083000Z-4f2a"},
          "migration-" + name,
          "0/3000100",
          2,
          "abc\"def",
          "psql",
          "alice@host",
          {}};
}

class MigrationsTest : public ::testing::TestWithParam<bool> {
 protected:
  base::Bytes& object(const std::string& name) {
    return made_.objects->all.at(place.directory() + "/migrations/" + name);
  }
  testing::TestRepository made_{GetParam()};
  Migrations journal_{made_.repository, place};
};

INSTANTIATE_TEST_SUITE_P(Each, MigrationsTest, ::testing::Bool(),
                         [](const auto& tested) { return tested.param ? "sealed" : "plain"; });

TEST_P(MigrationsTest, one_without_an_end_is_known_as_such) {
  EXPECT_TRUE(journal_.all().empty());
  journal_.begin(migration());
  const auto found = journal_.all();
  ASSERT_EQ(found.size(), 1U);
  EXPECT_TRUE(found[0].readable);
  EXPECT_EQ(found[0].begun, day);
  EXPECT_EQ(found[0].backup.text, "20261123T083000Z-4f2a");
  EXPECT_EQ(found[0].restore_point, "migration-" + id);
  EXPECT_EQ(found[0].lsn, "0/3000100");
  EXPECT_EQ(found[0].timeline, 2U);
  EXPECT_EQ(found[0].commit, "abc\"def");
  EXPECT_EQ(found[0].program, "psql");
  EXPECT_EQ(found[0].by, "alice@host");
  EXPECT_FALSE(found[0].end);
}

TEST_P(MigrationsTest, that_began_within_one_second_are_listed_as_they_began) {
  Migration later = migration("2026-11-23-083000Z-0001");
  later.begun += std::chrono::microseconds(1);
  journal_.begin(later);
  journal_.begin(migration());
  const auto found = journal_.all();
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0].id, id);
  EXPECT_EQ(found[1].id, later.id);
}

TEST_P(MigrationsTest, an_end_is_written_once_and_belongs_to_one) {
  journal_.begin(migration());
  journal_.begin(migration("2026-11-24-083000Z-0000"));
  journal_.end(migration(), {day + std::chrono::hours(1), 3});
  const auto found = journal_.all();
  ASSERT_EQ(found.size(), 2U);
  ASSERT_TRUE(found[0].end);
  EXPECT_EQ(found[0].end->status, 3);
  EXPECT_EQ(found[0].end->at, day + std::chrono::hours(1));
  EXPECT_FALSE(found[1].end);
  EXPECT_EQ(code_of([&] { journal_.end(migration(), {day, 0}); }), Code::conflict);
  EXPECT_EQ(code_of([&] { journal_.begin(migration()); }), Code::conflict);
}

TEST_P(MigrationsTest, what_was_changed_is_shown_as_unreadable_and_ends_nothing) {
  journal_.begin(migration());
  journal_.end(migration(), {day, 0});
  object(id + "-ended").at(40) ^= 1;
  EXPECT_FALSE(journal_.all().at(0).end);
  object(id).at(40) ^= 1;
  const auto found = journal_.all();
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].id, id);
  EXPECT_FALSE(found[0].readable);
}

}  // namespace
}  // namespace holdfast::repository
