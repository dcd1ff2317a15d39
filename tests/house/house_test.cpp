// The rules of the house that a machine can check (CONTRIBUTING.md): arrows between directories,
// sizes of files, names, and that documents and tables agree.

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "base/error.h"
#include "base/file.h"

namespace holdfast {
namespace {

namespace fs = std::filesystem;

const fs::path root = HOLDFAST_SOURCE;

/// From the ground up: a directory may include those before it, and itself. `postgres` and
/// `repository` do not know each other.
const std::vector<std::string> rooms = {"base",    "store",    "repository", "postgres", "mount",
                                        "service", "provider", "operations", "serve",    "cli"};

std::string read(const fs::path& file) {
  std::ostringstream text;
  text << std::ifstream(file).rdbuf();
  return text.str();
}

std::vector<fs::path> sources(const fs::path& below) {
  std::vector<fs::path> found;
  for (const auto& entry : fs::recursive_directory_iterator(below)) {
    const std::string kind = entry.path().extension().string();
    if (kind == ".h" || kind == ".cpp") found.push_back(entry.path());
  }
  return found;
}

bool may_include(const std::string& from, const std::string& to) {
  if (from == to) return true;
  if ((from == "postgres" && (to == "repository" || to == "store")) ||
      (from == "repository" && to == "postgres")) {
    return false;
  }
  const auto place = [](const std::string& room) {
    return std::find(rooms.begin(), rooms.end(), room) - rooms.begin();
  };
  return place(to) < place(from);
}

TEST(House, has_only_the_rooms_that_the_design_names) {
  for (const auto& entry : fs::directory_iterator(root / "src")) {
    if (!entry.is_directory()) continue;
    EXPECT_NE(std::find(rooms.begin(), rooms.end(), entry.path().filename()), rooms.end())
        << entry.path();
  }
}

/// What follows each `before` in a text, as long as `belongs` says so.
std::vector<std::string> words_after(const std::string& text, const std::string& before,
                                     int (*belongs)(int)) {
  std::vector<std::string> found;
  for (std::size_t at = text.find(before); at != std::string::npos; at = text.find(before, at)) {
    at += before.size();
    std::size_t end = at;
    while (end < text.size() && belongs(static_cast<unsigned char>(text[end])) != 0) ++end;
    if (end > at) found.push_back(text.substr(at, end - at));
  }
  return found;
}

TEST(House, includes_go_down_the_list_only) {
  int seen = 0;
  for (const fs::path& file : sources(root / "src")) {
    const std::string from = file.parent_path().filename();
    for (const std::string& to : words_after(read(file), "\n#include \"", std::islower)) {
      ++seen;
      EXPECT_TRUE(may_include(from, to)) << file << " includes " << to;
    }
  }
  EXPECT_GT(seen, 100);
}

TEST(House, notices_an_include_that_goes_up) {
  EXPECT_FALSE(may_include("base", "cli"));
  EXPECT_FALSE(may_include("repository", "postgres"));
  EXPECT_FALSE(may_include("postgres", "repository"));
  EXPECT_FALSE(may_include("operations", "cli"));
  EXPECT_TRUE(may_include("operations", "postgres"));
}

TEST(House, keeps_files_small) {
  std::vector<std::size_t> sizes;
  for (const char* part : {"src", "tests", "reference"}) {
    for (const fs::path& file : sources(root / part)) {
      const std::string text = read(file);
      const auto lines = static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
      EXPECT_LE(lines, 700U) << file;
      sizes.push_back(lines);
    }
  }
  std::sort(sizes.begin(), sizes.end());
  EXPECT_LE(sizes[sizes.size() * 9 / 10], 400U) << "nine files in ten have at most 400 lines";
}

TEST(House, keeps_lines_within_100_columns) {
  for (const char* part : {"src", "tests", "reference"}) {
    for (const fs::path& file : sources(root / part)) {
      std::istringstream lines(read(file));
      int number = 0;
      for (std::string line; std::getline(lines, line);) {
        ++number;
        // Bytes beyond ASCII are not columns; none is needed here.
        EXPECT_LE(line.size(), 100U) << file << ":" << number;
      }
    }
  }
}

TEST(House, has_no_file_that_could_hold_anything) {
  const std::set<std::string> banned = {"core",   "common",  "util",   "utils",
                                        "helper", "helpers", "manager"};
  for (const fs::path& file : sources(root / "src")) {
    EXPECT_FALSE(banned.contains(file.stem())) << file;
    EXPECT_FALSE(banned.contains(file.parent_path().filename())) << file;
  }
}

TEST(House, gives_every_kind_of_error_its_own_exit_status) {
  std::set<int> seen;
  for (const base::CodeInfo& code : base::all_codes()) {
    EXPECT_TRUE(seen.insert(code.exit_status).second) << code.name;
    // The archiver takes more than 125 for a reason to restart (pgarch.c).
    EXPECT_GE(code.exit_status, 1);
    EXPECT_LE(code.exit_status, 125);
    EXPECT_EQ(&base::info(code.code), &code) << code.name;
  }
}

TEST(House, documents_every_exit_status) {
  const std::string document = read(root / "docs" / "exit-status.md");
  for (const base::CodeInfo& code : base::all_codes()) {
    EXPECT_NE(document.find(fmt::format("| {} | {} |", code.exit_status, code.name)),
              std::string::npos)
        << code.name;
  }
}

TEST(House, invariants_that_tests_cite_are_documented) {
  const std::string document = read(root / "docs" / "durability.md");
  int seen = 0;
  for (const char* part : {"src", "tests", "reference"}) {
    for (const fs::path& file : sources(root / part)) {
      for (const std::string& number : words_after(read(file), "INV-", std::isdigit)) {
        ++seen;
        EXPECT_NE(document.find("**INV-" + number + "**"), std::string::npos)
            << file << " cites INV-" << number;
      }
    }
  }
  EXPECT_GT(seen, 10);
}

// A test that is skipped proves nothing: docs/testing.md says which can be, and why that is right.
TEST(House, documents_every_test_that_can_be_skipped) {
  const std::string text = read(root / "docs" / "testing.md");
  const std::string skips = text.substr(std::min(text.size(), text.find("## What is skipped")));
  int seen = 0;
  for (const char* below : {"src", "tests"}) {
    for (const fs::path& file : sources(root / below)) {
      const std::string code = read(file);
      if (file.filename() == "house_test.cpp" || file.extension() != ".cpp") continue;
      if (code.find("GTEST_SKIP") == std::string::npos &&
          code.find("NEEDS_FUSE") == std::string::npos) {
        continue;
      }
      EXPECT_NE(skips.find(file.filename().string()), std::string::npos) << file;
      ++seen;
    }
  }
  EXPECT_GT(seen, 3);
}

TEST(House, keeps_the_readme_short) {
  const std::string text = read(root / "README.md");
  EXPECT_LE(std::count(text.begin(), text.end(), '\n'), 150);
  EXPECT_NE(text.find("scripts/quickstart"), std::string::npos);
  EXPECT_NE(text.find("scripts/test"), std::string::npos);
}

}  // namespace
}  // namespace holdfast
