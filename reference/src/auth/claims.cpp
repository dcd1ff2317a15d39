#include "auth/claims.h"

#include <algorithm>
#include <optional>

#include "http/problem.h"

namespace reference::auth {
namespace {

using nlohmann::json;
using Seconds = std::chrono::duration<double>;

[[noreturn]] void refuse(const std::string& why) {
  throw http::Problem{401, "invalid_token", "the token is not accepted: " + why};
}

[[noreturn]] void forbid(const std::string& why) {
  throw http::Problem{403, "forbidden", why};
}

std::optional<Seconds> time_of(const json& claims, const char* name) {
  const auto found = claims.find(name);
  if (found == claims.end()) return std::nullopt;
  if (!found->is_number()) refuse(std::string(name) + " is no time");
  const auto value = found->get<double>();
  // Beyond that a clock cannot count it.
  if (!(value >= 0 && value < 1e10)) refuse(std::string(name) + " is no time");
  return Seconds(value);
}

/// The text of a claim; "" if absent. A claim of another type is no claim that can be judged.
std::string text_of(const json& claims, const char* name) {
  const auto found = claims.find(name);
  if (found == claims.end() || found->is_null()) return "";
  if (!found->is_string()) refuse(std::string(name) + " is not a text");
  return found->get<std::string>();
}

/// Ids go into logs and statements; nobody's id is long or has control characters.
std::string id_of(const json& claims, const char* name) {
  std::string id = text_of(claims, name);
  const bool odd = std::any_of(id.begin(), id.end(), [](char letter) {
    return static_cast<unsigned char>(letter) <= ' ' || static_cast<unsigned char>(letter) > '~';
  });
  if (odd || id.size() > 200) refuse(std::string(name) + " is malformed");
  return id;
}

std::chrono::system_clock::time_point check_times(const json& claims,
                                                  std::chrono::system_clock::time_point now) {
  const std::optional<Seconds> expires = time_of(claims, "exp");
  if (!expires) refuse("it has no expiry");
  const Seconds moment = now.time_since_epoch();
  if (moment >= *expires + leeway) refuse("it is expired");
  for (const char* name : {"nbf", "iat"}) {
    const std::optional<Seconds> begins = time_of(claims, name);
    if (begins && *begins > moment + leeway) refuse("it is not valid yet");
  }
  return std::chrono::system_clock::time_point(
      std::chrono::duration_cast<std::chrono::system_clock::duration>(*expires + leeway));
}

void check_origin(const json& claims, const ExpectedClaims& expected) {
  if (text_of(claims, "iss") != expected.issuer) refuse("it is of another issuer");
  if (claims.contains("azp")) {
    if (!expected.authorized_parties.contains(text_of(claims, "azp"))) {
      refuse("its authorised party is not one of ours");
    }
  }
  if (text_of(claims, "sts") == "pending") refuse("its session is pending");
}

Role role_of(std::string name) {
  if (name.starts_with("org:")) name.erase(0, 4);
  if (name == "admin") return Role::admin;
  if (name == "editor") return Role::editor;
  if (name == "viewer" || name == "member") return Role::viewer;
  forbid("the token's role in its organisation has no rights here");
}

/// Organisation and role, by the version that the token says it has.
std::pair<std::string, std::string> membership(const json& claims) {
  const auto version = claims.find("v");
  if (version == claims.end() || *version == 1) {
    return {id_of(claims, "org_id"), text_of(claims, "org_role")};
  }
  if (*version != 2) refuse("its version of claims is unknown");
  const auto organisation = claims.find("o");
  if (organisation == claims.end() || organisation->is_null()) return {};
  if (!organisation->is_object()) refuse("its organisation is malformed");
  return {id_of(*organisation, "id"), text_of(*organisation, "rol")};
}

}  // namespace

Accepted accept(const json& claims, const ExpectedClaims& expected,
                std::chrono::system_clock::time_point now) {
  if (!claims.is_object()) refuse("it has no claims");
  const auto until = check_times(claims, now);
  check_origin(claims, expected);
  const std::string user = id_of(claims, "sub");
  if (user.empty()) refuse("it names no user");
  const auto [organisation, role] = membership(claims);
  if (organisation.empty())
    forbid("the token is for no organisation; choose one and sign in again");
  return {{user, organisation, role_of(role)}, until};
}

}  // namespace reference::auth
