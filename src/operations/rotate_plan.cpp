// Which secrets to rotate after a recovery: one rule for each class.

#include <algorithm>
#include <array>

#include "operations/secrets.h"

namespace holdfast::operations {

namespace {

struct Rule {
  std::string_view kind;
  bool always;
  bool if_host_lost;
  bool if_compromised;
  std::string_view why;  ///< it is rotated
  std::string_view why_not;
};

constexpr std::array rules = {
    Rule{"database", true, true, true,
         "the backup has the old password's hash, and whoever has the old URL can log in", ""},
    Rule{"tunnel", true, true, true,
         "with the old token the old host could serve under the same name again", ""},
    Rule{"webhook", true, true, true,
         "it was in reach of the host that was replaced, and with it others can send what is "
         "believed",
         ""},
    Rule{
        "session", false, false, true, "whoever has read it can sign tokens that are believed",
        "all users would have to log in again; rotate it if it may have been read (--compromised)"},
    Rule{"storage", false, true, true,
         "the lost host used it, and with it backups can be read or removed",
         "the host is still yours; rotate it if the host is lost (--host-lost)"},
    Rule{"tls", false, true, true, "the private key is on a disk that is not in your hands",
         "the host is still yours; rotate it if the host is lost (--host-lost)"},
    Rule{"provider", false, true, true,
         "the lost host had it, and with it the provider does what it is asked",
         "the host is still yours; rotate it if the host is lost (--host-lost)"},
    Rule{"encryption", false, false, false, "",
         "old data can only be read with it; if it may have been read, add a new version for new "
         "data and keep this one readable"},
    Rule{"public", false, false, false, "", "it is no secret"}};

Rotation plan_one(const SecretFacts& facts, const Incident& incident) {
  Rotation plan{facts, true, "it has no class: say one in [secrets.about." + facts.name + "]"};
  for (const Rule& rule : rules) {
    if (rule.kind != facts.kind) continue;
    plan.rotate = rule.always || (rule.if_host_lost && incident.host_lost) ||
                  (rule.if_compromised && incident.compromised);
    plan.why = plan.rotate ? rule.why : rule.why_not;
  }
  if (facts.rotate && *facts.rotate != plan.rotate) {
    plan.rotate = *facts.rotate;
    plan.why = fmt::format("[secrets.about.{}] says so", facts.name);
  }
  return plan;
}

}  // namespace

std::vector<Rotation> plan_rotation(const std::vector<SecretFacts>& secrets,
                                    const Incident& incident) {
  std::vector<Rotation> plan;
  for (const SecretFacts& each : secrets) plan.push_back(plan_one(each, incident));
  std::ranges::stable_sort(plan, std::ranges::greater(), &Rotation::rotate);
  return plan;
}

}  // namespace holdfast::operations
