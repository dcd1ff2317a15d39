#include "worlds/life.h"

#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

namespace holdfast::tests::worlds {

namespace {

std::optional<base::User> server_user_if_root() {
  return base::running_as_root() ? postgres::server_user() : std::nullopt;
}

/// In a libpq connection string.
std::string value_of(const std::string& text) {
  std::string value = "'";
  for (const char each : text) {
    if (each == '\'' || each == '\\') value += '\\';
    value += each;
  }
  return value + "'";
}

base::Outcome run_as_server(const std::vector<std::string>& argv) {
  base::Command command;
  command.argv = argv;
  command.directory = "/";
  command.user = server_user_if_root();
  return base::run(command);
}

void must_run(const std::vector<std::string>& argv, bool as_self = false) {
  base::Command command;
  command.argv = argv;
  command.directory = "/";
  if (!as_self) command.user = server_user_if_root();
  base::run_checked(command);
}

std::string first_line(const fs::path& file) {
  std::string line;
  std::getline(std::ifstream(file), line);
  return line;
}

/// What a running server writes by itself, however little it has to do.
bool is_servers_own(const fs::path& relative) {
  static const std::set<std::string> directories = {
      "pg_wal",         "pg_stat",         "pg_stat_tmp",      "pg_logical",
      "pg_notify",      "pg_subtrans",     "pg_serial",        "pg_replslot",
      "postmaster.pid", "postmaster.opts", "current_logfiles", "log"};
  return (relative.has_parent_path() && directories.contains(relative.begin()->string()) &&
          relative != *relative.begin()) ||
         relative == "global/pg_control" || relative == "postmaster.pid" ||
         relative == "postmaster.opts" || relative == "current_logfiles" ||
         relative == "base/pgsql_tmp" || relative.filename() == "pg_internal.init";
}

}  // namespace

std::string quoted(const std::string& text) {
  std::string word = "'";
  for (const char each : text) word += each == '\'' ? "'\\''" : std::string(1, each);
  return word + "'";
}

Life::Life(const World& world) : port_(free_port()) {
  try {
    begin(world);
  } catch (...) {
    end();
    throw;
  }
}

Life::~Life() {
  end();
}

void Life::begin(const World& world) {
  data = path("data");
  directory("s");
  directory("log");
  if (world.plan) world.plan(*this);
  installation_ = installation(major);
  make_cluster();
  make_surroundings();
  if (world.configured) world.configured(*this);
  start();
  make_rows();
  const Result made = holdfast({"init", "--connection", connection(entry), "--data-directory", data,
                                "--repository", "file://" + place.repository().string()});
  if (made.status != 0) throw std::runtime_error("init: " + made.errors);
  std::ofstream(place.configuration(), std::ios::app)
      << "\n[drill]\ndirectory = \"" << path("scratch").string() << "\"\n";
  directory("scratch");
  if (world.started) world.started(*this);
  now = at_backup = digest();
}

void Life::end() {
  try {
    if (runs()) stop();
  } catch (const std::exception&) {
  }
  neighbours.clear();
  for (auto each = mounts.rbegin(); each != mounts.rend(); ++each) {
    ::umount2(each->c_str(), MNT_DETACH);
  }
  if (debian) {
    base::Command drop;
    drop.argv = {"pg_dropcluster", "--stop", std::to_string(major), debian_name_};
    base::run(drop);
    std::error_code ignored;
    for (const auto& each : fs::directory_iterator(data.parent_path(), ignored)) {
      if (each.path().filename().string().starts_with(debian_name_)) fs::remove_all(each, ignored);
    }
  }
}

fs::path Life::directory(const std::string& name, int mode) const {
  fs::path made = path();
  for (const fs::path& part : fs::path(name)) {
    made /= part;
    if (fs::create_directory(made)) place.give_to_server_user(made);
  }
  ::chmod(made.c_str(), static_cast<mode_t>(mode));
  return made;
}

void Life::mount_memory(const fs::path& directory) {
  const auto user = server_user_if_root();
  const std::string options =
      fmt::format("size=256m,mode=0700,uid={},gid={}", user->uid, user->gid);
  if (::mount("tmpfs", directory.c_str(), "tmpfs", 0, options.c_str()) != 0) {
    throw std::runtime_error("could not mount " + directory.string());
  }
  mounts.push_back(directory);
}

void Life::add_settings(const std::string& lines) const {
  std::ofstream(configuration / "postgresql.conf", std::ios::app) << lines << "\n";
}

void Life::make_cluster() {
  if (debian) {
    debian_name_ = fmt::format("w{}", ::getpid());
    data = fmt::format("/var/lib/postgresql/{}/{}", major, debian_name_);
    configuration = fmt::format("/etc/postgresql/{}/{}", major, debian_name_);
    std::vector<std::string> create = {
        "pg_createcluster", "-p", std::to_string(port_), std::to_string(major), debian_name_, "--",
        "--no-sync"};
    create.insert(create.end(), initdb.begin(), initdb.end());
    must_run(create, true);
    watched.push_back(configuration);
    watched.push_back(data);
    // Peers are of one name only, and whoever runs the tests has another.
    const fs::path rules = configuration / "pg_hba.conf";
    overwrite(rules, "local all all trust\nlocal replication all trust\n" + text_of(rules));
  } else {
    std::vector<std::string> create = {pg().bin / "initdb", "-D",        data,     "-U",
                                       superuser,           "--no-sync", "--auth", "trust"};
    create.insert(create.end(), initdb.begin(), initdb.end());
    must_run(create);
    configuration = data;
  }
  add_settings(fmt::format(
      "fsync = off\nautovacuum = off\nshared_buffers = 32MB\nbgwriter_lru_maxpages = 0\n"
      "checkpoint_timeout = '1h'\nlisten_addresses = ''\nunix_socket_directories = '{}'\n"
      "wal_level = replica\narchive_mode = on\n"
      "archive_command = '\"{}\" --config \"{}\" wal push \"%p\"'\n",
      sockets().string(), holdfast_binary().string(), place.configuration().string()));
  if (port_in_files) add_settings(fmt::format("port = {}", port_));
}

/// Things that are nobody's business but their owner's.
void Life::make_surroundings() {
  const fs::path home = directory("home", 0755);
  for (const char* name : {"letter", ".pgpass", "PG_VERSION"}) {
    std::ofstream(home / name) << "private\n";
  }
  fs::create_directory(home / "root");
  ::chmod((home / "root").c_str(), 0700);
  std::ofstream(home / "root" / "secret") << "secret\n";
  fs::create_directory_symlink(home / "root", home / "link");
}

void Life::start() {
  if (runs()) return;
  if (debian)
    return must_run({"pg_ctlcluster", "--skip-systemctl-redirect", std::to_string(major),
                     debian_name_, "start"},
                    true);
  // What somebody's restart says of the server is kept in postmaster.opts; the log is of one place.
  must_run({pg().bin / "pg_ctl", "-D", configuration, "-l", path("log") / "server", "-w", "-t",
            "60", "-o", server_options + " ", "start"});
}

void Life::stop() const {
  must_run({pg().bin / "pg_ctl", "-D", data, "-m", "fast", "-w", "stop"});
}

bool Life::runs() const {
  const std::string pid = first_line(data / "postmaster.pid");
  return !pid.empty() && ::kill(std::stoi(pid), 0) == 0;
}

std::string Life::server_string(const fs::path& sockets, int port) const {
  return fmt::format("host={} port={} user={}", value_of(sockets), port, value_of(superuser));
}

std::string Life::connection(const std::string& to) const {
  return server_string(sockets(), port_) + " dbname=" + value_of(to.empty() ? database : to);
}

std::string Life::sql(const std::string& statement, const std::string& on) const {
  postgres::Session session(connection(on));
  session.query("SELECT set_config('search_path', 'public', false)");
  const postgres::Rows rows = session.query(statement);
  return rows.empty() || rows[0].empty() ? "" : rows[0][0].value_or("");
}

void Life::make_rows() {
  std::string name = "\"";
  for (const char each : database) name += each == '"' ? "\"\"" : std::string(1, each);
  sql("CREATE DATABASE " + name + "\"", "template1");
  sql("CREATE TABLE rows (id int PRIMARY KEY, v text)");
  sql("INSERT INTO rows SELECT g, 'row ' || g FROM generate_series(1, 1000) g");
}

base::Command Life::command(const std::vector<std::string>& arguments) const {
  base::Command command;
  command.argv = {holdfast_binary().string(), "--config", place.configuration().string()};
  command.argv.insert(command.argv.end(), arguments.begin(), arguments.end());
  command.directory = path();
  command.user = server_user_if_root();
  // Where somebody has more than one version, he says which.
  command.environment = {{"PGCONNECT_TIMEOUT", "10"}};
  return command;
}

Result Life::holdfast(const std::vector<std::string>& arguments) const {
  base::Outcome outcome = base::run(command(arguments));
  return {outcome.status, std::move(outcome.output), std::move(outcome.errors)};
}

Result Life::holdfast_as_self(const std::vector<std::string>& arguments) const {
  base::Command own = command(arguments);
  own.user.reset();
  base::Outcome outcome = base::run(own);
  return {outcome.status, std::move(outcome.output), std::move(outcome.errors)};
}

void Life::make_agentless(bool agentless) const {
  std::string text = text_of(place.configuration());
  const std::string with = "\ndata_directory", without = "\n#data_directory";
  const std::size_t at = text.find(agentless ? with : without);
  if (at == std::string::npos) throw std::runtime_error("no data_directory in holdfast.toml");
  text.replace(at, (agentless ? with : without).size(), agentless ? without : with);
  overwrite(place.configuration(), text);
}

void Life::owns_production() {
  owns(data);
  std::error_code failed;
  owns(fs::canonical(data, failed));
  for (const fs::path& each : production) owns(each);
  for (const auto& [location, target] : tablespaces) owns(location);
  owns(path("log"));
}

std::vector<std::string> Life::mapped(const std::string& name) {
  std::vector<std::string> arguments;
  for (const auto& [location, target] : tablespaces) {
    const fs::path to = path(name + "." + target.string());
    arguments.insert(arguments.end(), {"--tablespace", location.string() + "=" + to.string()});
    owns(to);
  }
  return arguments;
}

std::string Life::digest(const std::string& server) const {
  std::string all;
  postgres::Session session(server + " dbname=template1");
  for (const postgres::Row& each :
       session.query("SELECT datname FROM pg_database WHERE datallowconn ORDER BY 1")) {
    postgres::Session inside(server + " dbname=" + value_of(*each[0]));
    for (const postgres::Row& table :
         inside.query("SELECT format('%I.%I', schemaname, tablename) FROM pg_tables "
                      "WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1")) {
      all += fmt::format("{} {} {}\n", *each[0], *table[0],
                         inside.value(fmt::format(
                             "SELECT count(*) || ' ' || coalesce(md5(string_agg(t::text, chr(10) "
                             "ORDER BY t::text)), '') FROM {} AS t",
                             *table[0])));
    }
  }
  return all;
}

void Life::archive() {
  const std::string segment = sql("SELECT pg_walfile_name(pg_switch_wal())");
  eventually("the server has archived what it wrote", [&] {
    return sql("SELECT coalesce(last_archived_wal, '') >= '" + segment +
               "' FROM pg_stat_archiver") == "t";
  });
}

void Life::rest() {
  if (!runs()) return;
  sql("VACUUM FREEZE rows");
  sql("CHECKPOINT");
  digest();  // so that nobody's looking writes anything later
}

void Life::settle_down(bool needed) {
  if (is_stopped && !needed && runs()) {
    rest();
    stop();
  } else {
    start();
  }
  rest();
}

void Life::make_moment(const World& world) {
  if (world.later) world.later(*this);
  sql("INSERT INTO rows SELECT g, 'row ' || g FROM generate_series(1001, 1500) g");
  at_moment = digest();
  sql("SELECT pg_create_restore_point('before')");
  sql("DELETE FROM rows WHERE id > 700");
  now = digest();
  archive();
}

std::vector<pid_t> Life::processes() const {
  std::set<pid_t> servers = {::getpid()};
  if (runs()) servers.insert(std::stoi(first_line(data / "postmaster.pid")));
  for (const auto& [name, neighbour] : neighbours) servers.insert(neighbour->server().pid());
  std::vector<pid_t> found;
  for (const auto& each : fs::directory_iterator("/proc")) {
    const std::string name = each.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    const pid_t pid = std::stoi(name);
    if (servers.contains(pid)) continue;
    const auto line = base::read_file(each.path() / "cmdline");  // it may be gone by now
    if (line && base::text(*line).find(path().native()) != std::string_view::npos) {
      found.push_back(pid);
    }
  }
  return found;
}

bool Life::left_out(const fs::path& path) const {
  for (const fs::path& each : own_) {
    if (is_below(path, each)) return true;
  }
  if (is_below(path, place.repository()) || is_below(path, sockets())) return true;
  if (is_below(path, this->path("log")) && path != this->path("log")) return true;
  for (const fs::path& each : busy) {
    if (is_below(path, each) && path != each) return true;
  }
  std::error_code failed;
  const fs::path real = fs::canonical(data, failed);
  if (runs() && is_below(path, real) && path != real) {
    return is_servers_own(path.lexically_relative(real));
  }
  for (const auto& [name, neighbour] : neighbours) {
    const fs::path& theirs = neighbour->data_directory();
    if (is_below(path, theirs) && path != theirs) {
      return is_servers_own(path.lexically_relative(theirs));
    }
  }
  return false;
}

std::string Life::neighbour_state() const {
  std::string state;
  for (const auto& [name, neighbour] : neighbours) {
    state += fmt::format("{} {}\n{}", name, neighbour->server().pid(),
                         digest(fmt::format("host={} port={} user=postgres",
                                            neighbour->server().socket_directory().string(),
                                            neighbour->server().port())));
  }
  return state;
}

void Life::arm() {
  own_.clear();
  neighbours_before_ = neighbour_state();
  pid_before_ = runs() ? first_line(data / "postmaster.pid") : "";
  std::vector<fs::path> places = watched;
  places.push_back(path());
  before_ = picture_of(places, [this](const fs::path& each) { return left_out(each); });
}

std::string Life::tripped() {
  std::vector<fs::path> places = watched;
  places.push_back(path());
  const auto leave_out = [this](const fs::path& each) { return left_out(each); };
  std::string broken = differences(before_, picture_of(places, leave_out), leave_out);
  if (!broken.empty()) broken = "files of others changed:\n" + broken;
  const bool is_its_own = own_.contains(data);
  const std::string pid = runs() ? first_line(data / "postmaster.pid") : "";
  if (!is_its_own && pid != pid_before_) {
    broken += fmt::format("production: process {} became {}\n", pid_before_, pid);
  }
  if (neighbour_state() != neighbours_before_) broken += "a neighbour's server or rows changed\n";
  if (pid.empty() && !pid_before_.empty()) return broken + "production does not run\n";
  if (!pid.empty() && digest() != now) {
    broken += "production's rows changed:\n" + now + "became\n" + digest();
  }
  return broken;
}

void Life::clean() {
  if (own_.contains(data)) return;
  for (const fs::path& each : own_) {
    if (!is_below(each, path())) continue;
    // Whoever brings WAL in advance notices that it is gone, and ends.
    eventually(each.string() + " is gone", [&] {
      std::error_code failed;
      fs::remove_all(each, failed);
      return !fs::exists(fs::symlink_status(each));
    });
  }
}

Restored::Restored(Life& life, const fs::path& directory)
    : life_(life), directory_(directory), sockets_(life.directory("r")), port_(free_port()) {
  life.owns(sockets_);
  life.owns(life.path("restored.log"));
  const std::string options =
      fmt::format("-p {} -k {} -c listen_addresses=''", port_, quoted(sockets_));
  const base::Outcome started =
      run_as_server({life.pg().bin / "pg_ctl", "-D", directory, "-l", life.path("restored.log"),
                     "-w", "-t", "60", "-o", options, "start"});
  if (started.status != 0) {
    const std::string log = text_of(life.path("restored.log"));
    throw std::runtime_error("the restored server does not start: " +
                             log.substr(log.size() > 600 ? log.size() - 600 : 0));
  }
  try {
    eventually("recovery has ended", [&] {
      return postgres::Session(life_.server_string(sockets_, port_) + " dbname=template1")
                 .value("SELECT pg_is_in_recovery()") == "f";
    });
  } catch (...) {
    stop();
    throw;
  }
}

Restored::~Restored() {
  stop();
}

std::string Restored::digest() const {
  return life_.digest(life_.server_string(sockets_, port_));
}

void Restored::stop() {
  if (!std::exchange(runs_, false)) return;
  run_as_server({life_.pg().bin / "pg_ctl", "-D", directory_, "-m", "fast", "-w", "stop"});
}

}  // namespace holdfast::tests::worlds
