#include "serve/jobs.h"

#include "base/error.h"

namespace holdfast::serve {

using base::Code;
using base::Error;

std::vector<Job> jobs_of(const operations::Configuration& configuration) {
  const operations::ScheduleSettings& settings = configuration.schedule;
  const auto parsed = [&](const std::string& key, const std::string& text) {
    try {
      Schedule schedule = Schedule::parse(text);
      if (!schedule.after_backup() || (key == "drill" && !settings.backup.empty())) return schedule;
      base::fail(Code::usage,
                 "only \"drill\" can be after every backup, where there is a \"backup\"");
    } catch (const Error& error) {
      throw Error(
          Code::configuration,
          fmt::format("{}: [schedule] {}: {}", configuration.path.string(), key, error.message()),
          error.hint());
    }
  };
  try {
    find_zone(settings.timezone);
  } catch (const Error& error) {
    throw Error(Code::configuration,
                fmt::format("{}: [schedule] {}", configuration.path.string(), error.message()),
                error.hint());
  }
  std::vector<Job> jobs;
  const auto add = [&](const std::string& cluster, const std::string& key, const std::string& text,
                       std::vector<std::string> arguments) {
    if (text.empty()) return;
    Job job{key + "." + cluster, cluster, std::move(arguments),
            parsed(key, text),   {},      key == "backup"};
    job.arguments.insert(job.arguments.end(), {"--cluster", cluster});
    if (job.schedule->after_backup()) job.follows = "backup." + cluster;
    jobs.push_back(std::move(job));
  };
  for (const operations::ClusterConfiguration& each : configuration.clusters) {
    add(each.name, "backup", settings.backup, {"backup"});
    add(each.name, "drill", settings.drill, {"drill", "--by", "holdfast serve"});
    add(each.name, "expire", settings.expire, {"expire", "--yes"});
    add(each.name, "verify", settings.verify, {"verify"});
    if (configuration.serve.wal_receive) {
      jobs.push_back({"wal-receive." + each.name,
                      each.name,
                      {"wal", "receive", "--cluster", each.name},
                      std::nullopt,
                      {},
                      false});
    }
  }
  if (!configuration.probes.empty()) {
    jobs.push_back({"probe", "", {"probe", "--watch"}, std::nullopt, {}, false});
  }
  return jobs;
}

}  // namespace holdfast::serve
