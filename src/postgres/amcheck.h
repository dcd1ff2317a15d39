#pragma once

// Whether tables and indexes are what PostgreSQL itself expects, by its extension amcheck: the
// checks that pg_amcheck runs.
//
// The functions are those of the cluster's own version (TRAPS VE13). What is found is a value; an
// Error means that looking was not possible.

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "postgres/session.h"

namespace holdfast::postgres {

struct CheckedRelation {
  std::uint32_t oid = 0;
  std::string name;  ///< quoted, with its schema
  bool is_index = false;
  std::uint64_t pages = 0;  ///< of an index: those of its table count as well
};

/// Makes the extension's functions known to this session, as temporary ones: nothing of them is
/// ever in the cluster's own schemas, whose cluster that may be. False if its library is not
/// installed. Throws Error(postgres) if the cluster does not let us.
bool borrow_amcheck(Session& session);

/// B-tree indexes that are valid, and, from version 14 on, tables, of this database; the system's
/// own, too.
std::vector<CheckedRelation> checkable_relations(Session& session);

/// What is wrong with one of them, asked on a session that borrowed amcheck; empty: nothing. An
/// index is checked as a tree, and with `thorough` also for an entry for each row of its table. Of
/// a table all blocks are read, or `blocks` of them from a random one on. Throws Error(not_found)
/// for what cannot be looked at here, because a library that it needs is not installed.
std::vector<std::string> check_relation(Session& session, const CheckedRelation& relation,
                                        bool thorough, std::optional<std::uint64_t> blocks);

}  // namespace holdfast::postgres
