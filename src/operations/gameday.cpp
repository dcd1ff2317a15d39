#include "operations/gameday.h"

#include <signal.h>

#include <algorithm>
#include <exception>
#include <map>
#include <set>
#include <thread>

#include "base/error.h"
#include "base/process.h"
#include "base/seal.h"
#include "base/workers.h"
#include "operations/observation.h"
#include "postgres/server.h"
#include "service/local_service.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using base::Microseconds;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

/// Between two questions of the same kind.
constexpr milliseconds pace(100);
/// How long a service that was just put right may need until the next row begins.
constexpr std::chrono::seconds baseline_limit(10);

Microseconds since(steady_clock::time_point begun) {
  return std::chrono::duration_cast<Microseconds>(steady_clock::now() - begun);
}

/// Sleeps, unless a signal comes.
void pause_for(Microseconds time) {
  const auto begun = steady_clock::now();
  while (since(begun) < time) {
    base::stop_if_interrupted();
    std::this_thread::sleep_for(std::min<Microseconds>(milliseconds(20), time - since(begun)));
  }
}

/// What the commands of [value.NAME] print.
class Values {
 public:
  explicit Values(const Contract& contract) : contract_(contract) {}

  /// Runs those whose values are no longer fresh enough for a row.
  void refresh() {
    for (const auto& [name, value] : contract_.values) {
      const auto found = known_.find(name);
      if (found != known_.end() && since(found->second.at) < value.fresh / 2) continue;
      base::Command command;
      command.argv = {"/bin/sh", "-c", value.command};
      command.directory = contract_.path.parent_path();
      const auto at = steady_clock::now();
      const base::Outcome outcome = base::run(command);
      std::string text = outcome.output.substr(0, outcome.output.find_last_not_of("\n") + 1);
      if (outcome.status != 0 || text.empty()) {
        throw Error(Code::unreachable,
                    fmt::format("the command of [value.{}] ended with status {} and printed {}",
                                name, outcome.status, text.empty() ? "nothing" : "something"),
                    outcome.errors.substr(0, 300));
      }
      known_[name] = {std::move(text), at};
    }
  }

  std::string fill(std::string text) const {
    for (const auto& [name, value] : known_) {
      const std::string placeholder = "{" + name + "}";
      for (std::size_t at = text.find(placeholder); at != std::string::npos;
           at = text.find(placeholder, at + value.text.size())) {
        text.replace(at, placeholder.size(), value.text);
      }
    }
    return text;
  }

  base::HttpRequest fill(const ContractRequest& request) const {
    base::HttpRequest filled;
    filled.method = request.method;
    filled.url = fill(request.url);
    filled.body = fill(request.body);
    for (const auto& [name, value] : request.headers) {
      filled.headers.emplace_back(name, fill(value));
    }
    filled.limit = std::chrono::duration_cast<milliseconds>(request.timeout);
    return filled;
  }

 private:
  struct Known {
    std::string text;
    steady_clock::time_point at;
  };
  const Contract& contract_;
  std::map<std::string, Known> known_;
};

AnswerPattern usual_answer(const ContractRequest& request) {
  AnswerPattern pattern;
  pattern.status = request.status;
  return pattern;
}

/// One request of a row, and all that is expected of its answers.
struct Watched {
  const ContractRequest* request = nullptr;
  std::string before = {};  ///< the body while nothing was broken
  std::vector<Observation> observations = {};
  std::vector<const Never*> nevers = {};
  std::set<std::string> violations = {};
  std::string violation_detail = {};
  std::exception_ptr failure = nullptr;

  void take(const base::HttpAnswer& answer) {
    for (Observation& each : observations) each.add(answer);
    for (const Never* never : nevers) {
      if (!mismatch(never->answer, answer, before).empty()) continue;
      violations.insert(fmt::format("{}: answered {}, which must never be", request->name,
                                    answer.status.value_or(0)));
      violation_detail = answer.body.substr(0, 300);
    }
  }
};

class GamedayRun {
 public:
  GamedayRun(const Configuration& configuration, const std::string& cluster,
             const Contract& contract, const GamedayRequest& request, base::Progress& progress)
      : configuration_(configuration),
        contract_(contract),
        progress_(progress),
        key_(base::signing_key_in(configuration.drill.signing_key)),
        values_(contract) {
    check_signer(configuration.drill.evidence, key_);
    for (const std::string& name : request.rows) choose(name);
    if (rows_.empty()) {
      for (const ContractRow& row : contract.rows) rows_.push_back(&row);
    }
    evidence_.kind = "gameday";
    evidence_.at = base::now();
    evidence_.id = new_evidence_id(evidence_.at);
    evidence_.cluster = configuration.cluster(cluster).name;
    evidence_.completed_by = operator_name(request.completed_by);
    evidence_.backup_point = "none: a game day";
    evidence_.environment = fmt::format("{}, from {}", contract.url, host_name());
    evidence_.scenario =
        fmt::format("{}: {} of {} rows", contract.title, rows_.size(), contract.rows.size());
    evidence_.controls = controls_of_gamedays();
    evidence_.facts = {
        {"holdfast", HOLDFAST_VERSION},
        {"contract, SHA-256", base::to_hex(base::sha256(base::read_existing_file(contract.path)))}};
  }

