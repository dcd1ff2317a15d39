#include "operations/edge.h"

#include <algorithm>
#include <cstdlib>

#include "base/error.h"
#include "service/cloudflare.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using service::Cloudflare;
using service::TunnelConnector;

constexpr const char* ingress = "ingress";
constexpr const char* dns = "dns";
constexpr const char* origin = "origin";

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

Cloudflare open_api(const RecoveryContext& context) {
  const EdgeSettings& edge = *context.settings().edge;
  return {edge.api.empty() ? Cloudflare::public_api : edge.api, token_of(edge),
          std::chrono::duration_cast<std::chrono::milliseconds>(
              context.settings().limit(RecoveryStep::reconnect) / 4)};
}

/// One value over there, by the name under which it is remembered.
void set_value(Cloudflare& api, const EdgeSettings& edge, const std::string& which,
               const std::string& value, const Cloudflare::Remember& remember) {
  if (which == ingress) {
    api.set_ingress(edge.account, edge.tunnel, edge.hostname, value, remember);
  } else if (which == dns) {
    api.set_dns(edge.zone, edge.record, edge.type, value, remember);
  } else {
    api.set_origin(edge.account, edge.pool, edge.origin, value, remember);
  }
}

/// A new connector serves the tunnel; then those from before are sent away, as both would serve.
std::string take_over_tunnel(const RecoveryContext& context, Cloudflare& api) {
  const EdgeSettings& edge = *context.settings().edge;
  const base::Microseconds limit = context.settings().limit(RecoveryStep::reconnect);
  Recovery& recovery = context.recovery();
  const auto ids = [](const std::vector<TunnelConnector>& connectors) {
    std::vector<std::string> found;
    for (const TunnelConnector& each : connectors) found.push_back(each.id);
    return found;
  };
  if (!recovery.connectors_before) {
    recovery.connectors_before = ids(api.connectors(edge.account, edge.tunnel));
    context.journal.save();
  }
  const auto is_old = [&](const TunnelConnector& each) {
    return std::ranges::find(*recovery.connectors_before, each.id) !=
           recovery.connectors_before->end();
  };
  const auto serves = [&](const TunnelConnector& each) {
    return !is_old(each) && each.connections > 0;
  };
  std::vector<TunnelConnector> now = api.connectors(edge.account, edge.tunnel);
  if (std::ranges::none_of(now, serves)) {
    run_user_command(context, name_of(RecoveryStep::reconnect), edge.connector, limit);
  }
  // Within the step's own limit, so that it can be said what is missing.
  const bool served = await_step(limit / 2, [&] {
    now = api.connectors(edge.account, edge.tunnel);
    return std::ranges::any_of(now, serves);
  });
  if (!served) {
    throw Error(Code::check_failed, "no new connector serves the tunnel",
                "is cloudflared started by [recover.cloudflare] connector? See its log");
  }
  std::size_t evicted = 0;
  for (const TunnelConnector& each : now) {
    if (!is_old(each)) continue;
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
  if (line) {
    run_user_command(context, name_of(RecoveryStep::reconnect), *line,
                     settings.limit(RecoveryStep::reconnect));
  }
  if (!settings.edge) {
    if (line) return {false, "by [recover.command] reconnect"};
    return skipped("there is neither [recover.command] reconnect nor [recover.cloudflare]");
  }
  const EdgeSettings& edge = *settings.edge;
  Cloudflare api = open_api(context);
  std::string found = line ? "by [recover.command] reconnect" : "";
  const auto say = [&](const std::string& text) { found += (found.empty() ? "" : "; ") + text; };
  if (!edge.connector.empty()) say(take_over_tunnel(context, api));
  const auto change = [&](const std::string& which, const std::string& name,
                          const std::string& value) {
    if (value.empty()) return;
    set_value(api, edge, which, value, [&](const std::string& before) {
      // Of an earlier try that was cut off the first value counts.
      context.recovery().edge_before.emplace(which, before);
      context.journal.save();
    });
    say(fmt::format("{} leads to {}", name, value));
  };
  change(ingress, edge.hostname, edge.service);
  change(dns, edge.record, edge.content);
  change(origin, edge.origin, edge.address);
  return {false, found};
}

void undo_edge(const RecoveryContext& context) {
  Recovery& recovery = context.recovery();
  if (recovery.edge_before.empty()) return;
  if (!context.settings().edge) {
    base::fail(Code::configuration, "there is no [recover.cloudflare] any more to set back");
  }
  Cloudflare api = open_api(context);
  while (!recovery.edge_before.empty()) {
    const auto first = recovery.edge_before.begin();
    set_value(api, *context.settings().edge, first->first, first->second,
              [](const std::string&) {});
    recovery.edge_before.erase(first);
    context.journal.save();
  }
}

}  // namespace holdfast::operations
