#include "base/section.h"

#include <algorithm>

#include "base/error.h"

namespace holdfast::base {

toml::table TomlFile::parse(std::string_view text) const {
  try {
    return toml::parse(text);
  } catch (const toml::parse_error& error) {
    refuse(error.source(), error.description());
  }
}

void TomlFile::refuse(const toml::source_region& where, std::string_view why,
                      std::string own_hint) const {
  throw Error(Code::configuration, fmt::format("{}:{}: {}", path.string(), where.begin.line, why),
              own_hint.empty() ? hint : std::move(own_hint));
}

std::string joined(const std::set<std::string_view>& names) {
  return fmt::format("{}", fmt::join(names, ", "));
}

std::string Section::full(std::string_view key) const {
  return name_.empty() ? std::string(key) : fmt::format("{}.{}", name_, key);
}

bool Section::is_text(std::string_view key) const {
  const toml::node* node = table_.get(key);
  return node != nullptr && node->is_string();
}

const toml::node* Section::node(std::string_view key) {
  known_.insert(key);
  return table_.get(key);
}

std::string Section::text(std::string_view key) {
  const toml::node* found = node(key);
  if (found == nullptr) return {};
  if (!found->is_string()) {
    file_.refuse(found->source(), fmt::format("\"{}\" must be text in quotes", key));
  }
  const auto value = found->value<std::string>();
  if (value->empty()) file_.refuse(found->source(), fmt::format("\"{}\" is empty", key));
  return *value;
}

std::string Section::required(std::string_view key) {
  std::string value = text(key);
  if (value.empty()) refuse(fmt::format("[{}] needs \"{}\"", name_, key));
  return value;
}

std::vector<std::string> Section::texts(std::string_view key) {
  const toml::node* found = node(key);
  if (found == nullptr) return {};
  if (found->is_string()) return {text(key)};
  std::vector<std::string> list;
  if (found->is_array()) {
    for (const toml::node& each : *found->as_array()) {
      if (each.is_string()) list.push_back(*each.value<std::string>());
    }
  }
  if (list.empty() || list.size() != found->as_array()->size()) {
    file_.refuse(found->source(),
                 fmt::format("\"{}\" must be text in quotes, or a list of such", key));
  }
  return list;
}

std::optional<Microseconds> Section::duration(std::string_view key) {
  const std::string value = text(key);
  if (value.empty()) return std::nullopt;
  const toml::source_region& where = table_.get(key)->source();
  try {
    const Microseconds duration = parse_duration(value);
    if (duration > Microseconds(0)) return duration;
  } catch (const Error& error) {
    file_.refuse(where, fmt::format("\"{}\": {}", key, error.message()), error.hint());
  }
  file_.refuse(where, fmt::format("\"{}\" must be longer than that", key));
}

std::optional<std::uint32_t> Section::count(std::string_view key) {
  const toml::node* found = node(key);
  if (found == nullptr) return std::nullopt;
  const auto value = found->is_integer() ? found->value<std::int64_t>() : std::nullopt;
  if (!value || *value < 1 || *value > 1'000'000) {
    file_.refuse(found->source(),
                 fmt::format("\"{}\" must be a whole number from 1 to 1000000", key));
  }
  return static_cast<std::uint32_t>(*value);
}

std::optional<double> Section::number(std::string_view key) {
  const toml::node* found = node(key);
  if (found == nullptr) return std::nullopt;
  if (!found->is_number()) {
    file_.refuse(found->source(), fmt::format("\"{}\" must be a number", key));
  }
  return found->value<double>();
}

std::optional<bool> Section::flag(std::string_view key) {
  const toml::node* found = node(key);
  if (found == nullptr) return std::nullopt;
  if (!found->is_boolean()) {
    file_.refuse(found->source(), fmt::format("\"{}\" must be true or false", key));
  }
  return found->value<bool>();
}

const toml::table* Section::table(std::string_view key) {
  const toml::node* found = node(key);
  if (found == nullptr) return nullptr;
  if (!found->is_table()) {
    file_.refuse(found->source(), fmt::format("\"{}\" must be a section: [{}]", key, full(key)));
  }
  return found->as_table();
}

std::vector<std::pair<std::string, const toml::table*>> Section::named_tables(
    std::string_view key) {
  std::vector<std::pair<std::string, const toml::table*>> found;
  const toml::table* parent = table(key);
  if (parent == nullptr) return found;
  for (const auto& [name, each] : *parent) {
    if (!each.is_table()) {
      file_.refuse(each.source(),
                   fmt::format("\"{}\" stands outside of a [{}.NAME]", name.str(), full(key)));
    }
    found.emplace_back(name.str(), each.as_table());
  }
  std::ranges::stable_sort(found, {},
                           [](const auto& each) { return each.second->source().begin.line; });
  return found;
}

std::vector<const toml::table*> Section::tables(std::string_view key) {
  const toml::node* found = node(key);
  std::vector<const toml::table*> list;
  if (found == nullptr) return list;
  if (!found->is_array_of_tables()) {
    file_.refuse(found->source(), fmt::format("\"{}\" must be written as [[{}]]", key, full(key)));
  }
  for (const toml::node& each : *found->as_array()) list.push_back(each.as_table());
  return list;
}

std::vector<std::pair<std::string, std::string>> Section::text_pairs(std::string_view key) {
  std::vector<std::pair<std::string, std::string>> pairs;
  const toml::table* found = table(key);
  if (found == nullptr) return pairs;
  for (const auto& [name, each] : *found) {
    if (!each.is_string()) {
      file_.refuse(each.source(), fmt::format("\"{}\" must be text in quotes", name.str()));
    }
    pairs.emplace_back(name.str(), *each.value<std::string>());
  }
  return pairs;
}

void Section::refuse_other_keys() const {
  for (const auto& [key, node] : table_) {
    if (known_.contains(key.str())) continue;
    const std::string where = name_.empty() ? "" : fmt::format(" in [{}]", name_);
    file_.refuse(node.source(), fmt::format("unknown key \"{}\"{}", key.str(), where),
                 "it may have: " + joined(known_));
  }
}

}  // namespace holdfast::base
