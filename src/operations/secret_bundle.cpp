#include "operations/secret_bundle.h"

#include <signal.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/process.h"
#include "base/seal.h"
#include "service/secret_store.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using nlohmann::json;

constexpr std::string_view format_name = "holdfast-secrets-1";

std::string fingerprint(base::View key, const Secret& secret) {
  const std::string text = secret.facts.name + '\0' + secret.value;
  return base::to_hex(base::hmac_sha256(key, base::view(text)));
}

base::Outcome run_age(base::Command command) {
  command.signal_when_orphaned = SIGKILL;
  try {
    return base::run(command);
  } catch (const Error& error) {
    throw error.with_hint("install age (apt-get install age)");
  }
}

/// "age: error: no identity matched"; the rest is advice on how to report bugs.
std::string what_age_said(const base::Outcome& outcome) {
  std::string line = outcome.errors.substr(0, outcome.errors.find('\n'));
  for (const std::string_view prefix : {"age: ", "error: "}) {
    if (line.starts_with(prefix)) line.erase(0, prefix.size());
  }
  return line.empty() ? fmt::format("it ended with status {}", outcome.status) : line;
}

}  // namespace

json to_json(const SecretFacts& facts) {
  json document = {{"name", facts.name},
                   {"version", facts.version},
                   {"since", base::to_iso(facts.since)},
                   {"fingerprint", facts.fingerprint},
                   {"class", facts.kind},
                   {"owner", facts.owner},
                   {"targets", facts.targets},
                   {"source", facts.source},
                   {"from", facts.from}};
  if (facts.rotate) document["rotate"] = *facts.rotate;
  return document;
}

SecretFacts secret_facts(const json& document) {
  try {
    SecretFacts facts;
    facts.name = document.at("name").get<std::string>();
    facts.version = document.at("version").get<std::uint32_t>();
    facts.since = base::from_iso(document.at("since").get<std::string>());
    facts.fingerprint = document.at("fingerprint").get<std::string>();
    facts.kind = document.at("class").get<std::string>();
    facts.owner = document.at("owner").get<std::string>();
    facts.targets = document.at("targets").get<std::vector<std::string>>();
    facts.source = document.at("source").get<std::string>();
    facts.from = document.at("from").get<std::string>();
    if (document.contains("rotate")) facts.rotate = document.at("rotate").get<bool>();
    return facts;
  } catch (const json::exception&) {  // its text could have a value in it
    base::fail(Code::corrupt, "a bundle describes a secret that cannot be understood");
  }
}

std::string write_bundle(const SecretBundle& bundle) {
  const base::Secret key = base::random_secret();
  json secrets = json::array();
  json values = json::object();
  for (const Secret& each : bundle.secrets) {
    json facts = to_json(each.facts);
    facts["fingerprint"] = fingerprint(key.bytes(), each);
    const bool text = service::is_text(each.value);
    facts["encoding"] = text ? "text" : "hex";
    values[each.facts.name] = text ? each.value : base::to_hex(base::view(each.value));
    secrets.push_back(std::move(facts));
  }
  const json document = {{"format", format_name},
                         {"bundle", bundle.id},
                         {"cluster", bundle.cluster},
                         {"created", base::to_iso(bundle.created)},
                         {"fingerprint_key", base::to_hex(key.bytes())},
                         {"secrets", std::move(secrets)},
                         {"values", std::move(values)}};
  return document.dump(2) + "\n";
}

SecretBundle read_bundle(std::string_view text) {
  const json document = json::parse(text, nullptr, false);
  if (!document.is_object() || document.value("format", "") != format_name) {
    throw Error(Code::unsupported, "cannot read the bundle: it is not of a known format",
                "`age -d -i KEY` shows what is in it; a newer holdfast may understand it");
  }
  try {
    SecretBundle bundle;
    bundle.id = document.at("bundle").get<std::string>();
    bundle.cluster = document.at("cluster").get<std::string>();
    bundle.created = base::from_iso(document.at("created").get<std::string>());
    const base::Bytes key = base::from_hex(document.at("fingerprint_key").get<std::string>());
    for (const json& each : document.at("secrets")) {
      Secret secret{secret_facts(each), {}};
      secret.value = document.at("values").at(secret.facts.name).get<std::string>();
      if (each.at("encoding") == "hex") {
        secret.value = base::text(base::from_hex(secret.value));
      }
      if (fingerprint(key, secret) != secret.facts.fingerprint) {
        base::fail(Code::corrupt, "the bundle's value of {} is not the one that was sealed",
                   secret.facts.name);
      }
      bundle.secrets.push_back(std::move(secret));
    }
    return bundle;
  } catch (const json::exception&) {
    base::fail(Code::corrupt, "the bundle opens, but what is in it cannot be understood");
  }
}

base::Bytes seal_with_age(const std::string& text, const std::vector<std::string>& recipients) {
  base::Command command;
  command.argv = {"age", "--encrypt"};
  for (const std::string& each : recipients) {
    command.argv.insert(command.argv.end(), {"--recipient", each});
  }
  command.input = text;
  const base::Outcome outcome = run_age(std::move(command));
  if (outcome.status != 0) {
    throw Error(Code::configuration,
                fmt::format("could not seal the secrets: age says: {}", what_age_said(outcome)),
                "see \"recipients\" and \"offline\" in [secrets]");
  }
  constexpr std::string_view magic = "age-encryption.org/v1\n";
  if (!outcome.output.starts_with(magic)) {
    base::fail(Code::io, "could not seal the secrets: age wrote nothing that it could read again");
  }
  return base::copy(base::view(outcome.output));
}

std::string open_with_age(base::View sealed, const base::fs::path& identity) {
  base::Command command;
  command.argv = {"age", "--decrypt", "--identity", identity.string()};
  command.input = base::text(sealed);
  base::Outcome outcome = run_age(std::move(command));
  if (outcome.status != 0) {
    throw Error(Code::key,
                fmt::format("could not open the bundle with identity \"{}\": age says: {}",
                            identity.string(), what_age_said(outcome)),
                "`holdfast secrets list --json` shows the recipients' public keys; "
                "`age-keygen -y FILE` shows the one of an identity");
  }
  return std::move(outcome.output);
}

}  // namespace holdfast::operations
