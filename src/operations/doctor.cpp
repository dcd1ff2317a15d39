#include "operations/doctor.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "base/cage.h"
#include "base/error.h"
#include "base/process.h"
#include "operations/recovery_files.h"
#include "operations/recovery_window.h"
#include "operations/source.h"
#include "operations/source_configuration.h"
#include "operations/systems.h"
#include "postgres/administration.h"
#include "postgres/connection_string.h"
#include "postgres/data_directory.h"
#include "postgres/neutral_settings.h"
#include "postgres/replication.h"

namespace holdfast::operations {

namespace {

using base::Error;
using Level = Finding::Level;

/// Is this `holdfast wal fetch`, as a restore sets it?
bool is_ours_to_fetch(const std::string& command) {
  return command.find("holdfast") != std::string::npos &&
         command.find("wal fetch") != std::string::npos;
}

/// Without archive_mode the server does not tell its archive_command.
bool waits_for_restart(const postgres::SettingState& state) {
  return state.pending_restart || state.value == "(disabled)";
}

/// One look at everything.
class Doctor {
 public:
  Doctor(const Configuration& configuration, const ClusterConfiguration& cluster, bool fix)
      : configuration_(configuration), cluster_(cluster), fix_(fix) {}

  Diagnosis run() {
    look_at_configuration();
    if (agentless()) {
      attempt([this] { look_at_replication(); });
    } else {
      attempt([this] { look_at_data_directory(); });
    }
    attempt([this] { look_at_server(); });
    attempt([this] { look_at_repository(); });
    for (const std::string& gap : base::cage_gaps()) {
      note(Level::warning, "drill and extract start servers in a sandbox that has a gap: " + gap,
           "run them on a newer kernel, or with a system of its own that is not production's");
    }
    return std::move(diagnosis_);
  }

 private:
  void note(Level level, std::string what, std::string remedy = {}) {
    diagnosis_.findings.note(level, std::move(what), std::move(remedy));
  }
  template <typename Look>
  void attempt(const Look& look) {
    diagnosis_.findings.attempt(look);
  }

  void look_at_configuration();
  void look_at_data_directory();
  void look_at_replication();
  void look_at_checksums(const postgres::ControlFile& control);
  bool agentless() const { return cluster_.data_directory.empty(); }
  postgres::SystemId system() const;
  void look_at_server();
  void look_at_settings(postgres::Session& session);
  void look_at_archiving(postgres::Session& session, const std::string& mode, bool pushes);
  bool is_received(postgres::Session& session);
  void look_at_archiver(postgres::Session& session);
  void want(postgres::Session& session, const std::string& name, const std::string& value,
            bool is_right, const std::string& why, bool needs_restart);
  void read_back(postgres::Session& session);
  void look_at_finished_recovery(postgres::Session& session);
  void clear_recovery_setting(postgres::Session& session, const std::string& name,
                              const std::string& neutral);
  void look_at_configuration(postgres::Session& session);
  void look_at_repository();
  void look_at_backups(const Site& site, const std::string& system);