  GamedayOutcome run() {
    interpose();
    start_service();
    for (const ContractRow* row : rows_) {
      progress_.begin(row->name, 0);
      const auto begun = steady_clock::now();
      run_row(*row);
      evidence_.steps.push_back({row->name, since(begun)});
    }
    look_at_traffic();
    service_.reset();
    injector_.reset();
    judge(evidence_);
    if (evidence_.verdict == Verdict::pass) {
      evidence_.notes = fmt::format("{} promises kept", rows_.size());
      if (!outcome_.log.empty()) base::fs::remove(outcome_.log);
      outcome_.log.clear();
    }
    outcome_.files = add_evidence(evidence_place(configuration_.drill), key_, evidence_);
    outcome_.evidence = evidence_;
    base::stop_if_interrupted();  // only now: what was found until then is recorded
    return std::move(outcome_);
  }

 private:
  void choose(const std::string& name) {
    const auto found = std::ranges::find(contract_.rows, name, &ContractRow::name);
    if (found != contract_.rows.end()) return rows_.push_back(&*found);
    std::set<std::string_view> names;
    for (const ContractRow& row : contract_.rows) names.insert(row.name);
    throw Error(Code::not_found, fmt::format("the contract has no row \"{}\"", name),
                fmt::format("it has: {}", fmt::join(names, ", ")));
  }

  void interpose();
  std::string launch_service(const std::string& path, std::optional<long> status);
  void start_service();
  void run_row(const ContractRow& row);
  void try_row(const ContractRow& row, EvidenceCheck& check);
  std::vector<Watched> watched_of(const ContractRow& row) const;
  std::string look_before(std::vector<Watched>& all);
  void observe(std::vector<Watched>& all, Microseconds time);
  std::string recover(const ContractRow& row, std::vector<Watched>& all,
                      const std::map<std::string, std::uint64_t>& answered, Microseconds& took);
  std::string unusual(const ContractRow& row, std::vector<Watched>& all, base::HttpClient& client);
  std::string has_asked_again(const ContractRow& row,
                              const std::map<std::string, std::uint64_t>& answered);
  std::string service_ended();
  void conclude(const std::vector<Watched>& all, std::vector<std::string> broken,
                Microseconds recovered, EvidenceCheck& check);
  void look_at_traffic();

  const Configuration& configuration_;
  const Contract& contract_;
  base::Progress& progress_;
  base::SigningKey key_;
  Values values_;
  std::vector<const ContractRow*> rows_;
  Evidence evidence_;
  GamedayOutcome outcome_;
  std::optional<base::Child> proxy_;  ///< if there was none
  std::optional<service::FaultInjector> injector_;
  std::optional<service::LocalService> service_;
};

/// Lets the proxies stand between. Those of a service that runs already must be there as well: it
/// depends on them after us, too.
void GamedayRun::interpose() {
  if (!service::FaultInjector::answers(contract_.proxy)) {
    if (contract_.command.empty()) {
      throw Error(Code::unreachable, fmt::format("no fault proxy answers at {}", contract_.proxy),
                  "start `holdfast proxy` beside the service, which must reach its dependencies "
                  "through it; or let [service] have a \"command\", so that it is started here");
    }
    base::Command command;
    command.argv = {base::own_program().string(), "proxy", "--listen", contract_.proxy,
                    "--end-with-lease"};
    command.signal_when_orphaned = SIGTERM;
    proxy_.emplace(command, "/dev/null");
    const auto begun = steady_clock::now();
    while (!service::FaultInjector::answers(contract_.proxy)) {
      if (proxy_->finished() || since(begun) > std::chrono::seconds(10)) {
        throw Error(Code::unreachable,
                    fmt::format("could not start a fault proxy at {}", contract_.proxy),
                    "is the port taken? [service] proxy names another one");
      }
      pause_for(milliseconds(20));
    }
  }
  injector_.emplace(contract_.proxy);
  std::vector<service::Interposed> proxies;
  for (const auto& [name, each] : contract_.dependencies) {
    proxies.push_back({name, each.listen, each.upstream});
  }
  injector_->interpose(proxies);
}

/// Starts it anew and waits for an answer. Returns why there was none.
std::string GamedayRun::launch_service(const std::string& path, std::optional<long> status) {
  service_.reset();
  service_.emplace(service::LocalServiceOptions{
      contract_.command, contract_.path.parent_path(), contract_.environment,
      base::running_as_root() ? postgres::server_user() : std::nullopt, outcome_.log});
  return service_->wait_until_it_answers(contract_.url + path, status, contract_.ready_within);
}

