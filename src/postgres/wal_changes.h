#pragma once

// What a WAL record changes in the files of a cluster, for PostgreSQL 13 to 18.
//
// This is what a map of changed blocks is made from, so it errs on one side only: a record that is
// not wholly understood is refused, and then nothing may be concluded about files that seem
// unchanged. What WAL does not tell is not told here either: visibility map pages that a heap
// record clears have no block reference, free space maps are hardly logged, hint bits only with
// checksums or wal_log_hints, unlogged relations (but for their init forks) never; and a server
// with wal_level = minimal may write whole files without WAL (`parameters` tells).

#include <functional>

#include "postgres/wal_body.h"

namespace holdfast::postgres {

struct FileChange {
  enum class Kind {
    block,            ///< one block of one fork
    create_file,      ///< a new file for this fork of the relation
    truncate,         ///< of one fork, from `block` on; of the visibility and free space maps the
                      ///< length is not in the record, and `block` is 0
    drop_relation,    ///< at the end of a transaction: all files of the relation are removed
    create_database,  ///< a directory of a database is made as a copy of another's files: of
                      ///< `relation`, tablespace and database say which (the new one)
    create_database_by_log,  ///< likewise, from 15; but what goes into it is logged
    drop_database,           ///< a directory of a database is removed; one for each tablespace
    create_tablespace,       ///< of `relation`, the tablespace says which
    drop_tablespace,         ///< likewise
    relation_map,            ///< pg_filenode.map of the database (0: the shared one) is rewritten
    parameters,              ///< of the server: `value` is wal_level (0 minimal, 1 replica, 2
                             ///< logical), `flag` wal_log_hints
    full_page_writes,        ///< is `flag` from now on
  };
  Kind kind = Kind::block;
  RelationId relation;
  std::uint8_t fork = 0;  ///< 0 main, 1 free space map, 2 visibility map, 3 init
  std::uint32_t block = 0;
  bool has_image = false;  ///< of a block: the whole page is in the record, and replay restores it
  bool will_init = false;  ///< of a block: replay makes the page anew
  std::uint32_t value = 0;
  bool flag = false;
};

/// Calls `visit` for everything that the record changes in files, other than SLRUs and control
/// data. False if that cannot be told: a resource manager that this version does not have or that
/// came with an extension (128 and above, from 15), a kind of record that is not known to do what
/// it does, or one that does not parse. `visit` may have been called before that was found.
bool changes_of(const WalRecord& record, const std::function<void(const FileChange&)>& visit);

}  // namespace holdfast::postgres
