#pragma once

// What a session token of Clerk claims, and whether that is acceptable.
//
// Both versions of claims: 2 ("v": 2, organisation in "o": {"id", "rol"}) and 1 ("org_id",
// "org_role" with "org:" before it). Roles: admin, editor, and viewer or member; another role may
// do nothing. Throws http::Problem: 401 for claims that are malformed, expired, not yet valid, of
// another issuer or another authorised party, or of a session that is still pending; 403 where
// there is no organisation or no role of ours.

#include <chrono>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "auth/principal.h"

namespace reference::auth {

struct ExpectedClaims {
  std::string issuer;
  /// Who may be named in "azp"; with none, a token that names a party is refused.
  std::set<std::string> authorized_parties;
};

/// Clocks may differ by this much.
constexpr std::chrono::seconds leeway{5};

struct Accepted {
  Principal principal;
  /// From here on the token is expired, leeway included.
  std::chrono::system_clock::time_point until;
};

Accepted accept(const nlohmann::json& claims, const ExpectedClaims& expected,
                std::chrono::system_clock::time_point now);

}  // namespace reference::auth
