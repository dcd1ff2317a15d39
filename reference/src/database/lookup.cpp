#include "database/lookup.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netdb.h>

#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <thread>

#include "database/connection.h"

namespace reference::database {

namespace {

std::vector<std::string> parts_of(const std::string& list) {
  std::vector<std::string> parts;
  for (std::size_t at = 0;;) {
    const std::size_t comma = list.find(',', at);
    parts.push_back(list.substr(at, comma - at));
    if (comma == std::string::npos) return parts;
    at = comma + 1;
  }
}

bool is_name(const std::string& host) {
  unsigned char address[sizeof(in6_addr)];
  return !host.empty() && host.front() != '/' && host.front() != '@' &&
         ::inet_pton(AF_INET, host.c_str(), address) != 1 &&
         ::inet_pton(AF_INET6, host.c_str(), address) != 1;
}

void append(std::string& list, bool first, const std::string& part) {
  if (!first) list += ',';
  list += part;
}

}  // namespace

struct Lookup::State {
  struct Asked {
    std::optional<std::vector<std::string>> answer;
  };
  Ask ask;
  std::mutex mutex;
  std::condition_variable answered;
  std::map<std::string, std::shared_ptr<Asked>> asking;
};

Lookup::Lookup(Ask ask) : state_(std::make_shared<State>()) {
  state_->ask = std::move(ask);
}

std::vector<std::string> Lookup::ask_system(const std::string& host) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(host.c_str(), nullptr, &hints, &found) != 0) return {};
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(found, &::freeaddrinfo);
  std::vector<std::string> addresses;
  for (const addrinfo* each = found; each != nullptr; each = each->ai_next) {
    char text[NI_MAXHOST];
    if (::getnameinfo(each->ai_addr, each->ai_addrlen, text, sizeof text, nullptr, 0,
                      NI_NUMERICHOST) == 0) {
      addresses.emplace_back(text);
    }
  }
  return addresses;
}

std::vector<std::string> Lookup::addresses(const std::string& host, const Deadline& deadline) {
  std::unique_lock lock(state_->mutex);
  std::shared_ptr<State::Asked>& slot = state_->asking[host];
  if (!slot) {
    slot = std::make_shared<State::Asked>();
    // It may outlast everybody who waits, and this object.
    std::thread([state = state_, asked = slot, host] {
      std::vector<std::string> answer = state->ask(host);
      const std::lock_guard guard(state->mutex);
      asked->answer = std::move(answer);
      state->asking.erase(host);
      state->answered.notify_all();
    }).detach();
  }
  const std::shared_ptr<State::Asked> asked = slot;
  const auto is_answered = [&] { return asked->answer.has_value(); };
  if (!deadline.at()) {
    state_->answered.wait(lock, is_answered);
  } else if (!state_->answered.wait_until(lock, *deadline.at(), is_answered)) {
    throw Unreachable(fmt::format("nobody has said in time where host \"{}\" is", host));
  }
  if (asked->answer->empty()) throw Unreachable(fmt::format("there is no host \"{}\"", host));
  return *asked->answer;
}

ServerAddress looked_up(const ServerAddress& server, Lookup& lookup, const Deadline& deadline) {
  if (!server.hostaddr.empty()) return server;
  const std::vector<std::string> hosts = parts_of(server.host);
  const std::vector<std::string> ports = parts_of(server.port);
  // What does not fit is libpq's to refuse.
  if (ports.size() != 1 && ports.size() != hosts.size()) return server;
  ServerAddress found;
  bool first = true;
  bool any = false;
  for (std::size_t i = 0; i < hosts.size(); ++i) {
    std::vector<std::string> addresses = {""};
    if (is_name(hosts[i])) {
      any = true;
      try {
        addresses = lookup.addresses(hosts[i], deadline);
      } catch (const Unreachable&) {
        // One of the others may do.
        if (i + 1 == hosts.size() && first) throw;
        continue;
      }
    }
    for (const std::string& address : addresses) {
      append(found.host, first, hosts[i]);
      append(found.hostaddr, first, address);
      append(found.port, first, ports.size() == 1 ? ports.front() : ports[i]);
      first = false;
    }
  }
  return any ? found : server;
}

}  // namespace reference::database
