#include "operations/edge.h"

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <memory>

#include "base/error.h"
#include "service/cloudflare.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using service::Cloudflare;
using service::TunnelConnector;

/// One value at Cloudflare that is set.
struct Place {
  std::string name;   ///< which one it is, ids and all: so it is remembered
  std::string shown;  ///< for people
  std::string value;
  std::function<void(Cloudflare&, const std::string& value, const Cloudflare::Remember&)> set;
};

std::vector<Place> places_of(const EdgeSettings& edge) {
  std::vector<Place> places;
  if (!edge.hostname.empty()) {
    places.push_back(
        {fmt::format("tunnel {}/{} host name {}", edge.account, edge.tunnel, edge.hostname),
         edge.hostname, edge.service,
         [&edge](Cloudflare& api, const std::string& value, const Cloudflare::Remember& remember) {
           api.set_ingress(edge.account, edge.tunnel, edge.hostname, value, remember);
         }});
  }
  if (!edge.record.empty()) {
    places.push_back(
        {fmt::format("zone {} record {} {}", edge.zone, edge.type, edge.record), edge.record,
         edge.content,
         [&edge](Cloudflare& api, const std::string& value, const Cloudflare::Remember& remember) {
           api.set_dns(edge.zone, edge.record, edge.type, value, remember);
         }});
  }
  if (!edge.origin.empty()) {
    places.push_back(
        {fmt::format("pool {}/{} origin {}", edge.account, edge.pool, edge.origin), edge.origin,
         edge.address,
         [&edge](Cloudflare& api, const std::string& value, const Cloudflare::Remember& remember) {
           api.set_origin(edge.account, edge.pool, edge.origin, value, remember);
         }});
  }
  return places;
}

std::string token_of(const EdgeSettings& edge) {
  std::string token;
  if (!edge.token_file.empty()) {
    token = base::text(base::read_existing_file(edge.token_file));
  } else if (const char* value = std::getenv("CLOUDFLARE_API_TOKEN")) {
    token = value;
  }
  while (!token.empty() && (token.back() == '\n' || token.back() == '\r')) token.pop_back();
  if (!token.empty()) return token;
  throw Error(Code::key, "there is no token for Cloudflare's API",
              "[recover.cloudflare] token_file, or CLOUDFLARE_API_TOKEN in the environment");
}

std::unique_ptr<Cloudflare> open_api(const RecoveryContext& context) {
  const EdgeSettings& edge = *context.settings().edge;
  return std::make_unique<Cloudflare>(edge.api.empty() ? Cloudflare::public_api : edge.api,
                                      token_of(edge),
                                      std::chrono::duration_cast<std::chrono::milliseconds>(
                                          context.settings().limit(RecoveryStep::reconnect) / 2));
}

/// Who serves the tunnel now, once, before anything is done to it.
void remember_connectors(const RecoveryContext& context, Cloudflare& api) {
  Recovery& recovery = context.recovery();
  if (recovery.connectors_before) return;
  const EdgeSettings& edge = *context.settings().edge;
  std::vector<std::string> ids;
  for (const TunnelConnector& each : api.connectors(edge.account, edge.tunnel)) {
    ids.push_back(each.id);
  }
  recovery.connectors_before = std::move(ids);
  context.journal.save();
}

/// One that served before, or that was only away for a moment then: its process is older than the
/// recovery.
bool is_old(const Recovery& recovery, const TunnelConnector& connector) {
  constexpr std::chrono::minutes clocks_differ{2};
  return std::ranges::find(*recovery.connectors_before, connector.id) !=
             recovery.connectors_before->end() ||
         (connector.began && *connector.began < recovery.begun - clocks_differ);
}

