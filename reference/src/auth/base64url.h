#pragma once

// Base64url without padding (RFC 7515, section 2), strictly: absent for any other character, for a
// length that cannot be, and for left-over bits that are not zero.

#include <optional>
#include <string>
#include <string_view>

namespace reference::auth {

std::optional<std::string> decode_base64url(std::string_view text);

}  // namespace reference::auth
