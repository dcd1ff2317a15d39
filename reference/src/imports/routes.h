#pragma once

// REST of imports, beside what the tables' own interface offers for import_jobs:
//
// POST /import_jobs?kind=comps|buildings[&file_name=...], body text/csv, for editors: stages the
// file and answers 202 with the job, which is done in the background; GET its Location for its
// progress (bytes_done of bytes, rows_done, rows_failed). With an Idempotency-Key, a request that
// is sent again gives the job of the first one. Beyond most_waiting unfinished jobs of an
// organisation: 503.
//
// GET /import_jobs/{id}/errors[?after=LINE][&limit=N]: {"data":[{"line","reason"}],"next"}.

#include <functional>

#include "database/pool.h"
#include "http/router.h"
#include "imports/staging.h"

namespace reference::imports {

constexpr int most_waiting = 50;

/// `pool` must outlive the router; `wake` is called when there is a new job.
void register_routes(http::Router& router, database::Pool& pool, const Staging& staging,
                     const std::function<void()>& wake);

}  // namespace reference::imports
