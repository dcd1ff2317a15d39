#pragma once

// Files that people write, in TOML: every key that is understood does something, every other key is
// an error with its line (TRAPS CC10, CC11).

#define TOML_EXCEPTIONS 1
#define TOML_HEADER_ONLY 0
#include <toml++/toml.h>

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/time.h"

namespace holdfast::base {

/// Which file, and what to tell somebody who got it wrong.
struct TomlFile {
  fs::path path;
  std::string hint;

  /// Throws Error(configuration) with the line.
  toml::table parse(std::string_view text) const;
  /// Throws Error(configuration); without a hint of its own the file's.
  [[noreturn]] void refuse(const toml::source_region& where, std::string_view why,
                           std::string own_hint = {}) const;
};

/// "a, b, c".
std::string joined(const std::set<std::string_view>& names);

/// One table of a file. What is asked for is known; refuse_other_keys() refuses the rest. Holds
/// references to both. All throw Error(configuration), with the line, for what is not as it must
/// be.
class Section {
 public:
  Section(const TomlFile& file, const toml::table& table, std::string name)
      : file_(file), table_(table), name_(std::move(name)) {}

  const toml::source_region& where() const { return table_.source(); }
  const std::string& name() const { return name_; }
  bool has(std::string_view key) const { return table_.get(key) != nullptr; }
  bool is_text(std::string_view key) const;
  /// Any value, known from now on; nullptr if there is none.
  const toml::node* node(std::string_view key);

  /// Never empty, if it is there; "" if not.
  std::string text(std::string_view key);
  std::string required(std::string_view key);
  /// A single text is a list of one.
  std::vector<std::string> texts(std::string_view key);
  /// A positive duration ("7d").
  std::optional<Microseconds> duration(std::string_view key);
  /// A whole number above 0.
  std::optional<std::uint32_t> count(std::string_view key);
  std::optional<double> number(std::string_view key);
  std::optional<bool> flag(std::string_view key);
  /// The section [NAME.KEY]; nullptr if there is none.
  const toml::table* table(std::string_view key);
  /// The sections [NAME.KEY.X], in the order of the file.
  std::vector<std::pair<std::string, const toml::table*>> named_tables(std::string_view key);
  /// The sections [[NAME.KEY]].
  std::vector<const toml::table*> tables(std::string_view key);
  /// Pairs of KEY = "text".
  std::vector<std::pair<std::string, std::string>> text_pairs(std::string_view key);

  void refuse_other_keys() const;
  [[noreturn]] void refuse(std::string_view why, std::string hint = {}) const {
    file_.refuse(where(), why, std::move(hint));
  }

 private:
  std::string full(std::string_view key) const;

  const TomlFile& file_;
  const toml::table& table_;
  std::string name_;  ///< "" for the file itself
  std::set<std::string_view> known_;
};

}  // namespace holdfast::base
