// What we read out of WAL is what PostgreSQL wrote into it. Two witnesses: pg_waldump, which prints
// what each record refers to, and the files themselves: whatever differs between two copies of a
// stopped cluster must have been told.

#include "postgres/wal_changes.h"

#include <regex>
#include <set>

#include "harness/witness.h"
#include "postgres/data_directory.h"
#include "postgres/page.h"

namespace holdfast::tests {
namespace {

using postgres::FileChange;
using postgres::Lsn;
using postgres::RelationId;
using Kind = FileChange::Kind;

/// Does what changes files, in every way that we know of.
void change_everything(const Place& place, const Cluster& cluster) {
  const fs::path space = place.path("space");
  fs::create_directories(space);
  place.give_to_server_user(space);
  postgres::Session session = cluster.session();
  session.run_script(R"(
    CREATE EXTENSION IF NOT EXISTS plpgsql;
    CREATE TABLE rows (id serial PRIMARY KEY, v text, p point, a int[], h int);
    INSERT INTO rows (v, p, a, h)
      SELECT md5(g::text), point(g, g), ARRAY[g, g + 1], g % 7 FROM generate_series(1, 6000) g;
    CREATE INDEX ON rows USING btree (v);
    CREATE INDEX ON rows USING hash (h);
    CREATE INDEX ON rows USING gin (a);
    CREATE INDEX ON rows USING gist (p);
    CREATE INDEX ON rows USING brin (id);
    CREATE INDEX ON rows USING spgist (v);
    UPDATE rows SET v = v || 'x', h = h + 1, a = a || 5, p = point(1, id) WHERE id % 3 = 0;
    DELETE FROM rows WHERE id % 5 = 0 OR id > 5000;
    CREATE TABLE toasted (id int, v text);
    ALTER TABLE toasted ALTER v SET STORAGE EXTERNAL;
    INSERT INTO toasted SELECT g, repeat(md5(g::text), 200) FROM generate_series(1, 30) g;
    CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY);
    INSERT INTO unlogged SELECT generate_series(1, 1000);
    CREATE SEQUENCE numbers;
    SELECT nextval('numbers') FROM generate_series(1, 100);
    SELECT lo_from_bytea(0, decode(repeat('ab', 20000), 'hex'));
    CREATE TABLE gone (id int PRIMARY KEY);
    INSERT INTO gone SELECT generate_series(1, 1000);
    CREATE TABLE emptied (id int PRIMARY KEY);
    INSERT INTO emptied SELECT generate_series(1, 1000))");
  session.query("CHECKPOINT");
  session.query("VACUUM rows");
  session.run_script(
      "SET wal_compression = on; UPDATE rows SET h = h + 1 WHERE id % 4 = 0; "
      "SELECT count(*) FROM rows WHERE v LIKE 'a%'");
  session.query("CHECKPOINT");
  session.run_script(
      "INSERT INTO rows (v, p, a, h) "
      "SELECT md5(g::text), point(g, g), ARRAY[g, g + 1], g % 7 FROM generate_series(1, 500) g; "
      "SET wal_compression = off; DROP TABLE gone; TRUNCATE emptied");
  session.run_script(
      "BEGIN; CREATE TABLE undone (id int); INSERT INTO undone VALUES (1); ROLLBACK; "
      "BEGIN; CREATE TABLE two (id int); DROP TABLE toasted; SAVEPOINT s; "
      "INSERT INTO rows (h) VALUES (8); PREPARE TRANSACTION 'kept'; "
      "BEGIN; CREATE TABLE three (id int); PREPARE TRANSACTION 'left'");
  session.query("COMMIT PREPARED 'kept'");
  session.query("ROLLBACK PREPARED 'left'");
  session.query("CLUSTER rows USING rows_pkey");
  session.query("VACUUM FULL pg_class");
  session.query("VACUUM FULL rows");
  session.query("VACUUM (FREEZE) rows");
  session.query(fmt::format("CREATE TABLESPACE space LOCATION '{}'", space.string()));
  session.query("ALTER TABLE rows SET TABLESPACE space");
  const bool has_strategies = session.major_version() >= 15;
  session.query("CREATE DATABASE copied" +
                std::string(has_strategies ? " STRATEGY file_copy" : ""));
  session.query("CREATE DATABASE logged" + std::string(has_strategies ? " STRATEGY wal_log" : ""));
  session.query("ALTER DATABASE copied SET TABLESPACE space");
  session.query("DROP DATABASE logged");
  session.query("CREATE DATABASE another");
  cluster.sql("CREATE TABLE inside AS SELECT generate_series(1, 500) AS id", "another");
  session.query(fmt::format("CREATE TABLESPACE brief LOCATION '{}'", [&] {
    const fs::path brief = place.path("brief");
    fs::create_directories(brief);
    place.give_to_server_user(brief);
    return brief.string();
  }()));
  session.query("DROP TABLESPACE brief");
  session.query("ALTER TABLE rows SET TABLESPACE pg_default");
  session.query("DELETE FROM rows WHERE id > 2000");
  session.query("VACUUM rows");  // cuts off what is empty at the end
}

/// One record as both sides tell it: lines such as "blk 1663/5/16384 0 17 FPW".
using Told = std::map<Lsn, std::set<std::string>>;

std::string path_of(const RelationId& relation, unsigned fork, const std::string& version) {
  static const std::vector<std::string> forks{"", "_fsm", "_vm", "_init"};
  const std::string name = std::to_string(relation.relation) + forks.at(fork);
  if (relation.tablespace == 1664) return "global/" + name;
  if (relation.tablespace == 1663) return fmt::format("base/{}/{}", relation.database, name);
  return fmt::format("pg_tblspc/{}/{}/{}/{}", relation.tablespace, version, relation.database,
                     name);
}

std::string line_of(const FileChange& change, const std::string& version) {
  const RelationId& id = change.relation;
  const std::string directory = fmt::format("{}/{}", id.tablespace, id.database);
  switch (change.kind) {
    case Kind::block:
      return fmt::format("blk {}/{} {} {}{}", directory, id.relation, change.fork, change.block,
                         change.has_image ? " FPW" : "");
    case Kind::create_file:
      return "CREATE " + path_of(id, change.fork, version);
    case Kind::truncate:
      if (change.fork != 0) return "TRUNCATE other forks";
      return fmt::format("TRUNCATE {} to {}", path_of(id, 0, version), change.block);
    case Kind::drop_relation:
      return "rel " + path_of(id, 0, version);
    case Kind::create_database:
      return "CREATE_FILE_COPY to " + directory;
    case Kind::create_database_by_log:
      return "CREATE_WAL_LOG " + directory;
    case Kind::drop_database:
      return "DROP " + directory;
    case Kind::create_tablespace:
      return fmt::format("CREATE tablespace {}", id.tablespace);
    case Kind::drop_tablespace:
      return fmt::format("DROP tablespace {}", id.tablespace);
    case Kind::relation_map:
      return fmt::format("UPDATE database {} tablespace {}", id.database, id.tablespace);
    case Kind::parameters:
      return fmt::format("PARAMETERS {} {}", change.value, change.flag);
    case Kind::full_page_writes:
      return fmt::format("FPW_CHANGE {}", change.flag);
  }
  return {};
}

struct Wal {
  Told told;
  std::vector<FileChange> changes;
  std::set<Kind> kinds;
  std::size_t records = 0;
  std::size_t refused = 0;
  Lsn end;
};

/// Reads the WAL of a stopped cluster from `start`, which is the start of a record.
Wal read_wal(const fs::path& data_directory, Lsn start, const std::string& version) {
  const auto control = postgres::read_control_file(data_directory).control;
  postgres::WalReader reader(start, control.wal_segment_size);
  Wal wal;
  const auto visit = [&](const postgres::WalRecord& record) {
    ++wal.records;
    const bool is_told = changes_of(record, [&](const FileChange& change) {
      wal.changes.push_back(change);
      wal.kinds.insert(change.kind);
      wal.told[record.start].insert(line_of(change, version));
    });
    if (!is_told) ++wal.refused;
    return true;
  };
  postgres::Segment segment =
      postgres::segment_at(control.timeline, start, control.wal_segment_size);
  for (;; ++segment.number) {
    const fs::path file =
        data_directory / "pg_wal" / postgres::file_name(segment, control.wal_segment_size);
    if (!fs::exists(file) || !reader.feed(base::read_existing_file(file), visit)) break;
  }
  wal.end = reader.end();
  return wal;
}

/// Adds a line for each match of `pattern` in `text`.
void add_matches(std::set<std::string>& lines, const std::string& text, const std::string& pattern,
                 const std::function<std::string(const std::smatch&)>& line) {
  const std::regex expression(pattern);
  for (std::sregex_iterator at(text.begin(), text.end(), expression), end; at != end; ++at) {
    lines.insert(line(*at));
  }
}

/// Of ", blkref #0: rel 1663/5/16384 fork vm blk 17 FPW" and so on. (Not a regular expression:
/// these are many.)
std::set<std::string> lines_of_block_references(const std::string& record) {
  static const std::map<std::string, int> forks{{"fsm", 1}, {"vm", 2}, {"init", 3}};
  std::set<std::string> lines;
  for (std::size_t at = record.find("blkref #"); at != std::string::npos;) {
    const std::size_t next = record.find("blkref #", at + 1);
    std::istringstream words(record.substr(at, next - at));
    std::string skipped, relation, word, number, image;
    words >> skipped >> skipped >> skipped >> relation >> word;
    int fork = 0;
    if (word == "fork") {
      words >> word;
      fork = forks.at(word);
      words >> word;
    }
    words >> number >> image >> word;
    if (number.ends_with(',')) number.pop_back();
    const bool is_restored =
        image.starts_with("FPW") && word != "for";  // "FPW for WAL verification"
    lines.insert(fmt::format("blk {} {} {}{}", relation, fork, number, is_restored ? " FPW" : ""));
    at = next;
  }
  return lines;
}

/// What pg_waldump's description of a record says of whole files (of PostgreSQL 15).
std::set<std::string> lines_of_description(const std::string& manager, const std::string& text) {
  std::set<std::string> lines;
  const auto add = [&](const std::string& pattern, const std::string& format) {
    add_matches(lines, text, pattern,
                [&](const std::smatch& found) { return found.format(format); });
  };
  if (manager == "Storage") {
    add("^CREATE (\\S+)", "CREATE $1");
    add("^TRUNCATE (\\S+) to (\\d+) blocks", "TRUNCATE $1 to $2");
    if (text.find("flags 7") != std::string::npos) lines.insert("TRUNCATE other forks");
  } else if (manager == "Transaction" && text.find("PREPARE") != 0) {
    const auto rels = text.find("rels: ");
    if (rels == std::string::npos) return lines;
    const std::string names = text.substr(rels, text.find(';', rels) - rels);
    add_matches(lines, names, " ([a-z_]+/[\\w/]+)",
                [](const std::smatch& found) { return "rel " + found[1].str(); });
  } else if (manager == "Database") {
    add("^CREATE_FILE_COPY copy dir \\S+ to (\\d+/\\d+)", "CREATE_FILE_COPY to $1");
    add("^CREATE_WAL_LOG create dir (\\d+/\\d+)", "CREATE_WAL_LOG $1");
    if (text.find("DROP") == 0) add(" (\\d+/\\d+)", "DROP $1");
  } else if (manager == "Tablespace") {
    add("^(CREATE|DROP) (\\d+)", "$1 tablespace $2");
  } else if (manager == "RelMap") {
    add("^UPDATE (database \\d+ tablespace \\d+)", "$&");
  } else if (manager == "XLOG") {
    add("^PARAMETER_CHANGE .*wal_level=replica wal_log_hints=on", "PARAMETERS 1 true");
    add("^FPW_CHANGE (true|false)", "$&");
  }
  return lines;
}

Told told_by_waldump(const Cluster& cluster, Lsn start, Lsn end) {
  const Result dump = run_tool(cluster.installation(), "pg_waldump",
                               {"-p", (cluster.data_directory() / "pg_wal").string(), "-s",
                                to_string(start), "-e", to_string(end)});
  EXPECT_EQ(dump.status, 0) << dump.errors;
  Told told;
  std::istringstream lines(dump.output);
  for (std::string line; std::getline(lines, line);) {
    const auto between = [&](std::string_view before, std::string_view after) {
      const std::size_t at = line.find(before);
      if (at == std::string::npos) throw std::runtime_error("pg_waldump printed " + line);
      const std::size_t from = at + before.size();
      return line.substr(from, line.find(after, from) - from);
    };
    const std::string manager = between("rmgr: ", " ");
    std::set<std::string> said = lines_of_block_references(line);
    said.merge(lines_of_description(manager, line.substr(line.find("desc: ") + 6)));
    if (!said.empty()) told[*postgres::parse_lsn(between("lsn: ", ","))] = said;
  }
  return told;
}

std::string shown(const std::set<std::string>& lines) {
  std::string all;
  for (const std::string& line : lines) all += line + "; ";
  return all;
}

/// A cluster that was stopped, copied, changed in every way, and stopped again.
class Changes : public testing::TestWithParam<int> {
 protected:
  Changes() : cluster_(installation(GetParam()), place_.path("data")) {
    settings_ = {{"wal_level", "replica"},    {"max_prepared_transactions", "4"},
                 {"wal_keep_size", "2GB"},    {"autovacuum", "off"},
                 {"log_checkpoints", "off"},  {"max_wal_size", "2GB"},
                 {"checkpoint_timeout", "1h"}};
    cluster_.start(settings_);
    cluster_.sql(
        "CREATE TABLE old AS SELECT g AS id, md5(g::text) AS v "
        "FROM generate_series(1, 20000) g");
    cluster_.sql("CREATE TABLE old_gone AS SELECT 1");
    cluster_.sql("CREATE TABLE old_short AS SELECT generate_series(1, 20000) AS id");
    cluster_.stop();
    before_ = relation_files();
    start_ = postgres::read_control_file(cluster_.data_directory()).control.checkpoint;
    cluster_.start(settings_);
    cluster_.sql("UPDATE old SET v = 'new' WHERE id % 5000 = 1");
    cluster_.sql("DROP TABLE old_gone");
    cluster_.sql("DELETE FROM old_short WHERE id > 3000");
    cluster_.sql("VACUUM old_short");
    change_everything(place_, cluster_);
    version_ = cluster_.sql(
        "SELECT 'PG_' || (current_setting('server_version_num')::int / 10000) || "
        "'_' || catalog_version_no FROM pg_control_system()");
    tablespace_ = cluster_.sql("SELECT oid FROM pg_tablespace WHERE spcname = 'space'");
    cluster_.stop();
    auto other = settings_;
    other.emplace_back("wal_log_hints", "on");
    cluster_.start(other);
    cluster_.sql("ALTER SYSTEM SET full_page_writes = off");
    cluster_.sql("SELECT pg_reload_conf()");
    eventually("a checkpoint without full page writes", [&] {
      cluster_.sql("CHECKPOINT");
      return cluster_.sql("SELECT full_page_writes FROM pg_control_checkpoint()") == "f";
    });
    cluster_.stop();
  }

