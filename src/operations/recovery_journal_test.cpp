#include "operations/recovery_journal.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace holdfast::operations {
namespace {

using base::Code;
using base::Error;

Recovery some(const std::string& id, const std::string& cluster = "main") {
  Recovery recovery;
  recovery.id = id;
  recovery.cluster = cluster;
  recovery.begun = base::from_iso("2026-11-23T08:30:00.000000Z");
  recovery.request.to = "lsn:0/1";
  recovery.request.inclusive = false;
  recovery.request.timeline = postgres::Timeline{7};
  recovery.full = true;
  recovery.directory = "/data";
  recovery.tablespaces = {"1=/a b"};
  recovery.rpo = base::Microseconds(5);
  recovery.checks = {{"rows", CheckOutcome::not_run, "why"}};
  return recovery;
}

template <typename Work>
Code code_of(const Work& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.code();
  }
  ADD_FAILURE() << "nothing was thrown";
  return Code::internal;
}

class Journal : public ::testing::Test {
 protected:
  base::TemporaryDirectory place_{"holdfast-journal"};
  base::fs::path state_ = place_.path() / "recoveries";
};

TEST_F(Journal, is_read_back_as_it_was_written) {
  {
    RecoveryJournal journal = RecoveryJournal::begin(state_, some("a"));
    StepRecord& step = journal.recovery().at(RecoveryStep::smoke);
    step.state = StepState::failed;
    step.tries = 2;
    step.begun = journal.recovery().begun;
    step.found = "\"quoted\"\nline";
    journal.recovery().serving = journal.recovery().begun;
    journal.save();
  }
  const RecoveryJournal read = RecoveryJournal::last(state_, "main");
  EXPECT_EQ(read.recovery().at(RecoveryStep::smoke).found, "\"quoted\"\nline");
  EXPECT_EQ(read.recovery().at(RecoveryStep::smoke).state, StepState::failed);
  EXPECT_EQ(read.recovery().request.timeline->value, 7U);
  EXPECT_FALSE(read.recovery().request.inclusive);
  EXPECT_EQ(to_json(recovery_of(to_json(read.recovery()))), to_json(read.recovery()));
}

TEST_F(Journal, lets_one_recovery_of_a_cluster_be_open_and_one_be_worked_on) {
  {
    RecoveryJournal first = RecoveryJournal::begin(state_, some("a"));
    EXPECT_EQ(code_of([&] { RecoveryJournal::last(state_, "main"); }), Code::busy);
    EXPECT_EQ(code_of([&] { RecoveryJournal::begin(state_, some("b", "other")); }), Code::busy);
  }
  EXPECT_EQ(code_of([&] { RecoveryJournal::begin(state_, some("b")); }), Code::conflict);
  RecoveryJournal::begin(state_, some("c", "other"));
  {
    RecoveryJournal first = RecoveryJournal::last(state_, "main");
    first.recovery().end = RecoveryEnd::undone;
    first.save();
  }
  RecoveryJournal::begin(state_, some("b"));
  EXPECT_EQ(code_of([&] { RecoveryJournal::last(state_, "third"); }), Code::not_found);
}

TEST_F(Journal, that_is_damaged_is_an_error_and_no_reason_to_begin_anew) {
  RecoveryJournal::begin(state_, some("a"));
  const base::fs::path file = state_ / "a" / "journal.json";
  const std::string whole(base::text(base::read_existing_file(file)));
  for (const std::string& text :
       {std::string("{"), std::string("[]"), whole.substr(0, whole.size() / 2),
        std::string(whole).replace(whole.find("\"fence\""), 7, "\"smoke\"")}) {
    base::replace_file(file, base::view(text));
    EXPECT_EQ(code_of([&] { RecoveryJournal::begin(state_, some("b")); }), Code::corrupt);
  }
}

}  // namespace
}  // namespace holdfast::operations
