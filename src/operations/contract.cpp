#include "operations/contract.h"

#include <algorithm>
#include <cstdlib>

#include "base/error.h"
#include "base/section.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using base::Section;
using base::TomlFile;
using service::Fault;

/// Commands are for a shell, which has the same variables.
void replace_variables(toml::node& node, const TomlFile& file) {
  if (auto* table = node.as_table()) {
    for (auto&& [key, each] : *table) {
      if (key.str() != "command") replace_variables(each, file);
    }
  } else if (auto* array = node.as_array()) {
    for (auto& each : *array) replace_variables(each, file);
  } else if (auto* text = node.as_string()) {
    try {
      *text = with_environment(text->get());
    } catch (const Error& error) {
      file.refuse(node.source(), error.message(), error.hint());
    }
  }
}

StatusSet read_statuses(Section& section, const TomlFile& file, std::string_view key) {
  StatusSet statuses;
  const toml::node* node = section.node(key);
  if (node == nullptr) return statuses;
  const auto add = [&](const toml::node& each) {
    const auto number = each.value<std::int64_t>();
    const auto text = each.value<std::string>();
    if (each.is_integer() && *number >= 100 && *number <= 599) {
      statuses.texts.push_back(std::to_string(*number));
    } else if (each.is_string() && text->size() == 3 && text->ends_with("xx") &&
               text->front() >= '1' && text->front() <= '5') {
      statuses.texts.push_back(*text);
    } else {
      file.refuse(
          each.source(),
          fmt::format("\"{}\" must be a status (200), a class (\"2xx\"), or a list of such", key));
    }
  };
  if (const toml::array* list = node->as_array()) {
    for (const toml::node& each : *list) add(each);
    if (list->empty()) file.refuse(node->source(), fmt::format("\"{}\" is empty", key));
  } else {
    add(*node);
  }
  return statuses;
}

AnswerPattern read_pattern(Section& section, const TomlFile& file) {
  AnswerPattern pattern;
  if (section.is_text("status") && section.text("status") == "none") {
    pattern.none = true;
  } else {
    pattern.status = read_statuses(section, file, "status");
  }
  pattern.contains = section.text("contains");
  pattern.json = section.text_pairs("json");
  pattern.headers = section.text_pairs("headers");
  pattern.same = section.flag("same").value_or(false);
  if (pattern.status.texts.empty() && !pattern.none && pattern.contains.empty() &&
      pattern.json.empty() && pattern.headers.empty() && !pattern.same) {
    section.refuse("this says nothing about the answer",
                   "give a status, or what the answer must contain");
  }
  return pattern;
}

Fault read_fault(Section& row, const TomlFile& file) {
  static const std::map<std::string, Fault::Kind, std::less<>> kinds = {
      {"refuse", Fault::Kind::refuse},        {"blackhole", Fault::Kind::blackhole},
      {"reset", Fault::Kind::reset},          {"latency", Fault::Kind::latency},
      {"bandwidth", Fault::Kind::bandwidth},  {"cut", Fault::Kind::cut},
      {"slow_close", Fault::Kind::slow_close}};
  const auto kind_of = [&](const std::string& name) {
    const auto found = kinds.find(name);
    if (found != kinds.end()) return found->second;
    row.refuse(fmt::format("unknown fault \"{}\"", name),
               "use refuse, blackhole, reset, latency, bandwidth, cut or slow_close");
  };
  Fault fault;
  if (row.is_text("fault")) {
    fault.kind = kind_of(row.text("fault"));
  } else if (const toml::table* table = row.table("fault")) {
    Section section(file, *table, row.name() + ".fault");
    fault.kind = kind_of(section.required("kind"));
    fault.latency = section.duration("delay").value_or(base::Microseconds(0));
    fault.jitter = section.duration("jitter").value_or(base::Microseconds(0));
    fault.kilobytes_per_second = section.count("kilobytes_per_second").value_or(0);
    fault.bytes = section.count("bytes").value_or(0);
    section.refuse_other_keys();
  } else {
    row.refuse("a row needs a \"fault\"");
  }
  using Kind = Fault::Kind;
  const bool delayed = fault.kind == Kind::latency || fault.kind == Kind::slow_close;
  if (delayed != (fault.latency.count() > 0)) {
    row.refuse(delayed ? "this fault needs a \"delay\"" : "this fault has no \"delay\"");
  }
  if ((fault.kind == Kind::bandwidth) != (fault.kilobytes_per_second > 0)) {
    row.refuse("\"bandwidth\" and \"kilobytes_per_second\" need each other");
  }
  if ((fault.kind == Kind::cut) != (fault.bytes > 0)) {
    row.refuse("\"cut\" and \"bytes\" need each other");
  }
  if (fault.jitter.count() > 0 && fault.kind != Kind::latency) {
    row.refuse("only \"latency\" has a \"jitter\"");
  }
  return fault;
}

class Reader {
 public:
  Reader(const TomlFile& file, const toml::table& table) : file_(file), root_(file, table, "") {}

  Contract read() {
    contract_.path = file_.path;
    contract_.title = root_.text("title");
    if (contract_.title.empty()) contract_.title = file_.path.stem().string();
    read_service();
    for (const auto& [name, table] : root_.named_tables("dependency")) {
      Section section(file_, *table, "dependency." + name);
      contract_.dependencies[name] = {name, section.required("listen"),
                                      section.required("upstream")};
      section.refuse_other_keys();
    }
    for (const auto& [name, table] : root_.named_tables("value")) {
      Section section(file_, *table, "value." + name);
      ContractValue value{section.required("command")};
      value.fresh = section.duration("fresh").value_or(value.fresh);
      section.refuse_other_keys();
      contract_.values[name] = value;
    }
    for (const auto& [name, table] : root_.named_tables("request")) read_request(name, *table);
    for (const toml::table* table : root_.tables("row")) read_row(*table);
    for (const toml::table* table : root_.tables("never")) {
      Section section(file_, *table, "never");
      const std::string request = known_request(section);
      contract_.nevers.push_back({request, read_pattern(section, file_)});
      section.refuse_other_keys();
    }
    root_.refuse_other_keys();
    if (contract_.rows.empty()) root_.refuse("there is no [[row]]: nothing would be shown");
    return std::move(contract_);
  }

