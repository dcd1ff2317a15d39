#include "repository/signed_document.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace holdfast::repository {

namespace {

using nlohmann::json;

constexpr std::string_view check_begin = ",\n  \"check\": \"";

/// What follows the body: the check of all bytes before it, as the last member.
std::string end_of(const Repository& repository, std::string_view purpose, std::string_view body) {
  return fmt::format("{}{}\"\n}}\n", check_begin, repository.mac(purpose, body));
}

}  // namespace

std::string sign(const Repository& repository, std::string_view purpose, json document) {
  document.erase("check");
  // Nothing is lost over a host name or a reason that is not UTF-8: what is wrong is replaced.
  std::string body = document.dump(2, ' ', false, json::error_handler_t::replace);
  body.resize(body.rfind('}'));
  while (body.back() == '\n' || body.back() == ' ') body.pop_back();
  return body + end_of(repository, purpose, body);
}

std::optional<json> read_signed(const Repository& repository, std::string_view purpose,
                                std::string_view text) {
  const std::size_t at = text.rfind(check_begin);
  if (at == std::string_view::npos ||
      text.substr(at) != end_of(repository, purpose, text.substr(0, at))) {
    return std::nullopt;
  }
  json document = json::parse(text, nullptr, false);
  if (!document.is_object()) return std::nullopt;
  document.erase("check");
  return document;
}

bool put_signed(const Repository& repository, const std::string& object, std::string_view purpose,
                const json& document) {
  return repository.store().put(object, base::view(sign(repository, purpose, document)));
}

std::optional<json> get_signed(const Repository& repository, const std::string& object,
                               std::string_view purpose, const json& identity) {
  const auto bytes = repository.store().get(object);
  if (!bytes) return std::nullopt;
  auto document = read_signed(repository, purpose, base::text(*bytes));
  const bool is_it = document && std::ranges::all_of(identity.items(), [&](const auto& member) {
                       const auto found = document->find(member.key());
                       return found != document->end() && *found == member.value();
                     });
  return is_it ? std::move(document) : std::nullopt;
}

}  // namespace holdfast::repository
