#include "harness/harness.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <thread>

#include "base/error.h"
#include "postgres/administration.h"
#include "postgres/crc32c.h"

namespace holdfast::tests {

namespace {

/// Durability of the servers themselves is not what these tests are about.
postgres::Settings quick(const postgres::Settings& settings) {
  postgres::Settings all = {{"fsync", "off"}, {"shared_buffers", "32MB"}, {"max_wal_senders", "4"}};
  all.insert(all.end(), settings.begin(), settings.end());
  return all;
}

Result outcome_of(const base::Command& command) {
  const base::Outcome outcome = base::run(command);
  return {outcome.status, outcome.output, outcome.errors};
}

std::optional<base::User> server_user_if_root() {
  return base::running_as_root() ? postgres::server_user() : std::nullopt;
}

void overwrite_at(const fs::path& file, std::uint64_t offset, base::View bytes) {
  base::write_at(base::open_file(file, O_WRONLY), bytes, offset, file);
}

/// A copy of a cluster becomes one of a system of its own.
void make_another_system(const fs::path& data) {
  base::Bytes id(sizeof(std::uint64_t));
  // As initdb makes them: seconds, microseconds, process.
  const auto now = std::chrono::duration_cast<std::chrono::microseconds>(
                       std::chrono::system_clock::now().time_since_epoch())
                       .count();
  const auto whole = static_cast<std::uint64_t>(now);
  base::store(id.data(), (whole / 1000000 << 32) | (whole % 1000000 << 12) |
                             (static_cast<std::uint64_t>(::getpid()) & 0xFFF));
  const fs::path control = data / "global" / "pg_control";
  base::Bytes bytes = base::read_existing_file(control);
  const auto crc_of = [&bytes](std::size_t end) {
    return postgres::crc32c(base::View(bytes).first(end));
  };
  // Where the CRC is differs between versions; it is of everything before it.
  std::size_t at = 200;
  while (at + 4 < bytes.size() && base::load<std::uint32_t>(bytes.data() + at) != crc_of(at)) ++at;
  std::ranges::copy(id, bytes.begin());
  base::store(bytes.data() + at, crc_of(at));
  overwrite_at(control, 0, bytes);
  for (const auto& each : fs::directory_iterator(data / "pg_wal")) {
    // XLogLongPageHeaderData.xlp_sysid
    if (each.is_regular_file()) overwrite_at(each.path(), 24, id);
  }
}

/// initdb takes most of the time of a short test. HOLDFAST_TEST_TEMPLATES is a directory in which
/// one cluster of a kind is kept for all tests of a run.
void make_or_copy(const postgres::Installation& installation, const fs::path& data,
                  const postgres::InitOptions& options) {
  const char* templates = std::getenv("HOLDFAST_TEST_TEMPLATES");
  if (templates == nullptr) return postgres::make_cluster(installation, data, options);
  const fs::path kept =
      fs::path(templates) / fmt::format("{}-{}-{}", installation.major,
                                        options.wal_segment_bytes >> 20, options.checksums);
  {
    const base::Fd lock = base::open_file(templates, O_RDONLY | O_DIRECTORY);
    ::flock(lock.get(), LOCK_EX);
    if (!fs::exists(kept)) {
      const fs::path made = kept.string() + ".made";
      fs::remove_all(made);
      postgres::make_cluster(installation, made, options);
      fs::rename(made, kept);
    }
  }
  // It may be there, as a link or mounted.
  base::make_directories(data, 0700);
  base::run_checked({{"cp", "-a", kept / ".", data}, "/", {}, {}, {}});
  make_another_system(data);
}

}  // namespace

fs::path holdfast_binary() {
  const char* path = std::getenv("HOLDFAST_BIN");
  return path == nullptr ? HOLDFAST_BINARY : path;
}

postgres::Installation installation(int major) {
  const auto found = postgres::find_installation(major);
  if (!found) {
    throw std::runtime_error(
        fmt::format("PostgreSQL {} is not installed; scripts/build installs it", major));
  }
  return *found;
}

Cluster::Cluster(const postgres::Installation& installation, const fs::path& data_directory,
                 const postgres::InitOptions& options)
    : installation_(installation), data_directory_(data_directory) {
  if (!fs::exists(data_directory / "PG_VERSION")) {
    make_or_copy(installation, data_directory, options);
  }
}

void Cluster::start(const postgres::Settings& settings) {
  if (server_ && server_->running()) return;
  server_ = std::make_unique<postgres::Server>(installation_, data_directory_, quick(settings));
}

void Cluster::stop(postgres::Server::StopMode mode) {
  server_->stop(mode);
}

std::string Cluster::connection(std::string_view database) const {
  return server_->connection(database);
}

postgres::Session Cluster::session(std::string_view database) const {
  postgres::Session session(connection(database));
  session.query("SELECT set_config('search_path', 'public', false)");
  return session;
}

std::string Cluster::sql(const std::string& statement, std::string_view database) const {
  const postgres::Rows rows = session(database).query(statement);
  return rows.empty() || rows[0].empty() ? "" : rows[0][0].value_or("");
}

namespace {

/// A directory of a name of its own in another one.
fs::path make_unique(const fs::path& parent) {
  std::string name = (parent / "holdfast-test.XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("could not make " + name);
  return name;
}

bool has_room(const char* directory, std::uintmax_t bytes) {
  std::error_code absent;
  const fs::space_info room = fs::space(directory, absent);
  return !absent && room.available > bytes;
}

}  // namespace

int free_port() {
  const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  if (::bind(socket, reinterpret_cast<sockaddr*>(&address), length) != 0 ||
      ::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &length) != 0) {
    throw std::runtime_error("could not find a port");
  }
  ::close(socket);
  return ntohs(address.sin_port);
}

const fs::path& test_directory() {
  // Short enough for sockets.
  static const fs::path chosen = [] {
    if (const char* named = std::getenv("HOLDFAST_TEST_DIRECTORY")) return fs::path(named);
    const bool in_memory =
        std::getenv("HOLDFAST_LONG") == nullptr && has_room("/dev/shm", std::uintmax_t{6} << 30);
    return fs::path(in_memory ? "/dev/shm" : "/var/tmp");
  }();
  return chosen;
}

MemoryPlace::MemoryPlace()
    : path_(make_unique(has_room("/dev/shm", std::uintmax_t{1} << 30) ? "/dev/shm" : "/var/tmp")) {
  const auto user = server_user_if_root();
  if (user && ::lchown(path_.c_str(), user->uid, user->gid) != 0) {
    throw std::runtime_error("could not give away " + path_.string());
  }
}

MemoryPlace::~MemoryPlace() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

Place::Place() : root_(make_unique(test_directory())) {
  fs::permissions(root_, fs::perms(0755));
  give_to_server_user(root_);
}

Place::~Place() {
  std::error_code ignored;
  fs::remove_all(root_, ignored);
}

void Place::give_to_server_user(const fs::path& path) const {
  const auto user = server_user_if_root();
  if (user && ::lchown(path.c_str(), user->uid, user->gid) != 0) {
    throw std::runtime_error("could not give away " + path.string());
  }
}

Result Place::holdfast(const std::vector<std::string>& arguments,
                       const std::vector<std::pair<std::string, std::string>>& environment) const {
  base::Command command;
  command.argv = {holdfast_binary().string(), "--config", configuration().string()};
  command.argv.insert(command.argv.end(), arguments.begin(), arguments.end());
  command.directory = root_;
  command.environment = environment;
  command.user = server_user_if_root();
  return outcome_of(command);
}

Result Place::must(const std::vector<std::string>& arguments) const {
  Result result = holdfast(arguments);
  std::string line;
  for (const std::string& each : arguments) line += " " + each;
  EXPECT_EQ(result.status, 0) << "holdfast" << line << "\n" << result.errors << result.output;
  return result;
}

std::unique_ptr<Cluster> Place::cluster(int major, const postgres::InitOptions& options,
                                        const std::vector<std::string>& init_arguments) {
  auto cluster = std::make_unique<Cluster>(installation(major), path("data"), options);
  const fs::path settings = cluster->data_directory() / "postgresql.conf";
  const std::string text = fmt::format(
      "{}\nwal_level = replica\narchive_mode = on\narchive_command = '{} --config {} wal push "
      "%p'\n",
      base::text(base::read_existing_file(settings)), holdfast_binary().string(),
      configuration().string());
  base::replace_file(settings, base::view(text));
  give_to_server_user(settings);
  cluster->start();
  std::vector<std::string> init = {"init",
                                   "--connection",
                                   cluster->connection(),
                                   "--data-directory",
                                   cluster->data_directory().string(),
                                   "--repository",
                                   "file://" + repository().string()};
  init.insert(init.end(), init_arguments.begin(), init_arguments.end());
  must(init);
  return cluster;
}

std::unique_ptr<Cluster> adopt(const postgres::Installation& installation,
                               const fs::path& directory) {
  return std::make_unique<Cluster>(installation, directory);
}

std::unique_ptr<Cluster> Place::restored(const Cluster& source, std::string_view name,
                                         const std::vector<std::string>& arguments) {
  std::vector<std::string> restore = {"restore", path(name).string()};
  restore.insert(restore.end(), arguments.begin(), arguments.end());
  must(restore);
  auto cluster = adopt(source.installation(), path(name));
  cluster->start();
  cluster->server().await_recovery_end(std::chrono::seconds(120));
  return cluster;
}

void Place::archive_all(Cluster& cluster) const {
  postgres::Session session = cluster.session();
  const auto size =
      session.value("SELECT setting FROM pg_settings WHERE name = 'wal_segment_size'");
  session.query("SELECT pg_create_restore_point('archive_all')");
  const std::string segment = session.value("SELECT pg_walfile_name(pg_switch_wal())");
  const std::string system = postgres::to_string(session.system_id());
  const fs::path object =
      repository() / "clusters" / "main" / system / "wal" / segment.substr(0, 8) / segment;
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!fs::exists(object)) {
    if (std::chrono::steady_clock::now() > limit) {
      throw std::runtime_error("segment " + segment + " was not archived in a minute");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

Result run_tool(const postgres::Installation& installation, std::string_view program,
                const std::vector<std::string>& arguments) {
  const auto path = installation.program(program);
  if (!path) throw std::runtime_error(fmt::format("there is no {}", program));
  base::Command command;
  command.argv = {path->string()};
  command.argv.insert(command.argv.end(), arguments.begin(), arguments.end());
  command.directory = "/";
  command.user = server_user_if_root();
  return outcome_of(command);
}

std::string digest(const Cluster& cluster) {
  std::string all;
  postgres::Session session = cluster.session();
  for (const postgres::Row& database :
       session.query("SELECT datname FROM pg_database WHERE datallowconn AND datname <> "
                     "'template0' ORDER BY 1")) {
    postgres::Session inside = cluster.session(*database[0]);
    for (const postgres::Row& table :
         inside.query("SELECT format('%I.%I', schemaname, tablename) FROM pg_tables "
                      "WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1")) {
      all += fmt::format("{} {} {}\n", *database[0], *table[0],
                         inside.value(fmt::format(
                             "SELECT count(*) || ' ' || coalesce(md5(string_agg(t::text, chr(10) "
                             "ORDER BY t::text)), '') FROM {} AS t",
                             *table[0])));
    }
  }
  return all;
}

}  // namespace holdfast::tests
