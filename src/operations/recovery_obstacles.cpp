#include "operations/recovery_obstacles.h"

#include <signal.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <map>

#include "base/secrecy.h"
#include "operations/instant_mount.h"
#include "operations/old_cluster.h"
#include "operations/recovery_start.h"
#include "operations/restored_cluster.h"
#include "operations/secret_bundle.h"
#include "operations/secret_targets.h"
#include "operations/secrets.h"
#include "operations/wal_coverage.h"
#include "postgres/connection_string.h"
#include "postgres/server.h"
#include "postgres/session.h"
#include "repository/backups.h"
#include "service/environment_file.h"
#include "service/smoke_gate.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using base::fs::path;
using Step = RecoveryStep;

/// The nearest that is there already.
path existing_part(path place) {
  while (!base::status_of(place) && place.has_relative_path()) place = place.parent_path();
  return place;
}

bool is_writable(const path& directory) {
  return ::access(directory.c_str(), W_OK | X_OK) == 0;
}

/// Something is mounted right there: such a directory cannot be renamed. A bind mount has the same
/// device as what is around it, so the kernel's list is asked.
bool is_mount_point(const path& directory) {
  std::error_code failed;
  const std::string real = base::fs::canonical(directory, failed).string();
  const auto bytes = base::read_file("/proc/self/mountinfo");
  if (failed || !bytes) return false;
  std::string_view text = base::text(*bytes);
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    for (int field = 0; field < 4; ++field)
      line.remove_prefix(std::min(line.find(' ') + 1, line.size()));
    std::string point;  // "\040" is a space
    const std::string_view escaped = line.substr(0, line.find(' '));
    for (std::size_t i = 0; i < escaped.size(); ++i) {
      unsigned code = 0;
      if (escaped[i] == '\\' && i + 3 < escaped.size() &&
          std::from_chars(&escaped[i + 1], &escaped[i + 4], code, 8).ec == std::errc()) {
        point += static_cast<char>(code);
        i += 3;
      } else {
        point += escaped[i];
      }
    }
    if (point == real) return true;
  }
  return false;
}

/// Found on PATH, as a command that is run without a slash would be.
bool is_installed(const std::string& program) {
  const char* all = std::getenv("PATH");
  std::string_view rest = all == nullptr ? "/usr/bin:/bin" : all;
  while (!rest.empty()) {
    const std::size_t colon = std::min(rest.find(':'), rest.size());
    if (::access((path(rest.substr(0, colon)) / program).c_str(), X_OK) == 0) return true;
    rest.remove_prefix(std::min(colon + 1, rest.size()));
  }
  return false;
}

/// As libpq would take it.
std::string port_named_in(const std::string& connection) {
  for (const auto& [name, value] : postgres::connection_environment(connection)) {
    if (name == "PGPORT") return value;
  }
  const char* port = std::getenv("PGPORT");
  return port == nullptr || *port == 0 ? "5432" : port;
}

class Search {
 public:
  Search(const RecoveryContext& context, const Site& site, const RestorePlan& plan)
      : context_(context), site_(site), plan_(plan) {}

  std::vector<Obstacle> all() {
    old_place();
    new_place();
    space();
    server();
    service();
    secrets();
    return std::move(found_);
  }

 private:
  void add(std::string what, std::string hint, Code code = Code::refused) {
    found_.push_back({code, std::move(what), std::move(hint)});
  }
  /// Anything that throws is an obstacle with its own words.
  template <typename Work>
  void try_out(Work work) {
    try {
      work();
    } catch (const Error& error) {
      if (error.code() == Code::interrupted) throw;
      add(error.message(), error.hint(), error.code());
    }
  }
  void old_place();
  void new_place();
  void space();
  void server();
  void connection(const path& directory);
  void service();
  void secrets();
  void must_be_file(const path& file, std::string_view what);

  const RecoveryContext& context_;
  const Site& site_;
  const RestorePlan& plan_;
  std::vector<Obstacle> found_;
};

