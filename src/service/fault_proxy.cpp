#include "service/fault_proxy.h"

#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <list>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "service/proxied_connection.h"

namespace holdfast::service {

namespace {

using base::Code;
using base::Error;

}  // namespace

/// One proxy, in its loop.
class FaultProxy {
 public:
  /// `socket` is bound to where it listens.
  FaultProxy(EventLoop& loop, Dice& dice, ProxySettings settings, base::Fd socket,
             const SocketAddress& upstream)
      : loop_(loop),
        dice_(dice),
        settings_(std::move(settings)),
        asked_(settings_.listen),
        socket_(std::move(socket)),
        upstream_(upstream) {
    settings_.listen = address_of(socket_).text();
    if (std::exchange(settings_.enabled, false)) enable();
  }
  ~FaultProxy() {
    loop_.cancel(resume_);
    unwatch();
  }
  FaultProxy(const FaultProxy&) = delete;
  FaultProxy& operator=(const FaultProxy&) = delete;

  const ProxySettings& settings() const { return settings_; }
  bool listens_on(const std::string& listen) const {
    return listen == settings_.listen || listen == asked_;
  }
  void set_upstream(const std::string& text, const SocketAddress& address) {
    settings_.upstream = text;
    upstream_ = address;
    connections_.clear();
  }
  void move_to(const std::string& asked, base::Fd socket) {
    const bool enabled = settings_.enabled;
    disable();
    asked_ = asked;
    socket_ = std::move(socket);
    settings_.listen = address_of(socket_).text();
    if (enabled) enable();
  }

  void enable() {
    if (settings_.enabled) return;
    if (::listen(socket_.get(), 1024) != 0) {
      base::fail_errno(fmt::format("listen on {}", settings_.listen), errno);
    }
    watch_ = loop_.watch(socket_, EPOLLIN, [this](std::uint32_t) { accept(); });
    settings_.enabled = true;
  }
  /// The socket stays bound, so that nobody else gets its port.
  void disable() {
    unwatch();
    if (settings_.enabled) ::shutdown(socket_.get(), SHUT_RDWR);
    settings_.enabled = false;
    connections_.clear();
  }

  std::vector<std::shared_ptr<const Toxic>>& toxics() { return toxics_; }
  auto find(const std::string& toxic) {
    const auto found = std::ranges::find_if(
        toxics_, [&](const std::shared_ptr<const Toxic>& each) { return each->name == toxic; });
    if (found == toxics_.end()) throw Error(Code::not_found, "toxic not found");
    return found;
  }
  void add(const std::shared_ptr<const Toxic>& toxic) {
    toxics_.push_back(toxic);
    for_each_connection([&](ProxiedConnection& each) { each.add(toxic); });
  }
  void change(const std::shared_ptr<const Toxic>& toxic) {
    *find(toxic->name) = toxic;
    for_each_connection([&](ProxiedConnection& each) { each.change(toxic); });
  }
  void remove(const std::string& name) {
    const auto found = find(name);
    const std::shared_ptr<const Toxic> toxic = *found;
    toxics_.erase(found);
    for_each_connection([&](ProxiedConnection& each) { each.remove(*toxic); });
  }
  void heal() {
    while (!toxics_.empty()) remove(toxics_.back()->name);
    enable();
  }

  ProxyView view() const {
    ProxyView view;
    view.settings = settings_;
    for (const auto& toxic : toxics_) view.toxics.push_back(*toxic);
    view.connections = accepted_;
    view.open = connections_.size();
    view.unconnected = counters_.unconnected;
    view.upstream = counters_.upstream;
    view.downstream = counters_.downstream;
    return view;
  }

 private:
  using Connections = std::list<std::unique_ptr<ProxiedConnection>>;

