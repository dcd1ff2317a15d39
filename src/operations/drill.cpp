#include "operations/drill.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <random>

#include "base/error.h"
#include "base/process.h"
#include "base/seal.h"
#include "operations/closer_look.h"
#include "operations/recovery_window.h"
#include "operations/staging_api.h"
#include "operations/systems.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using std::chrono::steady_clock;

/// Is it the surroundings' fault, so that nothing is said about the backup?
bool is_environment(Code code, const std::vector<Code>& also) {
  return code == Code::no_space || code == Code::permission || code == Code::busy ||
         code == Code::interrupted || code == Code::internal ||
         std::ranges::find(also, code) != also.end();
}

/// What a server's log gives for its end, in a message of several lines.
std::optional<std::string> last_words(std::string_view message) {
  std::optional<std::string> words;
  while (!message.empty()) {
    const std::string_view line = message.substr(0, message.find('\n'));
    for (const char* kind : {"FATAL:  ", "PANIC:  "}) {
      const std::size_t at = line.find(kind);
      if (at != std::string_view::npos) words = line.substr(at);
    }
    message.remove_prefix(std::min(line.size() + 1, message.size()));
  }
  return words;
}

class DrillRun {
 public:
  DrillRun(const Configuration& configuration, const std::string& cluster,
           const DrillRequest& request, base::Progress& progress)
      : configuration_(configuration),
        request_(request),
        progress_(progress),
        key_(base::signing_key_in(configuration.drill.signing_key)),
        site_(open_site(configuration, cluster)) {
    check_signer(configuration.drill.evidence, key_);
    evidence_.at = base::now();
    evidence_.id = new_evidence_id(evidence_.at);
    evidence_.cluster = site_.cluster.name;
    evidence_.completed_by = operator_name(request.completed_by);
    evidence_.environment = fmt::format("scratch server on {}", host_name());
    evidence_.rpo_objective = configuration.objectives.rpo;
    evidence_.rto_objective = configuration.objectives.rto;
    evidence_.controls = controls_of_drills();
    fact("holdfast", HOLDFAST_VERSION);
    fact("repository",
         fmt::format("{} ({})", site_.configuration.repository().name, site_.repository.id()));
  }

  DrillOutcome run() {
    step("select", {Code::unreachable}, [this] { select(); });
    step("restore", {Code::unreachable}, [this] { restore(); });
    // No PostgreSQL of that version, or no time.
    step("replay", {Code::not_found, Code::unreachable}, [this] { replay(); });
    // A server that dies while it is looked at says much about what it runs on.
    step("checks", {}, [this] { look(); });
    if (!configuration_.drill.api.empty()) {
      step("ready", {Code::not_found}, [this] { start_api(); });
    }
    tell_of_cage();
    measure();
    teardown();
    conclude();
    outcome_.files = add_evidence(evidence_place(configuration_.drill), key_, evidence_);
    outcome_.evidence = evidence_;
    return std::move(outcome_);
  }

 private:
  template <typename Work>
  void step(const std::string& name, const std::vector<Code>& environment, const Work& work);
  void stop_at(const std::string& name, const Error& error, const std::vector<Code>& environment);
  void select();
  RestoreRequest random_moment();
  void restore();
  void replay();
  void look();
  void start_api();
  void tell_of_cage();
  void measure();
  void teardown();
  void conclude();

  void fact(std::string name, std::string value) {
    evidence_.facts.emplace_back(std::move(name), std::move(value));
  }
  void add(Checked checked) {
    outcome_.details.insert(outcome_.details.end(), checked.details.begin(), checked.details.end());
    evidence_.checks.push_back(std::move(checked.check));
  }
  void add(std::string name, CheckOutcome outcome, std::string found) {
    add(Checked{{std::move(name), outcome, std::move(found)}, {}});
  }
  bool failed() const {
    return std::ranges::any_of(evidence_.checks, [](const EvidenceCheck& check) {
      return check.outcome == CheckOutcome::failed;
    });
  }

  const Configuration& configuration_;
  const DrillRequest& request_;
  base::Progress& progress_;
  base::SigningKey key_;
  Site site_;
  Evidence evidence_;
  DrillOutcome outcome_;
  bool stopped_ = false;  ///< a step could not be done: no later one is
  RestoreRequest target_;
  std::optional<RestorePlan> plan_;
  std::optional<ScratchPlace> place_;
  std::optional<ScratchCluster> cluster_;
  TargetExpectation expected_;
  Witnesses witnesses_;
};

