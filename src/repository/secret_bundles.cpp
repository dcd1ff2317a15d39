#include "repository/secret_bundles.h"

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "repository/signed_document.h"

namespace holdfast::repository {

namespace {

using base::Code;
using nlohmann::json;

constexpr std::string_view purpose = "secrets";
constexpr std::string_view document_ending = ".json";
constexpr std::string_view sealed_ending = ".age";

}  // namespace

SecretBundles::SecretBundles(const Repository& repository, std::string cluster)
    : repository_(repository), cluster_(std::move(cluster)) {}

std::string SecretBundles::object_name(const std::string& id) const {
  return fmt::format("{}/{}{}", directory(), id, sealed_ending);
}

void SecretBundles::put(const std::string& id, base::View sealed, json document) const {
  document["bundle"] = id;
  document["cluster"] = cluster_;
  document["bytes"] = sealed.size();
  document["sha256"] = base::to_hex(base::sha256(sealed));
  store::ObjectStore& store = repository_.store();
  const std::string name = object_name(id);
  if (!store.put(name, sealed)) base::fail(Code::internal, "\"{}\" exists already", name);
  checked(id, document);
  if (!put_signed(repository_, fmt::format("{}/{}{}", directory(), id, document_ending), purpose,
                  document)) {
    base::fail(Code::internal, "what describes \"{}\" exists already", name);
  }
}

std::vector<std::string> SecretBundles::names_ending(std::string_view ending) const {
  std::vector<std::string> ids;
  for (const std::string& name : repository_.store().names(directory())) {
    if (name.ends_with(ending)) ids.push_back(name.substr(0, name.size() - ending.size()));
  }
  return ids;
}

std::vector<std::string> SecretBundles::all() const {
  return names_ending(document_ending);
}

std::vector<std::string> SecretBundles::unfinished() const {
  // In this order: who is at it writes the document last.
  const std::vector<std::string> sealed = names_ending(sealed_ending);
  const std::vector<std::string> described = all();
  std::vector<std::string> ids;
  std::ranges::set_difference(sealed, described, std::back_inserter(ids));
  return ids;
}

std::optional<json> SecretBundles::read(const std::string& id) const {
  const std::string name = fmt::format("{}/{}{}", directory(), id, document_ending);
  if (!repository_.store().stat(name)) return std::nullopt;
  auto document = get_signed(repository_, name, purpose, {{"bundle", id}, {"cluster", cluster_}});
  if (!document) base::fail(Code::corrupt, "\"{}\" is not as it was written", name);
  return document;
}

base::Bytes SecretBundles::checked(const std::string& id, const json& document) const {
  auto bytes = repository_.store().get(object_name(id));
  if (!bytes) base::fail(Code::corrupt, "\"{}\" is missing", object_name(id));
  if (bytes->size() != document.value("bytes", std::uint64_t{0}) ||
      base::to_hex(base::sha256(*bytes)) != document.value("sha256", "")) {
    base::fail(Code::corrupt, "\"{}\" is not as it was written", object_name(id));
  }
  return std::move(*bytes);
}

base::Bytes SecretBundles::sealed(const std::string& id) const {
  const auto document = read(id);
  if (!document) base::fail(Code::corrupt, "\"{}\" belongs to no bundle", object_name(id));
  return checked(id, *document);
}

}  // namespace holdfast::repository
