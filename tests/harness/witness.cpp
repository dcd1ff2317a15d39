#include "harness/witness.h"

#include <fcntl.h>
#include <unistd.h>

#include <fstream>
#include <map>
#include <sstream>
#include <thread>

#include "postgres/data_directory.h"
#include "postgres/page.h"

namespace holdfast::tests {

void eventually(std::string_view what, const std::function<bool()>& condition) {
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > limit) {
      throw std::runtime_error(fmt::format("not within a minute: {}", what));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

base::Command pgbench(const Cluster& cluster, const std::vector<std::string>& arguments) {
  const auto program = installation(15).program("pgbench");
  if (!program) throw std::runtime_error("pgbench is not installed");
  base::Command command;
  command.argv = {program->string()};
  command.argv.insert(command.argv.end(), arguments.begin(), arguments.end());
  command.argv.push_back(cluster.connection());
  command.directory = "/";
  return command;
}

Load::Load(const Place& place, const Cluster& cluster, int scale, int clients) : cluster_(cluster) {
  base::run_checked(pgbench(cluster, {"-i", "-q", "-s", std::to_string(scale)}));
  const std::string many = std::to_string(clients);
  child_ = std::make_unique<base::Child>(pgbench(cluster, {"-n", "-c", many, "-T", "600"}),
                                         place.path("pgbench.log"));
  eventually("pgbench writes", [&] { return transactions() > 0; });
}

void Load::stop() {
  child_.reset();
}

long long Load::transactions() const {
  return std::stoll(cluster_.sql("SELECT count(*) FROM pgbench_history"));
}

std::string content(postgres::Session& session) {
  std::string all;
  for (const postgres::Row& table :
       session.query("SELECT format('%I.%I', schemaname, tablename) FROM pg_tables "
                     "WHERE schemaname = 'public' ORDER BY 1")) {
    all += fmt::format("{} {}\n", *table[0],
                       session.value(fmt::format(
                           "SELECT count(*) || ' ' || coalesce(sum(hashtextextended(t::text, 0)"
                           "::numeric), 0) FROM {} AS t",
                           *table[0])));
  }
  return all;
}

Moment mark(const Cluster& cluster, const std::string& name) {
  postgres::Session session = cluster.session();
  Moment moment;
  moment.name = name;
  session.query("BEGIN");
  // In the order in which pgbench takes its locks: a deadlock is not what this is about.
  for (const char* table : {"accounts", "tellers", "branches", "history"}) {
    session.query(fmt::format("LOCK TABLE pgbench_{} IN SHARE MODE", table));
  }
  moment.content = content(session);
  moment.time = session.value("SELECT clock_timestamp()");
  moment.lsn = session.value("SELECT pg_create_restore_point($1)", {name});
  session.query("COMMIT");
  return moment;
}

namespace {

/// For installations without pg_amcheck: the same checks, called one by one.
std::string amcheck_by_sql(const Cluster& cluster) {
  std::string wrong;
  for (const char* database : {"postgres", "template1"}) {
    postgres::Session session = cluster.session(database);
    session.query("CREATE EXTENSION IF NOT EXISTS amcheck");
    for (const postgres::Row& row :
         session.query("SELECT c.oid::regclass, v.blkno, v.msg FROM pg_class c, "
                       "LATERAL verify_heapam(c.oid, check_toast => true) v "
                       "WHERE c.relkind IN ('r', 'm', 't') AND c.relpersistence = 'p'")) {
      wrong += fmt::format("{} {}: {}\n", *row[0], row[1].value_or(""), row[2].value_or(""));
    }
    // An index that is not sound is an error, which the caller sees as an exception.
    session.query(
        "SELECT bt_index_check(c.oid, true) FROM pg_class c JOIN pg_am a ON a.oid = c.relam "
        "JOIN pg_index i ON i.indexrelid = c.oid "
        "WHERE a.amname = 'btree' AND c.relpersistence = 'p' AND i.indisvalid AND i.indisready");
  }
  return wrong;
}

}  // namespace

std::string amcheck(const Cluster& cluster) {
  if (!cluster.installation().program("pg_amcheck")) return amcheck_by_sql(cluster);
  const Result result = run_tool(cluster.installation(), "pg_amcheck",
                                 {"--all", "--heapallindexed", "--install-missing", "--jobs=2",
                                  "--maintenance-db", cluster.connection()});
  return result.status == 0 ? "" : result.output + result.errors;
}

std::string bad_pages(const Cluster& cluster) {
  if (cluster.installation().program("pg_checksums")) {
    const Result result = run_tool(cluster.installation(), "pg_checksums",
                                   {"--check", "-D", cluster.data_directory().string()});
    return result.status == 0 ? "" : result.output + result.errors;
  }
  std::string bad;
  std::uint64_t pages = 0;
  for (const auto& entry : fs::recursive_directory_iterator(cluster.data_directory())) {
    const std::string name = fs::relative(entry.path(), cluster.data_directory()).string();
    const auto relation = postgres::relation_file(name);
    if (!entry.is_regular_file() || !relation) continue;
    const base::Bytes bytes = base::read_existing_file(entry.path());
    for (std::size_t at = 0; at + postgres::page_size <= bytes.size(); at += postgres::page_size) {
      const auto block = static_cast<std::uint32_t>(at / postgres::page_size) +
                         relation->segment * postgres::default_segment_blocks;
      ++pages;
      if (postgres::page_is_sound(base::View(bytes).subspan(at, postgres::page_size), block)) {
        continue;
      }
      bad += fmt::format("{} page {}\n", name, block);
    }
  }
  return pages > 500 ? bad : fmt::format("only {} pages were there to be checked", pages);
}

fs::path object_of(const Place& place, const Cluster& cluster, std::string_view name) {
  const auto control = postgres::read_control_file(cluster.data_directory()).control;
  return place.repository() / "clusters" / "main" / postgres::to_string(control.system_id) / name;
}

std::string current_segment(const Cluster& cluster) {
  return cluster.sql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())");
}

std::string finish_segment(const Place& place, const Cluster& cluster) {
  postgres::Session session = cluster.session();
  // A segment without a record would not be ended.
  session.query("SELECT pg_create_restore_point('finish_segment')");
  const std::string segment = session.value("SELECT pg_walfile_name(pg_switch_wal())");
  const fs::path object =
      object_of(place, cluster, fmt::format("wal/{}/{}", segment.substr(0, 8), segment));
  eventually(segment + " is archived", [&] { return fs::exists(object); });
  return segment;
}

void point_configuration_at(const Place& place, const Cluster& cluster) {
  std::istringstream lines(text_of(place.configuration()));
  std::string text;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("connection"))
      line = fmt::format("connection = \"{}\"", cluster.connection());
    if (line.starts_with("data_directory")) {
      line = fmt::format("data_directory = \"{}\"", cluster.data_directory().string());
    }
    text += line + "\n";
  }
  overwrite(place.configuration(), text);
}

