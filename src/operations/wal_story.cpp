#include "operations/wal_story.h"

#include <algorithm>
#include <array>
#include <set>

#include "base/error.h"

namespace holdfast::operations {

using postgres::FileChange;
using postgres::Lsn;
using postgres::RelationId;
using postgres::RowChange;
using postgres::WalRecord;
namespace managers = postgres::resource_manager;
namespace operation = postgres::transaction_operation;

namespace {

constexpr std::uint32_t global_tablespace = 1664;
constexpr std::uint32_t first_user_number = 16384;  // FirstNormalObjectId

template <typename Value>
bool holds(const std::vector<Value>& values, const Value& value) {
  return std::ranges::find(values, value) != values.end();
}

/// Is there something in the record that can be datconnlimit = -2, which marks a database that is
/// being dropped (DATCONNLIMIT_INVALID_DB)?
bool may_invalidate(const WalRecord& record, const RowChange& change) {
  static constexpr std::array<std::uint8_t, 4> mark{0xFE, 0xFF, 0xFF, 0xFF};
  return change.has_image || !std::ranges::search(record.body, mark).empty();
}

void add_object(Event& event, EventObject object) {
  if (!holds(event.objects, object)) event.objects.push_back(std::move(object));
}

}  // namespace

template <typename Find>
auto NameBook::ask(Lsn at, const Find& find) const {
  const auto later = books_.upper_bound(at);
  decltype(find(CatalogNames())) found = nullptr;
  for (auto book = later; found == nullptr && book != books_.begin();) {
    found = find((--book)->second);
  }
  for (auto book = later; found == nullptr && book != books_.end(); ++book) {
    found = find(book->second);
  }
  return found;
}

const NamedRelation* NameBook::relation(const RelationId& id, Lsn at) const {
  return ask(at, [&](const CatalogNames& names) { return names.relation(id); });
}

const NamedRelation* NameBook::relation(std::uint32_t database, std::uint32_t oid, Lsn at) const {
  return ask(at, [&](const CatalogNames& names) { return names.relation(database, oid); });
}

const std::string* NameBook::database(std::uint32_t oid, Lsn at) const {
  return ask(at, [&](const CatalogNames& names) { return names.database(oid); });
}

bool NameBook::knew_database(std::uint32_t oid, Lsn at) const {
  for (auto book = books_.begin(); book != books_.end() && book->first <= at; ++book) {
    if (book->second.database(oid) != nullptr) return true;
  }
  return false;
}

std::string_view to_string(Event::Kind kind) {
  switch (kind) {
    case Event::Kind::drop:
      return "drop";
    case Event::Kind::truncate:
      return "truncate";
    case Event::Kind::bulk_delete:
      return "bulk delete";
    case Event::Kind::drop_database:
      return "drop database";
    case Event::Kind::create_database:
      return "create database";
    case Event::Kind::restore_point:
      return "restore point";
  }
  return {};
}

/// A transaction that has just ended.
struct WalStory::Ended {
  TransactionStory story;
  Open done;
  std::vector<RelationId> removed;                                 ///< files
  std::vector<std::pair<std::uint32_t, std::uint32_t>> forgotten;  ///< relations: database, oid
  std::vector<std::uint32_t> forgotten_databases;
  bool says_what_is_forgotten = false;

