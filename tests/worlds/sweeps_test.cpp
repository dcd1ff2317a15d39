// kill -9 at every part of a command's life: afterwards holdfast itself says what is left, and
// cleans it up or goes on.
//
// A sweep runs a command to its end once, to know how long it takes, and then kills it at moments
// spread over that time: each second time all that it started is killed with it. The short version
// has two moments and one world.

#include <signal.h>

#include <iostream>

#include "operations/instant_mount.h"
#include "worlds/life.h"

namespace holdfast::tests::worlds {
namespace {

struct Sweep {
  std::string name;
  bool in_short_suite = false;
  bool needs_server = false;
  bool as_self = false;        ///< as who runs the tests, not as the server's user
  Step before = [](Life&) {};  ///< what the command works on
  std::function<Arguments(Life&)> arguments;
  std::function<std::string(Life&)> after;  ///< cleans up by holdfast; what is wrong
};

int status_of(base::Code code) {
  return base::info(code).exit_status;
}

std::string said(const std::string& what, const Result& result) {
  return fmt::format("{} ended with {}: {}{}\n", what, result.status, result.output, result.errors);
}

Arguments restore_arguments(Life& life) {
  const fs::path target = life.path("cut");
  life.owns(target);
  return Arguments{"restore", target, "--to", "name:before"} + life.mapped("cut");
}

/// Where something is left it says so, and how to go on; --delta goes on.
std::string after_restore(Life& life) {
  const Arguments again = restore_arguments(life);
  const Result plain = life.holdfast(again);
  if (plain.status != 0) {
    if (plain.errors.find("is not empty") == std::string::npos) return said("restore", plain);
    const bool unfinished = plain.errors.find("--delta finishes it") != std::string::npos;
    const Result finished = unfinished ? life.holdfast(again + Arguments{"--delta"}) : plain;
    if (unfinished && finished.status != 0) return said("restore --delta", finished);
  }
  return broken_in(life, life.path("cut"));
}

void make_damaged(Life& life) {
  const fs::path target = life.path("cut");
  const Result made = life.holdfast(restore_arguments(life));
  if (made.status != 0) throw std::runtime_error(said("restore", made));
  overwrite(target / "PG_VERSION", "wrong");
  fs::remove(target / "global" / "pg_filenode.map");
  fs::create_directory_symlink(life.path("home"), target / "base" / "stranger");
  life.place.give_to_server_user(target / "base" / "stranger");
}

std::string after_delta(Life& life) {
  const Result finished = life.holdfast(restore_arguments(life) + Arguments{"--delta"});
  if (finished.status != 0) return said("restore --delta", finished);
  return broken_in(life, life.path("cut"));
}

operations::InstantPlace instant_of(Life& life) {
  return operations::instant_place(life.path("instant"));
}

Arguments instant_arguments(Life& life) {
  const operations::InstantPlace place = instant_of(life);
  life.owns(place.directory);
  life.owns(place.state());
  return Arguments{"restore", place.directory, "--instant", "--to", "name:before"} +
         life.mapped("instant");
}

void make_instant(Life& life) {
  const Result made = life.holdfast_as_self(instant_arguments(life));
  if (made.status != 0) throw std::runtime_error(said("restore --instant", made));
}

/// Whatever is there goes, and nothing is left.
std::string discarded(Life& life) {
  const operations::InstantPlace place = instant_of(life);
  const Result gone = life.holdfast_as_self({"unmount", "--discard", "--yes", place.directory});
  if (gone.status != 0 && gone.status != status_of(base::Code::not_found)) {
    return said("unmount --discard", gone);
  }
  if (fs::exists(fs::symlink_status(place.state()))) return "its state is left\n";
  std::error_code failed;
  if (fs::exists(place.directory, failed) && !fs::is_empty(place.directory, failed)) {
    return "files of it are left\n";
  }
  for (const auto& [location, name] : life.tablespaces) {
    const fs::path mapped = life.path("instant." + name.string());
    if (fs::exists(mapped, failed) && !fs::is_empty(mapped, failed)) {
      return fmt::format("files of it are left in {}\n", mapped.string());
    }
  }
  return "";
}

std::string after_instant(Life& life) {
  const std::string wrong = discarded(life);
  if (!wrong.empty()) return wrong;
  make_instant(life);
  const std::string broken = broken_in(life, instant_of(life).directory);
  return broken + discarded(life);
}

std::string after_settle(Life& life) {
  const fs::path directory = instant_of(life).directory;
  Result settled = life.holdfast_as_self({"settle", directory});
  if (settled.status != 0 && settled.status != status_of(base::Code::not_found)) {
    const Result mounted = life.holdfast_as_self({"mount", directory});
    if (mounted.status != 0) return said("settle", settled) + said("mount", mounted);
    settled = life.holdfast_as_self({"settle", directory});
    if (settled.status != 0) return said("settle", settled);
  }
  if (fs::exists(instant_of(life).state())) return "its state is left\n";
  return broken_in(life, directory);
}

Arguments extract_arguments(Life& life) {
  const fs::path file = life.path("extracted.sql");
  life.owns(file);
  return {"extract", "rows", "--database", life.database, "--to", "name:before", "--output", file};
}

std::string after_extract(Life& life) {
  std::error_code failed;
  fs::remove(life.path("extracted.sql"), failed);
  const Result done = life.holdfast(extract_arguments(life));
  if (done.status != 0) return said("extract", done);
  const std::string text = text_of(life.path("extracted.sql"));
  return text.find("row 1500") == std::string::npos ? "rows are missing\n" : "";
}

std::string after_drill(Life& life) {
  const Result done = life.holdfast({"drill", "--to", "name:before"});
  owns_drill(life, done);
  return done.status == 0 ? "" : said("drill", done);
}

void make_recovery(Life& life) {
  const Result done = life.holdfast({"recover", "--yes", "--to", "name:before"});
  owns_recoveries(life);
  if (done.status != 0) throw std::runtime_error(said("recover", done));
}

std::string after_recovery(Life& life) {
  const Result undone = life.holdfast({"recover", "--undo", "--yes"});
  owns_recoveries(life);
  const bool nothing_begun = undone.status == status_of(base::Code::not_found);
  const bool undone_before = undone.errors.find("is undone already") != std::string::npos;
  if (undone.status != 0 && !nothing_begun && !undone_before) return said("recover --undo", undone);
  return life.runs() ? "" : said("nothing runs: recover --undo", undone);
}

const std::vector<Sweep>& all_sweeps() {
  static const std::vector<Sweep> all = {
      {.name = "restore",
       .in_short_suite = true,
       .arguments = restore_arguments,
       .after = after_restore},
      {.name = "restore --delta",
       .before = make_damaged,
       .arguments = [](Life& life) { return restore_arguments(life) + Arguments{"--delta"}; },
       .after = after_delta},
      {.name = "restore --instant",
       .in_short_suite = true,
       .as_self = true,
       .arguments = instant_arguments,
       .after = after_instant},
      {.name = "unmount --discard",
       .as_self = true,
       .before = make_instant,
       .arguments =
           [](Life& life) {
             return Arguments{"unmount", "--discard", "--yes", instant_of(life).directory};
           },
       .after = after_instant},
      {.name = "settle",
       .as_self = true,
       .before = make_instant,
       .arguments =
           [](Life& life) {
             return Arguments{"settle", instant_of(life).directory};
           },
       .after = after_settle},
      {.name = "extract", .arguments = extract_arguments, .after = after_extract},
      {.name = "drill",
       .in_short_suite = true,
       .arguments =
           [](Life&) {
             return Arguments{"drill", "--to", "name:before"};
           },
       .after = after_drill},
      {.name = "recover",
       .needs_server = true,
       .arguments =
           [](Life& life) {
             owns_recoveries(life);
             return Arguments{"recover", "--yes", "--to", "name:before"};
           },
       .after = after_recovery},
      {.name = "recover --undo",
       .needs_server = true,
       .before = make_recovery,
       .arguments =
           [](Life&) {
             return Arguments{"recover", "--undo", "--yes"};
           },
       .after = after_recovery},
  };
  return all;
}

bool is_long() {
  return std::getenv("HOLDFAST_LONG") != nullptr;
}

/// Runs it, and kills it after a while: alone, or with all that it started. How long it ran.
std::chrono::milliseconds run(const Sweep& sweep, Life& life,
                              std::optional<std::chrono::milliseconds> limit, bool with_all) {
  const fs::path log = life.path("sweep.log");
  life.owns(log);
  base::Command command = life.command(sweep.arguments(life));
  if (sweep.as_self) command.user.reset();
  const auto begun = std::chrono::steady_clock::now();
  base::Child child(command, log);
  if (!limit) {
    const int status = child.wait();
    if (status != 0) throw std::runtime_error(sweep.name + ": " + text_of(log));
  } else if (!child.wait_for(*limit)) {
    child.signal(SIGKILL);
    if (with_all) {
      for (const pid_t each : life.processes()) ::kill(each, SIGKILL);
    }
    child.wait();
  }
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() -
                                                               begun);
}

/// What is wrong afterwards; "" if nothing is.
std::string one_life(const Sweep& sweep, Life& life, std::optional<std::chrono::milliseconds> limit,
                     bool with_all, std::chrono::milliseconds& took) {
  try {
    life.settle_down(sweep.needs_server);
    life.arm();
    sweep.before(life);
    took = run(sweep, life, limit, with_all);
    std::string wrong = sweep.after(life);
    wrong += life.tripped();
    life.clean();
    eventually("no process of it is left", [&] { return life.processes().empty(); });
    return wrong;
  } catch (const std::exception& error) {
    return error.what();
  }
}

class Sweeps : public ::testing::TestWithParam<std::string> {};

TEST_P(Sweeps, killed_at_any_moment_holdfast_says_what_is_left_and_cleans_it_up) {
  if (!base::running_as_root()) GTEST_SKIP() << "only root can make this world";
  const auto world = std::ranges::find(all_worlds(), GetParam(), &World::name);
  ASSERT_NE(world, all_worlds().end());
  Life life(*world);
  ASSERT_EQ(life.holdfast({"backup"}).status, 0);
  life.make_moment(*world);
  const char* set = std::getenv("HOLDFAST_MOMENTS");
  const int moments = set != nullptr ? std::stoi(set) : is_long() ? 20 : 2;
  const char* wanted = std::getenv("HOLDFAST_COMMANDS");
  for (const Sweep& sweep : all_sweeps()) {
    if (!is_long() && !sweep.in_short_suite) continue;
    if (wanted != nullptr && sweep.name.find(wanted) == std::string::npos) continue;
    std::chrono::milliseconds whole{};
    std::chrono::milliseconds took{};
    const std::string wrong = one_life(sweep, life, {}, false, whole);
    EXPECT_EQ(wrong, "") << GetParam() << ": " << sweep.name << ", not killed";
    if (!wrong.empty()) continue;
    int failed = 0;
    for (int moment = 0; moment < moments; ++moment) {
      const auto limit = whole * (2 * moment + 1) / (2 * moments);
      const bool with_all = moment % 2 == 1;
      const std::string left = one_life(sweep, life, limit, with_all, took);
      failed += left.empty() ? 0 : 1;
      EXPECT_EQ(left, "") << GetParam() << ": " << sweep.name << ", killed "
                          << (with_all ? "with all that it started " : "") << "after "
                          << limit.count() << " of " << whole.count() << " ms";
    }
    std::cout << fmt::format("{:<12} {:<18} {:>3} kills in {:>5} ms, {} FAILED\n", GetParam(),
                             sweep.name, moments, whole.count(), failed);
  }
}

std::vector<std::string> worlds_of_now() {
  if (!is_long()) return {"tablespaces"};
  return {"tablespaces", "debian"};
}

INSTANTIATE_TEST_SUITE_P(In, Sweeps, ::testing::ValuesIn(worlds_of_now()),
                         [](const auto& each) { return each.param; });

}  // namespace
}  // namespace holdfast::tests::worlds
