#include "operations/secrets.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using nlohmann::json;
using repository::SecretBundles;

constexpr std::string_view fingerprint_purpose = "secret fingerprint";

std::vector<std::string> all_recipients(const SecretsConfiguration& configuration) {
  std::set<std::string> all(configuration.recipients.begin(), configuration.recipients.end());
  all.insert(configuration.offline.begin(), configuration.offline.end());
  return {all.begin(), all.end()};
}

void check_may_seal(const Site& site) {
  const SecretsConfiguration& configuration = site.configuration.secrets;
  const std::string hint =
      "`age-keygen` makes a pair; write its public key in [secrets], and keep at least one "
      "identity where no machine of yours can read it";
  if (configuration.offline.empty()) {
    throw Error(Code::refused,
                "cannot seal the secrets: no recipient is off line, so what takes the machines "
                "may take the keys",
                hint);
  }
  if (all_recipients(configuration).size() < 2) {
    throw Error(Code::refused,
                "cannot seal the secrets to one recipient alone: if its identity is lost, so are "
                "they",
                hint);
  }
  if (!site.repository.encrypted()) {
    throw Error(Code::refused,
                "cannot keep secrets in a repository without encryption: by their fingerprints "
                "whoever reads it could try out guesses",
                "make an encrypted repository");
  }
}

BundleInfo bundle_info(const json& document) {
  try {
    BundleInfo info;
    info.id = document.at("bundle").get<std::string>();
    info.created = base::from_iso(document.at("created").get<std::string>());
    info.bytes = document.at("bytes").get<std::uint64_t>();
    info.recipients = document.at("recipients").get<std::vector<std::string>>();
    info.offline = document.at("offline").get<std::vector<std::string>>();
    for (const json& each : document.at("secrets")) info.secrets.push_back(secret_facts(each));
    return info;
  } catch (const json::exception& error) {
    base::fail(Code::corrupt, "a bundle's description cannot be understood: {}", error.what());
  }
}

json to_json(const BundleInfo& info) {
  json secrets = json::array();
  for (const SecretFacts& each : info.secrets) secrets.push_back(to_json(each));
  return {{"created", base::to_iso(info.created)},
          {"recipients", info.recipients},
          {"offline", info.offline},
          {"secrets", secrets}};
}

/// The newest that is whole; what is damaged is replaced by sealing again.
std::optional<BundleInfo> newest_good(const SecretBundles& bundles) {
  const std::vector<std::string> ids = bundles.all();
  if (ids.empty()) return std::nullopt;
  try {
    const auto document = bundles.read(ids.back());
    bundles.sealed(ids.back());
    return bundle_info(document.value());
  } catch (const Error& error) {
    if (error.code() != Code::corrupt) throw;
    return std::nullopt;
  }
}

const SecretFacts* find(const std::vector<SecretFacts>& all, const std::string& name) {
  const auto found = std::ranges::find(all, name, &SecretFacts::name);
  return found == all.end() ? nullptr : &*found;
}

/// Facts as they will be stored: those that have not changed keep their version and time.
std::vector<Secret> with_versions(const Site& site, std::vector<Secret> secrets,
                                  const std::optional<BundleInfo>& before, base::Timestamp now) {
  for (Secret& each : secrets) {
    SecretFacts& facts = each.facts;
    facts.fingerprint = secret_fingerprint(site, facts.name, each.value);
    facts.since = now;
    const SecretFacts* old = before ? find(before->secrets, facts.name) : nullptr;
    if (old == nullptr) continue;
    const bool same = old->fingerprint == facts.fingerprint;
    facts.version = same ? old->version : old->version + 1;
    if (same) facts.since = old->since;
  }
  return secrets;
}

std::vector<BundleInfo> candidates(const Site& site, const std::string& id) {
  const SecretBundles bundles(site.repository, site.cluster.name);
  if (!id.empty()) {
    repository::parse_object_id(id);
    const auto document = bundles.read(id);
    if (!document) return {};
    return {bundle_info(*document)};
  }
  std::vector<BundleInfo> found;
  for (const std::string& each : bundles.all()) {
    try {
      found.push_back(bundle_info(bundles.read(each).value()));
    } catch (const Error& error) {
      if (error.code() != Code::corrupt) throw;
    }
  }
  return found;
}

struct Candidate {
  const Configuration* configuration;
  BundleInfo info;
};

}  // namespace

std::string secret_fingerprint(const Site& site, const std::string& name,
                               const std::string& value) {
  return site.repository.mac(fingerprint_purpose, name + '\0' + value).substr(0, 32);
}

