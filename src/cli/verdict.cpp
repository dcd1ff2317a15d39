#include "cli/verdict.h"

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>

namespace holdfast::cli {

using base::Code;
using operations::Verdict;

nlohmann::json checks_json(const operations::Evidence& evidence) {
  nlohmann::json checks = nlohmann::json::array();
  for (const auto& check : evidence.checks) {
    checks.push_back({{"name", check.name},
                      {"outcome", operations::name_of(check.outcome)},
                      {"found", check.found}});
  }
  return checks;
}

std::string loud(Verdict verdict) {
  std::string name(operations::name_of(verdict));
  if (verdict != Verdict::pass) {
    std::ranges::transform(name, name.begin(),
                           [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  }
  return name;
}

void end_with(Invocation& invocation, Verdict verdict) {
  if (verdict == Verdict::fail) {
    invocation.exit_status = base::info(Code::check_failed).exit_status;
  } else if (verdict == Verdict::inconclusive) {
    invocation.exit_status = base::info(Code::inconclusive).exit_status;
  }
}

}  // namespace holdfast::cli
