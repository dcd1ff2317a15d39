#include "cli/findings.h"

#include <fmt/format.h>

#include <iostream>
#include <nlohmann/json.hpp>

namespace holdfast::cli {

namespace {

using Level = operations::Finding::Level;

std::string_view name_of(Level level) {
  switch (level) {
    case Level::good:
      return "ok";
    case Level::warning:
      return "warning";
    case Level::bad:
      return "BAD";
  }
  return "";
}

}  // namespace

nlohmann::json findings_json(const operations::Findings& findings) {
  nlohmann::json list = nlohmann::json::array();
  for (const operations::Finding& each : findings.all()) {
    list.push_back({{"level", name_of(each.level)}, {"what", each.what}, {"remedy", each.remedy}});
    if (each.about.empty()) continue;
    list.back()["about"] = each.about;
    list.back()["of"] = each.of_cluster ? "cluster" : "repository";
  }
  return list;
}

void print_findings(const operations::Findings& findings) {
  for (const operations::Finding& each : findings.all()) {
    std::cout << fmt::format("{:<8} {}\n", name_of(each.level), each.what);
    if (!each.remedy.empty()) std::cout << fmt::format("{:<8} -> {}\n", "", each.remedy);
  }
}

}  // namespace holdfast::cli