SealOutcome seal_secrets(const Site& site, const std::vector<Secret>& given) {
  check_may_seal(site);
  const SecretBundles bundles(site.repository, site.cluster.name);
  const base::Timestamp now = base::now();
  const auto before = newest_good(bundles);
  const std::vector<Secret> secrets = with_versions(site, given, before, now);
  SealOutcome outcome;
  BundleInfo& info = outcome.bundle;
  info.recipients = all_recipients(site.configuration.secrets);
  info.offline = site.configuration.secrets.offline;
  for (const Secret& each : secrets) info.secrets.push_back(each.facts);
  if (before && before->secrets == info.secrets && before->recipients == info.recipients &&
      before->offline == info.offline) {
    info = *before;
    return outcome;
  }
  info.id = repository::to_string(repository::new_object_id());
  info.created = now;
  const base::Bytes sealed =
      seal_with_age(write_bundle({info.id, site.cluster.name, now, secrets}), info.recipients);
  info.bytes = sealed.size();
  bundles.put(info.id, sealed, to_json(info));
  outcome.sealed = true;
  return outcome;
}

BundleList list_bundles(const Site& site) {
  const SecretBundles bundles(site.repository, site.cluster.name);
  BundleList list;
  for (const std::string& id : bundles.all()) {
    try {
      list.bundles.push_back(bundle_info(bundles.read(id).value()));
    } catch (const Error& error) {
      if (error.code() != Code::corrupt) throw;
      list.unreadable.push_back(error.message());
    }
  }
  return list;
}

ChosenBundle choose_bundle(const std::vector<Configuration>& repositories,
                           const std::string& cluster, const std::string& id,
                           const SayFailure& say) {
  std::vector<Candidate> found;
  std::optional<Error> failure;
  const auto note = [&](const Configuration& where, const Error& error) {
    if (repositories.size() > 1) say(where.repository().name, error);
    if (!failure) failure = error;
  };
  for (const Configuration& each : repositories) {
    try {
      for (BundleInfo& info : candidates(open_site(each, cluster), id)) {
        found.push_back({&each, std::move(info)});
      }
    } catch (const Error& error) {
      note(each, error);
    }
  }
  std::ranges::stable_sort(found, std::ranges::greater(),
                           [](const Candidate& each) { return each.info.created; });
  for (Candidate& each : found) {
    try {
      Site site = open_site(*each.configuration, cluster);
      base::Bytes sealed = SecretBundles(site.repository, site.cluster.name).sealed(each.info.id);
      return {std::move(site), std::move(each.info), std::move(sealed)};
    } catch (const Error& error) {
      if (repositories.size() == 1) say(each.configuration->repository().name, error);
      note(*each.configuration, error);
    }
  }
  if (failure) throw *failure;
  throw Error(
      Code::not_found,
      id.empty() ? "cannot find a bundle of secrets: there is none"
                 : fmt::format("cannot find bundle \"{}\"", id),
      id.empty() ? "seal one with `holdfast secrets seal`" : "`holdfast secrets list` shows them");
}

std::vector<Secret> open_bundle(const ChosenBundle& chosen, const base::fs::path& identity) {
  if (identity.empty()) {
    throw Error(Code::key, "cannot open the bundle without an identity",
                "name the file with --identity; it is the one that age-keygen wrote for one of the "
                "recipients, or the one that is kept off line");
  }
  SecretBundle bundle = read_bundle(open_with_age(chosen.sealed, identity));
  if (bundle.id != chosen.info.id || bundle.cluster != chosen.site.cluster.name) {
    base::fail(Code::corrupt, "bundle {} holds another one: {} of cluster {}", chosen.info.id,
               bundle.id, bundle.cluster);
  }
  return std::move(bundle.secrets);
}

std::string_view name_of(SecretChange change) {
  switch (change) {
    case SecretChange::same:
      return "same";
    case SecretChange::changed:
      return "changed";
    case SecretChange::added:
      return "added";
    case SecretChange::removed:
      return "removed";
  }
  return "";
}

std::vector<SecretDifference> compare_secrets(const ChosenBundle& chosen,
                                              const std::vector<Secret>& secrets) {
  std::vector<SecretDifference> differences;
  std::set<std::string> seen;
  for (const Secret& each : secrets) {
    const std::string& name = each.facts.name;
    seen.insert(name);
    SecretDifference one{
        name, SecretChange::added, {}, secret_fingerprint(chosen.site, name, each.value)};
    if (const SecretFacts* sealed = find(chosen.info.secrets, name)) {
      one.sealed = sealed->fingerprint;
      one.change = one.sealed == one.now ? SecretChange::same : SecretChange::changed;
    }
    differences.push_back(std::move(one));
  }
  for (const SecretFacts& each : chosen.info.secrets) {
    if (seen.contains(each.name)) continue;
    differences.push_back({each.name, SecretChange::removed, each.fingerprint, {}});
  }
  std::ranges::sort(differences, {}, &SecretDifference::name);
  return differences;
}

}  // namespace holdfast::operations
