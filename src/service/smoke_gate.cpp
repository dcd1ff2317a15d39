#include "service/smoke_gate.h"

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "base/workers.h"

namespace holdfast::service {

namespace {

using Clock = std::chrono::steady_clock;
using nlohmann::json;
using std::chrono::microseconds;

/// The workers of a run, and what they found so far. There are as many as arrivals were under way
/// at once.
class Run {
 public:
  explicit Run(const SmokeScript& script) : script_(script) {
    for (const SmokeRequest& request : script.requests) {
      for (const SmokeCheck& check : request.checks)
        result_.checks.emplace_back(check.name, Tally());
    }
  }

  SmokeResult run() {
    const Clock::time_point start = Clock::now();
    const auto arrivals = static_cast<std::uint64_t>(
        std::ceil(script_.rate * static_cast<double>(script_.duration.count()) / 1e6));
    for (std::uint64_t number = 0; number < arrivals && !base::interrupted(); ++number) {
      const auto after = std::chrono::duration<double>(static_cast<double>(number) / script_.rate);
      wait_until(start + std::chrono::duration_cast<Clock::duration>(after));
      arrive();
    }
    finish();
    base::stop_if_interrupted();
    result_.took = std::chrono::duration_cast<microseconds>(Clock::now() - start);
    std::ranges::sort(result_.durations);
    std::ranges::sort(result_.iteration_durations);
    return std::move(result_);
  }

 private:
  void wait_until(Clock::time_point when) {
    constexpr auto glance = std::chrono::milliseconds(50);
    while (!base::interrupted()) {
      const auto left = when - Clock::now();
      if (left <= Clock::duration::zero()) return;
      std::this_thread::sleep_for(std::min<Clock::duration>(left, glance));
    }
  }

  void arrive() {
    const std::lock_guard lock(mutex_);
    if (waiting_ >= idle_) {
      if (workers_.size() >= script_.in_flight) {
        ++result_.dropped;
        return;
      }
      workers_.emplace_back([this] { work(); });
      ++idle_;
    }
    ++waiting_;
    changed_.notify_one();
  }

  void finish() {
    {
      const std::lock_guard lock(mutex_);
      over_ = true;
      if (base::interrupted()) waiting_ = 0;
      changed_.notify_all();
    }
    workers_.clear();
  }

  void work() {
    base::HttpClient client;
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [&] { return waiting_ > 0 || over_; });
      if (waiting_ == 0) return;
      --waiting_;
      --idle_;
      lock.unlock();
      iterate(client);
      lock.lock();
      ++idle_;
    }
  }

  void iterate(base::HttpClient& client) {
    const Clock::time_point start = Clock::now();
    std::size_t first_check = 0;
    for (const SmokeRequest& request : script_.requests) {
      const base::HttpAnswer answer = client.ask(request.request);
      count(request, answer, first_check);
      first_check += request.checks.size();
      if (base::interrupted()) return;
    }
    const std::lock_guard lock(mutex_);
    ++result_.iterations;
    result_.iteration_durations.push_back(
        std::chrono::duration_cast<microseconds>(Clock::now() - start));
  }

  void count(const SmokeRequest& request, const base::HttpAnswer& answer, std::size_t first_check) {
    std::vector<bool> held;
    for (const SmokeCheck& check : request.checks) held.push_back(check.holds(answer));
    const std::lock_guard lock(mutex_);
    result_.durations.push_back(answer.took);
    result_.failed.count(!held.front());
    for (std::size_t index = 0; index < held.size(); ++index) {
      result_.checks[first_check + index].second.count(held[index]);
      if (held[index] || !result_.first_failure.empty()) continue;
      result_.first_failure =
          fmt::format("{}; {}", request.checks[index].name,
                      answer.status ? fmt::format("it was {}", *answer.status) : answer.why_not);
    }
  }

  const SmokeScript& script_;
  SmokeResult result_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::size_t waiting_ = 0;  ///< arrivals that no worker has taken yet
  std::size_t idle_ = 0;     ///< workers that are not at an arrival
  bool over_ = false;
  std::vector<std::jthread> workers_;  // the last: they use the others
};

double in_ms(microseconds time) {
  return static_cast<double>(time.count()) / 1000;
}

json trend(const std::vector<microseconds>& sorted) {
  if (sorted.empty())
    return {{"avg", 0}, {"min", 0}, {"med", 0}, {"max", 0}, {"p(90)", 0}, {"p(95)", 0}};
  double sum = 0;
  for (const microseconds each : sorted) sum += in_ms(each);
  const auto at = [&](double share) {
    const auto rank = std::ceil(share * static_cast<double>(sorted.size()));
    return in_ms(sorted[static_cast<std::size_t>(std::max(1.0, rank)) - 1]);
  };
  return {{"avg", sum / static_cast<double>(sorted.size())},
          {"min", in_ms(sorted.front())},
          {"med", at(0.5)},
          {"max", in_ms(sorted.back())},
          {"p(90)", at(0.9)},
          {"p(95)", at(0.95)},
          {"p(99)", at(0.99)}};
}

