#include "operations/evidence.h"

#include <gtest/gtest.h>

#include <thread>

#include "base/error.h"
#include "base/seal.h"
#include "operations/evidence_text.h"

namespace holdfast::operations {
namespace {

using base::fs::path;

Evidence drill(const std::string& id, Verdict verdict = Verdict::pass) {
  Evidence evidence;
  evidence.id = id;
  evidence.at = base::from_iso(id.substr(0, 10) + "T08:00:00.000000Z");
  evidence.cluster = "main";
  evidence.verdict = verdict;
  evidence.scenario = "loss of the cluster";
  evidence.backup_point = "backup x to the end | of WAL";
  evidence.environment = "a test";
  evidence.notes = verdict == Verdict::pass ? "all well" : "a table was emptied";
  evidence.completed_by = "somebody";
  evidence.steps = {{"restore", std::chrono::seconds(2)}};
  evidence.checks = {{"tables", CheckOutcome::passed, "3 of 3"},
                     {"amcheck", CheckOutcome::switched_off, "by configuration"}};
  evidence.rto = std::chrono::seconds(3);
  evidence.facts = {{"backup", "x"}};
  evidence.controls = controls_of_drills();
  return evidence;
}

class EvidenceChain : public testing::Test {
 protected:
  EvidenceChain() : key_(base::SigningKey::generate()), check_(key_.public_pem(), "a test") {
    add(drill("2026-01-10-a"));
    add(drill("2026-02-10-b", Verdict::fail));
    add(drill("2026-03-10-c"));
  }
  EvidenceFiles add(const Evidence& evidence) const {
    return add_evidence(directory(), key_, evidence);
  }
  path directory() const { return place_.path() / "restore-drills"; }
  path file(const std::string& name) const { return directory() / name; }
  std::string text(const std::string& name) const {
    return std::string(base::text(base::read_existing_file(file(name))));
  }
  void write(const std::string& name, const std::string& content) const {
    base::replace_file(file(name), base::view(content));
  }
  EvidenceReport verified() const { return verify_evidence(directory(), check_); }
  /// The problems, in one text.
  std::string problems() const {
    std::string all;
    for (const std::string& each : verified().problems) all += each + "\n";
    return all;
  }
  bool tells(const std::string& what) const { return problems().find(what) != std::string::npos; }