/// A new connector serves the tunnel; then those from before are sent away, as both would serve.
std::string take_over_tunnel(const RecoveryContext& context, Cloudflare& api) {
  const EdgeSettings& edge = *context.settings().edge;
  const base::Microseconds limit = context.settings().limit(RecoveryStep::reconnect);
  const Recovery& recovery = context.recovery();
  const auto serves = [&](const TunnelConnector& each) {
    return !is_old(recovery, each) && each.connections > 0;
  };
  std::vector<TunnelConnector> now = api.connectors(edge.account, edge.tunnel);
  if (std::ranges::none_of(now, serves)) {
    run_user_command(context, name_of(RecoveryStep::reconnect), edge.connector, limit);
  }
  // Within the step's own limit, so that it can be said what is missing.
  const bool served = await_step(limit / 4, [&] {
    now = api.connectors(edge.account, edge.tunnel);
    return std::ranges::any_of(now, serves);
  });
  if (!served) {
    throw Error(Code::check_failed, "no new connector serves the tunnel",
                "[recover.cloudflare] connector must start cloudflared anew, also if it runs "
                "already (systemctl restart cloudflared); see its log");
  }
  std::size_t evicted = 0;
  for (const TunnelConnector& each : now) {
    if (!is_old(recovery, each)) continue;
    api.evict(edge.account, edge.tunnel, each.id);
    ++evicted;
  }
  return fmt::format("a new connector serves the tunnel, {} from before were sent away", evicted);
}

}  // namespace

std::string edge_plan(const EdgeSettings& edge) {
  std::string plan;
  const auto add = [&](const std::string& text) {
    plan += (plan.empty() ? "at Cloudflare: " : ", ") + text;
  };
  if (!edge.connector.empty()) add("a new connector for the tunnel");
  if (!edge.hostname.empty()) add(fmt::format("{} to {}", edge.hostname, edge.service));
  if (!edge.record.empty()) add(fmt::format("{} {} to {}", edge.type, edge.record, edge.content));
  if (!edge.origin.empty()) add(fmt::format("origin {} to {}", edge.origin, edge.address));
  return plan;
}

StepResult reconnect_edge(const RecoveryContext& context) {
  const RecoverSettings& settings = context.settings();
  const auto line = settings.command(RecoveryStep::reconnect);
  if (!line && !settings.edge) {
    return skipped("there is neither [recover.command] reconnect nor [recover.cloudflare]");
  }
  const std::unique_ptr<Cloudflare> api = settings.edge ? open_api(context) : nullptr;
  const bool takes_over = settings.edge && !settings.edge->connector.empty();
  if (takes_over) remember_connectors(context, *api);
  std::string found;
  const auto say = [&](const std::string& text) { found += (found.empty() ? "" : "; ") + text; };
  if (line) {
    run_user_command(context, name_of(RecoveryStep::reconnect), *line,
                     settings.limit(RecoveryStep::reconnect));
    say("by [recover.command] reconnect");
  }
  if (takes_over) say(take_over_tunnel(context, *api));
  for (const Place& each : settings.edge ? places_of(*settings.edge) : std::vector<Place>()) {
    each.set(*api, each.value, [&](const std::string& before) {
      // Of an earlier try that was cut off the first value counts.
      context.recovery().edge_before.emplace(each.name, before);
      context.journal.save();
    });
    say(fmt::format("{} leads to {}", each.shown, each.value));
  }
  return {false, found};
}

void undo_edge(const RecoveryContext& context) {
  Recovery& recovery = context.recovery();
  if (recovery.edge_before.empty()) return;
  const auto& edge = context.settings().edge;
  const std::vector<Place> places = edge ? places_of(*edge) : std::vector<Place>();
  while (!recovery.edge_before.empty()) {
    const auto [name, before] = *recovery.edge_before.begin();
    const auto place = std::ranges::find(places, name, &Place::name);
    if (place == places.end()) {
      throw Error(
          Code::configuration,
          fmt::format("[recover.cloudflare] does not name {} any more, which was {}", name, before),
          "name it again until it is set back");
    }
    place->set(*open_api(context), before, [](const std::string&) {});
    recovery.edge_before.erase(name);
    context.journal.save();
  }
}

}  // namespace holdfast::operations