void Search::old_place() {
  const path directory = old_place_of(context_.cluster());
  const auto names = directory.empty() ? std::nullopt : base::directory_names(directory);
  if (!names || names->empty()) return;
  // A mount of our own is taken down for that.
  if (is_mount_point(directory) && !read_instant(instant_place(directory))) {
    add(fmt::format("\"{}\" cannot be renamed: it is a mount point", directory.string()),
        "mount that file system at a directory above it, so that the data directory is one of its "
        "directories");
  }
  if (!is_writable(directory.parent_path())) {
    add(fmt::format("\"{}\" cannot be renamed: \"{}\" is not writable for us", directory.string(),
                    directory.parent_path().string()),
        "run it as the user who owns that directory, or as root", Code::permission);
  }
  const auto pid = server_process(directory);
  if (pid && ::kill(*pid, 0) != 0 && errno == EPERM) {
    add(fmt::format("the server in \"{}\" (process {}) is not ours to stop", directory.string(),
                    *pid),
        "run it as the user that PostgreSQL runs as, or as root", Code::permission);
  }
  // It would go away with it.
  const Configuration& configuration = context_.configuration();
  std::vector<path> needed{configuration.path, configuration.recover.state,
                           configuration.drill.evidence};
  for (const Configuration& each : context_.repositories) {
    const std::string& url = each.repository().url;
    constexpr std::string_view scheme = "file://";
    if (url.starts_with(scheme)) needed.emplace_back(url.substr(scheme.size()));
  }
  for (const path& each : needed) {
    std::error_code failed;
    const path real = base::fs::weakly_canonical(each, failed);
    if (failed || real.empty()) continue;
    const auto beneath = real.lexically_relative(directory);
    if (beneath.empty() || *beneath.begin() == "..") continue;
    add(fmt::format("\"{}\" is in the old data directory, which is renamed", each.string()),
        "put it elsewhere");
  }
}

void Search::new_place() {
  const Recovery& recovery = context_.recovery();
  const path old = old_place_of(context_.cluster());
  if (recovery.directory == old) return;
  const auto names = base::directory_names(recovery.directory);
  if (names && !names->empty()) {
    add(fmt::format("cannot restore into \"{}\": it is not empty", recovery.directory.string()),
        "empty it, or name another one: [recover] directory");
  }
  const auto beneath = recovery.directory.lexically_relative(old);
  if (!old.empty() && !beneath.empty() && *beneath.begin() != "..") {
    add(fmt::format("\"{}\" is in the old data directory, which is renamed",
                    recovery.directory.string()),
        "name another one: [recover] directory");
  }
  const path there = existing_part(recovery.directory);
  if (!is_writable(there)) {
    add(fmt::format("\"{}\" cannot be made: \"{}\" is not writable for us",
                    recovery.directory.string(), there.string()),
        "run it as the user who owns that directory, or as root", Code::permission);
  }
}

