#include "operations/evidence_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace holdfast::operations {

namespace {

/// What a cell of a table can hold.
std::string cell(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '|') {
      out += "\\|";
    } else {
      out += c == '\n' || c == '\r' ? ' ' : c;
    }
  }
  return out.empty() ? "-" : out;
}

std::string duration_text(const std::optional<base::Microseconds>& duration,
                          std::string_view otherwise = "not measured") {
  return duration ? base::to_string_short(*duration) : std::string(otherwise);
}

std::string date_of(base::Timestamp time) {
  return base::to_iso(time).substr(0, 10);
}

std::string measured(const Evidence& evidence) {
  return fmt::format(
      "| Objective | Target | Measured |\n|---|---|---|\n| RPO | {} | {}{} |\n| RTO | {} | {} |\n",
      duration_text(evidence.rpo_objective, "none"), duration_text(evidence.rpo),
      evidence.rpo_how.empty() ? "" : fmt::format(" ({})", cell(evidence.rpo_how)),
      duration_text(evidence.rto_objective, "none"), duration_text(evidence.rto));
}

}  // namespace

std::string markdown_of(const Evidence& evidence, std::uint64_t number,
                        const std::string& previous) {
  std::string text = fmt::format(
      "# Record {}: {} of {} on {}: {}\n\n"
      "| | |\n|---|---|\n"
      "| Id | {} |\n| At | {} |\n| Scenario | {} |\n| Backup point used | {} |\n"
      "| Environment | {} |\n| Result | {} |\n| Notes | {} |\n| Completed by | {} |\n\n",
      number, evidence.kind, cell(evidence.cluster), date_of(evidence.at),
      name_of(evidence.verdict), evidence.id, base::to_string(evidence.at), cell(evidence.scenario),
      cell(evidence.backup_point), cell(evidence.environment), name_of(evidence.verdict),
      cell(evidence.notes), cell(evidence.completed_by));
  if (evidence.kind != "gameday") text += "## Measured\n\n" + measured(evidence) + "\n";
  text += "## Steps\n\n| Step | Took |\n|---|---|\n";
  for (const EvidenceStep& step : evidence.steps) {
    text += fmt::format("| {} | {} |\n", cell(step.name), base::to_string_short(step.took));
  }
  text += "\n## Checks\n\n| Check | Outcome | Found |\n|---|---|---|\n";
  for (const EvidenceCheck& check : evidence.checks) {
    text += fmt::format("| {} | {} | {} |\n", cell(check.name), name_of(check.outcome),
                        cell(check.found));
  }
  text += "\n## Facts\n\n| | |\n|---|---|\n";
  for (const auto& [name, value] : evidence.facts) {
    text += fmt::format("| {} | {} |\n", cell(name), cell(value));
  }
  text += "\n## Controls evidenced\n\n";
  for (const std::string& control : evidence.controls) text += fmt::format("- {}\n", control);
  return text + fmt::format(
                    "\nThe record before this one has SHA-256 {}.\n"
                    "`holdfast drill verify` checks this record, and that none is missing.\n",
                    previous);
}

namespace {

std::string row_of(const Evidence& evidence) {
  return fmt::format("| [{}]({}.md) | {} | {} | {} | {} | {} |\n", date_of(evidence.at),
                     evidence.id, cell(evidence.backup_point), cell(evidence.environment),
                     name_of(evidence.verdict), cell(evidence.notes), cell(evidence.completed_by));
}

std::string gameday_row_of(const Evidence& evidence) {
  return fmt::format("| [{}]({}.md) | {} | {} | {} | {} | {} |\n", date_of(evidence.at),
                     evidence.id, cell(evidence.scenario), cell(evidence.environment),
                     name_of(evidence.verdict), cell(evidence.notes), cell(evidence.completed_by));
}

}  // namespace

std::string log_of(const std::vector<EvidenceRecord>& records) {
  std::string text =
      "# Restore drill log\n\n"
      "Made by Holdfast from the records in this directory; what is changed here by hand is lost.\n"
      "\n"
      "| Date | Backup point used | Environment | Result | Notes | Completed by |\n"
      "|---|---|---|---|---|---|\n";
  std::string gamedays;
  for (const EvidenceRecord& each : records) {
    if (each.evidence.kind == "gameday") {
      gamedays += gameday_row_of(each.evidence);
    } else {
      text += row_of(each.evidence);
    }
  }
  if (gamedays.empty()) return text;
  return text +
         "\n## Game days\n\n"
         "| Date | Contract | Environment | Result | Notes | Completed by |\n"
         "|---|---|---|---|---|---|\n" +
         gamedays;
}

namespace {

class Page {
 public:
  Page(const EvidenceReport& report, const AuditorQuestions& questions)
      : report_(report), questions_(questions) {
    for (const EvidenceRecord& record : report.records) {
      const Evidence& evidence = record.evidence;
      if (!questions.cluster.empty() && evidence.cluster != questions.cluster) continue;
      if (evidence.kind == "gameday") {
        gamedays_.push_back(&evidence);
        continue;
      }
      records_.push_back(&evidence);
      if (evidence.verdict == Verdict::pass) passed_.push_back(&evidence);
    }
  }

  std::string text() {
    text_ = fmt::format("# Restore drills{}\n\nAs of {}. ",
                        questions_.cluster.empty() ? "" : " of " + questions_.cluster,
                        base::to_string(questions_.now));
    chain();
    cadence();
    trend();
    failures(records_);
    gamedays();
    controls();
    return std::move(text_);
  }