postgres::Settings archiving(const Place& place) {
  return {{"archive_mode", "on"},
          {"archive_command", fmt::format("{} --config {} wal push %p", holdfast_binary().string(),
                                          place.configuration().string())}};
}

void make_agentless(const Place& place) {
  std::string text = text_of(place.configuration());
  const std::size_t begin = text.find("data_directory");
  text.erase(begin, text.find('\n', begin) + 1 - begin);
  overwrite(place.configuration(), text);
}

void flip_byte(const fs::path& file, std::uint64_t offset) {
  const base::Fd open = base::open_file(file, O_RDWR);
  std::uint8_t byte = 0;
  if (base::read_at(open, {&byte, 1}, offset, file) != 1) {
    throw std::runtime_error(file.string() + " is too short to be damaged there");
  }
  byte = static_cast<std::uint8_t>(~byte);
  base::write_at(open, {&byte, 1}, offset, file);
}

void overwrite(const fs::path& file, std::string_view text) {
  base::write_all(base::open_file(file, O_WRONLY | O_CREAT | O_TRUNC, 0644), base::view(text),
                  file);
}

std::string text_of(const fs::path& file) {
  return std::string(base::text(base::read_existing_file(file)));
}

std::map<std::string, std::string> tree_of(const fs::path& directory) {
  std::map<std::string, std::string> tree;
  for (const auto& entry : fs::recursive_directory_iterator(directory)) {
    const std::string name = fs::relative(entry.path(), directory).string();
    if (entry.is_symlink()) {
      tree[name] = "-> " + fs::read_symlink(entry.path()).string();
    } else {
      tree[name] = entry.is_regular_file() ? text_of(entry.path()) : "directory";
    }
  }
  return tree;
}

namespace {

/// The files of a data directory that a backup holds, with their content; without those that say
/// where the cluster stands, and what restoring adds.
std::map<std::string, fs::path> files_of(const fs::path& directory) {
  std::map<std::string, fs::path> files;
  std::string version_directory;
  for (const auto& tablespace : postgres::linked_tablespaces(directory)) {
    for (const auto& each : fs::directory_iterator(tablespace.location)) {
      version_directory = each.path().filename();
    }
  }
  postgres::walk_data_directory(
      directory, version_directory, [&](const postgres::DirectoryEntry& entry) {
        if (entry.kind != postgres::DirectoryEntry::Kind::file) return;
        if (entry.path == "global/pg_control" || entry.path == "postgresql.auto.conf" ||
            entry.path == "current_logfiles" || entry.path.starts_with("log/")) {
          return;
        }
        files[entry.path] = directory / entry.path;
      });
  return files;
}

/// The first page of an SP-GiST index: where it last found room is noted there without WAL, and
/// never relied on (SpGistUpdateMetaPage in spgutils.c).
bool is_spgist_metapage(base::View page) {
  return page.size() == 8192 && base::load<std::uint32_t>(page.data() + 24) == 0xBA0BABEE;
}

/// The first page that PostgreSQL would not call the same.
std::optional<std::size_t> first_other_page(base::View a, base::View b) {
  for (std::size_t at = 0; at < a.size(); at += 8192) {
    const base::View page = a.subspan(at, std::min<std::size_t>(8192, a.size() - at));
    const base::View other = b.subspan(at, page.size());
    if (std::ranges::equal(page, other)) continue;
    if (!is_spgist_metapage(page) || !is_spgist_metapage(other)) return at / 8192;
  }
  return std::nullopt;
}

}  // namespace

std::string differences_on_disk(const fs::path& truth, const fs::path& restored) {
  std::string found;
  auto expected = files_of(truth);
  auto there = files_of(restored);
  // Ours: it says which places belong to the directory in which it is.
  for (auto* each : {&expected, &there}) each->erase("holdfast.places");
  for (const auto& [path, file] : there) {
    if (!expected.contains(path)) found += path + " should not be there\n";
  }
  for (const auto& [path, file] : expected) {
    const auto copy = there.find(path);
    if (copy == there.end()) {
      found += path + " is missing\n";
      continue;
    }
    const base::MappedFile a(file);
    const base::MappedFile b(copy->second);
    if (a.bytes().size() != b.bytes().size()) {
      found +=
          fmt::format("{} has {} bytes instead of {}\n", path, b.bytes().size(), a.bytes().size());
    } else if (const auto page = first_other_page(a.bytes(), b.bytes())) {
      found += fmt::format("{} differs on page {}\n", path, *page);
    }
  }
  return found;
}

}  // namespace holdfast::tests
