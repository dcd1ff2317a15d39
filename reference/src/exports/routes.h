#pragma once

// REST of exports, beside what the tables' own interface offers for them:
//
// POST /exports {"kind": "buildings"|"comps"|"tims", "title"?}, for editors, makes one: 201.
// GET /exports/{id}/download streams it as CSV: the rows of now. At most most_downloads at once
// in a process, then 503; when something fails on the way, the connection is cut off without the
// end of the chunked body, so that no client takes a part for the whole.

#include "cache/cache.h"
#include "database/pool.h"
#include "http/router.h"

namespace reference::exports {

/// Each holds a connection of the pool; the others are for everybody else.
constexpr int most_downloads = 4;

/// What is given must outlive the router.
void register_routes(http::Router& router, database::Pool& pool, cache::Cache& cache);

}  // namespace reference::exports