 private:
  template <typename... Args>
  void say(fmt::format_string<Args...> format, Args&&... args) {
    text_ += fmt::format(format, std::forward<Args>(args)...);
  }

  void chain() {
    say("{} records were checked with key {}: ", report_.records.size(), questions_.key);
    if (report_.ok()) return say("the chain is whole.\n");
    say("THE CHAIN IS BROKEN.\n\n");
    for (const std::string& problem : report_.problems) say("- {}\n", problem);
  }

  void cadence() {
    say("\n## Cadence\n\n{} records, {} passed. ", records_.size(), passed_.size());
    if (passed_.empty()) return say("No drill has passed yet: OVERDUE.\n");
    base::Microseconds longest{};
    for (std::size_t i = 1; i < passed_.size(); ++i) {
      longest = std::max(longest, passed_[i]->at - passed_[i - 1]->at);
    }
    const base::Microseconds age = questions_.now - passed_.back()->at;
    say("The last one that passed was on {}, {} ago. ", date_of(passed_.back()->at),
        base::to_string_short(age));
    if (passed_.size() > 1) {
      say("The longest time between two that passed was {}. ", base::to_string_short(longest));
    }
    if (!questions_.drill_every) return say("No cadence is promised.\n");
    say("One every {} is promised: {}.\n", base::to_string_short(*questions_.drill_every),
        age <= *questions_.drill_every ? "kept" : "OVERDUE");
  }

  void trend() {
    say("\n## What was measured\n\n| Date | Result | RPO | RTO | Backup point used |\n"
        "|---|---|---|---|---|\n");
    constexpr std::size_t shown = 20;
    const std::size_t first = records_.size() > shown ? records_.size() - shown : 0;
    if (first > 0) say("| | | | | {} older records |\n", first);
    for (std::size_t i = first; i < records_.size(); ++i) {
      const Evidence& each = *records_[i];
      say("| {} | {} | {} | {} | {} |\n", date_of(each.at), name_of(each.verdict),
          duration_text(each.rpo), duration_text(each.rto), cell(each.backup_point));
    }
    spread("RPO", &Evidence::rpo, &Evidence::rpo_objective);
    spread("RTO", &Evidence::rto, &Evidence::rto_objective);
  }

  void spread(const char* name, std::optional<base::Microseconds> Evidence::*value,
              std::optional<base::Microseconds> Evidence::*objective) {
    std::vector<base::Microseconds> all;
    std::size_t missed = 0;
    for (const Evidence* each : passed_) {
      if (!(each->*value)) continue;
      all.push_back(*(each->*value));
      if (each->*objective && *(each->*value) > *(each->*objective)) ++missed;
    }
    if (all.empty()) return say("\n{}: not measured yet.\n", name);
    std::ranges::sort(all);
    say("\n{} of drills that passed: shortest {}, median {}, longest {}; {} beyond the "
        "objective.\n",
        name, base::to_string_short(all.front()), base::to_string_short(all[all.size() / 2]),
        base::to_string_short(all.back()), missed);
  }

  void failures(const std::vector<const Evidence*>& records) {
    say("\n## Failures and when they were put right\n\n");
    bool any = false;
    for (auto each = records.begin(); each != records.end(); ++each) {
      if ((*each)->verdict == Verdict::pass) continue;
      any = true;
      const auto right = std::find_if(each, records.end(), [&](const Evidence* later) {
        return later->verdict == Verdict::pass && later->kind == (*each)->kind &&
               later->cluster == (*each)->cluster;
      });
      say("- {} {} ({}): {} -> {}\n", date_of((*each)->at), name_of((*each)->verdict), (*each)->id,
          cell((*each)->notes),
          right == records.end()
              ? "NOT YET PUT RIGHT"
              : fmt::format("passed on {}, {} later ({})", date_of((*right)->at),
                            base::to_string_short((*right)->at - (*each)->at), (*right)->id));
    }
    if (!any) say("None recorded. Failures are recorded as passes are.\n");
  }

  void gamedays() {
    if (gamedays_.empty()) return;
    say("\n# Game days\n\n| Date | Contract | Result | Environment |\n|---|---|---|---|\n");
    for (const Evidence* each : gamedays_) {
      say("| {} | {} | {} | {} |\n", date_of(each->at), cell(each->scenario),
          name_of(each->verdict), cell(each->environment));
    }
    failures(gamedays_);
  }

  void controls() {
    say("\n## Controls evidenced\n\n"
        "| Control | By what |\n|---|---|\n"
        "| SOC 2 A1.2 | backups are taken, sealed, and brought back by these drills |\n"
        "| SOC 2 A1.3 | the recovery plan is tested: integrity and completeness of what came back "
        "|\n"
        "| ISO/IEC 27001:2022 A.8.13 | copies are tested regularly, on a separate system |\n"
        "| NIST 800-53 CP-4 | test, result, and correction of each failure, as listed above |\n"
        "| NIST 800-53 CP-9 | reliability and integrity of backups: page checksums, samples |\n"
        "| NIST 800-53 CP-10 | recovery to a known state within a measured time |\n\n"
        "Not shown by these records: who reviewed them, and what a plan says of people.\n");
  }

  const EvidenceReport& report_;
  const AuditorQuestions& questions_;
  std::vector<const Evidence*> records_;
  std::vector<const Evidence*> passed_;
  std::vector<const Evidence*> gamedays_;
  std::string text_;
};

}  // namespace

std::string auditor_page(const EvidenceReport& report, const AuditorQuestions& questions) {
  return Page(report, questions).text();
}

}  // namespace holdfast::operations
