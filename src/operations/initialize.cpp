#include "operations/initialize.h"

#include <unistd.h>

#include <cerrno>

#include "base/error.h"
#include "operations/source.h"
#include "postgres/connection_string.h"
#include "postgres/replication.h"
#include "postgres/session.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using base::fs::path;

constexpr std::string_view local_connection = "host=/var/run/postgresql dbname=postgres";

/// The data directory as the server names it; needs a connection.
std::string ask_data_directory(const std::string& connection) {
  try {
    postgres::Session session(connection);
    const auto directory = session.setting("data_directory");
    if (directory) return *directory;
    throw Error(Code::permission, "the server does not tell its data directory");
  } catch (const Error& error) {
    throw error.with_context("could not find out the data directory")
        .with_hint(
            "start the server and run this as the user who owns it (usually postgres), or name "
            "the server with --connection and --data-directory");
  }
}

ClusterConfiguration describe_cluster(const InitRequest& request) {
  ClusterConfiguration cluster;
  cluster.name = request.cluster.empty() ? "main" : request.cluster;
  if (!repository::is_cluster_name(cluster.name)) {
    throw Error(Code::usage,
                fmt::format("cannot use \"{}\" as the name of a cluster", cluster.name),
                "use letters, digits, \"-\" and \"_\"");
  }
  cluster.connection =
      request.connection.empty() ? std::string(local_connection) : request.connection;
  if (request.agentless) {
    if (!request.data_directory.empty()) {
      base::fail(Code::usage, "a data directory and --agentless exclude each other");
    }
    return cluster;
  }
  cluster.data_directory = request.data_directory.empty() ? ask_data_directory(cluster.connection)
                                                          : request.data_directory;
  if (!cluster.data_directory.is_absolute()) {
    cluster.data_directory = base::fs::absolute(cluster.data_directory);
  }
  return cluster;
}

RepositoryConfiguration describe_repository(const InitRequest& request) {
  RepositoryConfiguration repository;
  repository.name = "local";
  repository.url = request.repository.empty() ? "file:///var/lib/holdfast" : request.repository;
  repository.key = request.key;
  repository.encrypted = request.encrypt;
  if (request.encrypt && repository.key.empty()) {
    repository.key.key_file =
        (base::fs::absolute(request.configuration).parent_path() / "holdfast.key").string();
  }
  if (!repository.key.key_file.empty()) {
    repository.key.key_file = base::fs::absolute(repository.key.key_file).string();
  }
  if (!request.encrypt && !repository.key.empty()) {
    base::fail(Code::usage, "a key and --no-encryption exclude each other");
  }
  return repository;
}

Configuration read_or_describe(const InitRequest& request, InitOutcome& outcome) {
  if (base::status_of(request.configuration)) {
    Configuration configuration = read_configuration(base::fs::absolute(request.configuration));
    if (!request.cluster.empty()) configuration.cluster(request.cluster);  // must be there
    const bool other = (!request.connection.empty() || !request.data_directory.empty() ||
                        !request.repository.empty() || !request.key.empty());
    if (other) {
      outcome.notes.push_back(
          fmt::format("{} exists and is used as it is; the other options are not",
                      configuration.path.string()));
    }
    return configuration;
  }
  Configuration configuration;
  configuration.path = base::fs::absolute(request.configuration);
  configuration.clusters.push_back(describe_cluster(request));
  configuration.repositories.push_back(describe_repository(request));
  return configuration;
}

std::string make_kit(const Configuration& configuration, const repository::Repository& repository,
                     const base::Secret& key) {
  return fmt::format(
      "Holdfast recovery kit. Keep it away from this machine and from the repository.\n"
      "Whoever has it and the repository can read everything in it; without it, and without\n"
      "the key file or passphrase, nobody can.\n"
      "\n"
      "  repository   {}\n"
      "  id           {}\n"
      "  key          {}\n"
      "\n"
      "On a bare machine with PostgreSQL and holdfast installed, as the user postgres:\n"
      "\n"
      "  install -m 600 /dev/stdin holdfast.key    # paste the key above, then Ctrl-D\n"
      "  cat > holdfast.toml <<'END'\n"
      "{}"
      "END\n"
      "  holdfast list\n"
      "  holdfast restore /var/lib/postgresql/restored\n"
      "\n"
      "Secrets that were sealed (holdfast secrets) are not opened by this key, but by an identity "
      "of\n"
      "age, also without holdfast:\n"
      "\n"
      "  age --decrypt --identity KEYFILE clusters/{}/secrets/ID.age\n",
      configuration.repository().url, repository.id(), repository::key_text(key),
      [&] {
        RepositoryConfiguration with_kit = configuration.repository();
        with_kit.key = {};
        with_kit.key.key_file = "holdfast.key";
        return write_configuration(configuration.clusters.front(), with_kit);
      }(),
      configuration.clusters.front().name);
}

/// As root: what is made here belongs to the user who owns the data directory, because the server
/// itself must write WAL to the repository and read the key.
void give_to_cluster(const Configuration& configuration, const path& made) {
  const auto owner = base::status_of(configuration.clusters.front().data_directory);
  if (::geteuid() != 0 || !owner) return;
  if (::chown(made.c_str(), owner->st_uid, owner->st_gid) != 0) {
    base::fail_errno(fmt::format("change the owner of \"{}\"", made.string()), errno);
  }
}

/// What is there may have been made by a run that was killed before its name was durable.
void settle_way_to(const path& there) {
  for (path up = there; up.has_relative_path(); up = up.parent_path()) {
    try {
      base::sync_directory(up.parent_path());
    } catch (const Error& error) {
      if (error.code() != Code::permission) throw;  // then it is not ours, and older
    }
  }
}

