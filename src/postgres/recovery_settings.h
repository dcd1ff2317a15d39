#pragma once

// What tells a server to recover, and how far (xlogrecovery.c): settings in postgresql.auto.conf
// and recovery.signal.

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace holdfast::postgres {

/// Settings as postgresql.auto.conf takes them, in order.
using Settings = std::vector<std::pair<std::string, std::string>>;

/// A value as a configuration file needs it: 'it''s', backslashes doubled.
std::string quote_setting(std::string_view value);

/// `text` (a postgresql.auto.conf) without any setting named in `names` or set in `added`, and with
/// `added` at its end under a comment that says who wrote them. Comments and other lines stay as
/// they are, including include directives. Names compare without case.
std::string edit_settings(std::string_view text, const std::vector<std::string>& names,
                          const Settings& added, std::string_view comment);

/// The value that a configuration file text gives to a setting (the last one wins); nullopt if
/// none.
std::optional<std::string> find_setting(std::string_view text, std::string_view name);

/// Every setting that can steer recovery or tie a restored cluster to the place it came from:
/// recovery_target*, restore_command, archive_cleanup_command, recovery_end_command,
/// primary_conninfo, primary_slot_name, promote_trigger_file, recovery_min_apply_delay,
/// archive_mode, archive_command, archive_library.
const std::vector<std::string>& recovery_setting_names();

}  // namespace holdfast::postgres
