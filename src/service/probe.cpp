#include "service/probe.h"

#include "base/error.h"
#include "base/http.h"
#include "postgres/session.h"
#include "postgres/time_limit.h"

namespace holdfast::service {

namespace {

using base::Code;
using base::Error;

/// Why it has failed; empty if it has not.
std::string ask_web(const ProbeSettings& probe) {
  const base::HttpAnswer answer =
      base::http_get(probe.url, std::chrono::ceil<std::chrono::milliseconds>(probe.limit));
  if (!answer.status) return answer.why_not;
  const bool good = probe.expect.empty() ? *answer.status >= 200 && *answer.status < 400
                                         : std::to_string(*answer.status) == probe.expect;
  return good ? "" : fmt::format("it answered {}", *answer.status);
}

std::string ask_server(const ProbeSettings& probe) {
  try {
    const postgres::TimeLimit limit(std::chrono::ceil<std::chrono::milliseconds>(probe.limit));
    postgres::Session session(probe.connection);
    const postgres::Rows rows = session.query(probe.sql);
    if (probe.expect.empty()) return "";
    const bool single = rows.size() == 1 && rows.front().size() == 1 && rows.front().front();
    if (single && *rows.front().front() == probe.expect) return "";
    return single ? "it answered another value" : "it answered no single value";
  } catch (const Error& error) {
    if (error.code() == Code::interrupted || error.code() == Code::not_found) throw;
    return error.message();
  }
}

}  // namespace

ProbeSample run_probe(const ProbeSettings& probe) {
  ProbeSample sample;
  sample.name = probe.name;
  sample.time = base::now();
  sample.interval = probe.interval;
  const auto start = std::chrono::steady_clock::now();
  sample.why = probe.url.empty() ? ask_server(probe) : ask_web(probe);
  sample.ok = sample.why.empty();
  sample.latency =
      std::chrono::duration_cast<base::Microseconds>(std::chrono::steady_clock::now() - start);
  return sample;
}

}  // namespace holdfast::service
