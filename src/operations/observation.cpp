#include "operations/observation.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace holdfast::operations {

namespace {

using nlohmann::json;

/// The value at a JSON pointer, as text; nullopt if there is none.
std::optional<std::string> value_at(const json& document, const std::string& pointer) {
  try {
    const json& value = document.at(json::json_pointer(pointer));
    return value.is_string() ? value.get<std::string>() : value.dump();
  } catch (const json::exception&) {
    return std::nullopt;
  }
}

std::string body_mismatch(const AnswerPattern& pattern, const std::string& body,
                          std::string_view before) {
  if (!pattern.contains.empty() && body.find(pattern.contains) == std::string::npos) {
    return fmt::format("the body lacks \"{}\"", pattern.contains);
  }
  if (pattern.same && body != before) return "the body is not the one from before";
  if (pattern.json.empty()) return {};
  const json document = json::parse(body, nullptr, false);
  for (const auto& [pointer, wanted] : pattern.json) {
    const auto value = value_at(document, pointer);
    if (!value) return fmt::format("the body has no {}", pointer);
    if (wanted != "*" && *value != wanted) return fmt::format("{} is not \"{}\"", pointer, wanted);
  }
  return {};
}

}  // namespace

std::string mismatch(const AnswerPattern& pattern, const base::HttpAnswer& answer,
                     std::string_view before) {
  if (pattern.none) return answer.status ? fmt::format("answered {}", *answer.status) : "";
  if (!answer.status) return "no answer";
  if (!pattern.status.texts.empty() && !pattern.status.contains(*answer.status)) {
    return fmt::format("answered {} instead of {}", *answer.status, pattern.status.text());
  }
  for (const auto& [name, wanted] : pattern.headers) {
    std::string lower = name;
    std::ranges::transform(lower, lower.begin(),
                           [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    const auto found = answer.headers.find(lower);
    if (found == answer.headers.end()) return fmt::format("no header {}", name);
    if (wanted != "*" && found->second != wanted) {
      return fmt::format("header {} is not \"{}\"", name, wanted);
    }
  }
  return body_mismatch(pattern, answer.body, before);
}

void Observation::add(const base::HttpAnswer& answer) {
  times_.push_back(answer.took);
  ++statuses_[answer.status ? std::to_string(*answer.status) : "no answer"];
  std::string wrong = mismatch(expectation_.answer, answer, before_);
  if (wrong.empty() && expectation_.within && answer.took > *expectation_.within) {
    wrong = fmt::format("took longer than {}", base::to_string_short(*expectation_.within));
  }
  if (wrong.empty()) return;
  ++mismatches_[wrong];
  if (!first_bad_.empty()) return;
  first_bad_ = fmt::format("{}: {} after {}: {}", expectation_.request, wrong,
                           base::to_string_short(answer.took),
                           answer.status ? answer.body.substr(0, 300) : answer.why_not);
}

base::Microseconds Observation::p95() const {
  std::vector<base::Microseconds> sorted = times_;
  std::ranges::sort(sorted);
  return sorted[(sorted.size() * 95 + 99) / 100 - 1];
}

std::string Observation::broken() const {
  std::vector<std::string> list;
  for (const auto& [wrong, times] : mismatches_) {
    list.push_back(fmt::format("{} ({} of {})", wrong, times, times_.size()));
  }
  if (!times_.empty() && expectation_.p95 && p95() > *expectation_.p95) {
    list.push_back(fmt::format("p95 is {}, at most {} was promised", base::to_string_short(p95()),
                               base::to_string_short(*expectation_.p95)));
  }
  if (list.empty()) return {};
  return fmt::format("{}: {}", expectation_.request, fmt::join(list, ", "));
}

std::string Observation::summary() const {
  if (times_.empty()) return expectation_.request + ": not asked";
  std::vector<std::string> list;
  for (const auto& [status, times] : statuses_) {
    list.push_back(fmt::format("{} {}x", status, times));
  }
  return fmt::format("{}: {}; p95 {}, slowest {}", expectation_.request, fmt::join(list, ", "),
                     base::to_string_short(p95()),
                     base::to_string_short(*std::ranges::max_element(times_)));
}

}  // namespace holdfast::operations