/// Does and times one step, unless an earlier one stopped the drill. A failure is a finding: of the
/// backup, or of the surroundings, to which these codes belong here as well.
template <typename Work>
void DrillRun::step(const std::string& name, const std::vector<Code>& environment,
                    const Work& work) {
  if (stopped_) return;
  const auto begun = steady_clock::now();
  try {
    work();
  } catch (const Error& error) {
    stop_at(name, error, environment);
  } catch (const std::exception& error) {
    stop_at(name, Error(Code::internal, error.what()), environment);
  }
  evidence_.steps.push_back(
      {name, std::chrono::duration_cast<base::Microseconds>(steady_clock::now() - begun)});
}

void DrillRun::stop_at(const std::string& name, const Error& error,
                       const std::vector<Code>& environment) {
  // A word of the user's that means nothing is no finding.
  const bool names_nothing = name == "select" && error.code() == Code::not_found &&
                             (request_.backup || !request_.system.empty());
  if (error.code() == Code::usage || error.code() == Code::configuration || names_nothing) {
    if (place_) place_->clear();
    throw Error(error);
  }
  stopped_ = true;
  // The server's log may follow on the first line.
  std::string reason = error.message().substr(0, error.message().find('\n'));
  if (const auto words = last_words(error.message())) reason += " " + *words;
  add(Checked{
      {name,
       is_environment(error.code(), environment) ? CheckOutcome::not_run : CheckOutcome::failed,
       reason},
      {fmt::format("{}: {}", name, error.message())}});
  if (!error.hint().empty()) outcome_.details.push_back("hint: " + error.hint());
}

/// Uniform over all windows of one system, as if they stood one after the other.
RestoreRequest DrillRun::random_moment() {
  RestoreRequest request;
  request.system = choose_system(site_, request_.system);
  std::vector<RecoveryWindow> windows;
  for (const SystemView& system : view_systems(site_, read_catalog(site_))) {
    if (system.place.system_id != request.system) continue;
    windows = recovery_windows(system, system.history({}));
  }
  std::int64_t total = 0;
  for (const RecoveryWindow& each : windows) total += (each.to - each.from).count() + 1;
  if (total == 0) {
    throw Error(Code::outside_window, "there is no recovery window to take a moment of",
                "take a backup");
  }
  std::random_device source;
  std::mt19937_64 numbers(std::uint64_t{source()} << 32 | source());
  std::int64_t at = std::uniform_int_distribution<std::int64_t>(0, total - 1)(numbers);
  for (const RecoveryWindow& each : windows) {
    const std::int64_t length = (each.to - each.from).count() + 1;
    if (at < length) {
      request.to = "time:" + base::to_iso(each.from + base::Microseconds(at));
      break;
    }
    at -= length;
  }
  return request;
}

void DrillRun::select() {
  place_.emplace(configuration_.drill.directory, evidence_.id);
  if (place_->swept() > 0) {
    progress_.warn("removed what {} killed drills had left", place_->swept());
  }
  progress_.begin("choosing a backup", 0);
  target_.to = request_.to;
  target_.system = request_.system;
  if (request_.random) target_ = random_moment();
  if (request_.backup) target_.backup = request_.backup;
  plan_ = plan_restore(site_, target_);
  const BackupInfo& backup = plan_->backup;
  evidence_.scenario = fmt::format(
      "loss of the cluster; {} brought back, {}",
      request_.random ? "a random moment of the recovery window" : to_string(plan_->target),
      request_.full ? "everything checked" : "checks sampled where they are costly");
  evidence_.backup_point = fmt::format("backup {} to {}", backup.id.text, to_string(plan_->target));
  evidence_.environment += fmt::format(", PostgreSQL {}", backup.server_version / 10000);
  fact("backup", backup.id.text);
  fact("backup taken", base::to_string(backup.stopped));
  fact("backup ends at", postgres::to_string(backup.stop));
  fact("backup's document, SHA-256",
       base::to_hex(base::sha256(base::view(to_json(backup).dump()))));
  fact("system", backup.place.system_id);
  fact("size", base::size_text(backup.bytes));
  if (backup.is_damaged()) {
    add("the backup itself", CheckOutcome::failed,
        fmt::format("it holds pages of {} files that were damaged when it was taken",
                    backup.damaged.size()));
  }
  if (backup.is_suspect()) {
    fact("backup is suspect", backup.suspicion);
    progress_.warn("backup {} is suspect: {}", backup.id.text, backup.suspicion);
  }
}

void DrillRun::restore() {
  cluster_.emplace(site_, *plan_, place_->path());
  cluster_->bring_back(target_, request_.workers, progress_, request_.keep);
}

void DrillRun::replay() {
  witnesses_ = read_witnesses(site_, *plan_, cluster_->map());
  expected_ = expect_target(site_, *plan_);
  progress_.begin("replaying WAL", 0);
  cluster_->start(witnesses_.superuser(), request_.limit);
  postgres::ScratchServer& server = cluster_->server();
  fact("replayed to", postgres::to_string(server.recovered().replayed));
  fact("new timeline", std::to_string(server.recovered().timeline.value));
  if (!server.left_out().empty()) {
    std::string names;
    for (const std::string& each : server.left_out()) names += (names.empty() ? "" : ", ") + each;
    fact("libraries left out", names);
  }
}

