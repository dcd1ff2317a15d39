#include "operations/extract.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/process.h"
#include "base/workers.h"
#include "operations/repositories.h"
#include "operations/witness.h"
#include "postgres/connection_string.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using base::fs::path;

constexpr auto recovery_limit = std::chrono::hours(4);
/// Newer programs dump older servers, too.
constexpr int newest_major = 30;

/// A program that may be missing beside the server's own.
path client_program(int major, std::string_view name) {
  for (int each = major; each <= newest_major; ++each) {
    const auto installation = postgres::find_installation(each);
    if (!installation) continue;
    if (const auto found = installation->program(name)) return *found;
  }
  throw Error(
      Code::not_found, fmt::format("could not find {} of PostgreSQL {} or newer", name, major),
      fmt::format("install it (apt-get install postgresql-client-{}), or name its directory "
                  "in HOLDFAST_PG_BIN",
                  major));
}

/// For pg_dump's patterns: exactly this name.
std::string pattern(const std::string& name) {
  std::string quoted = "\"";
  for (const char c : name) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

struct Relation {
  std::string schema;
  std::string name;
  std::string quoted;  ///< "sales.orders", quoted where it must be
  char kind = 'r';
  bool has_children = false;
  std::string dump_pattern() const { return pattern(schema) + "." + pattern(name); }
};

/// A word as SQL understands it: a."B c" is a and B c, A is a. Nothing, if it does not.
std::vector<std::string> identifiers_in(postgres::Session& session, const std::string& word) {
  std::vector<std::string> names;
  try {
    for (const postgres::Row& row : session.query("SELECT unnest(parse_ident($1))", {word})) {
      names.push_back(row[0].value_or(""));
    }
  } catch (const Error& error) {
    if (error.code() != Code::postgres) throw;
  }
  return names;
}

/// What a user's word for a table may mean in one database: a name as it is, or else as SQL has it.
std::vector<Relation> relations_named(postgres::Session& session, const std::string& word,
                                      bool as_it_is = true) {
  std::vector<Relation> found;
  for (const postgres::Row& row : session.query(
           "SELECT n.nspname, c.relname, format('%I.%I', n.nspname, c.relname), c.relkind, "
           "c.relhassubclass "
           "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
           "WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname !~ '^pg_' "
           "AND n.nspname <> 'information_schema' AND $1 IN (c.relname::text, "
           "n.nspname || '.' || c.relname, format('%I.%I', n.nspname, c.relname)) ORDER BY 3",
           {word})) {
    found.push_back({*row[0], *row[1], *row[2], row[3]->front(), *row[4] == "t"});
  }
  if (!found.empty() || !as_it_is) return found;
  const auto names = identifiers_in(session, word);
  if (names.empty() || names.size() > 2) return found;
  return relations_named(session, names.size() == 1 ? names[0] : names[0] + "." + names[1], false);
}

class ExtractRun {
 public:
  ExtractRun(const Site& site, const ExtractRequest& request, base::Progress& progress)
      : site_(site),
        request_(request),
        progress_(progress),
        begun_(base::now()),
        place_(site.configuration.drill.directory, "extract-" + std::to_string(::getpid())),
        cluster_(site, plan_restore(site, request.moment), place_.path()) {}

  ExtractOutcome run() {
    start();
    find();
    tell_what_is_left_out();
    rename();
    if (request_.into.empty()) {
      dump_to_output();
    } else {
      dump_into();
    }
    outcome_.backup = cluster_.plan().backup.id;
    outcome_.target = cluster_.plan().target;
    outcome_.notes.insert(outcome_.notes.begin(), cluster_.plan().notes.begin(),
                          cluster_.plan().notes.end());
    for (const std::string& gap : cluster_.gaps()) {
      outcome_.notes.push_back("the kernel does not hold the scratch server back: " + gap);
    }
    cluster_.stop();
    place_.clear();
    outcome_.duration = base::now() - begun_;
    return std::move(outcome_);
  }

  /// After a failure; what cannot be removed now, the next scratch place removes.
  void clear() noexcept {
    try {
      cluster_.stop();
      place_.clear();
    } catch (const std::exception&) {
    }
  }

 private:
  void start();
  void find();
  bool find_in(const std::string& database);
  void tell_what_is_left_out();
  bool is_wanted(postgres::Session& at, const std::string& oid, const std::string& schema) const;
  void rename();
  void dump_to_output();
  void dump_into();
  base::Command dump(const std::vector<std::string>& how);
  postgres::Session session() { return cluster_.server().session(outcome_.database); }

  const Site& site_;
  const ExtractRequest& request_;
  base::Progress& progress_;
  const base::Timestamp begun_;
  ScratchPlace place_;
  ScratchCluster cluster_;
  std::vector<Relation> relations_;
  std::vector<std::string> schemas_;
  ExtractOutcome outcome_;
};

void ExtractRun::start() {
  cluster_.bring_back(request_.moment, request_.workers, progress_);
  base::stop_if_interrupted();
  progress_.begin("replaying WAL", 0);
  const auto witness = witness_of(cluster_.map());
  cluster_.start(witness && !witness->superuser.empty() ? witness->superuser : "postgres",
                 recovery_limit);
  outcome_.until_ready = base::now() - begun_;
  base::stop_if_interrupted();
}

/// Sets what is to be dumped if all of it is in this database.
bool ExtractRun::find_in(const std::string& database) {
  postgres::Session session = cluster_.server().session(database);
  std::vector<Relation> all;
  for (const std::string& word : request_.tables) {
    const auto found = relations_named(session, word);
    if (found.empty()) return false;
    if (found.size() > 1) {
      std::string names;
      for (const Relation& each : found) names += (names.empty() ? "" : ", ") + each.quoted;
      throw Error(Code::usage, fmt::format("cannot tell which table \"{}\" is: {}", word, names),
                  "name its schema, too");
    }
    all.push_back(found.front());
  }
  std::vector<std::string> schemas;
  for (const std::string& word : request_.schemas) {
    auto names = identifiers_in(session, word);
    names.insert(names.begin(), word);
    const auto found = std::ranges::find_if(names, [&](const std::string& name) {
      return !session.query("SELECT 1 FROM pg_namespace WHERE nspname = $1", {name}).empty();
    });
    if (found == names.end()) return false;
    schemas.push_back(*found);
  }
  relations_ = std::move(all);
  schemas_ = std::move(schemas);
  return true;
}

void ExtractRun::find() {
  if (!request_.database.empty()) {
    outcome_.database = request_.database;
    if (find_in(request_.database)) return;
  } else {
    std::vector<std::string> found;
    std::vector<std::string> databases;
    for (const postgres::Row& row : cluster_.server().session().query(
             "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate "
             "ORDER BY datname")) {
      databases.push_back(*row[0]);
    }
    for (const std::string& each : databases) {
      if (find_in(each)) found.push_back(each);
    }
    if (found.size() > 1) {
      std::string names;
      for (const std::string& each : found) names += (names.empty() ? "" : ", ") + each;
      throw Error(Code::usage,
                  fmt::format("cannot tell which database is meant: {} have it", names),
                  "say --database NAME");
    }
    if (found.size() == 1) {
      outcome_.database = found.front();
      find_in(found.front());
      return;
    }
  }
  std::string what;
  for (const auto* words : {&request_.tables, &request_.schemas}) {
    for (const std::string& each : *words) what += (what.empty() ? "\"" : ", \"") + each + "\"";
  }
  throw Error(
      Code::not_found,
      fmt::format("could not find {} in {} at that moment", what,
                  request_.database.empty() ? "any database" : "database " + request_.database),
      "`holdfast events` tells when tables were dropped; names are case-sensitive");
}

/// What the dump will lack, and whoever puts it back would miss.
void ExtractRun::tell_what_is_left_out() {
  postgres::Session at = session();
  const auto note = [&](std::string text) { outcome_.notes.push_back(std::move(text)); };
  for (const postgres::Row& row : at.query(
           "SELECT c.oid::text, n.nspname, format('%I.%I', n.nspname, c.relname), c.relpersistence "
           "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
           "WHERE c.relkind IN ('r', 'p', 'm') AND n.nspname !~ '^pg_' "
           "AND n.nspname <> 'information_schema' ORDER BY 3")) {
    if (!is_wanted(at, *row[0], *row[1])) continue;
    if (*row[3] == "u") note(*row[2] + " is unlogged: no backup holds its rows");
    if (request_.whole_database) continue;  // large objects come along
    std::uint64_t objects = 0;
    for (const postgres::Row& column : at.query(
             "SELECT format('SELECT count(DISTINCT m.oid) FROM %s t JOIN pg_largeobject_metadata m "
             "ON m.oid = t.%I', $2::text, attname) FROM pg_attribute JOIN pg_type y ON y.oid = "
             "atttypid WHERE attrelid = $1::oid AND attnum > 0 AND NOT attisdropped AND "
             "'oid'::regtype IN (y.oid, y.typbasetype)",
             {*row[0], *row[2]})) {
      objects += std::stoull(at.value(*column[0]));
    }
    if (objects == 0) continue;
    note(
        fmt::format("{} refers to {} large objects, which do not come along: --whole-database "
                    "brings them",
                    *row[2], objects));
  }
}

/// Is a table among what was asked for, or a part of one?
bool ExtractRun::is_wanted(postgres::Session& at, const std::string& oid,
                           const std::string& schema) const {
  if (request_.whole_database || std::ranges::find(schemas_, schema) != schemas_.end()) return true;
  return std::ranges::any_of(relations_, [&](const Relation& each) {
    return at.value(
               "WITH RECURSIVE above AS (SELECT $1::oid AS id UNION SELECT inhparent FROM "
               "pg_inherits JOIN above ON inhrelid = id) "
               "SELECT count(*) FROM above WHERE id = $2::regclass",
               {oid, each.quoted}) != "0";
  });
}

void ExtractRun::rename() {
  postgres::Session at = session();
  postgres::silence_event_triggers(at);
  for (const Relation& each : relations_) {
    ExtractOutcome::Table table{each.quoted, each.quoted, 0};
    if (each.kind != 'S') {
      table.rows = std::stoull(at.value("SELECT count(*) FROM " + each.quoted));
    }
    outcome_.tables.push_back(table);
  }
  if (request_.as.empty()) return;
  Relation& table = relations_.front();
  if (table.kind != 'r' || table.has_children) {
    throw Error(Code::unsupported,
                fmt::format("cannot give {} another name: it is not a plain table", table.quoted),
                "extract it into another database, or to a file");
  }
  const std::size_t dot = request_.as.find('.');
  std::string schema = dot == std::string::npos ? table.schema : request_.as.substr(0, dot);
  std::string name = dot == std::string::npos ? request_.as : request_.as.substr(dot + 1);
  if (request_.as.find('"') != std::string::npos) {
    const auto names = identifiers_in(at, request_.as);
    if (names.empty() || names.size() > 2) {
      base::fail(Code::usage, "cannot use {} as the name of a table", request_.as);
    }
    schema = names.size() == 2 ? names.front() : table.schema;
    name = names.back();
  }
  // Names of indexes and of the sequences of its columns are the schema's, too, and taken there.
  for (const postgres::Row& row : at.query(
           "SELECT format('ALTER %s %I.%I RENAME TO %I', CASE c.relkind WHEN 'S' THEN 'SEQUENCE' "
           "ELSE 'INDEX' END, n.nspname, c.relname, $2::text || '_' || c.relname) "
           "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid IN "
           "(SELECT indexrelid FROM pg_index WHERE indrelid = $1::regclass UNION SELECT objid FROM "
           "pg_depend WHERE refobjid = $1::regclass AND classid = 'pg_class'::regclass AND deptype "
           "IN ('a', 'i')) AND c.relkind IN ('i', 'S')",
           {table.quoted, name})) {
    at.query(*row[0]);
  }
  if (name != table.name) {
    at.query(at.value("SELECT format('ALTER TABLE %s RENAME TO %I', $1::text, $2::text)",
                      {table.quoted, name}));
  }
  if (schema != table.schema) {
    at.query(at.value("SELECT format('CREATE SCHEMA IF NOT EXISTS %I', $1::text)", {schema}));
    at.query(
        at.value("SELECT format('ALTER TABLE %I.%I SET SCHEMA %I', $1::text, $2::text, $3::text)",
                 {table.schema, name, schema}));
  }
  table.schema = schema;
  table.name = name;
  outcome_.tables.front().as =
      at.value("SELECT format('%I.%I', $1::text, $2::text)", {schema, name});
}

base::Command ExtractRun::dump(const std::vector<std::string>& how) {
  base::Command command;
  command.argv = {client_program(cluster_.server().major(), "pg_dump").string(), "--no-password",
                  "--dbname", cluster_.server().connection(outcome_.database)};
  command.argv.insert(command.argv.end(), how.begin(), how.end());
  std::set<std::string> names;
  postgres::Session at = session();
  for (const Relation& each : relations_) {
    names.insert(each.dump_pattern());
    // pg_dump takes a partitioned table alone unless its partitions are named.
    for (const postgres::Row& row : at.query(
             "WITH RECURSIVE below AS (SELECT $1::regclass::oid AS id UNION SELECT inhrelid FROM "
             "pg_inherits JOIN below ON inhparent = id) SELECT n.nspname, c.relname FROM below "
             "JOIN "
             "pg_class c ON c.oid = id JOIN pg_namespace n ON n.oid = c.relnamespace",
             {pattern(each.schema) + "." + pattern(each.name)})) {
      names.insert(pattern(*row[0]) + "." + pattern(*row[1]));
    }
  }
  for (const std::string& each : names) command.argv.push_back("--table=" + each);
  for (const std::string& each : schemas_) {
    command.argv.push_back("--schema=" + pattern(each));
  }
  command.directory = "/";
  return command;
}

void fail_if(const base::Outcome& outcome, std::string_view what, std::string hint = {}) {
  if (outcome.status == 0) return;
  std::string said = outcome.errors;
  std::ranges::replace(said, '\n', ' ');
  throw Error(Code::postgres, fmt::format("{} failed: {}", what, said), std::move(hint));
}

void ExtractRun::dump_to_output() {
  progress_.begin("dumping", 0);
  if (request_.output == "-") {
    fail_if(base::run_into(dump({"--format=plain"}), STDOUT_FILENO), "pg_dump");
    return;
  }
  // A name that is there holds a whole dump.
  const path target = base::fs::absolute(request_.output);
  const path beside = target.string() + ".holdfast";
  {
    const base::Fd file = base::open_file(beside, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    try {
      fail_if(base::run_into(dump({"--format=plain"}), file.get()), "pg_dump");
      base::sync_file(file, beside);
    } catch (...) {
      base::fs::remove(beside);
      throw;
    }
  }
  base::fs::rename(beside, target);
  base::sync_directory(target.parent_path());
}

void ExtractRun::dump_into() {
  progress_.begin("dumping", 0);
  const path archive = place_.path() / "extract.dump";
  fail_if(base::run(dump({"--format=custom", "--compress=0", "--file=" + archive.string()})),
          "pg_dump");
  base::stop_if_interrupted();
  progress_.begin("putting it into the other database", 0);
  base::Command command;
  command.environment = postgres::connection_environment(request_.into);
  const auto database = std::ranges::find(command.environment, "PGDATABASE",
                                          &std::pair<std::string, std::string>::first);
  if (database == command.environment.end()) {
    throw Error(Code::usage, "cannot put anything into a server without a database",
                "add dbname=NAME to --into");
  }
  command.argv = {client_program(cluster_.server().major(), "pg_restore").string(),
                  "--no-password",
                  "--single-transaction",
                  "--exit-on-error",
                  "--dbname",
                  database->second,
                  archive.string()};
  command.directory = "/";
  fail_if(base::run(command), "pg_restore",
          "nothing was changed there; if the table exists, --as NAME puts it beside");
}

void check(const ExtractRequest& request) {
  const bool nothing = request.tables.empty() && request.schemas.empty();
  if (nothing && !request.whole_database) {
    throw Error(Code::usage, "cannot tell what to extract",
                "name tables, or --schema NAME, or --whole-database with --database NAME");
  }
  if (request.whole_database && (!nothing || request.database.empty())) {
    throw Error(Code::usage, "cannot extract a whole database and parts of one",
                "--whole-database goes with --database NAME and nothing else");
  }
  if (!request.as.empty() && (request.tables.size() != 1 || !request.schemas.empty())) {
    throw Error(Code::usage, "cannot give one name to several things", "--as goes with one table");
  }
}

}  // namespace

ExtractOutcome extract(const Configuration& configuration, const std::string& cluster,
                       const ExtractRequest& request, base::Progress& progress) {
  check(request);
  // Wrong words are found before anything is brought back.
  if (!request.into.empty()) postgres::connection_environment(request.into);
  const Site site = open_site(configuration, cluster);
  progress.begin("choosing a backup", 0);
  ExtractRun run(site, request, progress);
  try {
    return run.run();
  } catch (...) {
    run.clear();
    throw;
  }
}

}  // namespace holdfast::operations