/// Opens the repository, or makes it.
repository::Repository provide_repository(const Configuration& configuration,
                                          const InitRequest& request, InitOutcome& outcome) {
  const RepositoryConfiguration& wanted = configuration.repository();
  auto store = store::open_store(wanted.url);
  if (repository::Repository::exists(*store)) {
    repository::Repository there = open_repository(wanted);
    settle_way_to(store::directory_of(wanted.url));
    store->settle("");
    // Without a configuration nobody has seen the kit here: an earlier run may have been cut off.
    const bool unseen = !base::status_of(configuration.path);
    if ((request.recovery_kit || unseen) && there.encrypted()) {
      outcome.recovery_kit += make_kit(configuration, there, *there.protection().key);
    }
    return there;
  }
  if (!wanted.key.key_file.empty() && !base::status_of(wanted.key.key_file)) {
    repository::make_key_file(wanted.key.key_file);
    give_to_cluster(configuration, wanted.key.key_file);
    outcome.made_key_file = true;
    outcome.key_file = wanted.key.key_file;
  }
  if (!wanted.key.key_file.empty()) settle_way_to(wanted.key.key_file);
  if (const auto directory = store::directory_of(wanted.url); !base::status_of(directory)) {
    base::make_directories(directory);
    give_to_cluster(configuration, directory);
    store = store::open_store(wanted.url);  // it looks at whom the directory belongs to
  }
  settle_way_to(store::directory_of(wanted.url));
  if (!wanted.key.passphrase.empty()) {
    outcome.notes.push_back(
        "archive_command and restore_command need HOLDFAST_PASSPHRASE in the server's environment; "
        "a "
        "key file or key command does without");
  }
  auto created = repository::Repository::create(std::move(store), wanted.key);
  outcome.made_repository = true;
  if (created.key.has_value() != wanted.encrypted) {
    base::fail(Code::internal, "the repository is not as encrypted as it was to be");
  }
  if (created.key)
    outcome.recovery_kit += make_kit(configuration, created.repository, *created.key);
  return std::move(created.repository);
}

postgres::SystemId system_of(const ClusterConfiguration& cluster) {
  if (!cluster.data_directory.empty()) {
    return postgres::read_control_file(cluster.data_directory).control.system_id;
  }
  return postgres::Session(cluster.connection).system_id();
}

void register_systems(const Configuration& configuration, repository::Repository& repository,
                      const InitRequest& request, InitOutcome& outcome) {
  for (const ClusterConfiguration& cluster : configuration.clusters) {
    const repository::ClusterPlace place{cluster.name, postgres::to_string(system_of(cluster))};
    outcome.system_id = place.system_id;
    if (repository.is_registered(place)) {
      repository.store().settle(place.directory());
      continue;
    }
    const auto known = repository.systems(cluster.name);
    if (!known.empty() && !request.new_system) {
      throw Error(
          Code::foreign,
          fmt::format("cannot use system {} as cluster {}: the repository knows it as system "
                      "{}",
                      place.system_id, cluster.name, fmt::join(known, " and ")),
          "if this is the cluster after pg_upgrade or initdb, add --new-system; else give it "
          "another name with --cluster");
    }
    if (repository.register_system(place, cluster.data_directory.empty()
                                              ? "agentless"
                                              : cluster.data_directory.string())) {
      outcome.registered = true;
    }
  }
}

/// Connection and data directory are one server's, or the server does not answer and there is a
/// data directory.
void look_at(const ClusterConfiguration& cluster, InitOutcome& outcome) {
  const bool agentless = cluster.data_directory.empty();
  if (!agentless && !base::status_of(cluster.data_directory)) {
    throw Error(
        Code::not_found,
        fmt::format("there is no data directory \"{}\" here", cluster.data_directory.string()),
        "run this on the server's machine, or add --agentless for backups through the "
        "connection alone");
  }
  if (!agentless) postgres::read_control_file(cluster.data_directory);
  try {
    postgres::Session session(cluster.connection);
    matching_control_file(cluster, session);
    if (agentless) postgres::Replication(cluster.connection, "holdfast").identify();
  } catch (const Error& error) {
    if (agentless || error.code() != Code::unreachable) throw;
    outcome.notes.push_back(error.message());
  }
}

}  // namespace

InitOutcome initialize(const InitRequest& request) {
  InitOutcome outcome;
  const Configuration configuration = read_or_describe(request, outcome);
  outcome.configuration = configuration.path;
  // Everything that can be wrong with the cluster is found out before anything is made.
  for (const ClusterConfiguration& cluster : configuration.clusters) {
    look_at(cluster, outcome);
  }
  for (const RepositoryConfiguration& each : configuration.repositories) {
    Configuration one = configuration;
    one.repositories = {each};
    repository::Repository repository = provide_repository(one, request, outcome);
    register_systems(one, repository, request, outcome);
  }
  if (!base::status_of(configuration.path)) {
    base::make_directories(configuration.path.parent_path(), 0755);
    const std::string text =
        write_configuration(configuration.clusters.front(), configuration.repository()) +
        std::string(default_keep);
    // A password in the connection string is for the server's user alone.
    const bool secret = postgres::holds_secret(configuration.clusters.front().connection) ||
                        text.find("password") != std::string::npos;
    base::replace_file(configuration.path, base::view(text), secret ? 0600 : 0644);
    if (secret) give_to_cluster(configuration, configuration.path);
    outcome.wrote_configuration = true;
  }
  settle_way_to(configuration.path);
  return outcome;
}

}  // namespace holdfast::operations
