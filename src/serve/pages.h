#pragma once

// What the daemon shows: /metrics for programs (OpenMetrics), a page for people, /health and
// /ready. All are made of one picture that the daemon takes every second, so that who asks never
// waits for anything, and nothing that hangs shows as a page that hangs.

#include <map>
#include <string>
#include <vector>

#include "serve/state.h"
#include "serve/watch.h"
#include "serve/worker.h"
#include "service/http_listener.h"

namespace holdfast::serve {

/// How things are at one moment.
struct Picture {
  base::Timestamp at;
  base::Timestamp started;
  std::vector<Worker::View> jobs;
  State::Content content;
  std::map<std::string, std::optional<StatusLook>> looks;  ///< by cluster
  base::Microseconds look_every{};
  std::map<std::string, bool> channels;  ///< whether each takes messages
};

/// Why the daemon is not at work: nobody has looked at a cluster, or not for a long time. Empty: it
/// is ready. What is wrong with the clusters themselves is no reason.
std::vector<std::string> unready(const Picture& picture);
/// OpenMetrics text.
std::string metrics(const Picture& picture);
/// HTML.
std::string page(const Picture& picture);

/// Answers GET of "/", "/metrics", "/health" and "/ready". A picture that is older than ten seconds
/// (`alive` is false) is no health.
service::HttpResponse answer(const service::HttpRequest& request, const Picture& picture,
                             bool alive);

}  // namespace holdfast::serve