/// Each file system by itself: what comes to it, and what it has. The old cluster stays beside.
void Search::space() {
  struct Demand {
    path place;
    std::uint64_t bytes = 0;
    std::uint64_t unarchived = 0;
  };
  std::map<dev_t, Demand> demands;
  const auto demand_at = [&](const path& place) -> Demand& {
    const path there = existing_part(place);
    const auto status = base::status_of(there);
    Demand& demand = demands[status ? status->st_dev : 0];
    if (demand.place.empty()) demand.place = there;
    return demand;
  };
  const Recovery& recovery = context_.recovery();
  const path data = recovery.directory.parent_path();
  const repository::Backups backups(site_.repository, plan_.backup.place);
  const repository::BackupMap map = backups.read_map(plan_.backup.id);
  std::map<std::string, path> places;
  for (const auto& link : map.links) {
    places[link.path + "/"] = restored_tablespace(recovery, link);
  }
  const auto place_of = [&](const std::string& file) -> const path& {
    for (const auto& [prefix, place] : places) {
      if (file.starts_with(prefix)) return place;
    }
    return data;
  };
  base::Decompressor decompressor;
  for (const repository::ShardReference& shard : map.shards) {
    const path& first = place_of(shard.first_path);
    if (places.empty() ||
        (shard.first_path.starts_with("pg_tblspc/") && first == place_of(shard.last_path))) {
      demand_at(first).bytes += shard.bytes;
      continue;
    }
    for (const auto& file : backups.read_shard(shard.id, decompressor).files) {
      demand_at(place_of(file.path)).bytes += file.size;
    }
  }
  for (auto& [device, demand] : demands) demand.bytes += demand.bytes / 20;  // what replay adds
  // WAL: what is replayed is kept until a restartpoint, of which there is one each max_wal_size.
  constexpr std::uint64_t kept_wal = std::uint64_t{1} << 30;
  const repository::WalArchive archive(site_.repository, plan_.backup.place);
  const WalCoverage coverage(archive, plan_.backup.segment_size);
  const postgres::Lsn end = coverage.contiguous_end(plan_.history, plan_.backup.start);
  Demand& demand = demand_at(data);
  demand.bytes += std::min(end.value - std::min(plan_.backup.start, end).value, kept_wal) +
                  2 * plan_.backup.segment_size.bytes;
  if (plan_.target.kind == RecoveryTarget::Kind::latest) {
    for (const path& file : unarchived_wal(site_, plan_, old_place_of(context_.cluster()))) {
      const auto status = base::status_of(file);
      demand.unarchived += status ? static_cast<std::uint64_t>(status->st_size) : 0;
    }
  }
  for (const auto& [device, each] : demands) {
    struct statvfs room {};
    if (::statvfs(each.place.c_str(), &room) != 0) continue;
    const std::uint64_t free = std::uint64_t{room.f_bavail} * room.f_frsize;
    const std::uint64_t needed = each.bytes + each.unarchived;
    if (free >= needed) continue;
    add(fmt::format("there is not enough room at \"{}\": {} are needed{}, and {} are free",
                    each.place.string(), base::size_text(needed),
                    each.unarchived == 0
                        ? ""
                        : fmt::format(" ({} of them for WAL that was not archived)",
                                      base::size_text(each.unarchived)),
                    base::size_text(free)),
        "make room there, or name another place: [recover] directory. The old cluster is kept "
        "beside the new one",
        Code::no_space);
  }
}

void Search::server() {
  const int major = plan_.backup.server_version / 10000;
  if (!postgres::find_installation(major)) {
    add(fmt::format("PostgreSQL {} is not installed here", major),
        "install it, or name the directory of its programs in HOLDFAST_PG_BIN", Code::not_found);
  }
  const path directory = old_place_of(context_.cluster());
  if (directory.empty() || !base::status_of(directory / "PG_VERSION")) return;
  const bool starts_itself = !context_.settings().command(Step::start);
  if (starts_itself) {
    for (const std::string& each : settings_of_command_line_alone(directory)) {
      add(fmt::format("the server in \"{}\" has {} from its command line alone: started anew, it "
                      "would be without",
                      directory.string(), each),
          "set it in postgresql.conf, or say how it is started: [recover.command] start");
    }
  }
  if (server_process(directory)) connection(directory);
}

/// It runs: then it can be tried how the restored one will be reached.
void Search::connection(const path& directory) {
  if (!context_.settings().connection.empty()) return;
  const std::string& where = context_.cluster().connection;
  if (!postgres::somebody_answers(where)) {
    // It may hang; that is no reason not to recover.
    const std::string port = port_of(directory);
    if (port.empty() || port_named_in(where) == port) return;
    add(fmt::format("nobody answers to \"connection\": the server in \"{}\" has port {}",
                    directory.string(), port),
        "mend \"connection\": the restored cluster could not be reached either");
    return;
  }
  try {
    postgres::Session session(where);
  } catch (const Error& error) {
    if (error.code() == Code::interrupted) throw;
    // Full, or not yet or no longer taking connections: it will be another server.
    for (const char* passing : {"too many clients", "connection slots", "is starting up",
                                "is shutting down", "recovery mode", "not yet accepting"}) {
      if (error.message().find(passing) != std::string::npos) return;
    }
    add(error.message(),
        "mend \"connection\" (~/.pgpass for a password): the restored cluster could not be reached "
        "either",
        error.code());
  }
}

