#include "postgres/recovery_settings.h"

#include <algorithm>

#include "postgres/configuration_file.h"

namespace holdfast::postgres {

namespace {

bool same_name(std::string_view a, std::string_view b) {
  return lower_case(a) == lower_case(b);
}

std::string_view without_end(std::string_view line) {
  if (line.ends_with('\n')) line.remove_suffix(1);
  return line;
}

bool is_named(std::string_view name, const std::vector<std::string>& names, const Settings& added) {
  return std::any_of(names.begin(), names.end(),
                     [&](const std::string& each) { return same_name(each, name); }) ||
         std::any_of(added.begin(), added.end(),
                     [&](const auto& each) { return same_name(each.first, name); });
}

}  // namespace

std::string quote_setting(std::string_view value) {
  std::string quoted = "'";
  for (const char c : value) {
    if (c == '\n') {
      quoted += "\\n";  // a value cannot go on in the next line
    } else {
      if (c == '\'' || c == '\\') quoted.push_back(c);
      quoted.push_back(c);
    }
  }
  return quoted + "'";
}

std::string edit_settings(std::string_view text, const std::vector<std::string>& names,
                          const Settings& added, std::string_view comment) {
  std::string result;
  for (const ConfigurationLine& line : configuration_lines(text)) {
    if (!is_named(line.name, names, added)) result += line.text;
  }
  if (added.empty()) return result;
  if (!result.empty() && !result.ends_with('\n')) result.push_back('\n');
  for (const ConfigurationLine& line : configuration_lines(comment)) {
    result += "# " + std::string(without_end(line.text)) + "\n";
  }
  for (const auto& [name, value] : added) result += name + " = " + quote_setting(value) + "\n";
  return result;
}

std::optional<std::string> find_setting(std::string_view text, std::string_view name) {
  std::optional<std::string> found;
  for (ConfigurationLine& line : configuration_lines(text)) {
    if (line.value && same_name(line.name, name)) found = std::move(line.value);
  }
  return found;
}

const std::vector<std::string>& recovery_setting_names() {
  static const std::vector<std::string> names = {
      "recovery_target",
      "recovery_target_action",
      "recovery_target_inclusive",
      "recovery_target_lsn",
      "recovery_target_name",
      "recovery_target_time",
      "recovery_target_timeline",
      "recovery_target_xid",
      "restore_command",
      "archive_cleanup_command",
      "recovery_end_command",
      "primary_conninfo",
      "primary_slot_name",
      "promote_trigger_file",
      "recovery_min_apply_delay",
      "archive_mode",
      "archive_command",
      "archive_library",
      "hot_standby",
      "allow_in_place_tablespaces",
  };
  return names;
}

}  // namespace holdfast::postgres
