#pragma once

// What a server that nobody else may notice has its settings be (scratch_server.h).
//
// A restored cluster's configuration is that of somewhere else, and may be anybody's: whatever in
// it names a place, a process, a network, a command, a library or a target is said on the command
// line instead, where it wins over all files. Every setting of PostgreSQL 13 to 18 that takes a
// text stands here, be it as one that needs nothing said; a test holds this against pg_settings.

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "postgres/recovery_settings.h"
#include "postgres/server.h"

namespace holdfast::postgres {

/// Names of settings that an installation knows (`postgres --describe-config`). Minor releases and
/// distributions add some; to be given one that it does not know no server starts.
std::set<std::string> known_settings(const Installation& installation);

/// Those of the table that are known, and what steers recovery as `recovery` (the text of a
/// postgresql.auto.conf that was written for it) says, and nothing else. In the order in which they
/// must be given. `durable`: not only to be looked at and thrown away.
Settings scratch_settings(const std::set<std::string>& known, std::string_view recovery,
                          bool durable);

/// For the test: a name of the table, and why nothing is said about it; empty: something is.
struct SettingNote {
  std::string_view name;
  std::string_view why;
};
std::vector<SettingNote> scratch_setting_notes();

}  // namespace holdfast::postgres