  void unwatch() {
    if (watch_ != 0) loop_.unwatch(std::exchange(watch_, 0), socket_);
  }
  /// A connection may end while it is at work, and then is not in the list any more.
  void for_each_connection(const std::function<void(ProxiedConnection&)>& work) {
    for (auto each = connections_.begin(); each != connections_.end();) {
      ProxiedConnection& connection = **each++;
      work(connection);
      connection.go_on();
    }
  }
  void accept() {
    for (int turn = 0; turn < 64; ++turn) {
      base::Fd client(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (!client) {
        if (errno == EMFILE || errno == ENFILE) rest();
        return;
      }
      ++accepted_;
      try {
        begin(std::move(client));
      } catch (const Error&) {
        ++counters_.unconnected;  // no descriptor for the other side; the client's is closed
      }
    }
  }
  void begin(base::Fd client) {
    send_at_once(client);
    connections_.emplace_back();
    const auto at = std::prev(connections_.end());
    try {
      *at = std::make_unique<ProxiedConnection>(loop_, dice_, std::move(client), upstream_,
                                                counters_, [this, at] { connections_.erase(at); });
    } catch (...) {
      connections_.erase(at);
      throw;
    }
    for (const auto& toxic : toxics_) (*at)->add(toxic);
  }
  /// Without descriptors the listening socket would be ready again and again.
  void rest() {
    unwatch();
    resume_ = loop_.at(EventLoop::Clock::now() + std::chrono::milliseconds(100), [this] {
      if (!settings_.enabled || watch_ != 0) return;
      watch_ = loop_.watch(socket_, EPOLLIN, [this](std::uint32_t) { accept(); });
    });
  }

  EventLoop& loop_;
  Dice& dice_;
  ProxySettings settings_;
  std::string asked_;
  base::Fd socket_;
  SocketAddress upstream_;
  EventLoop::Watch watch_ = 0;
  EventLoop::Timer resume_{};
  std::vector<std::shared_ptr<const Toxic>> toxics_;
  std::uint64_t accepted_ = 0;
  ProxiedConnection::Counters counters_;
  Connections connections_;
};

FaultProxies::FaultProxies() = default;

FaultProxies::~FaultProxies() {
  loop_.call([this] { proxies_.clear(); });
}

FaultProxy& FaultProxies::find(const std::string& proxy) {
  const auto found = proxies_.find(proxy);
  if (found == proxies_.end()) throw Error(Code::not_found, "proxy not found");
  return *found->second;
}

void FaultProxies::refuse_faults_if_lapsed() const {
  if (!lapsed_) return;
  throw Error(Code::refused, "the lease has lapsed and everything was healed",
              "ask for a lease before the next fault");
}

ProxyView FaultProxies::create(const ProxySettings& settings) {
  base::Fd socket = bound_socket(find_address(settings.listen));
  const SocketAddress upstream = find_address(settings.upstream);
  ProxyView made;
  loop_.call([&] {
    if (proxies_.contains(settings.name)) throw Error(Code::conflict, "proxy already exists");
    auto proxy = std::make_unique<FaultProxy>(loop_, dice_, settings, std::move(socket), upstream);
    made = proxy->view();
    proxies_.emplace(settings.name, std::move(proxy));
  });
  return made;
}

std::vector<ProxyView> FaultProxies::populate(const std::vector<ProxySettings>& all) {
  std::vector<ProxyView> made;
  for (const ProxySettings& each : all) {
    bool exists = false;
    loop_.call([&] { exists = proxies_.contains(each.name); });
    made.push_back(exists ? change(each.name, {each.listen, each.upstream, each.enabled})
                          : create(each));
  }
  return made;
}

ProxyView FaultProxies::change(const std::string& proxy, const Change& change) {
  // Looking names up and binding may take a while or fail: not in the loop.
  bool moves = false;
  bool turns = false;
  loop_.call([&] {
    const FaultProxy& found = find(proxy);
    moves = change.listen && !found.listens_on(*change.listen);
    turns = change.upstream && *change.upstream != found.settings().upstream;
    if (change.enabled && !*change.enabled) refuse_faults_if_lapsed();
  });
  base::Fd socket = moves ? bound_socket(find_address(*change.listen)) : base::Fd();
  const SocketAddress upstream = turns ? find_address(*change.upstream) : SocketAddress();
  ProxyView changed;
  loop_.call([&] {
    FaultProxy& found = find(proxy);
    if (turns) found.set_upstream(*change.upstream, upstream);
    if (moves) found.move_to(*change.listen, std::move(socket));
    if (change.enabled) *change.enabled ? found.enable() : found.disable();
    changed = found.view();
  });
  return changed;
}

void FaultProxies::remove(const std::string& proxy) {
  loop_.call([&] {
    find(proxy);
    proxies_.erase(proxy);
  });
}

ProxyView FaultProxies::view(const std::string& proxy) {
  ProxyView view;
  loop_.call([&] { view = find(proxy).view(); });
  return view;
}

std::vector<ProxyView> FaultProxies::views() {
  std::vector<ProxyView> views;
  loop_.call([&] {
    for (const auto& [name, proxy] : proxies_) views.push_back(proxy->view());
  });
  return views;
}

Toxic FaultProxies::add_toxic(const std::string& proxy, const Toxic& toxic) {
  loop_.call([&] {
    FaultProxy& found = find(proxy);
    refuse_faults_if_lapsed();
    for (const auto& each : found.toxics()) {
      if (each->name == toxic.name) throw Error(Code::conflict, "toxic already exists");
    }
    found.add(std::make_shared<Toxic>(toxic));
  });
  return toxic;
}

Toxic FaultProxies::change_toxic(const std::string& proxy, const std::string& toxic,
                                 const nlohmann::json& document) {
  Toxic changed;
  loop_.call([&] {
    FaultProxy& found = find(proxy);
    changed = changed_toxic(**found.find(toxic), document);
    refuse_faults_if_lapsed();
    found.change(std::make_shared<Toxic>(changed));
  });
  return changed;
}

void FaultProxies::remove_toxic(const std::string& proxy, const std::string& toxic) {
  loop_.call([&] { find(proxy).remove(toxic); });
}

Toxic FaultProxies::toxic(const std::string& proxy, const std::string& toxic) {
  Toxic found;
  loop_.call([&] { found = **find(proxy).find(toxic); });
  return found;
}

void FaultProxies::heal() {
  std::optional<Error> first;
  for (const auto& [name, proxy] : proxies_) {
    try {
      proxy->heal();
    } catch (const Error& error) {
      if (!first) first = error;
    }
  }
  if (first) throw *first;
}

/// Nobody is there to be told what could not be healed; so it is tried until it could.
void FaultProxies::lapse() {
  lapsed_ = true;
  lease_.reset();
  try {
    heal();
  } catch (const Error&) {
    const auto again = EventLoop::Clock::now() + std::chrono::milliseconds(200);
    lease_ = loop_.at(again, [this] { lapse(); });
  }
}

void FaultProxies::reset() {
  loop_.call([&] { heal(); });
}

void FaultProxies::lease(std::chrono::milliseconds how_long) {
  loop_.call([&] {
    if (lease_) loop_.cancel(*lease_);
    lapsed_ = false;
    lease_ = loop_.at(EventLoop::Clock::now() + how_long, [this] { lapse(); });
  });
}

}  // namespace holdfast::service
