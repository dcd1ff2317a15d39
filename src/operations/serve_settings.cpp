#include "operations/serve_settings.h"

#include <algorithm>
#include <cctype>

#include "base/error.h"
#include "service/address.h"

namespace holdfast::operations {

using base::Section;
using base::TomlFile;

ScheduleSettings read_schedule(const TomlFile& file, const toml::table* table) {
  ScheduleSettings schedule;
  if (table == nullptr) return schedule;
  Section section(file, *table, "schedule");
  schedule.backup = section.text("backup");
  schedule.drill = section.text("drill");
  schedule.expire = section.text("expire");
  schedule.verify = section.text("verify");
  schedule.timezone = section.text("timezone");
  schedule.jitter = section.duration("jitter").value_or(schedule.jitter);
  schedule.limit = section.duration("limit").value_or(schedule.limit);
  section.refuse_other_keys();
  if (schedule.jitter > std::chrono::hours(12)) {
    section.refuse("\"jitter\" must be 12h or less");
  }
  return schedule;
}

AlertSettings read_alert(const TomlFile& file, const toml::table* table) {
  AlertSettings alert;
  if (table == nullptr) return alert;
  Section section(file, *table, "alert");
  alert.webhook = section.text("webhook");
  alert.command = section.text("command");
  alert.emails = section.texts("email");
  section.refuse_other_keys();
  if (!alert.webhook.empty() && !alert.webhook.starts_with("http://") &&
      !alert.webhook.starts_with("https://")) {
    section.refuse("\"webhook\" must be an http:// or https:// URL");
  }
  for (const std::string& each : alert.emails) {
    const bool good = each.find('@') != std::string::npos && !each.starts_with('-') &&
                      std::ranges::all_of(each, [](unsigned char c) { return std::isgraph(c); });
    if (!good) section.refuse("\"email\" must be an address, or a list of them");
  }
  return alert;
}

ServeSettings read_serve(const TomlFile& file, const toml::table* table,
                         const base::fs::path& evidence) {
  ServeSettings serve;
  serve.state = evidence.parent_path() / "serve.json";
  if (table == nullptr) return serve;
  Section section(file, *table, "serve");
  const std::string state = section.text("state");
  if (!state.empty()) serve.state = (file.path.parent_path() / state).lexically_normal();
  serve.listen = section.text("listen");
  serve.wal_receive = section.flag("wal_receive").value_or(false);
  serve.check_every = section.duration("check_every").value_or(serve.check_every);
  section.refuse_other_keys();
  if (!serve.listen.empty()) {
    try {
      if (!service::find_address(serve.listen).is_loopback()) {
        section.refuse("\"listen\" must be an address that others cannot reach",
                       "write 127.0.0.1:9187, and put a web server before it");
      }
    } catch (const base::Error& error) {
      if (error.code() == base::Code::configuration) throw;
      section.refuse(error.message(), "write 127.0.0.1:9187");
    }
  }
  if (serve.check_every < std::chrono::seconds(1) || serve.check_every > std::chrono::hours(6)) {
    section.refuse("\"check_every\" must be from 1s to 6h");
  }
  return serve;
}

}  // namespace holdfast::operations