  std::map<std::string, std::string> relation_files() const {
    auto files = tree_of(cluster_.data_directory());
    if (fs::exists(place_.path("space"))) {
      for (const auto& [name, content] : tree_of(place_.path("space"))) {
        files[fmt::format("pg_tblspc/{}/{}", tablespace_, name)] = content;
      }
    }
    std::erase_if(files, [](const auto& file) {
      return !postgres::relation_file(file.first) && !file.first.ends_with("pg_filenode.map");
    });
    return files;
  }

  Place place_;
  Cluster cluster_;
  postgres::Settings settings_;
  std::map<std::string, std::string> before_;
  Lsn start_;
  std::string version_;
  std::string tablespace_;
};

class WalDump : public Changes {};

TEST_P(WalDump, U11_records_tell_what_pg_waldump_prints_of_them) {
  const Wal wal = read_wal(cluster_.data_directory(), start_, version_);
  EXPECT_EQ(wal.refused, 0U);
  EXPECT_EQ(wal.kinds.size(), 12U) << "the script does not do everything";
  const Told expected = told_by_waldump(cluster_, start_, wal.end);
  ASSERT_GT(expected.size(), 10000U);
  for (const auto& [lsn, lines] : expected) {
    const auto ours = wal.told.find(lsn);
    EXPECT_EQ(ours == wal.told.end() ? "" : shown(ours->second), shown(lines)) << to_string(lsn);
    if (HasFailure()) break;
  }
  for (const auto& [lsn, lines] : wal.told) {
    EXPECT_TRUE(expected.contains(lsn)) << to_string(lsn) << " " << shown(lines);
    if (HasFailure()) break;
  }
}

/// What a map of changes would hold.
struct ChangeMap {
  std::set<std::tuple<RelationId, unsigned, std::uint32_t>> blocks;
  std::set<std::pair<RelationId, unsigned>> created;
  std::set<std::pair<RelationId, unsigned>> truncated;
  std::set<RelationId> dropped;
  std::set<RelationId> databases_copied;
  std::set<RelationId> databases_dropped;
  std::set<std::uint32_t> maps;
};

ChangeMap map_of(const std::vector<FileChange>& changes) {
  ChangeMap map;
  for (const FileChange& each : changes) {
    if (each.kind == Kind::block) map.blocks.emplace(each.relation, each.fork, each.block);
    if (each.kind == Kind::create_file) map.created.emplace(each.relation, each.fork);
    if (each.kind == Kind::truncate) map.truncated.emplace(each.relation, each.fork);
    if (each.kind == Kind::drop_relation) map.dropped.insert(each.relation);
    if (each.kind == Kind::create_database) map.databases_copied.insert(each.relation);
    if (each.kind == Kind::drop_database) map.databases_dropped.insert(each.relation);
    if (each.kind == Kind::relation_map) map.maps.insert(each.relation.database);
  }
  return map;
}

/// "base/5/16384": which relation, or of pg_filenode.map (relation 0) which database.
RelationId relation_of(const std::string& path) {
  std::vector<std::string> parts;
  std::istringstream from(path);
  for (std::string part; std::getline(from, part, '/');) parts.push_back(part);
  const auto file = postgres::relation_file(path);
  RelationId id;
  id.relation = file ? file->relation : 0;
  if (parts[0] == "global") {
    id.tablespace = 1664;
  } else {
    id.tablespace = parts[0] == "base" ? 1663 : static_cast<std::uint32_t>(std::stoul(parts[1]));
    id.database = static_cast<std::uint32_t>(std::stoul(parts[parts.size() - 2]));
  }
  return id;
}

RelationId database_of(RelationId id) {
  id.relation = 0;
  return id;
}

class Truth : public Changes {
 protected:
  using Files = std::map<std::string, std::string>;