void DrillRun::look() {
  add(check_target(expected_, cluster_->server().recovered()));
  const LookRequest how =
      request_.full ? look_at_everything(request_.workers) : look_at_samples(request_.workers);
  for (Checked& each : look_closely(site_, *cluster_, witnesses_, how, progress_)) {
    add(std::move(each));
  }
  Loss loss = measure_loss(configuration_, plan_->target, evidence_.at, *cluster_);
  evidence_.rpo = loss.time;
  evidence_.rpo_how = loss.how;
  if (loss.check) add(*std::move(loss.check));
}

void DrillRun::start_api() {
  progress_.begin("starting the staging API", 0);
  add(check_staging_api(configuration_, cluster_->server().url(configuration_.drill.api_database),
                        place_->path() / "api.log"));
}

/// Also of a server that did not come up: that may be why.
void DrillRun::tell_of_cage() {
  if (!cluster_) return;
  outcome_.gaps = cluster_->gaps();
  std::string gaps;
  for (const std::string& each : outcome_.gaps) gaps += (gaps.empty() ? "" : "; ") + each;
  fact("sandbox", gaps.empty() ? "held by the kernel" : "not held by the kernel: " + gaps);
  outcome_.refused = postgres::refusals_in(cluster_->log());
  if (outcome_.refused.empty()) return;
  fact("refused by the sandbox", std::to_string(outcome_.refused.size()));
  for (const std::string& each : outcome_.refused) outcome_.details.push_back("refused: " + each);
}

void DrillRun::measure() {
  if (stopped_) return;
  base::Microseconds sum{};
  for (const EvidenceStep& each : evidence_.steps) sum += each.took;
  evidence_.rto = sum;
  if (evidence_.rto_objective) {
    const bool holds = sum <= *evidence_.rto_objective;
    add("RTO", holds ? CheckOutcome::passed : CheckOutcome::failed,
        fmt::format("{}, where {} is promised", base::to_string_short(sum),
                    base::to_string_short(*evidence_.rto_objective)));
  }
  // The time since the last commit of a cluster that may have been idle proves no loss.
  if (evidence_.rpo_objective && evidence_.rpo && !configuration_.drill.heartbeat.empty()) {
    const bool holds = *evidence_.rpo <= *evidence_.rpo_objective;
    add("RPO", holds ? CheckOutcome::passed : CheckOutcome::failed,
        fmt::format("{}, where {} is promised", base::to_string_short(*evidence_.rpo),
                    base::to_string_short(*evidence_.rpo_objective)));
  }
}

void DrillRun::teardown() {
  progress_.begin("throwing it away", 0);
  const auto begun = steady_clock::now();
  const bool is_wanted = request_.keep || failed();
  try {
    if (cluster_) cluster_->stop();
    if (place_) {
      std::vector<std::string> spared;
      if (is_wanted) spared = {"server.log", "api.log", "findings.txt"};
      if (request_.keep) spared.insert(spared.end(), {"data", "tablespaces"});
      if (is_wanted) {
        std::string text;
        for (const std::string& each : outcome_.details) text += each + "\n";
        base::replace_file(place_->path() / "findings.txt", base::view(text));
        outcome_.remains = place_->path();
        fact("what stayed", place_->path().string());
      }
      place_->clear(spared);
    }
  } catch (const std::exception& error) {
    add("teardown", CheckOutcome::failed, error.what());
  }
  evidence_.steps.push_back(
      {"teardown", std::chrono::duration_cast<base::Microseconds>(steady_clock::now() - begun)});
}

void DrillRun::conclude() {
  if (evidence_.scenario.empty()) evidence_.scenario = "loss of the cluster";
  if (evidence_.backup_point.empty()) evidence_.backup_point = "none could be chosen";
  judge(evidence_);
  if (evidence_.verdict != Verdict::pass) return;
  evidence_.notes = fmt::format(
      "{} checks passed; RPO {}, RTO {}",
      std::ranges::count(evidence_.checks, CheckOutcome::passed, &EvidenceCheck::outcome),
      evidence_.rpo ? base::to_string_short(*evidence_.rpo) : "not measured",
      evidence_.rto ? base::to_string_short(*evidence_.rto) : "not measured");
}

}  // namespace

DrillOutcome run_drill(const Configuration& configuration, const std::string& cluster,
                       const DrillRequest& request, base::Progress& progress) {
  return DrillRun(configuration, cluster, request, progress).run();
}

}  // namespace holdfast::operations
