#include <fmt/format.h>

#include "serve/pages.h"

namespace holdfast::serve {

namespace {

using base::Timestamp;
using nlohmann::json;
using Labels = std::vector<std::pair<std::string, std::string>>;

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\' || c == '"') out += '\\';
    out += c == '\n' ? std::string("\\n") : std::string(1, c);
  }
  return out;
}

/// One family of metrics after the other: all samples of one stand together.
class Families {
 public:
  void family(const std::string& name, std::string_view type, std::string_view help,
              std::string_view unit = {}) {
    name_ = name;
    suffix_ = type == "counter" ? "_total" : type == "info" ? "_info" : "";
    text_ += fmt::format("# TYPE {} {}\n", name, type);
    if (!unit.empty()) text_ += fmt::format("# UNIT {} {}\n", name, unit);
    text_ += fmt::format("# HELP {} {}\n", name, escaped(help));
  }
  void sample(const Labels& labels, double value) {
    std::string inner;
    for (const auto& [name, text] : labels) {
      inner += fmt::format("{}{}=\"{}\"", inner.empty() ? "" : ",", name, escaped(text));
    }
    text_ += fmt::format("{}{}{} {}\n", name_, suffix_,
                         inner.empty() ? "" : fmt::format("{{{}}}", inner), value);
  }
  void sample(const Labels& labels, const std::optional<Timestamp>& time) {
    if (time) sample(labels, static_cast<double>(time->time_since_epoch().count()) / 1e6);
  }
  std::string finish() { return text_ + "# EOF\n"; }

 private:
  std::string text_;
  std::string name_;
  std::string_view suffix_;
};

void of_jobs(const Picture& picture, Families& out) {
  const auto record = [&](const Worker::View& job) {
    const auto found = picture.content.jobs.find(job.name);
    return found == picture.content.jobs.end() ? JobRecord{} : found->second;
  };
  out.family("holdfast_job_running", "gauge", "Whether the job's command runs now");
  for (const auto& job : picture.jobs) out.sample({{"job", job.name}}, job.running ? 1 : 0);
  out.family("holdfast_job_runs", "counter", "Runs that ended since the daemon began");
  for (const auto& job : picture.jobs) {
    out.sample({{"job", job.name}, {"outcome", "success"}}, static_cast<double>(job.successes));
    out.sample({{"job", job.name}, {"outcome", "failure"}}, static_cast<double>(job.failures));
  }
  out.family("holdfast_job_last_success_timestamp_seconds", "gauge", "When a run last ended well",
             "seconds");
  for (const auto& job : picture.jobs) out.sample({{"job", job.name}}, record(job).succeeded);
  out.family("holdfast_job_last_end_timestamp_seconds", "gauge", "When a run last ended",
             "seconds");
  for (const auto& job : picture.jobs) out.sample({{"job", job.name}}, record(job).ended);
  out.family("holdfast_job_last_exit_status", "gauge", "How it ended: 0 is well");
  for (const auto& job : picture.jobs) {
    if (record(job).status) out.sample({{"job", job.name}}, *record(job).status);
  }
  out.family("holdfast_job_next_timestamp_seconds", "gauge", "When it is due next", "seconds");
  for (const auto& job : picture.jobs) out.sample({{"job", job.name}}, job.next);
}

/// One number of each objective of each report.
void of_objectives(const Picture& picture, Families& out, const std::string& name,
                   std::string_view help, const char* member) {
  out.family(name, "gauge", help);
  for (const auto& [cluster, look] : picture.looks) {
    for (const json& report : look ? look->reports : std::vector<json>()) {
      for (const json& each : report.value("objectives", json::array())) {
        const json& value = each.at(member);
        if (value.is_null()) continue;
        out.sample({{"cluster", cluster},
                    {"repository", report.value("repository", "")},
                    {"objective", each.at("name").get<std::string>()},
                    {"unit", each.at("unit").get<std::string>()}},
                   value.is_boolean() ? value.get<bool>() ? 1 : 0 : value.get<double>());
      }
    }
  }
}

void of_clusters(const Picture& picture, Families& out) {
  out.family("holdfast_status_ok", "gauge", "Whether `holdfast status` finds nothing bad");
  for (const auto& [cluster, look] : picture.looks) {
    for (const json& report : look ? look->reports : std::vector<json>()) {
      out.sample({{"cluster", cluster}, {"repository", report.value("repository", "")}},
                 report.value("ok", false) ? 1 : 0);
    }
  }
  out.family("holdfast_status_timestamp_seconds", "gauge", "When that was last found out",
             "seconds");
  for (const auto& [cluster, look] : picture.looks) {
    if (look) out.sample({{"cluster", cluster}}, look->at);
  }
  of_objectives(picture, out, "holdfast_objective_target", "What is promised", "target");
  of_objectives(picture, out, "holdfast_objective_measured", "What was measured", "measured");
  of_objectives(picture, out, "holdfast_objective_held", "Whether it is held", "held");
  out.family("holdfast_newest_good_backup_age_seconds", "gauge", "How old it is", "seconds");
  for (const auto& [cluster, look] : picture.looks) {
    for (const json& report : look ? look->reports : std::vector<json>()) {
      const json backup = report.value("newest_good_backup", json());
      if (!backup.is_object()) continue;
      out.sample({{"cluster", cluster}, {"repository", report.value("repository", "")}},
                 backup.at("age_s").get<double>());
    }
  }
}

}  // namespace

std::string metrics(const Picture& picture) {
  Families out;
  out.family("holdfast_build", "info", "Which version runs");
  out.sample({{"version", HOLDFAST_VERSION}}, 1);
  out.family("holdfast_start_timestamp_seconds", "gauge", "When the daemon began", "seconds");
  out.sample({}, std::optional(picture.started));
  out.family("holdfast_alarms", "gauge", "Alarms that are raised");
  std::map<bool, int> count{{true, 0}, {false, 0}};
  for (const auto& [id, alarm] : picture.content.alarms) ++count[alarm.bad];
  out.sample({{"severity", "bad"}}, count[true]);
  out.sample({{"severity", "warning"}}, count[false]);
  out.family("holdfast_alarm_since_timestamp_seconds", "gauge", "Each alarm, and since when",
             "seconds");
  for (const auto& [id, alarm] : picture.content.alarms) {
    out.sample({{"alarm", id}, {"severity", alarm.bad ? "bad" : "warning"}},
               std::optional(alarm.since));
  }
  out.family("holdfast_messages_waiting", "gauge", "Messages that were not delivered yet");
  out.sample({}, static_cast<double>(picture.content.outbox.size()));
  out.family("holdfast_channel_up", "gauge", "Whether a channel takes messages");
  for (const auto& [name, up] : picture.channels) out.sample({{"channel", name}}, up ? 1 : 0);
  of_jobs(picture, out);
  of_clusters(picture, out);
  return out.finish();
}

}  // namespace holdfast::serve
