#pragma once

// Where a list goes on: after the row with this time and id. What has been created before the walk
// began is seen exactly once, whatever is added meanwhile (newest first, so new rows come before
// it).
//
// A cursor says nothing about whose rows these are; that is the token's business each time.

#include <string>
#include <string_view>

namespace reference::resources {

struct Cursor {
  std::string created_at;  ///< microseconds since 1970
  std::string id;
};
/// Opaque text for clients.
std::string to_text(const Cursor& cursor);
/// Throws Problem 400 for what was not made by to_text().
Cursor parse_cursor(std::string_view text);

}  // namespace reference::resources
