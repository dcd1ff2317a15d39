// Every command that writes in every world: what it promised is true, and nothing else has changed.
//
// A cell passes, is refused as the world expects it, or FAILED. The matrix is printed at the end.

#include <iostream>
#include <regex>
#include <sstream>

#include "worlds/life.h"

namespace holdfast::tests::worlds {
namespace {

bool is_long() {
  return std::getenv("HOLDFAST_LONG") != nullptr;
}

std::vector<const World*> worlds_of_now() {
  std::vector<const World*> worlds;
  for (const World& each : all_worlds()) {
    if (is_long() || each.in_short_suite) worlds.push_back(&each);
  }
  return worlds;
}

/// The first takes the backup that all others need.
std::vector<const Command*> commands_of_now() {
  const char* wanted = std::getenv("HOLDFAST_COMMANDS");
  std::vector<const Command*> commands;
  for (const Command& each : all_commands()) {
    const bool is_wanted =
        wanted == nullptr || commands.empty() || std::regex_search(each.name, std::regex(wanted));
    if (is_wanted && (is_long() || each.in_short_suite)) commands.push_back(&each);
  }
  return commands;
}

/// World, command, what came of it.
std::map<std::string, std::map<std::string, std::string>> cells;
std::chrono::steady_clock::time_point begun = std::chrono::steady_clock::now();

class Matrix : public ::testing::Environment {
 public:
  void SetUp() override { begun = std::chrono::steady_clock::now(); }
  void TearDown() override {
    if (cells.empty()) return;
    std::map<std::string, int> counts;
    int row = 0;
    std::cout << "\nCommands:";
    for (const Command* each : commands_of_now())
      std::cout << fmt::format(" {}={};", ++row, each->name);
    std::cout << fmt::format("\n\n{:<22}", "");
    for (int column = 1; column <= row; ++column) std::cout << fmt::format("{:>9}", column);
    std::cout << "\n";
    for (const World* world : worlds_of_now()) {
      if (!cells.contains(world->name)) continue;
      std::cout << fmt::format("{:<22}", world->name);
      for (const Command* each : commands_of_now()) {
        const auto found = cells[world->name].find(each->name);
        const std::string cell = found == cells[world->name].end() ? "" : found->second;
        std::cout << fmt::format("{:>9}", cell);
        ++counts[cell];
      }
      std::cout << "\n";
    }
    const auto took =
        std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now() - begun);
    int total = 0;
    for (const auto& [cell, count] : counts) total += cell == "-" || cell.empty() ? 0 : count;
    std::cout << fmt::format(
        "\n{} worlds, {} commands, {} cells: {} pass, {} refused as they should, {} FAILED, {} "
        "known "
        "to fail; {} s\n",
        cells.size(), row, total, counts["pass"], counts["refused"], counts["FAILED"],
        counts["known"], took.count());
  }
};

const ::testing::Environment* const matrix =
    ::testing::AddGlobalTestEnvironment(new Matrix);  // NOLINT: gtest owns it

class Worlds : public ::testing::TestWithParam<const World*> {};

INSTANTIATE_TEST_SUITE_P(On, Worlds, ::testing::ValuesIn(worlds_of_now()),
                         [](const ::testing::TestParamInfo<const World*>& each) {
                           return each.param->name;
                         });

std::string refusal_of(const World& world, const std::string& command, const Result& result) {
  const auto expected = world.refuses.find(command);
  if (result.status == 0) {
    return expected == world.refuses.end() ? ""
                                           : "it should have refused: " + expected->second.words;
  }
  const std::string said = result.output + result.errors;
  if (expected != world.refuses.end() &&
      result.status == base::info(expected->second.code).exit_status &&
      said.find(expected->second.words) != std::string::npos) {
    return "";
  }
  return fmt::format("it ended with {}: {}", result.status, said);
}

/// What is wrong; "" if nothing is. `cell` gets what to print otherwise.
std::string try_out(const World& world, const Command& command, Life& life, std::string& cell) {
  try {
    life.settle_down(command.needs_server);
    life.arm();
    const Outcome outcome = command.run(life);
    if (outcome.not_here) {
      cell = "-";
      return "";
    }
    cell = outcome.result.status == 0 ? "pass" : "refused";
    std::string wrong = refusal_of(world, command.name, outcome.result);
    if (!outcome.broken.empty()) wrong += "\n" + outcome.broken;
    const std::string tripped = life.tripped();
    if (!tripped.empty()) wrong += "\n" + tripped;
    life.clean();
    return wrong;
  } catch (const std::exception& error) {
    return error.what();
  }
}

TEST_P(Worlds, each_command_keeps_its_promise_and_touches_nothing_else) {
  const World& world = *GetParam();
  if (world.needs_root && !base::running_as_root()) {
    GTEST_SKIP() << "only root can make this world";
  }
  Life life(world);
  std::vector<const Command*> commands = commands_of_now();
  for (const Command* command : commands) {
    std::string cell;
    const auto start = std::chrono::steady_clock::now();
    const std::string wrong = try_out(world, *command, life, cell);
    if (command == commands.front()) life.make_moment(world);
    const auto known = world.known.find(command->name);
    if (!wrong.empty()) cell = known == world.known.end() ? "FAILED" : "known";
    cells[world.name][command->name] = cell;
    const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(
        std::chrono::steady_clock::now() - start);
    std::cout << fmt::format("{:<20} {:<18} {:<8} {:>6} ms{}\n", world.name, command->name, cell,
                             took.count(),
                             wrong.empty() && known != world.known.end() && cell != "-"
                                 ? " (known to fail: it does not any more)"
                                 : "");
    if (wrong.empty()) continue;
    if (known == world.known.end()) {
      ADD_FAILURE() << world.name << ": " << command->name << ": " << wrong;
    } else {
      std::cout << "  known: " << known->second << ": " << wrong << "\n";
    }
  }
}

}  // namespace
}  // namespace holdfast::tests::worlds
