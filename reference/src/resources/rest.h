#pragma once

// The REST interface of all tables: one engine, driven by their descriptions (table.h).
//
//   GET    /TABLE         a list, newest first: {"data": [...], "next": cursor or null}; ?limit=,
//                         ?cursor=, and a filter for each column that allows it
//   POST   /TABLE         a new row: 201 and Location
//   GET    /TABLE/{id}    one row
//   PATCH  /TABLE/{id}    changes the fields that are named
//   DELETE /TABLE/{id}    204
//
// Every statement is restricted to the organisation of the token; a row of another one is not
// there: 404. A change and its audit log are one transaction. Lists and rows are read through the
// cache; a change is answered after the cache has forgotten what was.

#include "cache/cache.h"
#include "database/pool.h"
#include "http/router.h"

namespace reference::resources {

/// Whoever is given must outlive the router.
void register_routes(http::Router& router, database::Pool& pool, cache::Cache& cache);

/// An answer that came through the cache; the header X-Cache says whether from it.
http::Response respond(cache::Cache::Answer answer);

}  // namespace reference::resources
