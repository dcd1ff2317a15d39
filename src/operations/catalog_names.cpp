#include "operations/catalog_names.h"

#include <charconv>
#include <vector>

#include "base/error.h"
#include "base/workers.h"

namespace holdfast::operations {

using postgres::RelationId;

namespace {

constexpr std::string_view first_line = "holdfast catalog 1";
constexpr std::size_t most_relations = 200'000;
constexpr std::uint32_t global_tablespace = 1664;

void append_field(std::string& line, std::string_view field) {
  line += '\t';
  for (const char c : field) {
    if (c == '\t') {
      line += "\\t";
    } else if (c == '\n') {
      line += "\\n";
    } else if (c == '\\') {
      line += "\\\\";
    } else {
      line += c;
    }
  }
}

[[noreturn]] void refuse(std::string_view line) {
  base::fail(base::Code::corrupt, "cannot read the names in a backup: \"{}\"", line);
}

std::vector<std::string> fields_of(std::string_view line) {
  std::vector<std::string> fields{{}};
  for (std::size_t i = 0; i < line.size(); ++i) {
    char c = line[i];
    if (c == '\t') {
      fields.emplace_back();
      continue;
    }
    if (c == '\\') {
      if (++i == line.size()) refuse(line);
      c = line[i] == 't' ? '\t' : line[i] == 'n' ? '\n' : line[i];
    }
    fields.back() += c;
  }
  return fields;
}

std::uint32_t number(const std::string& text) {
  std::uint32_t value = 0;
  const auto [stop, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failed != std::errc() || stop != text.data() + text.size()) refuse(text);
  return value;
}

void read_relations(const std::string& connection, const std::string& database, std::uint32_t oid,
                    CatalogNames& names) {
  postgres::Session inside(connection, database);
  inside.query("SELECT set_config('lock_timeout', '2s', false)");
  const postgres::Rows rows = inside.query(
      "SELECT c.oid, pg_relation_filenode(c.oid), CASE WHEN c.reltablespace = 0 THEN "
      "(SELECT dattablespace FROM pg_database WHERE datname = current_database()) "
      "ELSE c.reltablespace END, c.relkind, n.nspname, c.relname "
      "FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
      "WHERE c.relkind IN ('r', 'm', 't', 'i', 'S') AND c.relpersistence <> 't' "
      "AND pg_relation_filenode(c.oid) IS NOT NULL ORDER BY c.oid DESC LIMIT $1::bigint",
      {std::to_string(most_relations - names.size())});
  for (const postgres::Row& row : rows) {
    NamedRelation relation;
    relation.oid = number(row[0].value_or(""));
    relation.id.relation = number(row[1].value_or(""));
    relation.id.tablespace = number(row[2].value_or(""));
    relation.id.database = relation.id.tablespace == global_tablespace ? 0 : oid;
    relation.kind = row[3].value_or("r").front();
    relation.schema = row[4].value_or("");
    relation.name = row[5].value_or("");
    names.add(std::move(relation));
  }
}

}  // namespace

bool NamedRelation::is_internal() const {
  return (kind != 'r' && kind != 'm') || schema == "pg_catalog" || schema == "information_schema";
}

void CatalogNames::add_database(std::uint32_t oid, std::string name) {
  databases_[oid] = std::move(name);
}

void CatalogNames::add(NamedRelation relation) {
  by_oid_[{relation.id.database, relation.oid}] = relation.id;
  relations_[relation.id] = std::move(relation);
}

const std::string* CatalogNames::database(std::uint32_t oid) const {
  const auto found = databases_.find(oid);
  return found == databases_.end() ? nullptr : &found->second;
}

const NamedRelation* CatalogNames::relation(const RelationId& id) const {
  const auto found = relations_.find(id);
  return found == relations_.end() ? nullptr : &found->second;
}

const NamedRelation* CatalogNames::relation(std::uint32_t database, std::uint32_t oid) const {
  const auto found = by_oid_.find({database, oid});
  return found == by_oid_.end() ? nullptr : relation(found->second);
}

std::string CatalogNames::text() const {
  std::string text(first_line);
  text += '\n';
  for (const auto& [oid, name] : databases_) {
    text += fmt::format("database\t{}", oid);
    append_field(text, name);
    text += '\n';
  }
  for (const auto& [id, relation] : relations_) {
    text += fmt::format("relation\t{}\t{}\t{}\t{}\t{}", relation.oid, id.tablespace, id.database,
                        id.relation, relation.kind);
    append_field(text, relation.schema);
    append_field(text, relation.name);
    text += '\n';
  }
  return text;
}

CatalogNames CatalogNames::parse(std::string_view text) {
  CatalogNames names;
  bool is_first = true;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    if (end == std::string_view::npos || (is_first && line != first_line)) refuse(line);
    text.remove_prefix(end + 1);
    if (std::exchange(is_first, false)) continue;
    const std::vector<std::string> fields = fields_of(line);
    if (fields[0] == "database" && fields.size() == 3) {
      names.add_database(number(fields[1]), fields[2]);
    } else if (fields[0] == "relation" && fields.size() == 8 && fields[5].size() == 1) {
      names.add({{number(fields[2]), number(fields[3]), number(fields[4])},
                 number(fields[1]),
                 fields[5].front(),
                 fields[6],
                 fields[7]});
    } else {
      refuse(line);
    }
  }
  if (is_first) refuse("");
  return names;
}

CatalogNames read_catalog_names(postgres::Session& session, const std::string& connection) {
  CatalogNames names;
  try {
    for (const postgres::Row& row :
         session.query("SELECT oid, datname, datallowconn FROM pg_database ORDER BY datname")) {
      const std::uint32_t oid = number(row[0].value_or(""));
      const std::string name = row[1].value_or("");
      names.add_database(oid, name);
      base::stop_if_interrupted();
      if (row[2] != "t" || names.size() >= most_relations) continue;
      try {
        read_relations(connection, name, oid, names);
      } catch (const base::Error& error) {
        // It refuses us, is being dropped, or somebody holds locks on its catalog.
        if (error.code() == base::Code::interrupted) throw;
      }
    }
  } catch (const base::Error& error) {
    if (error.code() == base::Code::interrupted) throw;
  }
  return names;
}

}  // namespace holdfast::operations
