#include "operations/drill_checks.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "operations/witness_check.h"

namespace holdfast::operations {
namespace {

using postgres::Lsn;

TEST(DrillChecks, fail_a_target_that_was_not_reached_or_overrun) {
  const base::Timestamp noon = base::from_iso("2026-11-23T12:00:00.000000Z");
  const TargetExpectation expected{Lsn{1000}, noon};
  const auto outcome = [&](std::uint64_t lsn, std::optional<base::Timestamp> commit) {
    return check_target(expected, {Lsn{lsn}, {2}, commit}).check.outcome;
  };
  EXPECT_EQ(outcome(1000, noon), CheckOutcome::passed);
  EXPECT_EQ(outcome(1000, {}), CheckOutcome::passed);
  EXPECT_EQ(outcome(999, noon), CheckOutcome::failed);
  EXPECT_EQ(outcome(0, {}), CheckOutcome::failed) << "nothing was replayed";
  EXPECT_EQ(outcome(1000, noon + base::Microseconds(1)), CheckOutcome::failed);
}

WitnessedTable table(const std::string& name, std::uint64_t rows, bool exact = true) {
  WitnessedTable table;
  table.database = "app";
  table.facts.schema = "public";
  table.facts.name = name;
  table.sampled = true;
  table.rows = rows;
  table.exact = exact;
  return table;
}

class Emptied : public testing::Test {
 protected:
  CheckOutcome after(std::uint64_t before, bool exact_before, CountedTable now) {
    witness_.tables = {table("t", before, exact_before)};
    return check_emptied({{"app.public.t", now}}, {{"backup x", &witness_}}).check.outcome;
  }
  Witness witness_;
};

TEST_F(Emptied, fails_what_is_empty_or_shrank_absurdly_and_nothing_else) {
  EXPECT_EQ(after(5000, true, {5000, true}), CheckOutcome::passed);
  EXPECT_EQ(after(5000, true, {9000, true}), CheckOutcome::passed);
  EXPECT_EQ(after(5000, true, {2500, true}), CheckOutcome::passed);
  EXPECT_EQ(after(5000, true, {2499, true}), CheckOutcome::failed);
  EXPECT_EQ(after(5000, false, {2400, true}), CheckOutcome::passed) << "it was an estimate";
  EXPECT_EQ(after(5000, false, {1600, true}), CheckOutcome::failed);
  EXPECT_EQ(after(100, true, {0, true}), CheckOutcome::failed);
  EXPECT_EQ(after(99, true, {0, true}), CheckOutcome::passed) << "a queue";
  EXPECT_EQ(after(1000, true, {1, true}), CheckOutcome::passed);
}

TEST_F(Emptied, VE6_without_a_baseline_is_not_measured) {
  EXPECT_EQ(check_emptied({{"app.public.t", {1, true}}}, {{"", nullptr}}).check.outcome,
            CheckOutcome::not_run);
}

TEST(WitnessText, survives_being_written) {
  Witness witness;
  witness.taken = base::from_iso("2026-11-23T12:00:00.000000Z");
  witness.holds_from = Lsn{0x1000};
  witness.superuser = "boss";
  witness.notes = {"1 tables were locked"};
  witness.tables = {table("t\"x", (std::uint64_t{1} << 53) + 1)};
  witness.tables[0].at = Lsn{0xfff};
  witness.tables[0].sample = {{"(0,1)", "742", "abcdef"}};
  witness.tables.push_back({});
  const Witness again = parse_witness(to_text(witness));
  EXPECT_EQ(to_text(again), to_text(witness));
  EXPECT_EQ(again.tables[0].rows, (std::uint64_t{1} << 53) + 1) << "DS11";
  EXPECT_EQ(again.tables[0].sample[0].digest, "abcdef");
  EXPECT_FALSE(again.tables[1].sampled);
  EXPECT_THROW(parse_witness("{}"), base::Error);
  EXPECT_THROW(parse_witness("nothing"), base::Error);
}

}  // namespace
}  // namespace holdfast::operations