void GamedayRun::start_service() {
  if (contract_.command.empty()) return;
  outcome_.log = configuration_.drill.directory / fmt::format("gameday-{}.log", evidence_.id);
  const std::string why = launch_service(contract_.ready, 200);
  if (why.empty()) return;
  throw Error(Code::unreachable, "the service did not start: " + why,
              fmt::format("what it said is in {}", outcome_.log.string()));
}

/// A failure to do what the row says is no failure of the service.
void GamedayRun::run_row(const ContractRow& row) {
  EvidenceCheck check{row.name, CheckOutcome::not_run, {}};
  try {
    base::stop_if_interrupted();
    try_row(row, check);
    if (injector_->lapsed()) {
      check.outcome = CheckOutcome::not_run;
      check.found = "the fault proxies had to heal by themselves in between";
    }
  } catch (const Error& error) {
    // One that was interrupted is recorded, too: all rows that are left are not run.
    check.outcome = CheckOutcome::not_run;
    check.found = error.message();
    outcome_.details.push_back(fmt::format("{}: {}", row.name, error.message()));
    if (!error.hint().empty()) outcome_.details.push_back("hint: " + error.hint());
    try {
      injector_->heal();
    } catch (const Error& unhealed) {
      // The proxy is gone, and what it broke with it; or its lease ends and it heals by itself.
      check.found += fmt::format("; and it could not be healed: {}", unhealed.message());
    }
  }
  evidence_.checks.push_back(std::move(check));
}

void GamedayRun::try_row(const ContractRow& row, EvidenceCheck& check) {
  if (service_ && service_->finished()) start_service();  // it died in an earlier row
  values_.refresh();
  std::vector<Watched> all = watched_of(row);
  check.found = look_before(all);
  if (!check.found.empty()) return;
  for (Watched& each : all) {
    for (const Expectation& expectation : row.expectations) {
      if (expectation.request == each.request->name) {
        each.observations.emplace_back(expectation, each.before);
      }
    }
  }
  for (const std::string& each : row.dependencies) injector_->inject(each, row.fault);
  std::vector<std::string> broken;
  if (row.restart) {
    const std::string why = launch_service(contract_.alive, std::nullopt);
    if (!why.empty()) broken.push_back("it does not start: " + why);
  }
  pause_for(row.settle);
  observe(all, row.observe);
  std::map<std::string, std::uint64_t> answered;
  for (const std::string& each : row.dependencies) {
    answered[each] = injector_->answered(each);
  }
  injector_->heal();
  Microseconds recovered{};
  const std::string why = recover(row, all, answered, recovered);
  if (!why.empty()) broken.push_back(why);
  if (std::string ended = service_ended(); !ended.empty()) broken.push_back(std::move(ended));
  conclude(all, std::move(broken), recovered, check);
}

std::vector<Watched> GamedayRun::watched_of(const ContractRow& row) const {
  std::map<std::string, Watched> all;
  const auto watch = [&](const std::string& name) -> Watched& {
    Watched& watched = all[name];
    watched.request = &contract_.requests.at(name);
    return watched;
  };
  for (const Expectation& each : row.expectations) watch(each.request);
  for (const Expectation& each : row.afterwards) watch(each.request);
  for (const Never& each : contract_.nevers) watch(each.request).nevers.push_back(&each);
  std::vector<Watched> list;
  for (auto& [name, each] : all) list.push_back(std::move(each));
  return list;
}

/// Asks everything until it is answered as usual, and takes that as what there was before. Returns
/// what was not.
std::string GamedayRun::look_before(std::vector<Watched>& all) {
  base::HttpClient client;
  for (Watched& each : all) {
    const AnswerPattern usual = usual_answer(*each.request);
    const auto begun = steady_clock::now();
    for (;;) {
      const base::HttpAnswer answer = client.ask(values_.fill(*each.request));
      each.take(answer);
      const std::string wrong = mismatch(usual, answer, {});
      each.before = answer.body;
      if (wrong.empty()) break;
      if (since(begun) > baseline_limit) {
        outcome_.details.push_back(
            fmt::format("{}: {}", each.request->name,
                        answer.status ? answer.body.substr(0, 300) : answer.why_not));
        return fmt::format("before anything was broken: {}: {}", each.request->name, wrong);
      }
      pause_for(pace);
    }
  }
  return {};
}