  const Configuration& configuration_;
  const ClusterConfiguration& cluster_;
  bool fix_;
  Diagnosis diagnosis_;
  struct Set {
    std::string name;
    std::string value;
    bool needs_restart = false;
  };
  std::vector<Set> set_;  ///< by us
};

void Doctor::look_at_configuration() {
  note(Level::good, "configuration " + configuration_.path.string());
  const bool secret = std::ranges::any_of(
      configuration_.clusters,
      [](const ClusterConfiguration& each) { return postgres::holds_secret(each.connection); });
  const auto status = base::status_of(configuration_.path);
  if (!secret || !status || (status->st_mode & S_IROTH) == 0) return;
  note(Level::bad,
       fmt::format("{} holds a password and everybody can read it", configuration_.path.string()),
       fmt::format("chmod o= {}, and change the password", configuration_.path.string()));
}

void Doctor::look_at_data_directory() {
  const std::string directory = cluster_.data_directory.string();
  const int major = postgres::major_version(cluster_.data_directory);
  const postgres::ControlFile control =
      postgres::read_control_file(cluster_.data_directory).control;
  note(Level::good, fmt::format("data directory {} of PostgreSQL {}, system {}", directory, major,
                                postgres::to_string(control.system_id)));
  look_at_checksums(control);
}

void Doctor::look_at_checksums(const postgres::ControlFile& control) {
  if (control.checksum_version != 0) return;
  note(Level::warning, "data checksums are off: damaged pages are not noticed",
       "stop the server and run pg_checksums --enable");
}

/// A backup needs two replication connections at once, and keeps WAL by a slot.
void Doctor::look_at_replication() {
  std::optional<postgres::Replication> connections[2];
  try {
    for (auto& each : connections) each.emplace(cluster_.connection, "holdfast");
    connections[0]->identify();
  } catch (const Error& error) {
    throw error.with_context("no backup is possible without data_directory")
        .with_hint(
            "ALTER ROLE ... REPLICATION, a line of pg_hba.conf for the database \"replication\", "
            "and max_wal_senders for two more connections");
  }
  note(Level::good, fmt::format("the server lets us replicate; system {}",
                                postgres::to_string(connections[0]->identify().id)));
  if (connections[0]->setting("max_replication_slots") == "0") {
    note(Level::warning,
         "max_replication_slots = 0: the server may remove WAL that a running backup needs",
         "ALTER SYSTEM SET max_replication_slots = 10 and restart");
  }
  postgres::Session session(cluster_.connection);
  look_at_checksums(postgres::control_data(session));
}

postgres::SystemId Doctor::system() const {
  if (agentless()) return postgres::Session(cluster_.connection).system_id();
  return postgres::read_control_file(cluster_.data_directory).control.system_id;
}

void Doctor::look_at_server() {
  postgres::Session session(cluster_.connection);
  matching_control_file(cluster_, session);
  note(Level::good, fmt::format("server answers: PostgreSQL {}.{}", session.major_version(),
                                session.version_number() % 10000));
  look_at_settings(session);
  look_at_archiver(session);
  look_at_configuration(session);
}

/// What a restored server will lack.
void Doctor::look_at_configuration(postgres::Session& session) {
  const SourceConfiguration found = read_source_configuration(cluster_, session);
  for (const std::string& lack : found.lacks) note(Level::warning, lack);
  if (!found.command_line.empty()) note(Level::warning, found.command_line);
}

void Doctor::want(postgres::Session& session, const std::string& name, const std::string& value,
                  bool is_right, const std::string& why, bool needs_restart) {
  const postgres::SettingState now = postgres::setting_state(session, name);
  if (is_right) {
    note(Level::good, fmt::format("{} = {}", name, now.value));
    return;
  }
  const std::string found =
      fmt::format("{} = {}: {}", name, now.value.empty() ? "''" : now.value, why);
  if (now.source == "command line" || now.source == "environment variable") {
    // No file wins over it.
    note(
        Level::bad, fmt::format("{} (it is set on the server's {})", found, now.source),
        fmt::format("take it away there: the server's unit, pg_ctl.conf or container; then {} = {}",
                    name, postgres::quote_setting(value)));
    return;
  }
  const postgres::FileSettings files = postgres::is_superuser(session)
                                           ? postgres::file_settings(session, name)
                                           : postgres::FileSettings{};
  if (waits_for_restart(now) && (files.automatic ? files.automatic : files.other) == value) {
    note(Level::bad, found, "it is set in the files: restart the server");
    diagnosis_.restart_needed = true;
    return;
  }
  if (!fix_) {
    note(Level::bad, found,
         fmt::format("ALTER SYSTEM SET {} = {}{}, or `holdfast doctor --fix`", name,
                     postgres::quote_setting(value), needs_restart ? " and restart" : ""));
    return;
  }
  postgres::alter_system(session, name, value);
  set_.push_back({name, value, needs_restart});
}

/// What was set is true only once the server says so.
void Doctor::read_back(postgres::Session& session) {
  if (set_.empty()) return;
  postgres::reload(session);
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  for (const Set& each : set_) {
    postgres::SettingState now;
    const auto took = [&] {
      // Another session: this one may have what its database or role is given.
      postgres::Session fresh(cluster_.connection);
      now = postgres::setting_state(fresh, each.name);
      return now.value == each.value ||
             (waits_for_restart(now) &&
              postgres::file_settings(fresh, each.name).automatic == each.value);
    };
    while (!took() && std::chrono::steady_clock::now() < limit) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    if (took()) {
      diagnosis_.fixed.push_back(fmt::format("{} = {}", each.name, each.value));
      diagnosis_.restart_needed = diagnosis_.restart_needed || now.value != each.value;
      continue;
    }
    const std::string errors = postgres::file_errors(session);
    note(Level::bad,
         fmt::format("{} = {} was set, but the server goes on with {}{}{}", each.name, each.value,
                     now.value.empty() ? "''" : now.value,
                     now.source.empty() ? "" : ", from its " + now.source,
                     now.file.empty() ? "" : " " + now.file),
         errors.empty() ? "take it away there" : "the server does not read its files: " + errors);
  }
}

/// Of a recovery that is over nothing must stay that leads the recovery of a standby which is made
/// from this server: pg_basebackup takes its settings along.
void Doctor::look_at_finished_recovery(postgres::Session& session) {
  if (session.in_recovery()) return;
  const auto left = postgres::recovery_targets(session);
  if (left.empty()) return;
  std::string all;
  for (const std::string& each : left) all += (all.empty() ? "" : ", ") + each;
  const std::string what = fmt::format(
      "settings of a finished recovery are left, so standbys made from this server do not work: {}",
      all);
  if (!fix_) {
    note(Level::bad, what, "`holdfast doctor --fix` takes them away");
    return;
  }
  auto names = postgres::neutral_recovery_settings(session.major_version());
  // What tells that there is something to do goes last.
  std::ranges::stable_partition(
      names, [](const auto& each) { return !each.first.starts_with("recovery_target"); });
  // On, as a restore sets it for replay.
  clear_recovery_setting(session, "allow_in_place_tablespaces", "on");
  for (const auto& [name, neutral] : names) clear_recovery_setting(session, name, neutral);
  postgres::reload(session);
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  std::vector<std::string> still;
  do {
    postgres::Session fresh(cluster_.connection);
    still = postgres::recovery_targets(fresh);
  } while (!still.empty() && std::chrono::steady_clock::now() < limit);
  if (still.empty()) {
    diagnosis_.fixed.push_back("settings of the finished recovery are gone");
    return;
  }
  const std::string errors = postgres::file_errors(session);
  note(Level::bad, what,
       errors.empty() ? "they are set on the server's command line: take them away there"
                      : "the server does not read its files: " + errors);
}

void Doctor::clear_recovery_setting(postgres::Session& session, const std::string& name,
                                    const std::string& neutral) {
  const postgres::FileSettings files = postgres::file_settings(session, name);
  const bool is_target = name.starts_with("recovery_target");
  if (is_target && files.other && *files.other != neutral) {
    // It is in a file that is not ours to edit.
    if (files.automatic != neutral) postgres::alter_system(session, name, neutral);
    return;
  }
  // A value that somebody set since stays, unless it leads recovery.
  const bool is_ours =
      files.automatic && (is_target || *files.automatic == neutral ||
                          (name == "restore_command" && is_ours_to_fetch(*files.automatic)));
  if (is_ours) postgres::reset_system_setting(session, name);
}

void Doctor::look_at_settings(postgres::Session& session) {
  const std::string level = session.setting("wal_level").value_or("");
  want(session, "wal_level", "replica", level == "replica" || level == "logical",
       "WAL does not hold what recovery needs", true);
  const std::string mode = session.setting("archive_mode").value_or("");
  const std::string command = session.setting("archive_command").value_or("");
  // Other quoting or paths do as well, as long as it is a push of ours.
  const bool pushes = command.find("holdfast") != std::string::npos &&
                      command.find("wal push") != std::string::npos;
  want(session, "full_page_writes", "on", session.setting("full_page_writes") == "on",
       "torn pages cannot be mended", false);
  // Either way is enough.
  const bool archives = mode == "on" || mode == "always";
  if (is_received(session) && !(archives && pushes)) {
    note(Level::good, fmt::format("WAL is received through slot \"{}\"; archive_mode = {}",
                                  configuration_.wal.slot, mode));
  } else if (agentless()) {
    // What a command on another machine should look like is not ours to say.
    if (!pushes) {
      note(Level::warning, "the server's archive_command is not `holdfast wal push`",
           "unless WAL comes into the repository in another way, only backups can be restored");
    }
  } else {
    look_at_archiving(session, mode, pushes);
  }
  read_back(session);
  look_at_finished_recovery(session);
}

/// Does `wal receive` read from its slot just now?
bool Doctor::is_received(postgres::Session& session) {
  const auto slots = session.query("SELECT slot_name FROM pg_replication_slots WHERE active");
  return std::ranges::any_of(
      slots, [&](const postgres::Row& row) { return row[0] == configuration_.wal.slot; });
}

void Doctor::look_at_archiving(postgres::Session& session, const std::string& mode, bool pushes) {
  want(session, "archive_mode", "on", mode == "on" || mode == "always",
       "no WAL is archived, and `wal receive` does not run, so nothing after a backup can be "
       "restored",
       true);
  const std::string wanted = archive_command(configuration_, cluster_.name);
  want(session, "archive_command", wanted, pushes, "WAL does not come into the repository", false);
}

void Doctor::look_at_archiver(postgres::Session& session) {
  const postgres::ArchiverStatus status = postgres::archiver_status(session);
  if (status.failing) {
    note(Level::bad, fmt::format("archiving fails: {} could not be archived", status.last_failed),
         "the server's log has the reason; try `holdfast wal push` by hand");
  } else if (status.archived > 0) {
    note(Level::good, fmt::format("{} WAL files were archived", status.archived));
  }
}

void Doctor::look_at_repository() {
  const Site site = open_site(configuration_, cluster_.name);
  note(Level::good, fmt::format("repository {}, {}", site.repository.store().url(),
                                site.repository.encrypted() ? "encrypted" : "NOT encrypted"));
  // One object is written and taken away again: the only proof that both are possible.
  const std::string probe =
      fmt::format("probes/{}", repository::to_string(repository::new_object_id()));
  if (site.repository.store().put(probe, base::view("probe\n")))
    site.repository.store().remove(probe);
  note(Level::good, "the repository can be written to");
  const std::string system = postgres::to_string(this->system());
  if (!site.repository.is_registered({cluster_.name, system})) {
    note(Level::bad,
         fmt::format("the repository does not know system {} as cluster {}", system, cluster_.name),
         "run `holdfast init` (after pg_upgrade with --new-system)");
  }
  look_at_backups(site, system);
}

/// Of the system in use; what is there of others is said, and is no fault.
void Doctor::look_at_backups(const Site& site, const std::string& system) {
  const Catalog catalog = read_catalog(site);
  for (const UnreadableBackup& backup : catalog.unreadable) note(Level::bad, backup.why);
  for (const KnownSystem& each : known_systems(site, catalog)) {
    if (each.place.system_id == system) continue;
    note(Level::good, "another system under this name: " + to_string(each));
  }
  std::vector<BackupInfo> backups = catalog.backups;
  std::erase_if(backups, [&](const auto& each) { return each.place.system_id != system; });
  if (backups.empty()) {
    note(Level::bad,
         catalog.backups.empty() ? "there is no backup"
                                 : fmt::format("there is no backup of system {}", system),
         "take one with `holdfast backup`");
    return;
  }
  const BackupInfo& newest = backups.back();
  note(newest.is_damaged() || newest.is_suspect() ? Level::bad : Level::good,
       fmt::format("newest backup {} of {}{}", newest.id.text, base::to_string(newest.stopped),
                   newest.is_damaged()   ? " holds damaged pages"
                   : newest.is_suspect() ? " is suspect: " + newest.suspicion
                                         : ""));
  for (const SystemView& each : view_systems(site, catalog)) {
    if (each.place.system_id != system) continue;
    diagnosis_.findings.note_windows(recovery_windows(each, each.history({})));
  }
}

}  // namespace

std::string archive_command(const Configuration& configuration, const std::string& cluster) {
  return fmt::format("{} --config {} wal push --cluster {} %p",
                     shell_quoted(base::own_program().string()),
                     shell_quoted(configuration.path.string()), cluster);
}

Diagnosis diagnose(const Configuration& configuration, const std::string& cluster, bool fix) {
  return Doctor(configuration, configuration.cluster(cluster), fix).run();
}

}  // namespace holdfast::operations
