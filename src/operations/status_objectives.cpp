#include "operations/status_objectives.h"

#include <algorithm>

#include "base/error.h"
#include "operations/evidence.h"
#include "service/uptime.h"

namespace holdfast::operations {

using Level = Finding::Level;

namespace {

constexpr const char* drill_remedy = "run `holdfast drill`, and let it run regularly";

base::Microseconds age_of(base::Timestamp time) {
  return std::max(base::Microseconds(0), base::now() - time);
}

struct Newest {
  const Evidence* drill = nullptr;
  const Evidence* passed = nullptr;    ///< drill
  const Evidence* measured = nullptr;  ///< drill with an RTO
  const Evidence* gameday = nullptr;
};

Newest newest_of(const EvidenceReport& report, const std::string& cluster) {
  Newest newest;
  for (const EvidenceRecord& record : report.records) {
    const Evidence& each = record.evidence;
    if (each.kind == "gameday") newest.gameday = &each;
    if (each.kind != "drill" || each.cluster != cluster) continue;
    newest.drill = &each;
    if (each.verdict == Verdict::pass) newest.passed = &each;
    if (each.rto) newest.measured = &each;
  }
  return newest;
}

void judge_rto(const Configuration& configuration, const Evidence* drill, StatusReport& report) {
  const auto& wanted = configuration.objectives.rto;
  Objective rto{"rto", false, {}, {}, {}, "no drill has measured it"};
  if (wanted) rto.target = seconds_of(*wanted);
  if (drill != nullptr) {
    rto.measured = seconds_of(*drill->rto);
    rto.how = fmt::format("the drill of {}", base::to_string(drill->at).substr(0, 19));
  }
  if (wanted && drill == nullptr) {
    report.findings.note(Level::bad,
                         fmt::format("rto {} is not measured: no drill has measured it",
                                     base::to_string_short(*wanted)),
                         drill_remedy, "rto");
  } else if (wanted) {
    rto.held = *drill->rto <= *wanted;
    report.findings.note(
        *rto.held ? Level::good : Level::bad,
        fmt::format("rto {} {}: the last drill took {}", base::to_string_short(*wanted),
                    *rto.held ? "holds" : "is missed", base::to_string_short(*drill->rto)),
        *rto.held ? "" : "see its record for what took long", "rto");
  }
  report.objectives.push_back(std::move(rto));
}

void judge_drills(const Configuration& configuration, const Newest& newest, StatusReport& report) {
  const auto& every = configuration.objectives.drill_every;
  Objective drill{"drill", false, {}, {}, {}, "no drill has passed yet"};
  if (every) drill.target = seconds_of(*every);
  if (newest.passed != nullptr) {
    drill.measured = seconds_of(age_of(newest.passed->at));
    drill.how = "since the last drill that passed";
  }
  if (every) drill.held = newest.passed != nullptr && *drill.measured <= *drill.target;
  report.objectives.push_back(drill);
  if (!every) return;
  if (newest.drill != nullptr && newest.drill->verdict != Verdict::pass) {
    report.findings.note(
        newest.drill->verdict == Verdict::fail ? Level::bad : Level::warning,
        fmt::format("the newest drill's verdict is {}: {}", name_of(newest.drill->verdict),
                    newest.drill->notes),
        fmt::format("see {}", (configuration.drill.evidence / (newest.drill->id + ".md")).string()),
        "drill_verdict");
  }
  if (newest.passed == nullptr) {
    return report.findings.note(
        Level::bad,
        newest.drill != nullptr ? "no drill has passed yet"
                                : "no drill has passed yet: nobody knows whether a restore works",
        drill_remedy, "drill");
  }
  report.findings.note(
      *drill.held ? Level::good : Level::bad,
      fmt::format("the last drill that passed is {} old; one every {} is promised",
                  base::to_string_short(age_of(newest.passed->at)), base::to_string_short(*every)),
      *drill.held ? "" : drill_remedy, "drill");
}

void judge_gamedays(const Configuration& configuration, const Evidence* gameday,
                    StatusReport& report) {
  if (gameday == nullptr) return;
  report.objectives.push_back(
      {"gameday",
       false,
       {},
       seconds_of(age_of(gameday->at)),
       {},
       fmt::format("since the last game day: {}", name_of(gameday->verdict))});
  if (gameday->verdict == Verdict::pass) return;
  report.findings.note(
      Level::warning, fmt::format("the last game day's verdict is {}", name_of(gameday->verdict)),
      fmt::format("see {}", (configuration.drill.evidence / (gameday->id + ".md")).string()),
      "gameday");
}

}  // namespace

void look_at_records(const Configuration& configuration, const std::string& cluster,
                     StatusReport& report) {
  const base::fs::path& directory = configuration.drill.evidence;
  EvidenceReport records;
  const EvidencePlace place = evidence_place(configuration.drill);
  if (!base::status_of(directory / "signing-key.pub") && base::status_of(place.witness)) {
    report.findings.note(Level::bad,
                         fmt::format("the records of drills in {} are gone: {} knows of some",
                                     directory.string(), place.witness.string()),
                         "put them back", "evidence");
  }
  if (base::status_of(directory / "signing-key.pub")) {
    records = verify_evidence(place, key_beside(directory));
    if (!records.ok()) {
      report.findings.note(
          Level::bad,
          fmt::format("the records of drills are not whole: {}", records.problems.front()),
          "`holdfast drill verify` tells all", "evidence");
    }
  }
  const Newest newest = newest_of(records, cluster);
  judge_rto(configuration, newest.measured, report);
  judge_drills(configuration, newest, report);
  judge_gamedays(configuration, newest.gameday, report);
}

void look_at_uptime(const Configuration& configuration, StatusReport& report) {
  if (configuration.probes.empty()) return;
  const double promised = configuration.objectives.uptime;
  const base::Timestamp now = base::now();
  const std::chrono::year_month_day today(std::chrono::floor<std::chrono::days>(now));
  std::vector<service::MonthUptime> months;
  // Who only looks makes no file.
  if (base::status_of(configuration.probe_history)) {
    service::ProbeHistory history(configuration.probe_history);
    months = service::uptime_by_month(history, promised, now, today.year() / today.month());
  }
  for (const service::ProbeSettings& probe : configuration.probes) {
    Objective uptime{"uptime " + probe.name, true, promised, {}, {}, "this month so far"};
    const std::string about = "uptime:" + probe.name;
    const auto found = std::ranges::find(months, probe.name, &service::MonthUptime::probe);
    if (found == months.end() || !found->share()) {
      uptime.how = "nobody has looked this month";
      report.findings.note(Level::warning,
                           fmt::format("uptime of {} is not measured: {}", probe.name, uptime.how),
                           "run `holdfast serve`, or `holdfast probe --watch`", about);
      report.objectives.push_back(std::move(uptime));
      continue;
    }
    using Kept = service::MonthUptime::Verdict;
    uptime.measured = found->share();
    if (found->verdict != Kept::unknown) uptime.held = found->verdict == Kept::kept;
    const Level level = found->verdict == Kept::kept      ? Level::good
                        : found->verdict == Kept::unknown ? Level::warning
                                                          : Level::bad;
    report.findings.note(
        level,
        fmt::format("uptime of {} this month is {:.3f} %: {:g} % {}", probe.name,
                    *uptime.measured * 100, promised * 100,
                    level == Level::good      ? "holds"
                    : level == Level::warning ? "may be missed, as nobody looked for too long"
                                              : "is missed"),
        level == Level::good ? "" : "`holdfast uptime` tells more", about);
    report.objectives.push_back(std::move(uptime));
  }
}

}  // namespace holdfast::operations
