#pragma once

// Answers of a service, held to what its contract says.
//
// What goes into a record names requests, statuses and times; nothing of what was answered.

#include <map>
#include <string>
#include <vector>

#include "base/http.h"
#include "operations/contract.h"

namespace holdfast::operations {

/// Why the answer is not like the pattern; empty if it is. `before`: what the same request had been
/// answered while nothing was broken.
std::string mismatch(const AnswerPattern& pattern, const base::HttpAnswer& answer,
                     std::string_view before);

/// What one request was answered in a window of time, held to one expectation.
class Observation {
 public:
  Observation(const Expectation& expectation, std::string before)
      : expectation_(expectation), before_(std::move(before)) {}

  void add(const base::HttpAnswer& answer);
  std::size_t answers() const { return times_.size(); }
  /// What broke the promise, in a few words for a record; empty: nothing. No answer at all in the
  /// whole window proves nothing, and is no failure either.
  std::string broken() const;
  /// "comps: 200 30 times; p95 8 ms, slowest 12 ms".
  std::string summary() const;
  /// The answer that broke it first, for whoever looks for the reason; may hold values.
  const std::string& first_bad() const { return first_bad_; }

 private:
  base::Microseconds p95() const;

  Expectation expectation_;
  std::string before_;
  std::vector<base::Microseconds> times_;
  std::map<std::string, std::size_t> statuses_;
  std::map<std::string, std::size_t> mismatches_;
  std::string first_bad_;
};

}  // namespace holdfast::operations
