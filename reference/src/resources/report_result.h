#pragma once

// GET /reports/{id}/result: what a report asks of the comps, computed now (or kept in the cache
// until a comp changes): for each group the number of comps, their area, and the lowest, highest,
// median and average rent, the average weighted by area.

#include "cache/cache.h"
#include "database/pool.h"
#include "http/router.h"

namespace reference::resources {

void register_report_result(http::Router& router, database::Pool& pool, cache::Cache& cache);

}  // namespace reference::resources
