#include "postgres/amcheck.h"

#include <random>

#include "base/error.h"
#include "postgres/connection.h"

namespace holdfast::postgres {

namespace {

std::vector<std::string> check_table(Session& session, const CheckedRelation& table,
                                     std::optional<std::uint64_t> blocks) {
  std::string range = ", NULL, NULL";
  if (blocks && table.pages > *blocks) {
    static std::mt19937_64 numbers{std::random_device{}()};
    std::uniform_int_distribution<std::uint64_t> any(0, table.pages - *blocks);
    const std::uint64_t first = any(numbers);
    range = fmt::format(", {}, {}", first, first + *blocks - 1);
  }
  std::vector<std::string> problems;
  for (const Row& row : session.query(fmt::format(
           "SELECT blkno, offnum, msg FROM pg_temp.verify_heapam({}::oid, false, true, 'none'{}) "
           "LIMIT 20",
           table.oid, range))) {
    problems.push_back(fmt::format("{}: block {}, row {}: {}", table.name, row.at(0).value_or("?"),
                                   row.at(1).value_or("-"), row.at(2).value_or("")));
  }
  return problems;
}

}  // namespace

bool borrow_amcheck(Session& session) {
  try {
    session.query(
        "CREATE OR REPLACE FUNCTION pg_temp.bt_index_check(regclass, boolean) RETURNS void "
        "AS '$libdir/amcheck', 'bt_index_check' LANGUAGE C STRICT");
    if (session.version_number() >= 140000) {
      session.query(
          "CREATE OR REPLACE FUNCTION pg_temp.verify_heapam(regclass, boolean, boolean, text, "
          "bigint, bigint, OUT blkno bigint, OUT offnum integer, OUT attnum integer, OUT msg text) "
          "RETURNS SETOF record AS '$libdir/amcheck', 'verify_heapam' LANGUAGE C");
    }
  } catch (const base::Error& error) {
    if (error.message().find("could not access file") == std::string::npos) throw;
    return false;
  }
  return true;
}

std::vector<CheckedRelation> checkable_relations(Session& session) {
  std::vector<CheckedRelation> relations;
  std::string sql =
      "SELECT c.oid, format('%I.%I', n.nspname, c.relname), true, "
      "coalesce((pg_relation_size(c.oid) + pg_relation_size(i.indrelid)) / 8192, 0) "
      "FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid "
      "JOIN pg_namespace AS n ON n.oid = c.relnamespace JOIN pg_am AS a ON a.oid = c.relam "
      "WHERE a.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence = 'p' "
      "AND i.indisvalid AND i.indisready";
  if (session.version_number() >= 140000) {
    sql +=
        " UNION ALL SELECT c.oid, format('%I.%I', n.nspname, c.relname), false, "
        "coalesce(pg_relation_size(c.oid) / 8192, 0) "
        "FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
        "WHERE c.relkind IN ('r', 'm', 't') AND c.relpersistence = 'p' "
        "AND pg_relation_filenode(c.oid) IS NOT NULL";
  }
  for (const Row& row : session.query(sql)) {
    relations.push_back({number<std::uint32_t>(row.at(0).value_or("")), row.at(1).value_or(""),
                         row.at(2) == "t", number<std::uint64_t>(row.at(3).value_or(""))});
  }
  return relations;
}

std::vector<std::string> check_relation(Session& session, const CheckedRelation& relation,
                                        bool thorough, std::optional<std::uint64_t> blocks) {
  try {
    if (!relation.is_index) return check_table(session, relation, blocks);
    session.query(
        fmt::format("SELECT pg_temp.bt_index_check({}::oid, {})", relation.oid, thorough));
    return {};
  } catch (const base::Error& error) {
    if (error.code() != base::Code::postgres) throw;
    for (const char* absent : {"could not access file", "could not load library"}) {
      if (error.message().find(absent) == std::string::npos) continue;
      throw base::Error(base::Code::not_found, error.message());
    }
    return {fmt::format("{}: {}", relation.name, error.message())};
  }
}

}  // namespace holdfast::postgres
