#pragma once

#include <string_view>

namespace reference::imports {

/// Well-formed UTF-8 as PostgreSQL takes it: no overlong forms, no surrogates, up to U+10FFFF.
bool is_utf8(std::string_view text);

}  // namespace reference::imports
