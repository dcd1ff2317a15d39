#pragma once

// A gate: requests at a fixed rate, checks of what comes back, and thresholds that all of it must
// hold.
//
// Arrivals do not wait for answers: a slow service does not get less to do. An arrival makes all
// requests of the script in their order, over connections that are kept open. When as many arrivals
// are under way as are let in at once, the next one is dropped and counted. The file is TOML:
//
//   url = "http://127.0.0.1:8080"    where paths begin
//   rate = 20                        arrivals a second
//   duration = "10s"
//   in_flight = 50                   arrivals at once; 50 unless it is said
//   timeout = "5s"                   for each request; 5 s unless it is said
//   [headers]                        of every request; ${NAME} is a variable of the environment
//   [[request]]
//   name, method (GET), path or url, body, [request.headers]
//   status = [200]                   any from 200 to 399 unless it is said
//   contains = "text"                must be in the body
//   [request.json]                   "/pointer" = value, in the body
//   [thresholds]
//   p50, p95, p99 = "200ms"          of the time from sending to the last byte
//   errors = 0.01                    at most this share; none unless it is said
//   checks = 0.99                    at least this share; all unless it is said
//   dropped = 0.01                   at most this share of arrivals; none unless it is said
//   samples = 100                    at least so many answers
//
// Too few samples never pass: a percentile needs so many that one of them can lie above it (100 for
// p99). Values of headers and bodies are never shown.

#include <atomic>
#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/http.h"

namespace holdfast::service {

using Headers = std::vector<std::pair<std::string, std::string>>;

/// One thing that must be so of an answer.
struct SmokeCheck {
  std::string name;  ///< "list: status is 200"
  enum class Kind { status, contains, json } kind = Kind::status;
  std::vector<long> statuses;  ///< none: 200 to 399
  std::string text;            ///< what it contains, or the JSON pointer
  nlohmann::json value;

  bool holds(const base::HttpAnswer& answer) const;
};

struct SmokeRequest {
  std::string name;
  base::HttpRequest request;
  std::vector<SmokeCheck> checks;  ///< the first is that of the status
};

struct SmokeThresholds {
  std::optional<std::chrono::microseconds> p50;
  std::optional<std::chrono::microseconds> p95;
  std::optional<std::chrono::microseconds> p99;
  double errors = 0;
  double checks = 1;
  double dropped = 0;
  std::uint64_t samples = 1;
};

struct SmokeScript {
  double rate = 1;
  std::chrono::microseconds duration{};
  std::size_t in_flight = 50;
  std::vector<SmokeRequest> requests;
  SmokeThresholds thresholds;
};

/// Throws Error(configuration) with the line of what is wrong.
SmokeScript parse_smoke(std::string_view text, const base::fs::path& path);
SmokeScript read_smoke(const base::fs::path& path);

/// How often something was so, and not.
struct Tally {
  std::uint64_t passes = 0;
  std::uint64_t fails = 0;
  void count(bool passed) { ++(passed ? passes : fails); }
  double share() const {  ///< of passes; 0 if there was nothing
    return passes + fails == 0 ? 0
                               : static_cast<double>(passes) / static_cast<double>(passes + fails);
  }
};

struct SmokeThreshold {
  std::string metric;      ///< "http_req_duration", as k6 names it
  std::string expression;  ///< "p(95)<=200"
  bool holds = false;
  std::string found;
};

struct SmokeResult {
  std::vector<std::chrono::microseconds> durations;  ///< of all requests, sorted
  std::vector<std::chrono::microseconds> iteration_durations;
  Tally failed;  ///< "passes" are requests that failed, as k6 counts them
  std::vector<std::pair<std::string, Tally>> checks;
  std::uint64_t iterations = 0;
  std::uint64_t dropped = 0;
  std::chrono::microseconds took{};
  std::string first_failure;  ///< of a check, for a person; without secrets
  std::vector<SmokeThreshold> thresholds;

  bool passed() const;
  std::chrono::microseconds percentile(double share) const;
};

/// Runs it. Throws Error(interrupted) if a signal came: that is no verdict.
SmokeResult run_smoke(const SmokeScript& script);

/// Fills in `thresholds`.
void judge(const SmokeThresholds& thresholds, SmokeResult& result);

/// As `k6 run --summary-export` writes it.
nlohmann::json k6_summary(const SmokeResult& result);

}  // namespace holdfast::service
