#pragma once

// Proxies that stand between a service and what it depends on, and misbehave when told to.
//
// Each listens on an address of its own and passes connections on to its upstream, a TCP address or
// a Unix socket. Toxics (service/toxic.h) hold from the moment at which they are set, for existing
// connections too. A proxy that is not enabled refuses (ECONNREFUSED) and has cut its connections;
// it keeps its port. Healing is as immediate: what waited goes on; a connection that lost data to a
// black hole is cut, as by Toxiproxy.
//
// All proxies of a set share one thread. The members may be called from any thread; each holds
// wholly or throws: Error(usage) for what makes no sense, Error(not_found), Error(conflict) for
// what exists, Error(io), Error(permission) or Error(unreachable) for an address, Error(refused)
// after a lease has lapsed.
//
// Lease: who injects faults may die. Once lease() was asked for, everything is healed as by reset()
// when it was not asked for again in time; and until it is, no new fault is let in: a process that
// was only stopped for a while must not go on where it was.

#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "service/address.h"
#include "service/toxic_link.h"

namespace holdfast::service {

struct ProxySettings {
  std::string name;
  std::string listen = "127.0.0.1:0";
  std::string upstream;
  bool enabled = true;
};

/// A proxy as it is at a moment.
struct ProxyView {
  ProxySettings settings;         ///< `listen` with the port that it got
  std::vector<Toxic> toxics;      ///< in their order
  std::uint64_t connections = 0;  ///< accepted since it was made
  std::uint64_t open = 0;         ///< of these now
  std::uint64_t unconnected = 0;  ///< whose upstream could not be reached
  Traffic upstream;
  Traffic downstream;
};

class FaultProxy;

class FaultProxies {
 public:
  FaultProxies();
  ~FaultProxies();
  FaultProxies(const FaultProxies&) = delete;
  FaultProxies& operator=(const FaultProxies&) = delete;

  ProxyView create(const ProxySettings& settings);
  /// Creates each, or makes the one of that name so. One that is as it should be stays untouched.
  std::vector<ProxyView> populate(const std::vector<ProxySettings>& all);
  /// What is nullopt stays.
  struct Change {
    std::optional<std::string> listen;
    std::optional<std::string> upstream;
    std::optional<bool> enabled;
  };
  ProxyView change(const std::string& proxy, const Change& change);
  void remove(const std::string& proxy);
  ProxyView view(const std::string& proxy);
  std::vector<ProxyView> views();

  Toxic add_toxic(const std::string& proxy, const Toxic& toxic);
  /// `document` as in service/toxic.h: changed_toxic().
  Toxic change_toxic(const std::string& proxy, const std::string& toxic,
                     const nlohmann::json& document);
  void remove_toxic(const std::string& proxy, const std::string& toxic);
  Toxic toxic(const std::string& proxy, const std::string& toxic);

  /// No toxics, and all enabled.
  void reset();
  void lease(std::chrono::milliseconds how_long);
  /// Whether a lease was asked for and not renewed.
  bool lapsed() const { return lapsed_; }

 private:
  FaultProxy& find(const std::string& proxy);
  void refuse_faults_if_lapsed() const;
  void heal();
  void lapse();

  EventLoop loop_;
  Dice dice_{std::random_device()()};
  std::map<std::string, std::unique_ptr<FaultProxy>> proxies_;
  std::optional<EventLoop::Timer> lease_;
  std::atomic<bool> lapsed_ = false;
};

}  // namespace holdfast::service
