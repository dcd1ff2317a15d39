#include "resources/cursor.h"

#include <algorithm>

#include "http/problem.h"
#include "resources/fields.h"

namespace reference::resources {

std::string to_text(const Cursor& cursor) {
  return cursor.created_at + "." + cursor.id;
}

Cursor parse_cursor(std::string_view text) {
  const std::size_t dot = std::min(text.find('.'), text.size());
  const std::string_view time = text.substr(0, dot);
  const std::string_view id = text.substr(std::min(text.size(), dot + 1));
  if (time.empty() || time.size() > 17 || !is_uuid(id) ||
      time.find_first_not_of("0123456789") != std::string_view::npos) {
    throw http::Problem(400, "bad_cursor", "cannot go on from this cursor: it was not given here");
  }
  return {std::string(time), std::string(id)};
}

}  // namespace reference::resources
