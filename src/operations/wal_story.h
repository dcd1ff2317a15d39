#pragma once

// WAL told as a story: what happened to tables and databases, transaction by transaction.
//
// A record says little by itself. That files of a relation are removed at a commit happens when it
// is dropped, but also when it is truncated, rewritten (VACUUM FULL, CLUSTER, ALTER TABLE), or
// moved. From 15 on a commit also says whose statistics are forgotten, which is true of dropped
// relations only; and a rewritten one goes through a transient relation that comes and goes with
// the transaction. On 13 and 14, which say neither, what a transaction removes was dropped if it
// made no file, and truncated otherwise. A table that is truncated and another one that is
// rewritten in one transaction are not told apart.
//
// A table that is rewritten, moved or truncated gets new files. Their numbers inherit its name, so
// that it is still known until the next backup: files are replaced in the order in which they are
// made, and a rewrite of one table makes its new file first.

#include <functional>
#include <map>
#include <unordered_map>
#include <vector>

#include "operations/catalog_names.h"
#include "postgres/row_change.h"
#include "postgres/transaction_record.h"
#include "postgres/wal_changes.h"

namespace holdfast::operations {

/// The names that several backups know. Backups are asked from the newest that is not after the
/// moment, back to the oldest, then those after it.
class NameBook {
 public:
  void add(postgres::Lsn from, CatalogNames names) { books_[from] = std::move(names); }
  const NamedRelation* relation(const postgres::RelationId& id, postgres::Lsn at) const;
  const NamedRelation* relation(std::uint32_t database, std::uint32_t oid, postgres::Lsn at) const;
  const std::string* database(std::uint32_t oid, postgres::Lsn at) const;
  /// Did a backup before `at` know this database?
  bool knew_database(std::uint32_t oid, postgres::Lsn at) const;

 private:
  template <typename Find>
  auto ask(postgres::Lsn at, const Find& find) const;
  std::map<postgres::Lsn, CatalogNames> books_;
};

struct RowCounts {
  std::uint64_t inserted = 0;
  std::uint64_t updated = 0;
  std::uint64_t deleted = 0;
};

/// A relation or database that something happened to, as it can best be called.
struct EventObject {
  std::string name;      ///< "public.t", or "relation 16384" if no backup knows it
  std::string database;  ///< where it is, by name, or by number
  bool operator==(const EventObject&) const = default;
};

struct Event {
  enum class Kind { drop, truncate, bulk_delete, drop_database, create_database, restore_point };
  Kind kind = Kind::drop;
  base::Timestamp time;           ///< of the commit; of a restore point its own
  std::uint32_t transaction = 0;  ///< 0: none, or several
  postgres::Lsn start;            ///< of the commit record, or the restore point's
  postgres::Lsn before;           ///< a restore to this LSN, exclusive, is the state just before it
  std::vector<EventObject> objects;
  std::uint64_t rows = 0;  ///< of a bulk delete
  std::string name;        ///< of a restore point
  bool reachable = false;  ///< a backup and gapless WAL lead to `before` (find_events tells)
};
std::string_view to_string(Event::Kind kind);

/// The end of a transaction.
struct TransactionStory {
  bool committed = false;
  base::Timestamp time;
  std::uint32_t transaction = 0;
  postgres::Lsn start;                             ///< of the record that ended it
  std::map<postgres::RelationId, RowCounts> rows;  ///< of tables that are not the system's
};

class WalStory {
 public:
  /// A transaction that deletes more rows of one relation than this is an event.
  static constexpr std::uint64_t many_rows = 1000;

  explicit WalStory(const NameBook& names) : names_(names) {}

  /// Records in order. At the end of a transaction `on_end` is called, then `on_event` for each
  /// event in it.
  void add(const postgres::WalRecord& record,
           const std::function<void(const TransactionStory&)>& on_end,
           const std::function<void(const Event&)>& on_event);

  EventObject describe(const postgres::RelationId& id, postgres::Lsn at) const;

 private:
  /// What a transaction, or a subtransaction, has done so far.
  struct Open {
    std::map<postgres::RelationId, RowCounts> rows;
    std::vector<postgres::RelationId> created;  ///< main forks
    std::vector<postgres::Truncation> truncated;
    std::vector<std::uint32_t> created_databases;
    struct DroppedDatabase {
      std::uint32_t oid;
      postgres::Lsn start;
    };
    std::vector<DroppedDatabase> dropped_databases;
    postgres::Lsn invalidated;  ///< where it, or it to be, marked a database as half dropped
    void merge(Open&& other);
  };
  struct Ended;
  void note_rows(const postgres::WalRecord& record);
  void note_files(const postgres::WalRecord& record);
  void end_transaction(const postgres::WalRecord& record,
                       const std::function<void(const TransactionStory&)>& on_end,
                       const std::function<void(const Event&)>& on_event);
  Open close(std::uint32_t transaction, const postgres::TransactionEnd& end);
  bool is_user_table(const postgres::RelationId& id, postgres::Lsn at) const;
  std::vector<Event> events_of(const Ended& ended) const;
  const NamedRelation* named(const postgres::RelationId& id, postgres::Lsn at) const;
  void learn_names(const Ended& ended);
  void find_relations(const Ended& ended, Event& drop, Event& truncate) const;
  void find_databases(const Ended& ended, std::vector<Event>& events) const;
  EventObject describe(const NamedRelation& relation, postgres::Lsn at) const;
  std::string database_name(std::uint32_t oid, postgres::Lsn at) const;

  const NameBook& names_;
  std::unordered_map<std::uint32_t, Open> open_;
  std::map<postgres::RelationId, NamedRelation> learned_;  ///< files that inherited a name
  /// The last update in place of each row of shared catalogs that may mark a database so.
  std::map<std::tuple<postgres::RelationId, std::uint32_t, std::uint16_t>, postgres::Lsn> in_place_;
};

}  // namespace holdfast::operations