void Search::must_be_file(const path& file, std::string_view what) {
  if (file.empty() || ::access(file.c_str(), R_OK) == 0) return;
  // What went along with the backups can be brought back before it is needed.
  for (const FilesConfiguration& each : context_.repositories.at(0).files) {
    if (each.path == file) return;
  }
  add(fmt::format("{} \"{}\" cannot be read: {}", what, file.string(),
                  std::generic_category().message(errno)),
      "mend its name in [recover], or bring it back", Code::configuration);
}

void Search::service() {
  const RecoverSettings& settings = context_.settings();
  const Recovery& recovery = context_.recovery();
  const bool secrets_come = recovery.full && !recovery.identity.empty();
  if (!settings.database_host.empty() && !settings.command(Step::environment) && !secrets_come &&
      !settings.command(Step::secrets)) {
    must_be_file(settings.environment_file, "environment_file");
    if (base::status_of(settings.environment_file)) {
      try_out([&] {
        if (service::read_variable(settings.environment_file, settings.variable)) return;
        add(fmt::format("{} is not set in \"{}\"", settings.variable,
                        settings.environment_file.string()),
            "set it there, with any host", Code::configuration);
      });
    }
  }
  if (!settings.command(Step::deploy)) {
    if (settings.compose) {
      if (!is_installed("docker"))
        add("docker is not installed here", "[recover.compose] needs it");
      for (const path& file : settings.compose->files) must_be_file(file, "the compose file");
    } else if (!settings.unit.empty() && !is_installed("systemctl")) {
      add(fmt::format("there is no systemctl to restart {} with", settings.unit),
          "say how it is made anew: [recover.command] deploy");
    }
  }
  if (!settings.smoke.empty() && !settings.command(Step::smoke)) {
    must_be_file(settings.smoke, "smoke");
    if (settings.smoke.extension() == ".js") {
      if (!is_installed("k6")) add("k6 is not installed here", "\"smoke\" needs it");
    } else if (base::status_of(settings.smoke)) {
      try_out([&] { service::read_smoke(settings.smoke); });
    }
  }
  if (settings.edge && !recovery.full) must_be_file(settings.edge->token_file, "token_file");
}

void Search::secrets() {
  const Recovery& recovery = context_.recovery();
  const bool opens = recovery.full && !recovery.identity.empty() &&
                     !context_.settings().environment_file.empty() &&
                     !context_.settings().command(Step::secrets);
  if (!opens) return;
  must_be_file(recovery.identity, "--identity");
  const auto identity = base::read_file(recovery.identity);
  // One with a passphrase would ask for it now, and again when it is needed.
  if (!identity || base::text(*identity).find("AGE-SECRET-KEY-") == std::string_view::npos) return;
  base::guard_memory();
  try_out([&] {
    open_bundle(choose_bundle(context_.repositories, recovery.cluster, "",
                              [](const std::string&, const Error&) {}),
                recovery.identity);
  });
}

}  // namespace

std::vector<Obstacle> find_obstacles(const RecoveryContext& context, const Site& site,
                                     const RestorePlan& plan) {
  return Search(context, site, plan).all();
}

void refuse_for(const std::vector<Obstacle>& obstacles) {
  if (obstacles.empty()) return;
  std::string what = "cannot recover, so nothing was touched: ";
  for (std::size_t i = 0; i < obstacles.size(); ++i) {
    what += (i == 0 ? "" : "; ") + obstacles[i].what;
  }
  throw Error(obstacles.front().code, what, obstacles.front().hint);
}

}  // namespace holdfast::operations
