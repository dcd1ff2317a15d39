#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/workers.h"
#include "cli/command.h"
#include "service/fault_proxy_api.h"

namespace holdfast::cli {

namespace {

using base::Code;
using base::Error;

struct Options {
  std::string listen = "127.0.0.1:8474";
  std::vector<std::string> proxies;
  bool end_with_lease = false;
};

/// "NAME=LISTEN=UPSTREAM". Only the upstream, a path, may have a "=" in it.
service::ProxySettings parse_proxy(const std::string& text) {
  const std::size_t first = text.find('=');
  const std::size_t second = first == std::string::npos ? first : text.find('=', first + 1);
  if (second == std::string::npos || first == 0) {
    throw Error(Code::usage, fmt::format("cannot understand the proxy \"{}\"", text),
                "write NAME=LISTEN=UPSTREAM, as in redis=127.0.0.1:26379=127.0.0.1:6379");
  }
  service::ProxySettings settings;
  settings.name = text.substr(0, first);
  settings.listen = text.substr(first + 1, second - first - 1);
  settings.upstream = text.substr(second + 1);
  return settings;
}

void say_where(const Invocation& invocation, const service::HttpListener& api,
               const std::vector<service::ProxyView>& proxies) {
  const std::string address = api.address().text();
  if (invocation.json) {
    nlohmann::json names = nlohmann::json::object();
    for (const auto& each : proxies) names[each.settings.name] = each.settings.listen;
    // One line: whoever started us reads it while we run.
    std::cout << nlohmann::json{{"api", address}, {"proxies", names}}.dump() << std::endl;
    return;
  }
  for (const auto& each : proxies) {
    std::cout << fmt::format("{}: {} to {}\n", each.settings.name, each.settings.listen,
                             each.settings.upstream);
  }
  std::cout << fmt::format("API: http://{}", address) << std::endl;
}

void run(const Invocation& invocation, const Options& options) {
  base::catch_interrupts();
  std::vector<service::ProxySettings> wanted;
  for (const std::string& each : options.proxies) wanted.push_back(parse_proxy(each));
  service::FaultProxies proxies;
  std::vector<service::ProxyView> made;
  for (const service::ProxySettings& each : wanted) made.push_back(proxies.create(each));
  const service::HttpListener api(
      service::find_address(options.listen),
      [&](const service::HttpRequest& request) { return answer_api(proxies, request); });
  say_where(invocation, api, made);
  while (!base::interrupted() && !(options.end_with_lease && proxies.lapsed())) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

}  // namespace

void add_proxy(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<Options>();
  CLI::App* command =
      add_command(app, invocation, "proxy",
                  "Stand between a service and what it depends on, and inject faults on demand",
                  {Code::usage, Code::refused, Code::io, Code::permission, Code::unreachable},
                  [&invocation, options] { run(invocation, *options); });
  command
      ->add_option("--listen", options->listen,
                   "Where the HTTP API is served (Toxiproxy's); 127.0.0.1:8474 by default")
      ->type_name("ADDRESS");
  command
      ->add_option("--proxy", options->proxies,
                   "A proxy to begin with: NAME=LISTEN=UPSTREAM; may be repeated")
      ->type_name("PROXY");
  command->add_flag("--end-with-lease", options->end_with_lease,
                    "End once a lease has lapsed: whoever injected faults is gone");
}

}  // namespace holdfast::cli