  /// Does the transaction rewrite a relation, by way of one that comes and goes with it?
  bool is_rewrite() const {
    return std::ranges::any_of(forgotten, [&](const auto& each) {
      return std::ranges::any_of(done.created, [&](const RelationId& id) {
        return id.relation == each.second && !holds(removed, id);
      });
    });
  }
};

void WalStory::Open::merge(Open&& other) {
  for (const auto& [id, counts] : other.rows) {
    rows[id].inserted += counts.inserted;
    rows[id].updated += counts.updated;
    rows[id].deleted += counts.deleted;
  }
  const auto append = [](auto& to, const auto& from) {
    to.insert(to.end(), from.begin(), from.end());
  };
  append(created, other.created);
  append(truncated, other.truncated);
  append(created_databases, other.created_databases);
  append(dropped_databases, other.dropped_databases);
  if (!invalidated) invalidated = other.invalidated;
}

void WalStory::note_rows(const WalRecord& record) {
  if (auto truncation = postgres::truncation_of(record)) {
    open_[record.transaction].truncated.push_back(*std::move(truncation));
    return;
  }
  const auto change = postgres::row_change_of(record);
  if (!change) return;
  const auto row = std::tuple(change->relation, change->block, change->offset);
  const bool is_shared = change->relation.tablespace == global_tablespace;
  if (change->kind == RowChange::Kind::updated_in_place) {
    if (is_shared && may_invalidate(record, *change)) in_place_[row] = record.start;
    return;
  }
  if (record.transaction == 0) return;
  Open& open = open_[record.transaction];
  if (is_shared && change->kind == RowChange::Kind::deleted) {
    const auto marked = in_place_.find(row);
    if (marked != in_place_.end()) open.invalidated = marked->second;
  }
  RowCounts& counts = open.rows[change->relation];
  if (change->kind == RowChange::Kind::inserted) counts.inserted += change->rows;
  if (change->kind == RowChange::Kind::updated) counts.updated += change->rows;
  if (change->kind == RowChange::Kind::deleted) counts.deleted += change->rows;
}

void WalStory::note_files(const WalRecord& record) {
  if (record.transaction == 0) return;
  postgres::changes_of(record, [&](const FileChange& change) {
    Open& open = open_[record.transaction];
    switch (change.kind) {
      case FileChange::Kind::create_file:
        if (change.fork == 0) open.created.push_back(change.relation);
        break;
      case FileChange::Kind::create_database:
      case FileChange::Kind::create_database_by_log:
        if (!holds(open.created_databases, change.relation.database)) {
          open.created_databases.push_back(change.relation.database);
        }
        break;
      case FileChange::Kind::drop_database:
        open.dropped_databases.push_back({change.relation.database, record.start});
        break;
      default:
        break;
    }
  });
}

WalStory::Open WalStory::close(std::uint32_t transaction, const postgres::TransactionEnd& end) {
  Open all;
  const auto take = [&](std::uint32_t number) {
    auto part = open_.extract(number);
    if (part) all.merge(std::move(part.mapped()));
  };
  take(transaction);
  for (std::size_t at = 0; at < end.subtransactions.size(); at += 4) {
    take(base::load<std::uint32_t>(end.subtransactions.data() + at));
  }
  return all;
}

const NamedRelation* WalStory::named(const RelationId& id, Lsn at) const {
  if (const NamedRelation* known = names_.relation(id, at)) return known;
  const auto learned = learned_.find(id);
  return learned == learned_.end() ? nullptr : &learned->second;
}

void WalStory::learn_names(const Ended& ended) {
  std::vector<RelationId> removed;
  std::vector<RelationId> created;
  // The commit record lists them from the last to the first.
  std::ranges::remove_copy_if(ended.removed.rbegin(), ended.removed.rend(),
                              std::back_inserter(removed),
                              [&](const RelationId& id) { return holds(ended.done.created, id); });
  std::ranges::remove_copy_if(ended.done.created, std::back_inserter(created),
                              [&](const RelationId& id) { return holds(ended.removed, id); });
  const auto inherit = [&](const RelationId& id, NamedRelation relation) {
    relation.id = id;
    learned_[id] = std::move(relation);
  };
  const auto known = [&](const RelationId& id) { return named(id, ended.story.start); };
  if (ended.is_rewrite()) {
    const auto is_table = [&](const RelationId& id) {
      return known(id) != nullptr && !known(id)->is_internal();
    };
    const auto table = std::ranges::find_if(removed, is_table);
    if (created.empty() || std::ranges::count_if(removed, is_table) != 1) return;
    NamedRelation relation = *known(*table);
    inherit(created.front(), relation);
    relation.kind = 't';  // its TOAST table and indexes
    for (std::size_t i = 1; i < created.size(); ++i) inherit(created[i], relation);
  } else if (removed.size() == created.size()) {
    for (std::size_t i = 0; i < removed.size(); ++i) {
      if (const NamedRelation* relation = known(removed[i])) inherit(created[i], *relation);
    }
  }
}

bool WalStory::is_user_table(const RelationId& id, Lsn at) const {
  if (const NamedRelation* known = named(id, at)) return !known->is_internal();
  return id.tablespace != global_tablespace && id.relation >= first_user_number;
}

std::string WalStory::database_name(std::uint32_t oid, Lsn at) const {
  const std::string* name = names_.database(oid, at);
  return name == nullptr ? fmt::format("database {}", oid) : *name;
}

EventObject WalStory::describe(const NamedRelation& relation, Lsn at) const {
  return {fmt::format("{}.{}", relation.schema, relation.name),
          database_name(relation.id.database, at)};
}

EventObject WalStory::describe(const RelationId& id, Lsn at) const {
  if (const NamedRelation* known = named(id, at)) return describe(*known, at);
  return {fmt::format("relation {}", id.relation), database_name(id.database, at)};
}

void WalStory::find_relations(const Ended& ended, Event& drop, Event& truncate) const {
  const Lsn at = ended.story.start;
  const auto dropped_for_good = [&](const RelationId& id, const NamedRelation* known) {
    if (!ended.says_what_is_forgotten) return ended.done.created.empty();
    const std::uint32_t oid = known == nullptr ? id.relation : known->oid;
    return holds(ended.forgotten, std::pair(id.database, oid));
  };
  for (const auto& [database, oid] : ended.forgotten) {
    const NamedRelation* known = names_.relation(database, oid, at);
    if (known != nullptr && !known->is_internal()) add_object(drop, describe(*known, at));
  }
  const bool is_rewrite = ended.is_rewrite();
  for (const RelationId& id : ended.removed) {
    if (holds(ended.done.created, id)) continue;  // came and went with the transaction
    const NamedRelation* known = named(id, at);
    if (known != nullptr ? known->is_internal() : id.relation < first_user_number) continue;
    if (dropped_for_good(id, known)) {
      add_object(drop, describe(id, at));
      continue;
    }
    // What replaces it lies where it lay; a table that is moved goes to another tablespace.
    const bool is_replaced = std::ranges::any_of(ended.done.created, [&](const RelationId& made) {
      return made.tablespace == id.tablespace && made.database == id.database;
    });
    if (is_replaced && !is_rewrite) add_object(truncate, describe(id, at));
  }
  for (const postgres::Truncation& each : ended.done.truncated) {
    for (const std::uint32_t oid : each.oids) {
      const NamedRelation* named = names_.relation(each.database, oid, at);
      if (named != nullptr && named->is_internal()) continue;
      add_object(truncate, named != nullptr ? describe(*named, at)
                                            : EventObject{fmt::format("relation {}", oid),
                                                          database_name(each.database, at)});
    }
  }
}

void WalStory::find_databases(const Ended& ended, std::vector<Event>& events) const {
  const auto event_for = [&](Event::Kind kind, std::uint32_t oid, Lsn before) {
    const std::string name = database_name(oid, ended.story.start);
    Event event{kind, ended.story.time, ended.story.transaction, ended.story.start, before, {}, 0,
                {}};
    event.objects.push_back({name, name});
    events.push_back(std::move(event));
  };
  for (const std::uint32_t oid : ended.done.created_databases) {
    // One that was there before is moved to another tablespace.
    if (names_.knew_database(oid, ended.story.start)) continue;
    event_for(Event::Kind::create_database, oid, ended.story.start);
  }
  std::set<std::uint32_t> told;
  for (const Open::DroppedDatabase& each : ended.done.dropped_databases) {
    if (ended.says_what_is_forgotten && !holds(ended.forgotten_databases, each.oid)) continue;
    if (!told.insert(each.oid).second) continue;
    // Its files go before the commit; and before them it is marked as one that is half dropped.
    const Lsn invalidated = ended.done.invalidated;
    event_for(Event::Kind::drop_database, each.oid,
              invalidated ? std::min(invalidated, each.start) : each.start);
  }
}

std::vector<Event> WalStory::events_of(const Ended& ended) const {
  const TransactionStory& story = ended.story;
  std::vector<Event> events;
  Event drop{Event::Kind::drop, story.time, story.transaction, story.start, story.start, {}, 0, {}};
  Event truncate = drop;
  truncate.kind = Event::Kind::truncate;
  find_relations(ended, drop, truncate);
  if (!drop.objects.empty()) events.push_back(drop);
  if (!truncate.objects.empty()) events.push_back(truncate);
  find_databases(ended, events);
  for (const auto& [id, counts] : story.rows) {
    if (counts.deleted <= many_rows) continue;
    Event event{Event::Kind::bulk_delete,
                story.time,
                story.transaction,
                story.start,
                story.start,
                {describe(id, story.start)},
                counts.deleted,
                {}};
    events.push_back(std::move(event));
  }
  return events;
}

void WalStory::end_transaction(const WalRecord& record,
                               const std::function<void(const TransactionStory&)>& on_end,
                               const std::function<void(const Event&)>& on_event) {
  const auto data = postgres::read_body(record, [](const postgres::BlockReference&) {});
  if (!data)
    base::fail(base::Code::corrupt, "cannot read the record at {}", to_string(record.start));
  const auto end = postgres::read_transaction_end(*data, record.info, record.major,
                                                  "the record of a transaction");
  const unsigned kind = record.info & operation::mask;
  Ended ended;
  ended.story.committed = kind == operation::commit || kind == operation::commit_prepared;
  ended.story.time = end.time;
  ended.story.transaction = end.prepared != 0 ? end.prepared : record.transaction;
  ended.story.start = record.start;
  ended.done = close(ended.story.transaction, end);
  if (!ended.story.committed) return on_end(ended.story);
  for (const auto& [id, counts] : ended.done.rows) {
    if (is_user_table(id, record.start)) ended.story.rows[id] = counts;
  }
  for (std::size_t at = 0; at < end.relations.size(); at += 12) {
    ended.removed.push_back(postgres::load_relation(end.relations.data() + at));
  }
  ended.says_what_is_forgotten = record.major >= 15;
  for (std::size_t at = 0; at < end.statistics.size(); at += end.statistics_size) {
    const std::uint8_t* item = end.statistics.data() + at;
    const auto what = base::load<std::uint32_t>(item);
    const auto database = base::load<std::uint32_t>(item + 4);
    if (what == postgres::statistics_kind::database) ended.forgotten_databases.push_back(database);
    if (what == postgres::statistics_kind::relation) {
      ended.forgotten.emplace_back(database, base::load<std::uint32_t>(item + 8));
    }
  }
  on_end(ended.story);
  for (const Event& event : events_of(ended)) on_event(event);
  learn_names(ended);
}

void WalStory::add(const WalRecord& record,
                   const std::function<void(const TransactionStory&)>& on_end,
                   const std::function<void(const Event&)>& on_event) {
  switch (record.resource_manager) {
    case managers::heap:
    case managers::heap2:
      return note_rows(record);
    case managers::storage:
    case managers::database:
      return note_files(record);
    case managers::xlog:
      if (const auto point = postgres::event_of(record)) {
        on_event({Event::Kind::restore_point,
                  point->time,
                  0,
                  point->start,
                  point->start,
                  {},
                  0,
                  point->name});
      }
      return;
    case managers::transaction:
      break;
    default:
      return;
  }
  switch (record.info & operation::mask) {
    case operation::commit:
    case operation::commit_prepared:
    case operation::abort:
    case operation::abort_prepared:
      return end_transaction(record, on_end, on_event);
    default:
      return;
  }
}

}  // namespace holdfast::operations
