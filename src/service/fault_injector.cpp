#include "service/fault_injector.h"

#include <fmt/format.h>

#include <condition_variable>
#include <mutex>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace holdfast::service {

namespace {

using base::Code;
using base::Error;
using nlohmann::json;
using std::chrono::milliseconds;

/// No answer is worth more: the proxy is on this machine.
constexpr milliseconds patience(1000);

base::HttpRequest request_of(const std::string& api, const std::string& method,
                             const std::string& path, const json& body) {
  base::HttpRequest request;
  request.method = method;
  request.url = fmt::format("http://{}{}", api, path);
  request.limit = patience;
  if (!body.is_null()) {
    request.body = body.dump();
    request.headers = {{"Content-Type", "application/json"}};
  }
  return request;
}

bool renew(base::HttpClient& client, const std::string& api) {
  const json body = {{"ms", FaultInjector::lease.count()}};
  const auto status = client.ask(request_of(api, "POST", "/lease", body)).status;
  return status && *status / 100 == 2;
}

/// Until asked to stop. A renewal that fails is tried again: only its lateness does harm.
void keep_lease(const std::stop_token& stop, const std::string& api, std::atomic<bool>& lapsed) {
  base::HttpClient client;
  std::mutex mutex;
  std::condition_variable_any wake;
  auto renewed = std::chrono::steady_clock::now();
  std::unique_lock lock(mutex);
  while (!stop.stop_requested()) {
    const auto asked = std::chrono::steady_clock::now();
    const bool good = renew(client, api);
    if (asked - renewed > FaultInjector::lease) lapsed = true;
    if (good) renewed = asked;
    wake.wait_for(lock, stop, FaultInjector::lease / 6, [] { return false; });
  }
}

std::int64_t in_milliseconds(base::Microseconds time) {
  return std::chrono::duration_cast<milliseconds>(time).count();
}

json toxic(const char* type, const char* stream, json attributes) {
  return {{"name", fmt::format("{}_{}", type, stream)},
          {"type", type},
          {"stream", stream},
          {"attributes", std::move(attributes)}};
}

std::vector<json> toxics_of(const Fault& fault) {
  switch (fault.kind) {
    case Fault::Kind::refuse:
      return {};
    case Fault::Kind::blackhole:
      return {toxic("timeout", "upstream", {{"timeout", 0}}),
              toxic("timeout", "downstream", {{"timeout", 0}})};
    case Fault::Kind::reset:
      return {toxic("reset_peer", "downstream", {{"timeout", 0}})};
    case Fault::Kind::latency:
      return {toxic("latency", "downstream",
                    {{"latency", in_milliseconds(fault.latency)},
                     {"jitter", in_milliseconds(fault.jitter)}})};
    case Fault::Kind::bandwidth:
      return {toxic("bandwidth", "downstream", {{"rate", fault.kilobytes_per_second}})};
    case Fault::Kind::cut:
      return {toxic("limit_data", "downstream", {{"bytes", fault.bytes}})};
    case Fault::Kind::slow_close:
      return {toxic("slow_close", "downstream", {{"delay", in_milliseconds(fault.latency)}})};
  }
  return {};
}

}  // namespace

std::string to_string(const Fault& fault) {
  const std::string delay = base::to_string_short(fault.latency);
  switch (fault.kind) {
    case Fault::Kind::refuse:
      return "connections refused";
    case Fault::Kind::blackhole:
      return "connections accepted, nothing arrives";
    case Fault::Kind::reset:
      return "connections reset";
    case Fault::Kind::latency:
      return fault.jitter.count() == 0 ? fmt::format("answers {} later", delay)
                                       : fmt::format("answers {} later, give or take {}", delay,
                                                     base::to_string_short(fault.jitter));
    case Fault::Kind::bandwidth:
      return fmt::format("answers at {} kB/s", fault.kilobytes_per_second);
    case Fault::Kind::cut:
      return fmt::format("connections cut after {} bytes of answer", fault.bytes);
    case Fault::Kind::slow_close:
      return fmt::format("connections closed {} late", delay);
  }
  return "";
}

FaultInjector::FaultInjector(std::string api) : api_(std::move(api)) {
  if (!renew(client_, api_)) {
    throw Error(Code::unreachable, fmt::format("no fault proxy answers at {}", api_),
                "start `holdfast proxy`");
  }
  keeper_ = std::jthread([this](const std::stop_token& stop) { keep_lease(stop, api_, lapsed_); });
}

FaultInjector::~FaultInjector() {
  try {
    heal();
  } catch (const std::exception&) {
    // Nobody renews the lease any more: they heal by themselves.
  }
}

bool FaultInjector::answers(const std::string& api) {
  return base::http_get(fmt::format("http://{}/version", api), patience).status == 200;
}

json FaultInjector::call(const std::string& method, const std::string& path, const json& body) {
  const base::HttpAnswer answer = client_.ask(request_of(api_, method, path, body));
  if (!answer.status) {
    throw Error(Code::unreachable,
                fmt::format("could not reach the fault proxy at {}: {}", api_, answer.why_not));
  }
  json document = json::parse(answer.body, nullptr, false);
  if (*answer.status / 100 == 2) return document;
  std::string why = answer.body;
  if (document.is_object() && document.contains("error")) why = document["error"].dump();
  throw Error(Code::unreachable,
              fmt::format("the fault proxy at {} refused {} {}: {}", api_, method, path, why));
}

void FaultInjector::interpose(const std::vector<Interposed>& proxies) {
  json list = json::array();
  for (const Interposed& each : proxies) {
    list.push_back({{"name", each.name},
                    {"listen", each.listen},
                    {"upstream", each.upstream},
                    {"enabled", true}});
  }
  call("POST", "/populate", list);
  heal();
}

void FaultInjector::inject(const std::string& proxy, const Fault& fault) {
  if (fault.kind == Fault::Kind::refuse) {
    call("POST", "/proxies/" + proxy, {{"enabled", false}});
  }
  for (const json& each : toxics_of(fault)) call("POST", "/proxies/" + proxy + "/toxics", each);
}

void FaultInjector::heal() {
  call("POST", "/reset", json::object());
}

std::uint64_t FaultInjector::answered(const std::string& proxy) {
  const json document = call("GET", "/proxies/" + proxy, nullptr);
  return document.at("counters").at("downstream").at("delivered");
}

}  // namespace holdfast::service
