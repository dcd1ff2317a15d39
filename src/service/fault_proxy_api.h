#pragma once

// The part of Toxiproxy's HTTP API (version 2) that its clients use, for a set of fault proxies:
// /proxies, /proxies/{proxy}, /proxies/{proxy}/toxics, /proxies/{proxy}/toxics/{toxic}, /populate,
// /reset and /version.
//
// Two things are ours: each proxy shows "counters", and POST /lease {"ms": 2000} is
// FaultProxies::lease(). Errors are {"error": why, "status": status} as Toxiproxy's.

#include "service/fault_proxy.h"
#include "service/http_listener.h"

namespace holdfast::service {

/// Answers one request; never throws.
HttpResponse answer_api(FaultProxies& proxies, const HttpRequest& request);

}  // namespace holdfast::service
