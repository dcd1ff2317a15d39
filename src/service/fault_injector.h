#pragma once

// Breaking a dependency of a service, and mending it whatever happens to who broke it.
//
// The proxies that stand between are another process, `holdfast proxy`, spoken to over its API
// (Toxiproxy's, with a lease). While an injector lives it renews the lease; when it dies, is killed
// or hangs, the lease lapses and the proxies heal all by themselves.

#include <atomic>
#include <chrono>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <thread>
#include <vector>

#include "base/http.h"
#include "base/time.h"

namespace holdfast::service {

/// What is done to the connections to a dependency.
struct Fault {
  enum class Kind {
    refuse,     ///< nothing listens, and what was open is cut
    blackhole,  ///< connections are accepted, and nothing ever arrives
    reset,      ///< connections end with a RST
    latency,    ///< answers come later
    bandwidth,  ///< answers come slowly
    cut,        ///< connections end after so many bytes of answer
    slow_close  ///< connections end later than they should
  };
  Kind kind = Kind::refuse;
  base::Microseconds latency{};  ///< of slow_close the delay
  base::Microseconds jitter{};
  std::uint32_t kilobytes_per_second = 0;
  std::uint32_t bytes = 0;
};
std::string to_string(const Fault& fault);

/// A proxy between a service and a dependency.
struct Interposed {
  std::string name;
  std::string listen;
  std::string upstream;
};

class FaultInjector {
 public:
  static constexpr std::chrono::milliseconds lease{3000};

  /// `api`: "127.0.0.1:8474". Throws Error(unreachable) if no proxy answers there.
  explicit FaultInjector(std::string api);
  /// Heals, as far as the proxies can be reached. The lease does the rest.
  ~FaultInjector();
  FaultInjector(const FaultInjector&) = delete;
  FaultInjector& operator=(const FaultInjector&) = delete;

  /// Does a proxy answer at this address?
  static bool answers(const std::string& api);

  /// Lets these stand between from now on. Those that stand there already go on.
  void interpose(const std::vector<Interposed>& proxies);
  void inject(const std::string& proxy, const Fault& fault);
  /// All that was injected, by anybody. Throws Error(unreachable).
  void heal();
  /// How many bytes of answers came through so far.
  std::uint64_t answered(const std::string& proxy);
  /// The lease could not be renewed at some time since it was asked for: what was to be broken may
  /// have been healed meanwhile.
  bool lapsed() const { return lapsed_; }

 private:
  nlohmann::json call(const std::string& method, const std::string& path,
                      const nlohmann::json& body);

  std::string api_;
  base::HttpClient client_;
  std::atomic<bool> lapsed_ = false;
  std::jthread keeper_;
};

}  // namespace holdfast::service
