#include "postgres/neutral_settings.h"

namespace holdfast::postgres {

Settings neutral_recovery_settings(int major) {
  Settings settings = {{"recovery_target", ""},
                       {"recovery_target_lsn", ""},
                       {"recovery_target_name", ""},
                       {"recovery_target_time", ""},
                       {"recovery_target_xid", ""},
                       {"recovery_target_timeline", "latest"},
                       {"recovery_target_inclusive", "on"},
                       {"recovery_target_action", "pause"},
                       {"recovery_min_apply_delay", "0"},
                       {"restore_command", ""},
                       {"archive_cleanup_command", ""},
                       {"recovery_end_command", ""},
                       {"primary_conninfo", ""},
                       {"primary_slot_name", ""},
                       {"hot_standby", "on"}};
  if (major < 16) settings.emplace_back("promote_trigger_file", "");
  return settings;
}

}  // namespace holdfast::postgres