 private:
  void read_service() {
    const toml::table* table = root_.table("service");
    if (table == nullptr) root_.refuse("there is no [service]");
    Section section(file_, *table, "service");
    contract_.url = section.required("url");
    contract_.command = section.text("command");
    contract_.environment = section.text_pairs("environment");
    contract_.ready = section.text("ready");
    contract_.alive = section.text("alive");
    if (contract_.ready.empty()) contract_.ready = "/ready";
    if (contract_.alive.empty()) contract_.alive = "/health";
    contract_.ready_within = section.duration("ready_within").value_or(contract_.ready_within);
    contract_.proxy = section.text("proxy");
    if (contract_.proxy.empty()) contract_.proxy = "127.0.0.1:8474";
    section.refuse_other_keys();
  }

  void read_request(const std::string& name, const toml::table& table) {
    Section section(file_, table, "request." + name);
    ContractRequest request;
    request.name = name;
    request.url = section.required("url");
    if (request.url.starts_with('/')) request.url = contract_.url + request.url;
    const std::string method = section.text("method");
    if (!method.empty()) request.method = method;
    request.headers = section.text_pairs("headers");
    request.body = section.text("body");
    request.status = read_statuses(section, file_, "status");
    if (request.status.texts.empty()) request.status.texts = {"200"};
    request.timeout = section.duration("timeout").value_or(request.timeout);
    section.refuse_other_keys();
    const auto check = [&](const std::string& text) { check_values(section, text); };
    check(request.url);
    check(request.body);
    for (const auto& each : request.headers) check(each.second);
    contract_.requests[name] = request;
  }

  /// Words in braces that look like a value's name must be one; JSON has braces too.
  void check_values(const Section& section, const std::string& text) const {
    for (std::size_t at = text.find('{'); at != std::string::npos; at = text.find('{', at + 1)) {
      const std::size_t end = text.find_first_not_of(
          "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_", at + 1);
      if (end == std::string::npos || end == at + 1 || text[end] != '}') continue;
      const std::string name = text.substr(at + 1, end - at - 1);
      if (contract_.values.contains(name)) continue;
      section.refuse(fmt::format("there is no [value.{}]", name));
    }
  }

  std::string known_request(Section& section) const {
    std::string name = section.required("request");
    if (!contract_.requests.contains(name)) {
      section.refuse(fmt::format("there is no [request.{}]", name));
    }
    return name;
  }

  std::vector<Expectation> read_expectations(Section& row, std::string_view key) {
    std::vector<Expectation> expectations;
    for (const toml::table* table : row.tables(key)) {
      Section section(file_, *table, fmt::format("row.{}", key));
      Expectation expectation;
      expectation.request = known_request(section);
      expectation.answer = read_pattern(section, file_);
      expectation.within = section.duration("within");
      expectation.p95 = section.duration("p95");
      section.refuse_other_keys();
      expectations.push_back(std::move(expectation));
    }
    return expectations;
  }

  void read_row(const toml::table& table) {
    Section section(file_, table, "row");
    ContractRow row;
    row.name = section.required("name");
    row.promise = section.text("promise");
    row.dependencies = section.texts("dependency");
    if (row.dependencies.empty()) section.refuse("[row] needs \"dependency\"");
    for (const std::string& name : row.dependencies) {
      if (!contract_.dependencies.contains(name)) {
        section.refuse(fmt::format("there is no [dependency.{}]", name));
      }
    }
    const bool twice = std::ranges::any_of(
        contract_.rows, [&](const ContractRow& other) { return other.name == row.name; });
    if (twice) section.refuse(fmt::format("there are two rows \"{}\"", row.name));
    row.fault = read_fault(section, file_);
    row.restart = section.flag("restart").value_or(false);
    if (row.restart && contract_.command.empty()) {
      section.refuse("\"restart\" needs a [service] with a \"command\"");
    }
    row.settle = section.duration("settle").value_or(row.settle);
    row.observe = section.duration("observe").value_or(row.observe);
    row.recover_within = section.duration("recover_within").value_or(row.recover_within);
    row.expectations = read_expectations(section, "expect");
    if (row.expectations.empty()) section.refuse("a row needs at least one [[row.expect]]");
    row.afterwards = read_expectations(section, "afterwards");
    row.reconnects = section.flag("reconnects").value_or(false);
    section.refuse_other_keys();
    contract_.rows.push_back(std::move(row));
  }

  const TomlFile& file_;
  Section root_;
  Contract contract_;
};

}  // namespace

bool StatusSet::contains(long status) const {
  const std::string exact = std::to_string(status);
  return std::ranges::any_of(texts, [&](const std::string& each) {
    return each == exact || (each.ends_with("xx") && each.front() == exact.front());
  });
}

std::string StatusSet::text() const {
  return fmt::format("{}", fmt::join(texts, " or "));
}

Contract parse_contract(std::string_view text, const base::fs::path& path) {
  const TomlFile file{path, "docs/gamedays.md shows a contract"};
  toml::table table = file.parse(text);
  replace_variables(table, file);
  return Reader(file, table).read();
}

Contract read_contract(const base::fs::path& path) {
  return parse_contract(base::text(base::read_existing_file(path)), base::fs::absolute(path));
}

}  // namespace holdfast::operations
