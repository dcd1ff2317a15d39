#include "service/cloudflare.h"

#include <algorithm>
#include <thread>

#include "base/error.h"
#include "base/workers.h"
#include "service/secret_store.h"

namespace holdfast::service {

namespace {

using base::Code;
using base::Error;
using nlohmann::json;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '.' || c == '_' || c == '~';
    out += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
}

std::string tunnel_path(const std::string& account, const std::string& tunnel,
                        std::string_view rest) {
  return fmt::format("/accounts/{}/cfd_tunnel/{}{}", escaped(account), escaped(tunnel), rest);
}

/// null if it is not there.
json member(const json& document, const char* name) {
  return document.is_object() && document.contains(name) ? document.at(name) : json();
}

std::string text_of(const json& document, const char* name) {
  const json found = member(document, name);
  return found.is_string() ? found.get<std::string>() : "";
}

/// "first message (code 1000)": theirs, without anything that we sent.
std::string complaint(const json& document) {
  std::string text;
  for (const json& each : member(document, "errors")) {
    text += fmt::format("{}{} (code {})", text.empty() ? "" : "; ", text_of(each, "message"),
                        member(each, "code").dump());
  }
  return text.empty() ? "it says nothing" : text;
}

std::optional<base::Timestamp> time_of(const json& document, const char* name) {
  try {
    return base::parse_time(text_of(document, name), "UTC").time;
  } catch (const Error&) {
    return std::nullopt;
  }
}

Code code_for(long status) {
  if (status == 401 || status == 403) return Code::permission;
  if (status == 404) return Code::not_found;
  return Code::check_failed;
}

/// How long to wait before it is tried again: what it asks for, else longer each time.
milliseconds pause_after(const base::HttpAnswer& answer, int tries) {
  const auto asked = answer.headers.find("retry-after");
  if (asked != answer.headers.end() && !asked->second.empty() &&
      asked->second.find_first_not_of("0123456789") == std::string::npos &&
      asked->second.size() < 5) {
    return std::chrono::seconds(std::stoi(asked->second));
  }
  return milliseconds(250) * (1 << std::min(tries, 6));
}

void rest(milliseconds duration) {
  const auto end = steady_clock::now() + duration;
  while (steady_clock::now() < end) {
    base::stop_if_interrupted();
    std::this_thread::sleep_for(std::min(milliseconds(50), duration));
  }
}

}  // namespace

Cloudflare::Cloudflare(std::string api, std::string token, milliseconds limit)
    : api_(std::move(api)), token_(std::move(token)), limit_(limit) {
  refuse_open_line(api_);
  while (api_.ends_with('/')) api_.pop_back();
}

json Cloudflare::call(const std::string& method, const std::string& path, const json& body) {
  const auto end = steady_clock::now() + limit_;
  base::HttpRequest request;
  request.method = method;
  request.url = api_ + path;
  request.headers = {{"Authorization", "Bearer " + token_}};
  if (!body.is_null()) {
    request.headers.emplace_back("Content-Type", "application/json");
    request.body = body.dump();
  }
  for (int tries = 0;; ++tries) {
    const auto left = std::chrono::duration_cast<milliseconds>(end - steady_clock::now());
    request.limit = std::clamp(left, milliseconds(1000), milliseconds(10000));
    const base::HttpAnswer answer = client_.ask(request);
    const json document = json::parse(answer.body, nullptr, false);
    if (answer.status && *answer.status / 100 == 2 && document.is_object() &&
        member(document, "success") == true) {
      return document.contains("result") ? document.at("result") : json();
    }
    const std::string why = !answer.status
                                ? answer.why_not
                                : fmt::format("{}: {}", *answer.status, complaint(document));
    const bool may_work_later = !answer.status || *answer.status == 429 || *answer.status >= 500;
    if (!may_work_later) {
      throw Error(code_for(*answer.status),
                  fmt::format("Cloudflare refused {} {}: {}", method, path, why),
                  "are the ids in [recover.cloudflare] right, and has the token the rights for it "
                  "(docs/recover.md)?");
    }
    const milliseconds pause = pause_after(answer, tries);
    if (steady_clock::now() + pause >= end) {
      throw Error(Code::unreachable,
                  fmt::format("could not {} {} at Cloudflare: {}", method, path, why));
    }
    rest(pause);
  }
}