json rate(const Tally& tally) {
  return {{"passes", tally.passes}, {"fails", tally.fails}, {"value", tally.share()}};
}

Tally all_checks(const SmokeResult& result) {
  Tally all;
  for (const auto& [name, tally] : result.checks) {
    all.passes += tally.passes;
    all.fails += tally.fails;
  }
  return all;
}

}  // namespace

bool SmokeCheck::holds(const base::HttpAnswer& answer) const {
  if (!answer.status) return false;
  switch (kind) {
    case Kind::status:
      if (statuses.empty()) return *answer.status >= 200 && *answer.status < 400;
      return std::ranges::find(statuses, *answer.status) != statuses.end();
    case Kind::contains:
      return answer.body.find(text) != std::string::npos;
    case Kind::json: {
      const json document = json::parse(answer.body, nullptr, false);
      const json::json_pointer pointer(text);
      return !document.is_discarded() && document.contains(pointer) &&
             document.at(pointer) == value;
    }
  }
  return false;
}

SmokeResult run_smoke(const SmokeScript& script) {
  const base::HttpClient loaded;  // if libcurl is not there, that is known before the first thread
  SmokeResult result = Run(script).run();
  judge(script.thresholds, result);
  return result;
}

std::chrono::microseconds SmokeResult::percentile(double share) const {
  if (durations.empty()) return microseconds(0);
  const auto rank = std::ceil(share * static_cast<double>(durations.size()));
  return durations[static_cast<std::size_t>(std::max(1.0, rank)) - 1];
}

bool SmokeResult::passed() const {
  return !thresholds.empty() && std::ranges::all_of(thresholds, &SmokeThreshold::holds);
}

void judge(const SmokeThresholds& wanted, SmokeResult& result) {
  result.thresholds.clear();
  const auto samples = static_cast<std::uint64_t>(result.durations.size());
  const auto percentile = [&](int percent, const std::optional<microseconds>& most) {
    if (!most) return;
    const double share = percent / 100.0;
    // Of fewer none can lie above it, and the figure would be that of the slowest.
    const auto needed = static_cast<std::uint64_t>(100 / (100 - percent));
    const microseconds found = result.percentile(share);
    const bool enough = samples >= needed;
    result.thresholds.push_back(
        {"http_req_duration", fmt::format("p({})<={:g}", percent, in_ms(*most)),
         enough && found <= *most,
         enough ? fmt::format("{:.1f} ms", in_ms(found))
                : fmt::format("too few samples: {} of {}", samples, needed)});
  };
  percentile(50, wanted.p50);
  percentile(95, wanted.p95);
  percentile(99, wanted.p99);
  const auto share = [&](const char* metric, double found, double limit, bool most) {
    result.thresholds.push_back({metric, fmt::format("rate{}{:g}", most ? "<=" : ">=", limit),
                                 samples > 0 && (most ? found <= limit : found >= limit),
                                 fmt::format("{:.2f} %", found * 100)});
  };
  share("http_req_failed", result.failed.share(), wanted.errors, true);
  share("checks", all_checks(result).share(), wanted.checks, false);
  share("dropped_iterations", Tally{result.dropped, result.iterations}.share(), wanted.dropped,
        true);
  result.thresholds.push_back({"http_reqs", fmt::format("count>={}", wanted.samples),
                               samples >= wanted.samples, fmt::format("{}", samples)});
}

json k6_summary(const SmokeResult& result) {
  const double seconds = std::max(1e-6, static_cast<double>(result.took.count()) / 1e6);
  const auto counter = [&](std::uint64_t count) {
    return json{{"count", count}, {"rate", static_cast<double>(count) / seconds}};
  };
  json metrics = {{"http_req_duration", trend(result.durations)},
                  {"iteration_duration", trend(result.iteration_durations)},
                  {"http_req_failed", rate(result.failed)},
                  {"checks", rate(all_checks(result))},
                  {"http_reqs", counter(result.durations.size())},
                  {"iterations", counter(result.iterations)},
                  {"dropped_iterations", counter(result.dropped)}};
  // In this format true is a threshold that was crossed.
  for (const SmokeThreshold& each : result.thresholds) {
    metrics[each.metric]["thresholds"][each.expression] = !each.holds;
  }
  json checks = json::object();
  for (const auto& [name, tally] : result.checks) {
    checks[name] = {
        {"name", name}, {"path", "::" + name}, {"passes", tally.passes}, {"fails", tally.fails}};
  }
  return {
      {"root_group", {{"name", ""}, {"path", ""}, {"groups", json::object()}, {"checks", checks}}},
      {"metrics", metrics}};
}

}  // namespace holdfast::service
