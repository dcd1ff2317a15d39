#include "repository/repository.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "repository/activity.h"
#include "store/directory_store.h"

namespace holdfast::repository {

namespace {

using base::Code;
using base::Error;
using nlohmann::json;

constexpr std::string_view marker = "holdfast.json";
constexpr int format = 2;

/// The secret of an unencrypted repository: its id, so at least no two repositories agree.
base::Secret base_secret(const Protection& protection, const std::string& id) {
  return protection.key ? *protection.key : base::Secret(base::sha256(base::view(id)));
}

json read_marker(store::ObjectStore& store) {
  const auto bytes = store.get(marker);
  if (!bytes) {
    throw Error(
        Code::not_found,
        fmt::format("cannot find a repository at {}: there is no \"{}\"", store.url(), marker),
        "is the disk mounted that it is on? Nothing is made there. Otherwise correct the "
        "url in holdfast.toml");
  }
  const json parsed = json::parse(base::text(*bytes), nullptr, false);
  const auto damaged = [&] {
    throw Error(Code::corrupt,
                fmt::format("\"{}\" of the repository at {} is not readable", marker, store.url()),
                "put it back from a copy of the repository: all else in it needs it");
  };
  if (!parsed.is_object() || !parsed.contains("format") || !parsed["format"].is_number_integer()) {
    damaged();
  }
  if (parsed["format"] != format) {
    throw Error(Code::unsupported,
                fmt::format("cannot use the repository at {}: its format {} is not known to this "
                            "program",
                            store.url(), parsed["format"].dump()),
                "use the holdfast version that made it, or a newer one");
  }
  for (const char* name : {"repository", "encryption", "fingerprint"}) {
    if (!parsed.contains(name) || !parsed[name].is_string()) damaged();
  }
  return parsed;
}

}  // namespace

bool is_cluster_name(std::string_view name) {
  return !name.empty() && name.size() <= 63 && std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
  });
}

Repository::Repository(std::unique_ptr<store::ObjectStore> store, std::string id,
                       Protection protection)
    : store_(std::move(store)),
      id_(std::move(id)),
      protection_(std::move(protection)),
      page_hash_(base::derive(base_secret(protection_, id_), {}, "holdfast page hash")),
      mac_key_(base::derive(base_secret(protection_, id_), {}, "holdfast mac")) {}

bool Repository::exists(store::ObjectStore& store) {
  return store.stat(marker).has_value();
}

Repository::Created Repository::create(std::unique_ptr<store::ObjectStore> store,
                                       const KeySource& source) {
  const auto refuse = [&] {
    throw Error(
        Code::conflict,
        fmt::format("cannot create a repository at {}: there is one already", store->url()));
  };
  if (exists(*store)) refuse();
  if (!store->names("clusters").empty()) {
    throw Error(Code::refused,
                fmt::format("cannot create a repository at {}: there are backups of one whose "
                            "holdfast.json is missing",
                            store->url()),
                "put holdfast.json back; a new repository could not read them");
  }
  const std::string id = to_string(new_object_id());
  std::optional<base::Secret> key;
  std::string key_object;
  if (!source.empty()) {
    key = base::random_secret();
    key_object = add_key(*store, id, *key, source);
  }
  const json content = {{"format", format},
                        {"repository", id},
                        {"encryption", key ? "aes-256-gcm" : "none"},
                        {"fingerprint", key ? fingerprint(*key, id) : ""},
                        {"created", base::to_iso(base::now())},
                        {"created_by", "holdfast " HOLDFAST_VERSION}};
  // The marker is the commit. Who loses the race takes back the key that nobody will ask for (EK1).
  if (!store->put(marker, base::view(content.dump(2) + "\n"))) {
    if (!key_object.empty()) store->remove(key_object);
    refuse();
  }
  store::hold_to(*store, marker);
  return {Repository(std::move(store), id, {key}), key};
}

Repository Repository::open(std::unique_ptr<store::ObjectStore> store, const KeySource& source) {
  const json content = read_marker(*store);
  const std::string id = content["repository"];
  Protection protection;
  if (content["encryption"] == "aes-256-gcm") {
    protection.key = unlock(*store, id, content["fingerprint"], source);
  } else if (content["encryption"] != "none") {
    base::fail(Code::unsupported,
               "cannot use the repository at {}: its encryption \"{}\" is unknown", store->url(),
               content["encryption"].get<std::string>());
  } else if (!source.empty()) {
    // Somebody believes that this is encrypted. Going on would store plaintext in silence (EK2).
    throw Error(Code::key,
                fmt::format("cannot use a key with the repository at {}: it is not encrypted",
                            store->url()),
                "remove the key from holdfast.toml and set encryption = \"none\", or make a new "
                "repository");
  }
  store::hold_to(*store, marker);
  return Repository(std::move(store), id, protection);
}

std::string Repository::mac(std::string_view purpose, std::string_view text) const {
  return base::to_hex(base::hmac_sha256(base::derive(mac_key_, {}, purpose), base::view(text)));
}

bool Repository::register_system(const ClusterPlace& place, const std::string& note) {
  const json content = {{"cluster", place.cluster},
                        {"system_id", place.system_id},
                        {"registered", base::to_iso(base::now())},
                        {"note", note}};
  return store_->put(place.directory() + "/system.json", base::view(content.dump(2) + "\n"));
}

bool Repository::is_registered(const ClusterPlace& place) const {
  return store_->stat(place.directory() + "/system.json").has_value();
}

std::vector<std::string> Repository::systems(const std::string& cluster) const {
  struct Found {
    base::Timestamp written;
    base::Timestamp registered;
    std::string name;
    auto operator<=>(const Found&) const = default;
  };
  std::vector<Found> found;
  for (const std::string& name : store_->names("clusters/" + cluster)) {
    const bool number = std::ranges::all_of(name, [](char c) { return c >= '0' && c <= '9'; });
    if (!number) continue;
    const auto marker_of_system = store_->stat("clusters/" + cluster + "/" + name + "/system.json");
    if (marker_of_system) found.push_back({{}, marker_of_system->written, name});
  }
  // One alone needs no order.
  for (Found& each : found) {
    if (found.size() > 1) each.written = activity_of(*store_, {cluster, each.name}).last();
  }
  std::sort(found.begin(), found.end());
  std::vector<std::string> names;
  for (Found& each : found) names.push_back(std::move(each.name));
  return names;
}

std::vector<std::string> Repository::clusters() const {
  std::vector<std::string> names = store_->names("clusters");
  std::erase_if(names, [](const std::string& name) { return !is_cluster_name(name); });
  return names;
}

}  // namespace holdfast::repository
