#pragma once

// One connection through a proxy: the client's socket, the upstream's, and a link each way.
//
// Half-closes are passed on. A side that resets, or fails, has the other one reset. Lives in its
// loop; `on_over` is called once, when both sides are closed, and may destroy it.

#include <functional>
#include <optional>

#include "service/address.h"
#include "service/toxic_link.h"

namespace holdfast::service {

class ProxiedConnection {
 public:
  struct Counters {
    Traffic upstream;
    Traffic downstream;
    std::uint64_t unconnected = 0;
  };

  /// Begins to connect to `upstream`.
  ProxiedConnection(EventLoop& loop, Dice& dice, base::Fd client, const SocketAddress& upstream,
                    Counters& counters, std::function<void()> on_over);
  ~ProxiedConnection();
  ProxiedConnection(const ProxiedConnection&) = delete;
  ProxiedConnection& operator=(const ProxiedConnection&) = delete;

  void add(const std::shared_ptr<const Toxic>& toxic);
  void change(const std::shared_ptr<const Toxic>& toxic);
  void remove(const Toxic& toxic);
  /// Passes on what may go on now; to be called after any of these.
  void go_on() { advance(); }

 private:
  struct Side {
    base::Fd fd;
    EventLoop::Watch watch = 0;
    std::uint32_t events = 0;
    bool hung_up = false;  ///< epoll says so without being asked, and would go on to
  };
  ToxicLink& link(Stream stream) { return stream == Stream::upstream ? up_ : down_; }
  void connect(const SocketAddress& upstream);
  void on_events(Side& side, std::uint32_t events);
  void on_connected();
  void advance();
  void set_events(Side& side, bool read, bool write);
  void set_timer();
  void watch(Side& side);
  void close(bool reset);

  EventLoop& loop_;
  Counters& counters_;
  std::function<void()> on_over_;
  Side client_;
  Side server_;
  ToxicLink up_;
  ToxicLink down_;
  bool connected_ = false;
  bool must_cut_ = false;
  std::optional<EventLoop::Timer> timer_;
};

}  // namespace holdfast::service
