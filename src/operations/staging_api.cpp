#include "operations/staging_api.h"

#include "postgres/server.h"
#include "service/local_service.h"

namespace holdfast::operations {

Checked check_staging_api(const Configuration& configuration, const std::string& database_url,
                          const base::fs::path& log) {
  const DrillConfiguration& drill = configuration.drill;
  Checked result{{"staging API is ready", CheckOutcome::failed, {}}, {}};
  const auto begun = std::chrono::steady_clock::now();
  service::LocalService api({drill.api,
                             configuration.path.parent_path(),
                             {{"DATABASE_URL", database_url}},
                             base::running_as_root() ? postgres::server_user() : std::nullopt,
                             log});
  result.check.found = api.wait_until_it_answers(drill.ready, 200, drill.ready_within);
  if (result.check.found.empty()) {
    const auto took = std::chrono::steady_clock::now() - begun;
    result.check.outcome = CheckOutcome::passed;
    result.check.found =
        fmt::format("{} answered 200 after {}", drill.ready,
                    base::to_string_short(std::chrono::duration_cast<base::Microseconds>(took)));
    return result;
  }
  result.details.push_back(result.check.found);
  result.details.push_back("what it said is in " + log.string());
  return result;
}

}  // namespace holdfast::operations
