#include <algorithm>
#include <cmath>

#include "base/environment.h"
#include "base/error.h"
#include "base/section.h"
#include "service/smoke_gate.h"

namespace holdfast::service {

namespace {

using base::Code;
using base::Error;
using base::Section;
using base::TomlFile;

/// Values may name variables of the environment; errors name the variable, never its value.
std::string expanded(const Section& section, const std::string& text) {
  try {
    return base::with_environment(text);
  } catch (const Error& error) {
    section.refuse(error.message(), error.hint());
  }
}

bool is_header_name(const std::string& name) {
  return !name.empty() && std::ranges::all_of(name, [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '-' || c == '_';
  });
}

Headers read_headers(Section& section) {
  Headers headers;
  for (auto& [name, value] : section.text_pairs("headers")) {
    std::string full = expanded(section, value);
    const bool one_line = full.find_first_of("\r\n") == std::string::npos;
    if (!is_header_name(name) || !one_line) {
      section.refuse(fmt::format("\"{}\" cannot be a header", name));
    }
    headers.emplace_back(name, std::move(full));
  }
  return headers;
}

nlohmann::json json_of(const Section& section, const toml::node& node) {
  if (node.is_string()) return expanded(section, **node.as_string());
  if (node.is_integer()) return **node.as_integer();
  if (node.is_floating_point()) return **node.as_floating_point();
  if (node.is_boolean()) return **node.as_boolean();
  section.refuse("[request.json] compares with text, numbers, true and false");
}

SmokeCheck status_check(Section& section, const std::string& name) {
  SmokeCheck check;
  const toml::node* node = section.node("status");
  if (node != nullptr) {
    const auto add = [&](const toml::node& each) {
      const auto value = each.is_integer() ? each.value<long>() : std::nullopt;
      if (!value || *value < 100 || *value > 599) {
        section.refuse("\"status\" must be a status such as 200, or a list of them");
      }
      check.statuses.push_back(*value);
    };
    if (const toml::array* list = node->as_array()) {
      for (const toml::node& each : *list) add(each);
    } else {
      add(*node);
    }
  }
  check.name = check.statuses.empty()
                   ? fmt::format("{}: status is 200 to 399", name)
                   : fmt::format("{}: status is {}", name, fmt::join(check.statuses, " or "));
  return check;
}

void read_checks(Section& section, SmokeRequest& request) {
  request.checks.push_back(status_check(section, request.name));
  for (const std::string& text : section.texts("contains")) {
    SmokeCheck check;
    check.kind = SmokeCheck::Kind::contains;
    check.text = text;
    check.name = fmt::format("{}: body contains \"{}\"", request.name, text);
    request.checks.push_back(std::move(check));
  }
  const toml::table* values = section.table("json");
  if (values == nullptr) return;
  for (const auto& [pointer, node] : *values) {
    SmokeCheck check;
    check.kind = SmokeCheck::Kind::json;
    check.text = pointer.str();
    try {
      static_cast<void>(nlohmann::json::json_pointer(check.text));
    } catch (const nlohmann::json::exception&) {
      section.refuse(fmt::format("\"{}\" is not a JSON pointer", check.text),
                     "write \"/items/0/name\" = \"x\"");
    }
    check.value = json_of(section, node);
    check.name = fmt::format("{}: {} is as expected", request.name, check.text);
    request.checks.push_back(std::move(check));
  }
}

SmokeRequest read_request(Section& section, const std::string& base, const Headers& shared,
                          std::chrono::microseconds limit) {
  SmokeRequest request;
  request.name = section.required("name");
  const std::string path = expanded(section, section.text("path"));
  const std::string url = expanded(section, section.text("url"));
  if (path.empty() == url.empty() || (url.empty() && base.empty())) {
    section.refuse("a request needs a \"url\", or a \"path\" below the file's \"url\"");
  }
  if (!path.empty() && path.front() != '/') section.refuse("\"path\" must begin with \"/\"");
  request.request.url = url.empty() ? base + path : url;
  if (!request.request.url.starts_with("http://") && !request.request.url.starts_with("https://")) {
    section.refuse("a URL must begin with http:// or https://");
  }
  const std::string method = section.text("method");
  if (!method.empty()) request.request.method = method;
  request.request.body = expanded(section, section.text("body"));
  request.request.headers = shared;
  for (auto& [name, value] : read_headers(section)) {
    std::erase_if(request.request.headers, [&](const auto& each) { return each.first == name; });
    request.request.headers.emplace_back(name, value);
  }
  request.request.limit = std::chrono::ceil<std::chrono::milliseconds>(limit);
  read_checks(section, request);
  section.refuse_other_keys();
  return request;
}

double share(Section& section, std::string_view key, double otherwise) {
  const double value = section.number(key).value_or(otherwise);
  if (!(value >= 0 && value <= 1)) {
    section.refuse(fmt::format("\"{}\" must be a share from 0 to 1", key));
  }
  return value;
}

SmokeThresholds read_thresholds(const TomlFile& file, const toml::table* table) {
  SmokeThresholds thresholds;
  if (table == nullptr) return thresholds;
  Section section(file, *table, "thresholds");
  thresholds.p50 = section.duration("p50");
  thresholds.p95 = section.duration("p95");
  thresholds.p99 = section.duration("p99");
  thresholds.errors = share(section, "errors", thresholds.errors);
  thresholds.checks = share(section, "checks", thresholds.checks);
  thresholds.dropped = share(section, "dropped", thresholds.dropped);
  thresholds.samples = section.count("samples").value_or(1);
  section.refuse_other_keys();
  return thresholds;
}

}  // namespace

SmokeScript parse_smoke(std::string_view text, const base::fs::path& path) {
  const TomlFile file{path, "docs/smoke.md shows such a file"};
  const toml::table table = file.parse(text);
  Section section(file, table, "");
  SmokeScript script;
  script.rate = section.number("rate").value_or(0);
  if (!(script.rate > 0 && script.rate <= 10'000)) {
    section.refuse("\"rate\" must be a number of arrivals a second, up to 10000");
  }
  script.duration = section.duration("duration").value_or(std::chrono::microseconds(0));
  if (script.duration.count() == 0) section.refuse("the file needs a \"duration\"");
  const double arrivals = script.rate * static_cast<double>(script.duration.count()) / 1e6;
  // Every time is kept until the end.
  if (arrivals < 1 || arrivals > 5e6) {
    section.refuse(
        fmt::format("{:.3g} arrivals cannot be a test: at least one, at most 5000000", arrivals));
  }
  script.in_flight = section.count("in_flight").value_or(50);
  if (script.in_flight > 2000) section.refuse("\"in_flight\" can be 2000 at most");
  const auto limit = section.duration("timeout").value_or(std::chrono::seconds(5));
  std::string base = expanded(section, section.text("url"));
  while (base.ends_with('/')) base.pop_back();
  const Headers headers = read_headers(section);
  for (const toml::table* each : section.tables("request")) {
    Section one(file, *each, "request");
    script.requests.push_back(read_request(one, base, headers, limit));
    const auto same = [&](const SmokeRequest& other) {
      return other.name == script.requests.back().name;
    };
    if (std::ranges::count_if(script.requests, same) > 1) {
      one.refuse(fmt::format("there are two requests \"{}\"", script.requests.back().name));
    }
  }
  if (script.requests.empty()) section.refuse("the file needs a [[request]]");
  script.thresholds = read_thresholds(file, section.table("thresholds"));
  section.refuse_other_keys();
  return script;
}

SmokeScript read_smoke(const base::fs::path& path) {
  return parse_smoke(base::text(base::read_existing_file(path)), path);
}

}  // namespace holdfast::service
