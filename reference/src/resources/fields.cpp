#include "resources/fields.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "http/problem.h"

namespace reference::resources {

namespace {

constexpr std::size_t longest_text = 4000;
constexpr double largest_number = 1e10;  // numeric(12,2)

bool is_date(std::string_view text) {
  if (text.size() != 10 || text[4] != '-' || text[7] != '-') return false;
  const auto part = [&](std::size_t from, std::size_t count) {
    int value = -1;
    const char* const end = text.data() + from + count;
    const auto [stop, error] = std::from_chars(text.data() + from, end, value);
    return error == std::errc() && stop == end && value > 0 ? value : 0;
  };
  const std::chrono::year_month_day date(std::chrono::year(part(0, 4)),
                                         std::chrono::month(static_cast<unsigned>(part(5, 2))),
                                         std::chrono::day(static_cast<unsigned>(part(8, 2))));
  return part(0, 4) > 0 && date.ok();
}

bool is_number(const std::string& text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() &&
         std::fabs(value) < largest_number;
}

bool is_integer(const std::string& text) {
  std::int32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

[[noreturn]] void refuse(std::string why) {
  throw std::invalid_argument(std::move(why));
}

std::string value_of(const Column& column, const nlohmann::json& value) {
  const bool wants_number = column.kind == Kind::number || column.kind == Kind::integer;
  if (wants_number) {
    if (!value.is_number()) refuse("must be a number");
    return parse(column, value.dump());
  }
  if (!value.is_string()) refuse("must be a string");
  return parse(column, value.get<std::string>());
}

Fields fields_of(const Table& table, const nlohmann::json& body) {
  if (!body.is_object()) {
    throw http::Problem(400, "bad_json", "cannot read the body: it must be a JSON object");
  }
  Fields fields;
  std::map<std::string, std::string> wrong;
  for (const auto& [name, value] : body.items()) {
    const Column* column = table.find(name);
    if (column == nullptr) {
      wrong[name] = name == "id" || name == "created_at" ? "cannot be set" : "is not known";
    } else if (column->access == Column::Access::read) {
      wrong[name] = "cannot be set";
    } else if (value.is_null()) {
      if (column->required || !column->choices.empty()) wrong[name] = "must not be null";
      fields[name] = std::nullopt;
    } else {
      try {
        fields[name] = value_of(*column, value);
      } catch (const std::invalid_argument& error) {
        wrong[name] = error.what();
      }
    }
  }
  if (!wrong.empty()) throw http::Problem(std::move(wrong));
  return fields;
}

}  // namespace

bool is_uuid(std::string_view text) {
  if (text.size() != 36) return false;
  for (std::size_t at = 0; at < text.size(); ++at) {
    const bool dash = at == 8 || at == 13 || at == 18 || at == 23;
    if (dash ? text[at] != '-' : std::isxdigit(static_cast<unsigned char>(text[at])) == 0) {
      return false;
    }
  }
  return true;
}

std::string parse(const Column& column, const std::string& text) {
  switch (column.kind) {
    case Kind::text:
    case Kind::json:
      if (text.empty() && column.required) refuse("must not be empty");
      if (text.size() > longest_text)
        refuse(fmt::format("must have at most {} bytes", longest_text));
      if (text.find('\0') != std::string::npos) refuse("must not have a NUL character");
      break;
    case Kind::number:
      if (!is_number(text)) refuse("must be a number below 10,000,000,000");
      break;
    case Kind::integer:
      if (!is_integer(text)) refuse("must be an integer of 32 bits");
      break;
    case Kind::date:
      if (!is_date(text)) refuse("must be a date such as 2026-01-31");
      break;
    case Kind::uuid:
      if (!is_uuid(text)) refuse("must be a UUID");
      break;
    case Kind::time:
      refuse("cannot be given");
  }
  const auto& choices = column.choices;
  if (!choices.empty() && std::find(choices.begin(), choices.end(), text) == choices.end()) {
    refuse(fmt::format("must be one of {}", fmt::join(choices, ", ")));
  }
  return text;
}

Fields fields_of_new(const Table& table, const nlohmann::json& body) {
  Fields fields = fields_of(table, body);
  std::map<std::string, std::string> missing;
  for (const Column& column : table.columns) {
    if (column.required && !fields.contains(column.name)) missing[column.name] = "is missing";
  }
  if (!missing.empty()) throw http::Problem(std::move(missing));
  return fields;
}

Fields fields_of_change(const Table& table, const nlohmann::json& body) {
  Fields fields = fields_of(table, body);
  if (fields.empty()) throw http::Problem(422, "invalid", "cannot change nothing: name a field");
  return fields;
}

}  // namespace reference::resources