std::vector<TunnelConnector> Cloudflare::connectors(const std::string& account,
                                                    const std::string& tunnel) {
  std::vector<TunnelConnector> found;
  const json result = call("GET", tunnel_path(account, tunnel, "/connections"));
  try {
    for (const json& each : result) {
      TunnelConnector connector;
      connector.id = each.at("id");
      connector.connections = each.at("conns").size();
      connector.began = time_of(each, "run_at");
      found.push_back(std::move(connector));
    }
  } catch (const json::exception& error) {
    base::fail(Code::check_failed, "cannot understand Cloudflare's list of connectors: {}",
               error.what());
  }
  return found;
}

void Cloudflare::evict(const std::string& account, const std::string& tunnel,
                       const std::string& connector) {
  call("DELETE", tunnel_path(account, tunnel, "/connections?client_id=" + escaped(connector)));
}

void Cloudflare::set_ingress(const std::string& account, const std::string& tunnel,
                             const std::string& hostname, const std::string& service,
                             const Remember& remember) {
  const std::string path = tunnel_path(account, tunnel, "/configurations");
  json config = member(call("GET", path), "config");
  std::vector<json*> rules;
  if (config.is_object() && config.contains("ingress")) {
    for (json& rule : config.at("ingress")) {
      if (text_of(rule, "hostname") == hostname) rules.push_back(&rule);
    }
  }
  if (rules.size() != 1) {
    throw Error(Code::not_found,
                fmt::format("the tunnel has {} rules for the host name {}, not one", rules.size(),
                            hostname),
                "is the tunnel configured at Cloudflare? [recover.cloudflare] hostname is one of "
                "its public host names; several rules for one need [recover.command] reconnect");
  }
  const std::string before = text_of(*rules.front(), "service");
  if (before == service) return;
  remember(before);
  (*rules.front())["service"] = service;
  call("PUT", path, {{"config", config}});
}

void Cloudflare::set_dns(const std::string& zone, const std::string& name, const std::string& type,
                         const std::string& content, const Remember& remember) {
  const std::string path = fmt::format("/zones/{}/dns_records", escaped(zone));
  const json found =
      call("GET", fmt::format("{}?name.exact={}&type={}", path, escaped(name), escaped(type)));
  if (!found.is_array() || found.size() != 1) {
    throw Error(Code::not_found,
                fmt::format("there are {} records {} of type {}, not one",
                            found.is_array() ? found.size() : 0, name, type),
                "[recover.cloudflare] record and type must name one record");
  }
  const std::string id = text_of(found[0], "id");
  const std::string before = text_of(found[0], "content");
  if (id.empty() || before.empty()) {
    base::fail(Code::check_failed, "cannot understand Cloudflare's record {}", name);
  }
  if (before == content) return;
  remember(before);
  call("PATCH", fmt::format("{}/{}", path, escaped(id)), {{"content", content}});
}

void Cloudflare::set_origin(const std::string& account, const std::string& pool,
                            const std::string& origin, const std::string& address,
                            const Remember& remember) {
  const std::string path =
      fmt::format("/accounts/{}/load_balancers/pools/{}", escaped(account), escaped(pool));
  json origins = member(call("GET", path), "origins");
  for (json& each : origins) {
    if (text_of(each, "name") != origin) continue;
    const std::string before = text_of(each, "address");
    if (before == address) return;
    remember(before);
    each["address"] = address;
    call("PATCH", path, {{"origins", origins}});
    return;
  }
  throw Error(Code::not_found, fmt::format("the pool has no origin {}", origin),
              "[recover.cloudflare] origin is the name of one of the pool's endpoints");
}

}  // namespace holdfast::service