  base::TemporaryDirectory place_{"holdfast-evidence"};
  base::SigningKey key_;
  base::VerifyingKey check_;
};

TEST_F(EvidenceChain, is_whole_and_says_what_was_recorded) {
  EXPECT_EQ(problems(), "");
  const auto records = verified().records;
  ASSERT_EQ(records.size(), 3U);
  EXPECT_EQ(records[1].number, 2U);
  EXPECT_EQ(records[1].evidence.verdict, Verdict::fail);
  EXPECT_EQ(records[1].evidence.notes, "a table was emptied");
  EXPECT_EQ(records[2].evidence.checks[1].outcome, CheckOutcome::switched_off);
  EXPECT_EQ(records[2].evidence.rto, std::chrono::seconds(3)) << "DS9";
  EXPECT_FALSE(records[2].evidence.rpo) << "VE6: not measured is not 0";
  EXPECT_EQ(key_beside(directory()), check_);
}

TEST_F(EvidenceChain, keeps_the_runbooks_table) {
  const std::string log = text("drill-log.md");
  EXPECT_NE(log.find("| Date | Backup point used | Environment | Result | Notes | Completed by |"),
            std::string::npos);
  EXPECT_NE(log.find("| [2026-02-10](2026-02-10-b.md) | backup x to the end \\| of WAL | a test | "
                     "fail | a table was emptied | somebody |"),
            std::string::npos)
      << log;
  write("drill-log.md", log + "| 2026-04-01 | - | - | pass | by hand | me |\n");
  EXPECT_TRUE(tells("drill-log.md is not the table of these records"));
}

TEST_F(EvidenceChain, shows_a_changed_record) {
  std::string json = text("2026-02-10-b.json");
  const std::string original = json;
  json.replace(json.find("\"fail\""), 6, "\"pass\"");
  write("2026-02-10-b.json", json);
  EXPECT_TRUE(tells("2026-02-10-b.json was changed"));
  write("2026-02-10-b.json", original);
  EXPECT_EQ(problems(), "");
  std::string markdown = text("2026-02-10-b.md");
  markdown.replace(markdown.find("| fail |"), 8, "| pass |");
  write("2026-02-10-b.md", markdown);
  EXPECT_TRUE(tells("2026-02-10-b.md is not as it was written"));
}

TEST_F(EvidenceChain, shows_a_removed_record_also_the_first_and_the_newest) {
  for (const std::string id : {"2026-01-10-a", "2026-02-10-b", "2026-03-10-c"}) {
    const std::string json = text(id + ".json");
    const std::string markdown = text(id + ".md");
    base::fs::remove(file(id + ".json"));
    base::fs::remove(file(id + ".md"));
    EXPECT_TRUE(tells("missing")) << id << "\n" << problems();
    write(id + ".json", json);
    write(id + ".md", markdown);
    EXPECT_EQ(problems(), "");
  }
  base::fs::remove(file("2026-03-10-c.json"));
  EXPECT_TRUE(tells("the newest records are missing: there were 3, and the last here is 2"));
  add(drill("2026-04-10-d"));
  EXPECT_TRUE(tells("record 3 is missing")) << "the next record does not cover it up";
  base::fs::remove(file("head.json"));
  EXPECT_TRUE(tells("head.json is missing"));
}

TEST_F(EvidenceChain, shows_records_in_another_order) {
  const std::string second = text("2026-02-10-b.json");
  const std::string third = text("2026-03-10-c.json");
  write("2026-02-10-b.json", third);
  write("2026-03-10-c.json", second);
  EXPECT_TRUE(tells("under another name")) << problems();
}

TEST_F(EvidenceChain, shows_a_record_that_does_not_follow) {
  // Whoever has the key and makes another history still cannot put it into this one.
  const base::TemporaryDirectory other("holdfast-evidence");
  add_evidence(other.path(), key_, drill("2026-01-11-x"));
  const auto forged = add_evidence(other.path(), key_, drill("2026-02-10-b"));
  for (const char* end : {".json", ".md"}) {
    base::fs::copy_file(other.path() / ("2026-02-10-b" + std::string(end)),
                        file("2026-02-10-b" + std::string(end)),
                        base::fs::copy_options::overwrite_existing);
  }
  EXPECT_EQ(forged.number, 2U);
  EXPECT_TRUE(tells("does not follow on the record before it")) << problems();
}

TEST_F(EvidenceChain, VE5_nothing_at_all_is_no_clean_report) {
  const base::TemporaryDirectory empty("holdfast-evidence");
  EXPECT_FALSE(verify_evidence(empty.path(), check_).ok());
  EXPECT_FALSE(verify_evidence(empty.path() / "nowhere", check_).ok());
  const base::VerifyingKey stranger(base::SigningKey::generate().public_pem(), "a test");
  const EvidenceReport other = verify_evidence(directory(), stranger);
  EXPECT_FALSE(other.ok());
  EXPECT_TRUE(other.records.empty());
}

TEST_F(EvidenceChain, VE4_goes_on_after_a_death_between_record_and_head) {
  const std::string head = text("head.json");
  const std::string log = text("drill-log.md");
  add(drill("2026-04-10-d"));
  write("head.json", head);
  const EvidenceReport report = verified();
  EXPECT_TRUE(report.ok()) << problems();
  EXPECT_EQ(report.notes.size(), 1U);
  EXPECT_EQ(add(drill("2026-05-10-e")).number, 5U) << "and not a second fourth one";
  EXPECT_EQ(problems(), "");
  EXPECT_TRUE(verified().notes.empty());
}

TEST_F(EvidenceChain, takes_no_record_by_another_key) {
  EXPECT_THROW(add_evidence(directory(), base::SigningKey::generate(), drill("2026-04-10-d")),
               base::Error);
  EXPECT_EQ(verified().records.size(), 3U);
}

TEST_F(EvidenceChain, two_at_once_take_turns) {
  {
    std::vector<std::jthread> writers;
    for (const char writer : {'p', 'q'}) {
      writers.emplace_back([this, writer] {
        for (int i = 0; i < 5; ++i) add(drill(fmt::format("2026-06-10-{}{}", writer, i)));
      });
    }
  }
  EXPECT_EQ(problems(), "");
  EXPECT_EQ(verified().records.size(), 13U);
}

TEST_F(EvidenceChain, gives_an_auditor_one_page) {
  const auto page = [&](const std::string& now) {
    return auditor_page(verified(), {base::from_iso(now), std::chrono::days(90), "main", "key"});
  };
  const std::string soon = page("2026-03-20T00:00:00.000000Z");
  for (const char* part :
       {"the chain is whole", "3 records, 2 passed", "promised: kept",
        "- 2026-02-10 fail (2026-02-10-b): a table was emptied -> passed on 2026-03-10, 28 d 0 h",
        "| 2026-03-10 | pass | not measured | 3.0 s |", "RPO: not measured yet", "SOC 2 A1.3",
        "CP-10"}) {
    EXPECT_NE(soon.find(part), std::string::npos) << part << "\n" << soon;
  }
  EXPECT_NE(page("2026-08-01T00:00:00.000000Z").find("OVERDUE"), std::string::npos);
  add(drill("2026-04-10-d", Verdict::inconclusive));
  EXPECT_NE(page("2026-04-20T00:00:00.000000Z").find("NOT YET PUT RIGHT"), std::string::npos);
  base::fs::remove(file("2026-01-10-a.json"));
  EXPECT_NE(page("2026-04-20T00:00:00.000000Z").find("THE CHAIN IS BROKEN"), std::string::npos);
}

TEST_F(EvidenceChain, keeps_game_days_apart_from_drills) {
  const std::string before = text("drill-log.md");
  Evidence gameday = drill("2026-04-10-d", Verdict::fail);
  gameday.kind = "gameday";
  gameday.scenario = "Degraded mode: 18 of 18 rows";
  gameday.notes = "The database hangs: ready: no answer";
  gameday.rto.reset();
  add(gameday);
  EXPECT_EQ(problems(), "");
  const std::string log = text("drill-log.md");
  EXPECT_EQ(log.substr(0, before.size()), before) << "the runbook's table is of drills alone";
  EXPECT_NE(log.find("## Game days"), std::string::npos);
  EXPECT_NE(log.find("Degraded mode: 18 of 18 rows"), std::string::npos);
  AuditorQuestions questions;
  questions.now = base::from_iso("2026-04-11T08:00:00.000000Z");
  const std::string page = auditor_page(verified(), questions);
  EXPECT_NE(page.find("3 records, 2 passed"), std::string::npos) << page;
  const std::size_t gamedays = page.find("# Game days");
  ASSERT_NE(gamedays, std::string::npos);
  EXPECT_EQ(page.find("The database hangs"), page.find("The database hangs", gamedays));
  EXPECT_NE(page.find("NOT YET PUT RIGHT", gamedays), std::string::npos);
  EXPECT_EQ(text("2026-04-10-d.md").find("## Measured"), std::string::npos);
}

TEST(Judge, nothing_checked_is_no_pass) {
  Evidence evidence;
  judge(evidence);
  EXPECT_EQ(evidence.verdict, Verdict::inconclusive);
  evidence.checks = {{"a", CheckOutcome::switched_off, ""}};
  judge(evidence);
  EXPECT_EQ(evidence.verdict, Verdict::inconclusive);
  evidence.checks.push_back({"b", CheckOutcome::passed, ""});
  judge(evidence);
  EXPECT_EQ(evidence.verdict, Verdict::pass);
  evidence.checks.push_back({"c", CheckOutcome::not_run, "no time"});
  judge(evidence);
  EXPECT_EQ(evidence.verdict, Verdict::inconclusive);
  evidence.checks.push_back({"d", CheckOutcome::failed, "lost rows"});
  judge(evidence);
  EXPECT_EQ(evidence.verdict, Verdict::fail);
  EXPECT_EQ(evidence.notes, "d: lost rows");
}

/// With a witness beside the signing key.
class WitnessedChain : public EvidenceChain {
 protected:
  WitnessedChain() {
    for (const char* id : {"2026-04-10-d", "2026-05-10-e"}) add_here(id);
  }
  void add_here(const std::string& id) const { add_evidence(here(), key_, drill(id)); }
  EvidencePlace here() const { return {directory(), place_.path() / "key.head"}; }
  std::vector<std::string> problems_here() const {
    return verify_evidence(here(), check_).problems;
  }
  void remove(const std::string& id) const {
    base::fs::remove(file(id + ".json"));
    base::fs::remove(file(id + ".md"));
  }
};

TEST_F(WitnessedChain, tells_for_ever_that_the_newest_records_and_the_head_were_removed) {
  EXPECT_TRUE(problems_here().empty());
  remove("2026-04-10-d");
  remove("2026-05-10-e");
  base::fs::remove(file("head.json"));
  EXPECT_TRUE(tells("head.json is missing"));
  ASSERT_FALSE(problems_here().empty());
  add_here("2026-06-10-f");
  EXPECT_FALSE(problems_here().empty());
  EXPECT_TRUE(tells("records 4 to 5 are missing")) << "also to who has the directory alone";
}

TEST_F(WitnessedChain, tells_that_an_older_state_was_put_back) {
  const path before = place_.path() / "before";
  base::fs::copy(directory(), before, base::fs::copy_options::recursive);
  add_here("2026-06-10-f");
  base::fs::remove_all(directory());
  base::fs::rename(before, directory());
  EXPECT_EQ(problems(), "") << "the directory alone cannot tell";
  EXPECT_FALSE(problems_here().empty());
  add_here("2026-07-10-g");
  EXPECT_TRUE(tells("record 6 is missing"));
}

TEST_F(WitnessedChain, tells_that_all_records_are_gone) {
  base::fs::remove_all(directory());
  EXPECT_FALSE(problems_here().empty());
  add_here("2026-06-10-f");
  EXPECT_TRUE(tells("records 1 to 5 are missing"));
}

TEST_F(WitnessedChain, goes_on_where_the_writer_of_the_newest_record_was_stopped) {
  const base::Bytes before = base::read_existing_file(here().witness);
  add_here("2026-06-10-f");
  base::replace_file(here().witness, before);
  EXPECT_TRUE(problems_here().empty());
  add_here("2026-07-10-g");
  EXPECT_TRUE(problems_here().empty());
}

TEST_F(WitnessedChain, tells_that_the_witness_was_changed) {
  base::replace_file(here().witness, base::view("{}"));
  ASSERT_FALSE(problems_here().empty());
  add_here("2026-06-10-f");
  EXPECT_FALSE(problems_here().empty()) << "it is not made anew unseen";
}

TEST_F(EvidenceChain, names_a_record_that_is_no_file_and_goes_on) {
  base::fs::remove(file("2026-02-10-b.json"));
  ASSERT_EQ(::mkfifo(file("2026-02-10-b.json").c_str(), 0600), 0);
  EXPECT_TRUE(tells("2026-02-10-b.json"));
  EXPECT_EQ(verified().records.size(), 2U);
  add(drill("2026-04-10-d"));
  base::fs::remove(file("head.json"));
  base::fs::create_directory(file("head.json"));
  EXPECT_TRUE(tells("head.json"));
}

}  // namespace
}  // namespace holdfast::operations
