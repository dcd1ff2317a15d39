#include "resources/list_query.h"

#include <fmt/format.h>

#include <charconv>
#include <optional>
#include <stdexcept>

#include "http/problem.h"
#include "resources/cursor.h"
#include "resources/fields.h"

namespace reference::resources {

namespace {

constexpr std::size_t most_rows = 500;

http::Problem bad_parameter(const std::string& name, std::string_view wrong) {
  return {400, "bad_parameter", fmt::format("cannot understand \"{}\": it {}", name, wrong)};
}

std::size_t limit_of(const std::string& text) {
  std::size_t limit = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), limit);
  if (error != std::errc() || end != text.data() + text.size() || limit < 1 || limit > most_rows) {
    throw bad_parameter("limit", fmt::format("must be a number from 1 to {}", most_rows));
  }
  return limit;
}

struct Filter {
  const Column* column;
  std::string_view comparison;
};

/// What a parameter compares; nullopt if it is no filter.
std::optional<Filter> filter_of(const Table& table, std::string_view name) {
  const Column* column = table.find(name);
  std::string_view comparison = "=";
  for (const auto& [ending, meaning] :
       {std::pair{std::string_view("_from"), ">="}, std::pair{std::string_view("_to"), "<="}}) {
    if (column != nullptr || !name.ends_with(ending)) continue;
    column = table.find(name.substr(0, name.size() - ending.size()));
    const bool ordered =
        column != nullptr && (column->kind == Kind::number || column->kind == Kind::integer ||
                              column->kind == Kind::date);
    if (!ordered) return std::nullopt;
    comparison = meaning;
  }
  if (column == nullptr || !column->filter) return std::nullopt;
  return Filter{column, comparison};
}

}  // namespace

ListQuery list_query(const Table& table, const std::string& organisation,
                     const http::Request& request) {
  ListQuery query;
  query.parameters = {organisation};
  std::string where = table.tenant + " = $1";
  const auto parameter = [&query](const std::string& value) {
    query.parameters.emplace_back(value);
    return query.parameters.size();
  };
  for (const auto& [name, value] : request.query) {
    request.parameter(name);  // not twice
    query.name.append(name).append("=").append(value).append("&");
    if (name == "limit") {
      query.limit = limit_of(value);
    } else if (name == "cursor") {
      const Cursor cursor = parse_cursor(value);
      const std::size_t time = parameter(cursor.created_at);
      where += fmt::format(
          " AND (created_at, id) < "
          "('epoch'::timestamptz + ${}::bigint * interval '1 microsecond', ${}::uuid)",
          time, parameter(cursor.id));
    } else if (const auto filter = filter_of(table, name)) {
      try {
        const std::size_t at = parameter(parse(*filter->column, value));
        where += fmt::format(" AND {} {} ${}::{}", filter->column->name, filter->comparison, at,
                             sql_type(filter->column->kind));
      } catch (const std::invalid_argument& error) {
        throw bad_parameter(name, error.what());
      }
    } else {
      throw bad_parameter(name, "is not known here");
    }
  }
  query.sql = fmt::format(
      "SELECT (extract(epoch FROM created_at) * 1000000)::bigint, id, {} FROM {} WHERE {} "
      "ORDER BY created_at DESC, id DESC LIMIT ${}::bigint",
      table.json(), table.name, where, parameter(std::to_string(query.limit + 1)));
  return query;
}

}  // namespace reference::resources
