#include "imports/insert.h"

#include <nlohmann/json.hpp>
#include <set>

#include "resources/table.h"

namespace reference::imports {
namespace {

using nlohmann::json;

// $1 the rows, $2 the organisation, $3 the job, $4 who.
/// Behind an INSERT in `WITH made AS (`: logs what it made, as the tables' own interface would.
std::string logged(const std::string& table) {
  return " RETURNING *)"
         " INSERT INTO audit_logs (organisation, actor, action, table_name, row_id, after)"
         " SELECT organisation, $4, 'create', '" +
         table + "', id, (" + resources::table_of(table).json() + ")::jsonb FROM made";
}

/// Lines whose building is there already, or on an earlier line of the same batch.
std::set<std::uint64_t> known_buildings(database::Transaction& transaction, const ImportOf& import,
                                        const json& rows) {
  const database::Rows found = transaction.run(
      "SELECT line FROM (SELECT line, name, address, row_number() OVER"
      "   (PARTITION BY lower(name), lower(address) ORDER BY line) AS nth"
      "   FROM jsonb_to_recordset($1::jsonb) AS r(line bigint, name text, address text)) AS r"
      " WHERE nth > 1 OR EXISTS (SELECT FROM buildings AS b WHERE b.organisation = $2"
      "   AND lower(b.name) = lower(r.name) AND lower(b.address) = lower(r.address))",
      {rows.dump(), import.organisation});
  std::set<std::uint64_t> lines;
  for (std::size_t row = 0; row < found.size(); ++row) {
    lines.insert(std::stoull(std::string(found.text(row, 0))));
  }
  return lines;
}

void insert_buildings(database::Transaction& transaction, const ImportOf& import,
                      const json& rows) {
  static const std::string sql =
      "WITH made AS (INSERT INTO buildings"
      " (organisation, name, address, city, area_m2, import_job, import_line)"
      " SELECT $2, name, address, city, area_m2, $3::uuid, line"
      " FROM jsonb_to_recordset($1::jsonb)"
      "   AS r(line bigint, name text, address text, city text, area_m2 numeric)"
      " ORDER BY line" +
      logged("buildings");
  transaction.run(sql, {rows.dump(), import.organisation, import.job, import.actor});
}

void insert_comps(database::Transaction& transaction, const ImportOf& import, const json& rows) {
  static const std::string make_buildings =
      "WITH made AS (INSERT INTO buildings"
      " (organisation, name, address, city, import_job, import_line)"
      " SELECT DISTINCT ON (lower(building_name), lower(building_address))"
      "   $2, building_name, building_address, building_city, $3::uuid, line"
      " FROM jsonb_to_recordset($1::jsonb) AS r(line bigint, building_name text,"
      "   building_address text, building_city text)"
      " WHERE NOT EXISTS (SELECT FROM buildings AS b WHERE b.organisation = $2"
      "   AND lower(b.name) = lower(building_name)"
      "   AND lower(b.address) = lower(building_address))"
      " ORDER BY lower(building_name), lower(building_address), line" +
      logged("buildings");
  const database::Parameters parameters = {rows.dump(), import.organisation, import.job,
                                           import.actor};
  transaction.run(make_buildings, parameters);
  static const std::string make_comps =
      "WITH made AS (INSERT INTO comps (organisation, building, tenant, area_m2, rent_per_m2,"
      "   signed_on, term_months, note, import_job, import_line)"
      " SELECT $2, (SELECT b.id FROM buildings AS b WHERE b.organisation = $2"
      "     AND lower(b.name) = lower(building_name)"
      "     AND lower(b.address) = lower(building_address) ORDER BY b.created_at, b.id LIMIT 1),"
      "   tenant, area_m2, rent_per_m2, signed_on, term_months, note, $3::uuid, line"
      " FROM jsonb_to_recordset($1::jsonb) AS r(line bigint, building_name text,"
      "   building_address text, tenant text, area_m2 numeric, rent_per_m2 numeric,"
      "   signed_on date, term_months integer, note text)"
      " ORDER BY line" +
      logged("comps");
  transaction.run(make_comps, parameters);
}

void insert_all(database::Transaction& transaction, const ImportOf& import, const json& rows) {
  if (import.kind == "comps") {
    insert_comps(transaction, import, rows);
  } else {
    insert_buildings(transaction, import, rows);
  }
}

/// The row itself is refused: its data (22), a constraint (23), a limit (54).
bool is_about_the_row(const database::Refused& refused) {
  const std::string kind = refused.sqlstate().substr(0, 2);
  return kind == "22" || kind == "23" || kind == "54";
}

/// False, with the transaction as it was before, if the rows are refused.
bool could_insert(database::Transaction& transaction, const ImportOf& import, const json& rows,
                  std::string& reason) {
  transaction.run("SAVEPOINT rows");
  try {
    insert_all(transaction, import, rows);
  } catch (const database::Refused& refused) {
    if (!is_about_the_row(refused)) throw;
    reason = refused.what();
    transaction.run("ROLLBACK TO SAVEPOINT rows");
    return false;
  }
  transaction.run("RELEASE SAVEPOINT rows");
  return true;
}

}  // namespace

void insert_rows(database::Transaction& transaction, const ImportOf& import,
                 const std::vector<json>& rows, std::vector<BadLine>& bad) {
  if (rows.empty()) return;
  // Two imports of an organisation must not make the same building.
  transaction.run("SELECT pg_advisory_xact_lock(hashtextextended('imports of ' || $1, 0))",
                  {import.organisation});
  json wanted = rows;
  if (import.kind == "buildings") {
    const std::set<std::uint64_t> known = known_buildings(transaction, import, wanted);
    wanted = json::array();
    for (const json& row : rows) {
      const auto line = row["line"].get<std::uint64_t>();
      if (known.contains(line)) {
        bad.push_back({line, "there is a building of this name and address already"});
      } else {
        wanted.push_back(row);
      }
    }
  }
  std::string reason;
  if (wanted.empty() || could_insert(transaction, import, wanted, reason)) return;
  for (const json& row : wanted) {
    if (!could_insert(transaction, import, json::array({row}), reason)) {
      bad.push_back({row["line"].get<std::uint64_t>(), reason});
    }
  }
}

}  // namespace reference::imports