  static bool is_unlogged(const Files& files, const std::string& path) {
    return files.contains(path.substr(0, path.find('.')) + "_init");
  }
  /// A page that is new and was never written to is not logged.
  static bool is_new_and_empty(std::string_view page, bool is_new) {
    return is_new && page.find_first_not_of('\0') == std::string_view::npos;
  }

  /// Checks each block of a file of a main or init fork.
  void check_blocks(const std::string& path, const std::string& after, const std::string* before) {
    const auto file = *postgres::relation_file(path);
    const RelationId id = relation_of(path);
    const auto fork = static_cast<unsigned>(file.fork);
    if (before == nullptr) {
      EXPECT_TRUE(map_.created.contains({id, fork}) || file.segment > 0) << path;
    } else if (after.size() < before->size()) {
      EXPECT_TRUE(map_.truncated.contains({id, fork}) || map_.dropped.contains(id)) << path;
    }
    for (std::size_t at = 0; at < after.size(); at += 8192) {
      const std::string_view page = std::string_view(after).substr(at, 8192);
      const bool is_new = before == nullptr || at >= before->size();
      if (!is_new && page == std::string_view(*before).substr(at, 8192)) continue;
      if (is_new_and_empty(page, is_new)) continue;
      const auto block = static_cast<std::uint32_t>(at / 8192 + file.segment * 131072);
      EXPECT_TRUE(map_.blocks.contains({id, fork, block})) << path << " block " << block;
      ++differing_;
    }
  }

