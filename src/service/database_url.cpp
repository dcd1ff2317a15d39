#include "service/database_url.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "base/error.h"

namespace holdfast::service {

namespace {

/// Where the parts of a URL are. The user's part ends with its "@".
struct Parts {
  std::string_view scheme;  ///< with "://"
  std::string_view user;
  std::string_view database;    ///< with its "/"; empty if there is none
  std::string_view parameters;  ///< without "?"
};

Parts parts_of(std::string_view url) {
  Parts parts;
  for (const std::string_view scheme : {"postgresql://", "postgres://"}) {
    if (url.starts_with(scheme)) parts.scheme = url.substr(0, scheme.size());
  }
  if (parts.scheme.empty()) {
    throw base::Error(base::Code::configuration,
                      "cannot change the database's URL: it does not begin with postgresql://",
                      "let a command of yours write it: [recover.command] environment");
  }
  std::string_view rest = url.substr(parts.scheme.size());
  const std::size_t question = std::min(rest.find('?'), rest.size());
  if (question < rest.size()) parts.parameters = rest.substr(question + 1);
  rest = rest.substr(0, question);
  const std::size_t slash = std::min(rest.find('/'), rest.size());
  parts.database = rest.substr(slash);
  const std::string_view authority = rest.substr(0, slash);
  const std::size_t sign = authority.rfind('@');
  if (sign != std::string_view::npos) parts.user = authority.substr(0, sign + 1);
  return parts;
}

bool is_place(std::string_view parameter) {
  constexpr std::array<std::string_view, 3> names = {"host", "hostaddr", "port"};
  return std::ranges::find(names, parameter.substr(0, parameter.find('='))) != names.end();
}

/// A path, or an address with colons, cannot stand in front as it is.
std::string host_text(const std::string& host) {
  if (host.find(':') != std::string::npos && !host.starts_with('[')) return "[" + host + "]";
  std::string text;
  for (const char c : host) {
    if (c == '/' || c == '%' || c == '@' || c == '?' || c == '#' || c == ' ') {
      text += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    } else {
      text += c;
    }
  }
  return text;
}

std::string unescaped(std::string_view text) {
  std::string plain;
  const auto digit = [](char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
  };
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && digit(text[i + 1]) >= 0 &&
        digit(text[i + 2]) >= 0) {
      plain += static_cast<char>(digit(text[i + 1]) * 16 + digit(text[i + 2]));
      i += 2;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

}  // namespace

std::string with_database_host(const std::string& url, const std::string& host,
                               std::optional<std::uint16_t> port) {
  const Parts parts = parts_of(url);
  std::string kept;
  for (std::string_view left = parts.parameters; !left.empty();) {
    const std::size_t end = std::min(left.find('&'), left.size());
    const std::string_view each = left.substr(0, end);
    if (!is_place(each)) kept += fmt::format("{}{}", kept.empty() ? "?" : "&", each);
    left.remove_prefix(std::min(end + 1, left.size()));
  }
  return fmt::format("{}{}{}:{}{}{}", parts.scheme, parts.user, host_text(host),
                     port.value_or(5432), parts.database, kept);
}

std::vector<std::string> database_passwords(const std::string& url) {
  std::vector<std::string> passwords;
  const auto add = [&](std::string_view written) {
    if (written.empty()) return;
    passwords.emplace_back(written);
    if (std::string plain = unescaped(written); plain != written) {
      passwords.push_back(std::move(plain));
    }
  };
  const Parts parts = parts_of(url);
  const std::size_t colon = parts.user.find(':');
  if (colon != std::string_view::npos) {
    add(parts.user.substr(colon + 1, parts.user.size() - colon - 2));
  }
  constexpr std::string_view name = "password=";
  for (std::string_view left = parts.parameters; !left.empty();) {
    const std::size_t end = std::min(left.find('&'), left.size());
    if (left.starts_with(name)) add(left.substr(name.size(), end - name.size()));
    left.remove_prefix(std::min(end + 1, left.size()));
  }
  return passwords;
}

}  // namespace holdfast::service
