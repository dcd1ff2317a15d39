#include "base/environment.h"

#include <cstdlib>

#include "base/error.h"

namespace holdfast::base {

std::string with_environment(std::string_view text) {
  std::string result;
  for (;;) {
    const std::size_t at = text.find("${");
    result += text.substr(0, at);
    if (at == std::string_view::npos) return result;
    const std::size_t end = text.find('}', at);
    if (end == std::string_view::npos) {
      throw Error(Code::configuration, "\"${\" without \"}\"");
    }
    const std::string_view inner = text.substr(at + 2, end - at - 2);
    const std::size_t otherwise = inner.find(":-");
    const std::string name(inner.substr(0, otherwise));
    const char* value = std::getenv(name.c_str());
    if (value != nullptr && *value != '\0') {
      result += value;
    } else if (otherwise != std::string_view::npos) {
      result += inner.substr(otherwise + 2);
    } else {
      throw Error(Code::configuration, fmt::format("the environment has no {}", name),
                  fmt::format("set {}, or write ${{{}:-otherwise}}", name, name));
    }
    text.remove_prefix(end + 1);
  }
}

}  // namespace holdfast::base
