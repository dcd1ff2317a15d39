// What is tried in every world. Each entry does one thing as a user would, and says what was
// promised and not kept; that nothing else was touched is looked at by whoever runs it.

#include <signal.h>

#include <thread>

#include "base/workers.h"
#include "operations/instant_mount.h"
#include "worlds/life.h"

namespace holdfast::tests::worlds {

namespace {

Outcome backup(Life& life) {
  Outcome outcome{life.holdfast({"backup"})};
  if (outcome.result.status != 0) return outcome;
  const Result verified = life.holdfast({"verify"});
  if (verified.status != 0) outcome.broken = "verify: " + verified.output + verified.errors;
  return outcome;
}

Outcome backup_agentless(Life& life) {
  life.make_agentless(true);
  Outcome outcome = backup(life);
  life.make_agentless(false);
  return outcome;
}

Outcome restore_to(Life& life, const Arguments& more) {
  const fs::path target = life.path("restored");
  life.owns(target);
  Outcome outcome{life.holdfast(Arguments{"restore", target, "--to", "name:before"} + more)};
  if (outcome.result.status == 0) outcome.broken = broken_in(life, target);
  return outcome;
}

Outcome restore(Life& life) {
  return restore_to(life, {});
}

Outcome restore_mapped(Life& life) {
  if (life.tablespaces.empty()) return {.result = {}, .not_here = true};
  return restore_to(life, life.mapped("mapped"));
}

/// Over a directory in which files are wrong, missing, and too many.
Outcome restore_delta(Life& life) {
  const fs::path target = life.path("delta");
  const Arguments mapping = life.mapped("delta");
  life.owns(target);
  const Arguments restore = Arguments{"restore", target, "--to", "name:before"} + mapping;
  Outcome outcome{life.holdfast(restore)};
  if (outcome.result.status != 0) return outcome;
  overwrite(target / "PG_VERSION", "wrong");
  fs::remove(target / "global" / "pg_filenode.map");
  fs::create_directory_symlink(life.path("home"), target / "base" / "stranger");
  life.place.give_to_server_user(target / "base" / "stranger");
  outcome.result = life.holdfast(restore + Arguments{"--delta"});
  if (outcome.result.status == 0) outcome.broken = broken_in(life, target);
  return outcome;
}

/// An instant restore, gone at the end of its life.
class Instant {
 public:
  Instant(Life& life, const std::string& name)
      : life_(life), place_(operations::instant_place(life.path(name))) {
    const Arguments mapping = life.mapped(name);
    life.owns(place_.directory);
    life.owns(place_.state());
    result = life.holdfast_as_self(
        Arguments{"restore", place_.directory, "--instant", "--to", "name:before"} + mapping);
  }
  ~Instant() { life_.holdfast_as_self({"unmount", "--discard", "--yes", place_.directory}); }
  Instant(const Instant&) = delete;
  Instant& operator=(const Instant&) = delete;

  Result run(const Arguments& arguments) const {
    return life_.holdfast_as_self(arguments + Arguments{place_.directory});
  }
  const operations::InstantPlace& place() const { return place_; }
  const fs::path& directory() const { return place_.directory; }
  Result result;

