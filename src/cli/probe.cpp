#include <condition_variable>
#include <iostream>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "base/workers.h"
#include "cli/command.h"
#include "service/probe_history.h"

namespace holdfast::cli {

namespace {

using base::Code;
using base::Error;
using service::ProbeSample;

nlohmann::json to_json(const ProbeSample& sample) {
  nlohmann::json document = {{"name", sample.name},
                             {"time", base::to_iso(sample.time)},
                             {"ok", sample.ok},
                             {"latency_ms", static_cast<double>(sample.latency.count()) / 1000}};
  if (!sample.ok) document["why"] = sample.why;
  return document;
}

std::string line(const ProbeSample& sample) {
  return fmt::format("{:<8} {} in {:.1f} ms{}{}", sample.ok ? "ok" : "FAILED", sample.name,
                     static_cast<double>(sample.latency.count()) / 1000, sample.ok ? "" : ": ",
                     sample.why);
}

/// Each in a thread of its own: one that hangs must not keep the others from being on time.
class Rounds {
 public:
  Rounds(service::ProbeHistory& history, bool watch, bool json)
      : history_(history), watch_(watch), json_(json) {}

  std::vector<ProbeSample> run(const std::vector<service::ProbeSettings>& probes) {
    {
      std::vector<std::jthread> threads;
      for (const service::ProbeSettings& each : probes) {
        threads.emplace_back([this, &each] { go_on(each); });
      }
    }
    if (first_) throw *first_;
    return std::move(samples_);
  }

 private:
  void go_on(const service::ProbeSettings& probe) {
    auto next = std::chrono::steady_clock::now();
    while (!over()) {
      try {
        take(service::run_probe(probe));
      } catch (const Error& error) {
        if (error.code() == Code::interrupted && watch_) return;
        const std::lock_guard lock(mutex_);
        if (!first_) first_ = error;
        return;
      }
      if (!watch_) return;
      // Rounds that could not be kept are left out, not made up for.
      const auto now = std::chrono::steady_clock::now();
      while (next <= now) next += probe.interval;
      while (!over() && std::chrono::steady_clock::now() < next) {
        std::this_thread::sleep_for(std::min<std::chrono::steady_clock::duration>(
            next - std::chrono::steady_clock::now(), std::chrono::milliseconds(100)));
      }
    }
  }

  bool over() {
    const std::lock_guard lock(mutex_);
    return base::interrupted() || first_.has_value();
  }

  void take(ProbeSample sample) {
    const std::lock_guard lock(mutex_);
    history_.record(sample);
    if (!watch_) return samples_.push_back(std::move(sample));
    std::cout << (json_ ? to_json(sample).dump() : line(sample)) << std::endl;
    const auto now = std::chrono::steady_clock::now();
    if (folded_ && now - *folded_ < std::chrono::hours(1)) return;
    history_.fold(base::now());
    folded_ = now;
  }

  service::ProbeHistory& history_;
  const bool watch_;
  const bool json_;
  std::mutex mutex_;
  std::optional<std::chrono::steady_clock::time_point> folded_;
  std::vector<ProbeSample> samples_;
  std::optional<Error> first_;
};

void probe(Invocation& invocation, bool watch) {
  const operations::Configuration configuration = invocation.configuration();
  if (configuration.probes.empty()) {
    throw Error(Code::configuration, "no probe is configured",
                "add [probe.NAME] with a \"url\", or a \"connection\" and \"sql\"");
  }
  base::catch_interrupts();
  service::ProbeHistory history(configuration.probe_history);
  const auto samples = Rounds(history, watch, invocation.json).run(configuration.probes);
  if (watch) return;
  base::stop_if_interrupted();
  history.fold(base::now());
  nlohmann::json document = nlohmann::json::array();
  for (const ProbeSample& each : samples) {
    if (!each.ok) invocation.exit_status = base::info(Code::check_failed).exit_status;
    document.push_back(to_json(each));
    if (!invocation.json) std::cout << line(each) << "\n";
  }
  if (invocation.json) print_json(invocation, {{"probes", document}});
}

}  // namespace

void add_probe(CLI::App& app, Invocation& invocation) {
  const auto watch = std::make_shared<bool>(false);
  CLI::App* command = add_command(
      app, invocation, "probe", "Look whether what is configured is well, and record it",
      {Code::check_failed, Code::configuration, Code::io, Code::corrupt},
      [&invocation, watch] { probe(invocation, *watch); });
  command->add_flag("--watch", *watch, "Go on, each probe at its interval, until stopped");
}

}  // namespace holdfast::cli
