#pragma once

// Looking whether something is well, as its users would: a web request, or a statement.
//
// A probe ends within its time limit whatever the other side does; what does not answer, or not as
// it should, has failed, and the sample says why, without any password.

#include <chrono>
#include <string>

#include "base/time.h"

namespace holdfast::service {

struct ProbeSettings {
  std::string name;
  std::string url;         ///< empty: `connection` and `sql`
  std::string connection;  ///< libpq connection string
  std::string sql;
  std::string expect;  ///< the status or the value; empty: any status from 200 to 399, any answer
  base::Microseconds interval = std::chrono::seconds(60);
  base::Microseconds limit = std::chrono::seconds(5);
};

/// What a probe found at a moment.
struct ProbeSample {
  std::string name;
  base::Timestamp time;  ///< when it began
  bool ok = false;
  base::Microseconds latency{};
  base::Microseconds interval{};  ///< after which the next one was due
  std::string why;                ///< it failed
};

/// Throws only Error(not_found) if libcurl or libpq is not there, and Error(interrupted).
ProbeSample run_probe(const ProbeSettings& probe);

}  // namespace holdfast::service