 private:
  Life& life_;
  operations::InstantPlace place_;
};

Outcome restore_instant(Life& life) {
  const Instant instant(life, "instant");
  Outcome outcome{instant.result};
  if (outcome.result.status != 0) return outcome;
  outcome.broken = broken_in(life, instant.directory());
  if (!outcome.broken.empty()) return outcome;
  outcome.result = instant.run({"settle"});
  if (outcome.result.status == 0) outcome.broken = broken_in(life, instant.directory());
  return outcome;
}

/// kill -9 to what serves the mount, `mount` again, and `unmount --discard`.
Outcome mount_and_discard(Life& life) {
  const Instant instant(life, "mounted");
  Outcome outcome{instant.result};
  if (outcome.result.status != 0) return outcome;
  const auto pid = operations::serving_process(instant.place());
  if (!pid) return {.result = instant.result, .broken = "nobody serves the mount"};
  ::kill(*pid, SIGKILL);
  eventually("it is dead", [&] { return !operations::instant_status(instant.place()).mounted; });
  outcome.result = instant.run({"mount"});
  if (outcome.result.status != 0) return outcome;
  outcome.broken = broken_in(life, instant.directory());
  if (!outcome.broken.empty()) return outcome;
  outcome.result = instant.run({"unmount", "--discard", "--yes"});
  if (fs::exists(instant.place().state())) outcome.broken = "its state is left";
  return outcome;
}

Outcome drill(Life& life) {
  Outcome outcome{life.holdfast({"drill", "--to", "name:before"})};
  owns_drill(life, outcome.result);
  return outcome;
}

Outcome extract(Life& life) {
  const fs::path file = life.path("extracted.sql");
  life.owns(file);
  Outcome outcome{life.holdfast(
      {"extract", "rows", "--database", life.database, "--to", "name:before", "--output", file})};
  if (outcome.result.status != 0) return outcome;
  const std::string text = text_of(file);
  for (const char* row : {"row 1000", "row 1500"}) {
    if (text.find(row) == std::string::npos) outcome.broken += fmt::format("no {}\n", row);
  }
  return outcome;
}

Outcome expire(Life& life) {
  Outcome outcome{life.holdfast({"expire", "--yes"})};
  if (outcome.result.status != 0) return outcome;
  const Result verified = life.holdfast({"verify"});
  if (verified.status != 0) outcome.broken = "verify: " + verified.output + verified.errors;
  return outcome;
}

Outcome migrate(Life& life) {
  life.owns(life.path("docs"));
  Outcome outcome{life.holdfast({"migrate", "--", "true"})};
  const Result failed = life.holdfast({"migrate", "--", "sh", "-c", "exit 4"});
  if (outcome.result.status == 0 && failed.status == 0) {
    outcome.broken = "a command that failed counts as done";
  }
  return outcome;
}

/// Archiving that does not work is mended, or what cannot be mended is said.
Outcome doctor_fix(Life& life) {
  life.owns(life.data / "postgresql.auto.conf");
  std::error_code failed;
  life.owns(fs::canonical(life.data, failed) / "postgresql.auto.conf");
  postgres::Session session(life.connection(life.entry));
  session.query("ALTER SYSTEM SET archive_command = 'false'");
  session.query("SELECT pg_reload_conf()");
  Outcome outcome{life.holdfast({"doctor", "--fix"})};
  const std::string command = life.sql("SHOW archive_command", life.entry);
  if (outcome.result.status == 0 && command.find("wal push") == std::string::npos) {
    outcome.broken = "archive_command is still " + command;
  }
  session.query("ALTER SYSTEM RESET archive_command");
  session.query("SELECT pg_reload_conf()");
  return outcome;
}

/// Runs a command and kills it at three moments; then says how it ended when it was left alone.
Result killed(Life& life, const Arguments& arguments) {
  for (const int after : {60, 250, 900}) {
    const fs::path log = life.path("killed.log");
    life.owns(log);
    base::Child child(life.command(arguments), log);
    if (!child.wait_for(std::chrono::milliseconds(after))) child.signal(SIGKILL);
    child.wait();
  }
  return life.holdfast(arguments);
}

Outcome kill_restore(Life& life) {
  const fs::path target = life.path("cut");
  const Arguments mapping = life.mapped("cut");
  life.owns(target);
  Outcome outcome{
      killed(life, Arguments{"restore", target, "--to", "name:before", "--delta"} + mapping)};
  if (outcome.result.status == 0) outcome.broken = broken_in(life, target);
  return outcome;
}

Outcome kill_drill(Life& life) {
  Outcome outcome{killed(life, {"drill", "--to", "name:before"})};
  owns_drill(life, outcome.result);
  return outcome;
}

Outcome kill_extract(Life& life) {
  const fs::path file = life.path("extracted.sql");
  life.owns(file);
  return {killed(life, {"extract", "rows", "--database", life.database, "--to", "name:before",
                        "--output", file})};
}

/// Back to the moment; then `--undo`, which must bring back what was there.
Outcome recover_and_undo(Life& life) {
  Outcome outcome{life.holdfast({"recover", "--yes", "--to", "name:before"})};
  if (outcome.result.status != 0) {
    owns_recoveries(life);
    if (life.holdfast({"recover", "--undo", "--yes"}).status == 0) {
      outcome.broken = "it failed when it had begun";
    }
    owns_recoveries(life);
    return outcome;
  }
  if (life.digest() != life.at_moment) outcome.broken = "not the rows of the moment\n";
  outcome.result = life.holdfast({"recover", "--undo", "--yes"});
  owns_recoveries(life);
  return outcome;
}

Outcome kill_recover(Life& life) {
  Outcome outcome;
  for (const int after : {200, 1000, 2500}) {
    const fs::path log = life.path("killed.log");
    life.owns(log);
    base::Child child(life.command({"recover", "--yes", "--to", "name:before"}), log);
    if (!child.wait_for(std::chrono::milliseconds(after))) child.signal(SIGKILL);
    child.wait();
    outcome.result = life.holdfast({"recover", "--undo", "--yes"});
    owns_recoveries(life);
    const int nothing_begun = base::info(base::Code::not_found).exit_status;
    if (outcome.result.status == nothing_begun) outcome.result.status = 0;
    if (!life.runs()) {
      outcome.broken = fmt::format("killed after {} ms and taken back, nothing runs: {}{}", after,
                                   outcome.result.output, outcome.result.errors);
    }
    if (outcome.result.status != 0 || !outcome.broken.empty()) break;
  }
  return outcome;
}

}  // namespace

std::string broken_in(Life& life, const fs::path& directory) {
  try {
    const std::string rows = Restored(life, directory).digest();
    if (rows == life.at_moment) return "";
    return "the restored rows are not those of the moment:\n" + rows + "instead of\n" +
           life.at_moment;
  } catch (const std::exception& error) {
    return error.what();
  }
}

void owns_drill(Life& life, const Result& result) {
  life.owns(life.path("docs"));
  life.owns(life.path("holdfast-drill.key"));
  life.owns(life.path("holdfast-drill.key.head"));
  if (result.status != 0) life.owns(life.path("scratch"));
}

void owns_recoveries(Life& life) {
  life.owns_production();
  life.owns(life.path("recoveries"));
  life.owns(life.path("docs"));
  life.owns(life.path("holdfast-drill.key"));
  life.owns(life.path("holdfast-drill.key.head"));
  // What recoveries put aside stands beside each directory.
  std::vector<fs::path> all = life.production;
  all.push_back(life.data);
  for (const auto& [location, target] : life.tablespaces) all.push_back(location);
  for (const fs::path& each : all) {
    std::error_code failed;
    for (const auto& beside : fs::directory_iterator(each.parent_path(), failed)) {
      if (beside.path().native().starts_with(each.native() + ".")) life.owns(beside.path());
    }
  }
}

const std::vector<Command>& all_commands() {
  static const std::vector<Command> all = {
      {"backup", true, true, backup},
      {"backup agentless", false, true, backup_agentless},
      {"doctor --fix", false, true, doctor_fix},
      {"migrate", false, true, migrate},
      {"restore", true, false, restore},
      {"restore mapped", true, false, restore_mapped},
      {"restore --delta", false, false, restore_delta},
      {"restore --instant", false, false, restore_instant},
      {"mount, discard", false, false, mount_and_discard},
      {"drill", true, false, drill},
      {"extract", true, false, extract},
      {"expire", false, false, expire},
      {"kill restore", false, false, kill_restore},
      {"kill drill", false, false, kill_drill},
      {"kill extract", false, false, kill_extract},
      {"recover, undo", false, true, recover_and_undo},
      {"kill recover", false, true, kill_recover},
  };
  return all;
}

}  // namespace holdfast::tests::worlds