  void check(const Files& after) {
    for (const auto& [path, content] : after) {
      const auto old = before_.find(path);
      const std::string* before = old == before_.end() ? nullptr : &old->second;
      const RelationId id = relation_of(path);
      if (map_.databases_copied.contains(database_of(id))) continue;
      const auto file = postgres::relation_file(path);
      if (!file) {
        const bool is_same = before != nullptr && *before == content;
        EXPECT_TRUE(is_same || map_.maps.contains(id.database)) << path;
        continue;
      }
      using Fork = postgres::RelationFile::Fork;
      if (file->fork == Fork::free_space_map || file->fork == Fork::visibility_map) continue;
      if (file->fork == Fork::main && is_unlogged(after, path)) continue;
      check_blocks(path, content, before);
    }
    for (const auto& [path, content] : before_) {
      const RelationId id = relation_of(path);
      EXPECT_TRUE(after.contains(path) || map_.dropped.contains(id) ||
                  map_.databases_dropped.contains(database_of(id)))
          << path;
    }
  }

  ChangeMap map_;
  std::size_t differing_ = 0;
};

TEST_P(Truth, U5_U8_U11_no_file_differs_in_what_was_not_told) {
  const Wal wal = read_wal(cluster_.data_directory(), start_, version_);
  EXPECT_EQ(wal.refused, 0U);
  map_ = map_of(wal.changes);
  check(relation_files());
  EXPECT_GT(differing_, 300U);
}

INSTANTIATE_TEST_SUITE_P(PostgreSQL, Truth, testing::Values(15, 17),
                         testing::PrintToStringParamName());
INSTANTIATE_TEST_SUITE_P(PostgreSQL, WalDump, testing::Values(15),
                         testing::PrintToStringParamName());

}  // namespace
}  // namespace holdfast::tests
