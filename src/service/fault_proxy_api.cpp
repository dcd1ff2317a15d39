#include "service/fault_proxy_api.h"

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace holdfast::service {

namespace {

using base::Code;
using base::Error;
using nlohmann::json;

/// What clients compare with what they need; the API is that of this release.
constexpr std::string_view spoken_version = "2.12.0";

std::string dump(const json& document) {
  return document.dump(-1, ' ', false, json::error_handler_t::replace);
}

HttpResponse failure(int status, const std::string& why) {
  return {status, dump({{"error", why}, {"status", status}})};
}

int status_of(const Error& error) {
  switch (error.code()) {
    case Code::usage:
      return 400;
    case Code::not_found:
      return 404;
    case Code::conflict:
    case Code::refused:
      return 409;
    default:
      return 500;
  }
}

json parsed(const std::string& body) {
  json document = json::parse(body, nullptr, false);
  if (document.is_discarded()) throw Error(Code::usage, "bad request body: not JSON");
  return document;
}

json parsed_object(const std::string& body) {
  json document = parsed(body);
  if (!document.is_object()) throw Error(Code::usage, "bad request body: not an object");
  return document;
}

std::optional<std::string> text_in(const json& document, const char* key) {
  const auto found = document.find(key);
  if (found == document.end() || found->is_null()) return std::nullopt;
  if (!found->is_string()) {
    throw Error(Code::usage, fmt::format("bad request body: \"{}\" must be text", key));
  }
  return found->get<std::string>();
}

std::optional<bool> truth_in(const json& document, const char* key) {
  const auto found = document.find(key);
  if (found == document.end() || found->is_null()) return std::nullopt;
  if (!found->is_boolean()) {
    throw Error(Code::usage, fmt::format("bad request body: \"{}\" must be true or false", key));
  }
  return found->get<bool>();
}

std::string required(const json& document, const char* key) {
  std::string value = text_in(document, key).value_or("");
  if (value.empty()) throw Error(Code::usage, fmt::format("missing required field: {}", key));
  return value;
}

ProxySettings settings_in(const json& document) {
  if (!document.is_object()) throw Error(Code::usage, "bad request body: not an object");
  ProxySettings settings;
  settings.name = required(document, "name");
  if (settings.name.find('/') != std::string::npos) {
    throw Error(Code::usage, "a proxy's name cannot have a \"/\" in it");
  }
  settings.upstream = required(document, "upstream");
  const std::string listen = text_in(document, "listen").value_or("");
  if (!listen.empty()) settings.listen = listen;
  settings.enabled = truth_in(document, "enabled").value_or(true);
  return settings;
}

json traffic_json(const Traffic& traffic) {
  return {{"received", traffic.received}, {"delivered", traffic.delivered}};
}

json toxics_json(const ProxyView& view) {
  json toxics = json::array();
  for (const Toxic& each : view.toxics) toxics.push_back(to_json(each));
  return toxics;
}

json proxy_json(const ProxyView& view) {
  return {{"name", view.settings.name},
          {"listen", view.settings.listen},
          {"upstream", view.settings.upstream},
          {"enabled", view.settings.enabled},
          {"toxics", toxics_json(view)},
          {"counters",
           {{"connections", view.connections},
            {"open", view.open},
            {"unconnected", view.unconnected},
            {"upstream", traffic_json(view.upstream)},
            {"downstream", traffic_json(view.downstream)}}}};
}

/// "%7E" as "~"; what is not well-formed stays as it is.
std::string decoded(std::string_view text) {
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  };
  std::string out;
  for (std::size_t at = 0; at < text.size(); ++at) {
    const bool coded = text[at] == '%' && at + 2 < text.size() && digit(text[at + 1]) >= 0 &&
                       digit(text[at + 2]) >= 0;
    out += coded ? static_cast<char>(digit(text[at + 1]) * 16 + digit(text[at + 2])) : text[at];
    if (coded) at += 2;
  }
  return out;
}

/// "/proxies/a/toxics/b" as its four words.
std::vector<std::string> words_of(std::string_view path) {
  std::vector<std::string> words;
  while (!path.empty()) {
    path.remove_prefix(1);
    const std::size_t end = std::min(path.find('/'), path.size());
    if (end > 0) words.push_back(decoded(path.substr(0, end)));
    path.remove_prefix(end);
  }
  return words;
}

HttpResponse ok(const json& document, int status = 200) {
  return {status, dump(document)};
}
const HttpResponse nothing{204, ""};

class Api {
 public:
  Api(FaultProxies& proxies, const HttpRequest& request)
      : proxies_(proxies), request_(request), words_(words_of(request.path)) {}

  HttpResponse answer() {
    if (words_.empty()) return failure(404, "404 page not found");
    const std::string& first = words_.front();
    if (first == "proxies" && words_.size() == 1) return all();
    if (first == "proxies" && words_.size() == 2) return one();
    if (first == "proxies" && words_.size() <= 4 && words_[2] == "toxics") {
      return words_.size() == 3 ? toxics() : toxic();
    }
    if (words_.size() == 1 && first == "version" && is("GET")) {
      return ok({{"version", spoken_version}, {"holdfast", HOLDFAST_VERSION}});
    }
    if (words_.size() == 1 && is("POST")) {
      if (first == "populate") return populate();
      if (first == "lease") return lease();
      if (first == "reset") {
        proxies_.reset();
        return nothing;
      }
    }
    return failure(404, "404 page not found");
  }

 private:
  bool is(std::string_view method) const { return request_.method == method; }
  bool changes() const { return is("POST") || is("PATCH"); }
  static HttpResponse not_allowed() { return failure(405, "method not allowed"); }

  HttpResponse all() {
    if (is("POST")) {
      return ok(proxy_json(proxies_.create(settings_in(parsed(request_.body)))), 201);
    }
    if (!is("GET")) return not_allowed();
    json document = json::object();
    for (const ProxyView& each : proxies_.views()) {
      document[each.settings.name] = proxy_json(each);
    }
    return ok(document);
  }

  HttpResponse one() {
    const std::string& name = words_[1];
    if (is("GET")) return ok(proxy_json(proxies_.view(name)));
    if (is("DELETE")) {
      proxies_.remove(name);
      return nothing;
    }
    if (!changes()) return not_allowed();
    const json document = parsed_object(request_.body);
    FaultProxies::Change change{text_in(document, "listen"), text_in(document, "upstream"),
                                truth_in(document, "enabled")};
    if (change.listen && change.listen->empty()) change.listen.reset();
    if (change.upstream && change.upstream->empty()) change.upstream.reset();
    return ok(proxy_json(proxies_.change(name, change)));
  }

  HttpResponse toxics() {
    const std::string& name = words_[1];
    if (is("GET")) return ok(toxics_json(proxies_.view(name)));
    if (!is("POST")) return not_allowed();
    const json document = parsed_object(request_.body);
    return ok(to_json(proxies_.add_toxic(name, toxic_from(document))));
  }

  HttpResponse toxic() {
    const std::string& proxy = words_[1];
    const std::string& name = words_[3];
    if (is("GET")) return ok(to_json(proxies_.toxic(proxy, name)));
    if (is("DELETE")) {
      proxies_.remove_toxic(proxy, name);
      return nothing;
    }
    if (!changes()) return not_allowed();
    return ok(to_json(proxies_.change_toxic(proxy, name, parsed_object(request_.body))));
  }

  HttpResponse populate() {
    const json document = parsed(request_.body);
    if (!document.is_array()) throw Error(Code::usage, "bad request body: not a list");
    std::vector<ProxySettings> all;
    for (const json& each : document) all.push_back(settings_in(each));
    json made = json::array();
    for (const ProxyView& each : proxies_.populate(all)) made.push_back(proxy_json(each));
    return ok({{"proxies", made}}, 201);
  }

  HttpResponse lease() {
    const json document = parsed_object(request_.body);
    const auto found = document.find("ms");
    constexpr std::int64_t longest = 3'600'000;
    const bool whole = found != document.end() && found->is_number_integer();
    if (!whole || found->get<double>() < 1 || found->get<double>() > longest) {
      throw Error(Code::usage, "\"ms\" must be a whole number from 1 to 3600000");
    }
    proxies_.lease(std::chrono::milliseconds(found->get<std::int64_t>()));
    return ok({{"ms", found->get<std::int64_t>()}});
  }

  FaultProxies& proxies_;
  const HttpRequest& request_;
  std::vector<std::string> words_;
};

}  // namespace

HttpResponse answer_api(FaultProxies& proxies, const HttpRequest& request) {
  try {
    return Api(proxies, request).answer();
  } catch (const Error& error) {
    return failure(status_of(error), error.message());
  } catch (const std::exception& error) {
    return failure(500, error.what());
  }
}

}  // namespace holdfast::service
