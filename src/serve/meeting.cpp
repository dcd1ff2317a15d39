#include "serve/meeting.h"

#include <algorithm>

#include "base/error.h"
#include "operations/repositories.h"

namespace holdfast::serve {

using base::Code;
using base::Error;

std::unique_ptr<Meeting> meet(const operations::Configuration& configuration,
                              const std::string& cluster,
                              const std::function<void(const Meeting&)>& use) {
  auto meeting = std::make_unique<Meeting>();
  meeting->repositories = operations::each_repository(configuration, {});
  std::optional<Error> first;
  for (const operations::Configuration& each : meeting->repositories) {
    try {
      meeting->site = std::make_unique<operations::Site>(operations::open_site(each, cluster));
      const auto systems = meeting->repository().systems(cluster);
      if (systems.empty()) {
        throw Error(Code::not_found, "the cluster is not registered in the repository",
                    "run `holdfast init`");
      }
      // The same for all who meet, whichever system they work for, and whichever is written to.
      meeting->place = {cluster, *std::ranges::min_element(systems)};
      use(*meeting);
      return meeting;
    } catch (const Error& error) {
      if (error.code() == Code::busy) throw;
      if (!first) first = error;
    }
  }
  throw *first;
}

}  // namespace holdfast::serve
