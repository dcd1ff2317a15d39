#pragma once

// Who asks, once a token has been verified: a user, as a member of one organisation, in one role.
// Everything a request may see or change follows from it.

#include <string>
#include <string_view>

namespace reference::auth {

/// Each role may do what those before it may.
enum class Role { viewer, editor, admin };

constexpr std::string_view to_string(Role role) {
  switch (role) {
    case Role::viewer:
      return "viewer";
    case Role::editor:
      return "editor";
    case Role::admin:
      return "admin";
  }
  return "";
}

struct Principal {
  std::string user;          ///< "user_..."
  std::string organisation;  ///< "org_...", as organisations.clerk_id holds it
  Role role = Role::viewer;
};

}  // namespace reference::auth
