#pragma once

// A world: a machine with a PostgreSQL cluster on it as somebody has it. A life: one that was made,
// with rows, a backup's worth of WAL, and files of others around it.
//
// To add a world, add an entry in worlds.cpp; to add a command, one in commands.cpp. Each is then
// tried with each.

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "harness/witness.h"
#include "worlds/picture.h"

namespace holdfast::tests::worlds {

class Life;

/// How a command is expected to refuse: with this code, and these words in what it says.
struct Refusal {
  base::Code code;
  std::string words;
};

using Step = std::function<void(Life&)>;

struct World {
  std::string name;
  bool in_short_suite = false;
  bool needs_root = false;
  Step plan = {};        ///< before there is a cluster: names, places, options
  Step configured = {};  ///< there are files, but it does not run yet
  Step started = {};     ///< it runs, and has rows
  Step later = {};       ///< after the first backup
  std::map<std::string, Refusal> refuses = {};    ///< by command
  std::map<std::string, std::string> known = {};  ///< commands that fail today, and why
};
const std::vector<World>& all_worlds();

class Life {
 public:
  explicit Life(const World& world);
  ~Life();
  Life(const Life&) = delete;
  Life& operator=(const Life&) = delete;

  // What `plan` may change.
  int major = 15;
  std::vector<std::string> initdb;  ///< more arguments
  std::string server_options;       ///< of `postgres`, on its command line, quoted for a shell
  std::string superuser = "postgres";
  std::string entry = "postgres";  ///< the database that holdfast connects to
  std::string database = "app";
  bool debian = false;      ///< by pg_createcluster
  bool is_stopped = false;  ///< where a command does not need the server, it does not run
  bool port_in_files = true;
  fs::path data;                             ///< as everybody calls it
  fs::path configuration;                    ///< where postgresql.conf is
  std::map<fs::path, fs::path> tablespaces;  ///< absolute ones, and where restores put them
  std::vector<fs::path> production;          ///< directories of the cluster's outside of `data`
  std::vector<fs::path> busy;                ///< what a running server writes by itself
  std::vector<fs::path> watched;             ///< places of others outside of path()
  std::vector<fs::path> mounts;              ///< unmounted at the end
  std::map<std::string, std::unique_ptr<Cluster>> neighbours;

  /// Without a name the place itself, without a slash at its end.
  fs::path path(std::string_view name = "") const {
    return name.empty() ? place.path("x").parent_path() : place.path(name);
  }
  /// A directory below path() that belongs to the server's user.
  fs::path directory(const std::string& name, int mode = 0700) const;
  void mount_memory(const fs::path& directory);
  void add_settings(const std::string& lines) const;
  const postgres::Installation& pg() const { return *installation_; }
  int port() const { return port_; }
  fs::path sockets() const { return path("s"); }

  void start();
  void stop() const;
  bool runs() const;
  /// A libpq connection string.
  std::string connection(const std::string& to = {}) const;
  /// On the database of the rows, or another; the first value.
  std::string sql(const std::string& statement, const std::string& on = {}) const;

  /// The binary; as the server's user, or as who runs the tests.
  Result holdfast(const std::vector<std::string>& arguments) const;
  Result holdfast_as_self(const std::vector<std::string>& arguments) const;
  base::Command command(const std::vector<std::string>& arguments) const;
  void make_agentless(bool agentless) const;

  /// A place of the running command: what happens below it is its business.
  void owns(const fs::path& path) { own_.insert(path); }
  /// The cluster itself, for commands that change it.
  void owns_production();
  /// --tablespace arguments for all absolute tablespaces; their targets become the command's own.
  std::vector<std::string> mapped(const std::string& name);

  /// Rows, as a digest over all databases; by connection string without a database.
  std::string digest(const std::string& server) const;
  std::string digest() const { return digest(server_string(sockets(), port_)); }
  std::string server_string(const fs::path& sockets, int port) const;
  std::string at_backup;  ///< digests: at the backup,
  std::string at_moment;  ///< at restore point "before",
  std::string now;        ///< and after somebody deleted rows
  /// After the first backup: restore point "before", and somebody deletes rows.
  void make_moment(const World& world);
  void changed() { now = digest(); }  ///< a command changed rows as it should

  /// All WAL so far is in the repository.
  void archive();
  /// Everything that was written is on disk: nothing moves by itself.
  void rest();
  /// Before a command, and what is wrong after it: files of others, servers, rows.
  void arm();
  std::string tripped();
  /// What the command left in places of its own goes.
  void clean();
  /// The server runs if `needed`; else as it does in this world. All is at rest.
  void settle_down(bool needed);
  /// Processes that name this life's place, but for its servers: of commands, of scratch servers.
  std::vector<pid_t> processes() const;

  Place place;

 private:
  void begin(const World& world);
  void end();
  void make_cluster();
  void make_surroundings();
  void make_rows();
  bool left_out(const fs::path& path) const;
  std::string neighbour_state() const;
  std::optional<postgres::Installation> installation_;
  int port_ = 0;
  std::string debian_name_;
  std::set<fs::path> own_;
  Picture before_;
  std::string neighbours_before_;
  std::string pid_before_;
};

using Arguments = std::vector<std::string>;
inline Arguments operator+(Arguments one, const Arguments& other) {
  one.insert(one.end(), other.begin(), other.end());
  return one;
}

/// A shell's word.
std::string quoted(const std::string& text);

/// A server on a restored directory, started as a user would: files are the directory's own, only
/// port and socket are others. It has recovered when the constructor returns.
class Restored {
 public:
  Restored(Life& life, const fs::path& directory);
  ~Restored();
  Restored(const Restored&) = delete;
  Restored& operator=(const Restored&) = delete;
  std::string digest() const;
  void stop();

 private:
  Life& life_;
  fs::path directory_;
  fs::path sockets_;
  int port_;
  bool runs_ = true;
};

/// A directory restored to "before" must serve with the rows of that moment; what is wrong.
std::string broken_in(Life& life, const fs::path& directory);
/// What a drill writes; one that fails leaves what is needed to find out why, and says where.
void owns_drill(Life& life, const Result& result);
/// What recoveries write, and what they put aside so far.
void owns_recoveries(Life& life);

/// What happened in a cell.
struct Outcome {
  Result result;            ///< of the command that counts
  std::string broken = {};  ///< what it promised and did not keep
  bool not_here = false;    ///< this command means nothing in this world
};

struct Command {
  std::string name;
  bool in_short_suite = false;
  bool needs_server = false;
  std::function<Outcome(Life&)> run;
};
const std::vector<Command>& all_commands();

}  // namespace holdfast::tests::worlds
