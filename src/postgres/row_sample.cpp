#include "postgres/row_sample.h"

#include <algorithm>
#include <charconv>
#include <random>
#include <set>

#include "base/error.h"
#include "postgres/connection.h"

namespace holdfast::postgres {

namespace {

/// MaxHeapTuplesPerPage of pages of 8 KiB.
constexpr unsigned rows_per_page = 291;

std::mt19937_64& random_numbers() {
  static std::mt19937_64 numbers{std::random_device{}()};
  return numbers;
}

std::set<std::uint64_t> some_blocks(std::uint64_t pages, std::uint64_t wanted) {
  std::set<std::uint64_t> blocks;
  if (pages <= wanted) {
    for (std::uint64_t block = 0; block < pages; ++block) blocks.insert(block);
    return blocks;
  }
  std::uniform_int_distribution<std::uint64_t> any(0, pages - 1);
  while (blocks.size() < wanted) blocks.insert(any(random_numbers()));
  return blocks;
}

/// An array of places, as PostgreSQL reads it.
std::string array_of(const std::vector<std::string>& places) {
  std::string text = "{";
  for (const std::string& place : places) {
    if (text.size() > 1) text += ',';
    text += '"' + place + '"';
  }
  return text + "}";
}

}  // namespace

void be_brief(Session& session, std::chrono::milliseconds statement) {
  session.query(
      "SELECT set_config('lock_timeout', '200ms', false), "
      "set_config('statement_timeout', $1, false), set_config('row_security', 'off', false), "
      // How values look as text must be the same here and in the restored cluster.
      "set_config('TimeZone', 'UTC', false), set_config('IntervalStyle', 'postgres', false), "
      "set_config('bytea_output', 'hex', false), set_config('lc_monetary', 'C', false)",
      {std::to_string(statement.count())});
}

std::vector<TableFacts> list_tables(Session& session, std::size_t limit) {
  std::vector<TableFacts> tables;
  const Rows rows = session.query(
      "SELECT c.oid, n.nspname, c.relname, pg_relation_filenode(c.oid), "
      "pg_relation_filepath(c.oid), "
      "greatest(c.relpages, 0), "
      "has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'), "
      "(SELECT md5(coalesce(string_agg(format('%s %s %s %s', attnum, atttypid, atttypmod, "
      "attisdropped), ',' ORDER BY attnum), '')) FROM pg_attribute "
      "WHERE attrelid = c.oid AND attnum > 0) "
      "FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
      "WHERE c.relkind IN ('r', 'm') AND c.relpersistence = 'p' "
      "AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_toast' "
      "AND pg_relation_filenode(c.oid) IS NOT NULL ORDER BY 6 DESC, 1 LIMIT $1::bigint",
      {std::to_string(limit)});
  for (const Row& row : rows) {
    TableFacts table;
    table.oid = number<std::uint32_t>(row.at(0).value_or(""));
    table.schema = row.at(1).value_or("");
    table.name = row.at(2).value_or("");
    table.file = number<std::uint32_t>(row.at(3).value_or(""));
    table.path = row.at(4).value_or("");
    table.pages = number<std::uint64_t>(row.at(5).value_or(""));
    table.readable = row.at(6) == "t";
    table.columns = row.at(7).value_or("");
    tables.push_back(std::move(table));
  }
  return tables;
}

std::uint64_t current_pages(Session& session, const TableFacts& table) {
  return number<std::uint64_t>(session.value(
      "SELECT coalesce(pg_relation_size($1::oid), 0) / current_setting('block_size')::bigint",
      {std::to_string(table.oid)}));
}

std::string quoted_name(const TableFacts& table) {
  const auto quoted = [](const std::string& name) {
    std::string out = "\"";
    for (const char c : name) out += c == '"' ? std::string("\"\"") : std::string(1, c);
    return out + "\"";
  };
  return quoted(table.schema) + "." + quoted(table.name);
}

TableSample sample_table(Session& session, const TableFacts& table, std::uint64_t blocks,
                         std::size_t wanted) {
  TableSample sample;
  const std::set<std::uint64_t> chosen = some_blocks(table.pages, blocks);
  sample.exact = chosen.size() == table.pages;
  if (chosen.empty()) return sample;
  std::string candidates = "{";
  for (const std::uint64_t block : chosen) {
    for (unsigned row = 1; row <= rows_per_page; ++row) {
      candidates += fmt::format("{}\"({},{})\"", candidates.size() > 1 ? "," : "", block, row);
    }
  }
  const Rows rows = session.query(
      fmt::format("SELECT ctid::text, xmax = '0' FROM ONLY {} WHERE ctid = ANY($1::tid[])",
                  quoted_name(table)),
      {candidates + "}"});
  sample.rows = rows.size() * table.pages / chosen.size();
  for (const Row& row : rows) {
    if (row.at(1) == "t") sample.places.push_back(row.at(0).value_or(""));
  }
  std::ranges::shuffle(sample.places, random_numbers());
  if (sample.places.size() > wanted) sample.places.resize(wanted);
  return sample;
}

std::map<std::string, SampledRow> read_rows(Session& session, const TableFacts& table,
                                            const std::vector<std::string>& places) {
  std::map<std::string, SampledRow> found;
  const Rows rows =
      session.query(fmt::format("SELECT ctid::text, xmin::text, "
                                "encode(sha256(convert_to(t.*::text, 'UTF8')), 'hex') "
                                "FROM ONLY {} AS t WHERE ctid = ANY($1::tid[]) AND xmax = '0'",
                                quoted_name(table)),
                    {array_of(places)});
  for (const Row& row : rows) {
    SampledRow sampled{row.at(0).value_or(""), row.at(1).value_or(""), row.at(2).value_or("")};
    found.emplace(sampled.place, std::move(sampled));
  }
  return found;
}

std::uint32_t block_of(std::string_view place) {
  std::uint32_t block = 0;
  if (!place.starts_with('(')) base::fail(base::Code::corrupt, "\"{}\" is no place", place);
  const auto [stop, failed] = std::from_chars(place.data() + 1, place.data() + place.size(), block);
  if (failed != std::errc() || *stop != ',') {
    base::fail(base::Code::corrupt, "\"{}\" is no place of a row", place);
  }
  return block;
}

}  // namespace holdfast::postgres
