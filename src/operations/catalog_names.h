#pragma once

// What relations were called when a backup was taken.
//
// WAL speaks of numbers. So that `events` can say which table was dropped, each backup carries the
// names of databases and of relations that have files (attachment "catalog" of its map). It is a
// convenience: a database that cannot be read is left out, and nothing that a restore needs is in
// it.

#include <map>
#include <optional>
#include <string>

#include "postgres/session.h"
#include "postgres/wal_body.h"

namespace holdfast::operations {

struct NamedRelation {
  postgres::RelationId id;  ///< of its files; the database is 0 for shared relations
  std::uint32_t oid = 0;
  char kind =
      'r';  ///< pg_class.relkind: r table, m materialised view, i index, t TOAST, S sequence
  std::string schema;
  std::string name;

  /// Nobody's rows: of the system's catalogs and schemas, or pieces of other relations.
  bool is_internal() const;
};

class CatalogNames {
 public:
  void add_database(std::uint32_t oid, std::string name);
  void add(NamedRelation relation);

  const std::string* database(std::uint32_t oid) const;
  const NamedRelation* relation(const postgres::RelationId& id) const;
  const NamedRelation* relation(std::uint32_t database, std::uint32_t oid) const;
  std::size_t size() const { return relations_.size(); }

  /// Lines of text, in a form that stays readable: fields between tabs, and in them a tab, a line
  /// feed and a backslash as \t, \n and \\.
  std::string text() const;
  /// Throws Error(corrupt) for what text() did not write.
  static CatalogNames parse(std::string_view text);

 private:
  std::map<std::uint32_t, std::string> databases_;
  std::map<postgres::RelationId, NamedRelation> relations_;
  std::map<std::pair<std::uint32_t, std::uint32_t>, postgres::RelationId> by_oid_;
};

/// Asks a server, database by database. Those that cannot be connected to or read are left out, and
/// what goes beyond 200,000 relations.
CatalogNames read_catalog_names(postgres::Session& session, const std::string& connection);

}  // namespace holdfast::operations
