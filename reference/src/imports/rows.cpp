#include "imports/rows.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <chrono>
#include <stdexcept>

namespace reference::imports {
namespace {

enum class Type { text, amount, count, date };

bool is_digits(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(),
                                      [](char each) { return each >= '0' && each <= '9'; });
}

int number(std::string_view digits) {
  int value = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), value);
  return value;
}

bool is_amount(std::string_view text) {
  const std::size_t point = text.find('.');
  const std::string_view whole = text.substr(0, point);
  if (!is_digits(whole) || whole.size() > 10) return false;
  if (point == text.npos) return true;
  const std::string_view decimals = text.substr(point + 1);
  return is_digits(decimals) && decimals.size() <= 2;
}

bool is_zero(std::string_view amount) {
  return amount.find_first_not_of("0.") == amount.npos;
}

bool is_date(std::string_view text) {
  if (text.size() != 10 || text[4] != '-' || text[7] != '-') return false;
  const std::string_view year = text.substr(0, 4);
  const std::string_view month = text.substr(5, 2);
  const std::string_view day = text.substr(8, 2);
  if (!is_digits(year) || !is_digits(month) || !is_digits(day) || number(year) == 0) return false;
  return std::chrono::year_month_day(std::chrono::year(number(year)),
                                     std::chrono::month(static_cast<unsigned>(number(month))),
                                     std::chrono::day(static_cast<unsigned>(number(day))))
      .ok();
}

std::size_t characters(std::string_view utf8) {
  return static_cast<std::size_t>(std::count_if(utf8.begin(), utf8.end(), [](char each) {
    return (static_cast<unsigned char>(each) & 0xc0) != 0x80;
  }));
}

/// See exports/csv_text.h, which puts it there.
std::string_view without_guard(std::string_view text) {
  const bool is_guarded = text.size() > 1 && text[0] == '\'' &&
                          std::string_view("=+-@\t'").find(text[1]) != std::string_view::npos;
  return is_guarded ? text.substr(1) : text;
}

std::string lower(std::string text) {
  for (char& each : text) each = static_cast<char>(std::tolower(static_cast<unsigned char>(each)));
  return text;
}

}  // namespace

struct RowReader::Column {
  const char* name;
  Type type;
  bool is_required;
  bool may_be_zero = true;
  std::size_t longest = 200;

  /// What is wrong with a value; "" if nothing is.
  std::string fault(std::string_view text) const {
    const auto wrong = [&](const std::string& what) { return std::string(name) + " " + what; };
    if (text.empty()) return is_required ? wrong("is missing") : "";
    switch (type) {
      case Type::text: {
        const bool is_odd = std::any_of(text.begin(), text.end(), [](char each) {
          return static_cast<unsigned char>(each) < ' ' ? each != '\t' : each == '\x7f';
        });
        if (is_odd) return wrong("holds a control character");
        if (characters(text) <= longest) return "";
        return wrong("is longer than " + std::to_string(longest) + " characters");
      }
      case Type::amount:
        if (!is_amount(text)) {
          return wrong("is not an amount of up to ten digits and up to two decimals");
        }
        break;
      case Type::count:
        if (!is_digits(text) || text.size() > 6) return wrong("is not a number of up to 6 digits");
        break;
      case Type::date:
        return is_date(text) ? "" : wrong("is not a date as 2026-12-31");
    }
    return !may_be_zero && is_zero(text) ? wrong("is zero") : "";
  }
};

const std::vector<RowReader::Column>& RowReader::columns_of(std::string_view kind) {
  static const std::vector<Column> buildings = {{"name", Type::text, true},
                                                {"address", Type::text, true},
                                                {"city", Type::text, false},
                                                {"area_m2", Type::amount, false}};
  static const std::vector<Column> comps = {
      {"building_name", Type::text, true},    {"building_address", Type::text, true},
      {"building_city", Type::text, false},   {"tenant", Type::text, true},
      {"area_m2", Type::amount, true, false}, {"rent_per_m2", Type::amount, true},
      {"signed_on", Type::date, true},        {"term_months", Type::count, false, false},
      {"note", Type::text, false, true, 4000}};
  return kind == "comps" ? comps : buildings;
}

RowReader::RowReader(std::string_view kind, const std::vector<std::string>& header) {
  const std::vector<Column>& known = columns_of(kind);
  for (const std::string& written : header) {
    const std::string name = lower(written);
    const auto found = std::find_if(known.begin(), known.end(),
                                    [&](const Column& column) { return column.name == name; });
    if (found != known.end()) {
      if (std::find(columns_.begin(), columns_.end(), &*found) != columns_.end()) {
        throw std::invalid_argument("the column " + name + " is there twice");
      }
      columns_.push_back(&*found);
    } else if (name == "id" || name == "created_at" || name == "updated_at") {
      columns_.push_back(nullptr);
    } else {
      throw std::invalid_argument(written.size() <= 60
                                      ? "there is no column \"" + written + "\""
                                      : "column " + std::to_string(columns_.size() + 1) +
                                            " is none of its columns");
    }
  }
  for (const Column& column : known) {
    if (column.is_required &&
        std::find(columns_.begin(), columns_.end(), &column) == columns_.end()) {
      throw std::invalid_argument(std::string("the column ") + column.name + " is missing");
    }
  }
}

std::variant<nlohmann::json, std::string> RowReader::read(
    const std::vector<std::string>& fields) const {
  if (fields.size() != columns_.size()) {
    return "there are " + std::to_string(fields.size()) + " fields and not " +
           std::to_string(columns_.size());
  }
  nlohmann::json row = nlohmann::json::object();
  for (std::size_t at = 0; at < fields.size(); ++at) {
    const Column* column = columns_[at];
    if (column == nullptr) continue;
    std::string_view text = fields[at];
    if (column->type == Type::text) text = without_guard(text);
    if (std::string fault = column->fault(text); !fault.empty()) return fault;
    if (!text.empty()) row[column->name] = text;
  }
  return row;
}

}  // namespace reference::imports
