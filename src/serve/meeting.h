#pragma once

// Where daemons that share repositories meet: in the first one, in the order of the file, that
// answers. Daemons that see the same world meet in the same one.

#include <functional>
#include <memory>
#include <vector>

#include "operations/catalog.h"

namespace holdfast::serve {

struct Meeting {
  std::vector<operations::Configuration> repositories;
  std::unique_ptr<operations::Site> site;
  repository::ClusterPlace place;

  const repository::Repository& repository() const { return site->repository; }
};

/// Calls `use` with one repository after the other until it succeeds. Error(busy) is an answer and
/// is thrown at once; other errors only if none is left, and then the first.
std::unique_ptr<Meeting> meet(const operations::Configuration& configuration,
                              const std::string& cluster,
                              const std::function<void(const Meeting&)>& use);

}  // namespace holdfast::serve
