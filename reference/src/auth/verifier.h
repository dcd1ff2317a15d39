#pragma once

// What the service asks about a token. Tests of other parts give it answers of their own.

#include <string_view>

#include "auth/principal.h"

namespace reference::auth {

class Verifier {
 public:
  Verifier() = default;
  virtual ~Verifier() = default;
  Verifier(const Verifier&) = delete;
  Verifier& operator=(const Verifier&) = delete;
  /// Whose token this is. Throws http::Problem: 401 if it proves nothing, 503 if that cannot be
  /// found out at the moment. Called by many threads at once.
  virtual Principal verify(std::string_view bearer_token) = 0;
};

}  // namespace reference::auth