/// Asks each again and again, all at the same time.
void GamedayRun::observe(std::vector<Watched>& all, Microseconds time) {
  const auto end = steady_clock::now() + time;
  std::vector<std::jthread> threads;
  for (Watched& each : all) {
    const base::HttpRequest request = values_.fill(*each.request);
    threads.emplace_back([&each, request, end] {
      try {
        base::HttpClient client;
        do {
          const auto next = steady_clock::now() + pace;
          each.take(client.ask(request));
          std::this_thread::sleep_until(next);
        } while (steady_clock::now() < end && !base::interrupted());
      } catch (...) {
        each.failure = std::current_exception();
      }
    });
  }
  threads.clear();
  base::stop_if_interrupted();
  for (const Watched& each : all) {
    if (each.failure) std::rethrow_exception(each.failure);
  }
}

/// Returns what is not yet as usual.
std::string GamedayRun::unusual(const ContractRow& row, std::vector<Watched>& all,
                                base::HttpClient& client) {
  for (Watched& each : all) {
    const base::HttpAnswer answer = client.ask(values_.fill(*each.request));
    for (const Never* never : each.nevers) {
      if (mismatch(never->answer, answer, each.before).empty()) each.take(answer);
    }
    std::string wrong = mismatch(usual_answer(*each.request), answer, {});
    for (const Expectation& after : row.afterwards) {
      if (!wrong.empty() || after.request != each.request->name) continue;
      Observation observation(after, each.before);
      observation.add(answer);
      wrong = observation.broken();
    }
    if (!wrong.empty()) return fmt::format("{}: {}", each.request->name, wrong);
  }
  return {};
}

std::string GamedayRun::has_asked_again(const ContractRow& row,
                                        const std::map<std::string, std::uint64_t>& answered) {
  if (!row.reconnects) return {};
  for (const auto& [name, before] : answered) {
    if (injector_->answered(name) == before) {
      return fmt::format("the service did not ask {} again", name);
    }
  }
  return {};
}

/// Waits until all is as usual. Returns what was not in time.
std::string GamedayRun::recover(const ContractRow& row, std::vector<Watched>& all,
                                const std::map<std::string, std::uint64_t>& answered,
                                Microseconds& took) {
  base::HttpClient client;
  const auto begun = steady_clock::now();
  for (;;) {
    std::string wrong = unusual(row, all, client);
    if (wrong.empty()) wrong = has_asked_again(row, answered);
    took = since(begun);
    if (wrong.empty()) return {};
    if (took > row.recover_within) {
      return fmt::format("not as usual {} after healing: {}", base::to_string_short(took), wrong);
    }
    if (service_ && service_->finished()) return "it did not live to recover";
    pause_for(milliseconds(50));
  }
}

std::string GamedayRun::service_ended() {
  if (!service_) return {};
  const auto status = service_->finished();
  return status ? fmt::format("the service ended with status {}", *status) : std::string();
}

void GamedayRun::conclude(const std::vector<Watched>& all, std::vector<std::string> broken,
                          Microseconds recovered, EvidenceCheck& check) {
  std::vector<std::string> found;
  bool any = false;
  for (const Watched& each : all) {
    for (const Observation& observation : each.observations) {
      any = any || observation.answers() > 0;
      found.push_back(observation.summary());
      std::string wrong = observation.broken();
      if (wrong.empty()) continue;
      broken.push_back(std::move(wrong));
      outcome_.details.push_back(fmt::format("{}: {}", check.name, observation.first_bad()));
    }
    broken.insert(broken.end(), each.violations.begin(), each.violations.end());
    if (!each.violations.empty()) {
      outcome_.details.push_back(
          fmt::format("{}: {}: {}", check.name, each.request->name, each.violation_detail));
    }
  }
  if (!broken.empty()) {
    check.outcome = CheckOutcome::failed;
    check.found = fmt::format("{}", fmt::join(broken, "; "));
  } else {
    check.outcome = any ? CheckOutcome::passed : CheckOutcome::not_run;
    check.found = fmt::format("{}; as usual again after {}", fmt::join(found, "; "),
                              base::to_string_short(recovered));
  }
}

/// A proxy that nobody uses breaks nothing.
void GamedayRun::look_at_traffic() {
  std::set<std::string> used;
  for (const ContractRow* row : rows_) {
    used.insert(row->dependencies.begin(), row->dependencies.end());
  }
  for (const std::string& name : used) {
    std::string why = fmt::format("nothing ever came through {}: what was broken was not in use",
                                  contract_.dependencies.at(name).listen);
    try {
      if (injector_->answered(name) > 0) continue;
    } catch (const Error& error) {
      why = error.message();
    }
    evidence_.checks.push_back({fmt::format("{} is reached through its proxy", name),
                                CheckOutcome::not_run, std::move(why)});
  }
}

}  // namespace

GamedayOutcome run_gameday(const Configuration& configuration, const std::string& cluster,
                           const Contract& contract, const GamedayRequest& request,
                           base::Progress& progress) {
  return GamedayRun(configuration, cluster, contract, request, progress).run();
}

}  // namespace holdfast::operations
