#include "service/proxied_connection.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

namespace holdfast::service {

using State = ToxicLink::State;

ProxiedConnection::ProxiedConnection(EventLoop& loop, Dice& dice, base::Fd client,
                                     const SocketAddress& upstream, Counters& counters,
                                     std::function<void()> on_over)
    : loop_(loop),
      counters_(counters),
      on_over_(std::move(on_over)),
      up_(dice, counters.upstream),
      down_(dice, counters.downstream) {
  client_.fd = std::move(client);
  server_.fd = new_socket(upstream);
  connect(upstream);
}

ProxiedConnection::~ProxiedConnection() {
  if (timer_) loop_.cancel(*timer_);
  for (Side* side : {&client_, &server_}) {
    if (side->watch != 0) loop_.unwatch(side->watch, side->fd);
  }
}

/// The answer comes as an event, also a failure that is known at once.
void ProxiedConnection::connect(const SocketAddress& upstream) {
  const int result = ::connect(server_.fd.get(), upstream.get(), upstream.size);
  // A Unix socket with a full backlog says EAGAIN: that is a refusal, and will be seen as one.
  if (result != 0 && errno != EINPROGRESS) {
    timer_ = loop_.at(EventLoop::Clock::now(), [this] {
      ++counters_.unconnected;
      timer_.reset();
      close(false);
    });
    return;
  }
  server_.events = EPOLLOUT;
  watch(server_);
  watch(client_);
}

void ProxiedConnection::watch(Side& side) {
  side.watch = loop_.watch(side.fd, side.events,
                           [this, &side](std::uint32_t events) { on_events(side, events); });
}

void ProxiedConnection::on_events(Side& side, std::uint32_t events) {
  if (!connected_ && &side == &server_) return on_connected();
  if ((events & EPOLLERR) != 0) return close(true);
  if ((events & EPOLLHUP) != 0) side.hung_up = true;
  if ((events & (EPOLLIN | EPOLLHUP)) != 0) {
    ToxicLink& from_here = &side == &client_ ? up_ : down_;
    if (connected_ && from_here.read(side.fd, EventLoop::Clock::now()) == State::reset) {
      return close(true);
    }
  }
  advance();
}

void ProxiedConnection::on_connected() {
  int error = 0;
  socklen_t size = sizeof error;
  ::getsockopt(server_.fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
  if (error != 0) {
    ++counters_.unconnected;
    // Connected, and reset before anybody looked: that is passed on as well.
    return close(error == ECONNRESET);
  }
  connected_ = true;
  advance();
}

void ProxiedConnection::advance() {
  if (must_cut_) return close(false);
  if (!connected_) return set_events(client_, false, false);
  const Moment now = EventLoop::Clock::now();
  const State up = up_.advance(server_.fd, now);
  const State down = down_.advance(client_.fd, now);
  if (up == State::reset || down == State::reset) return close(true);
  if (up == State::cut || down == State::cut || (up == State::ended && down == State::ended)) {
    return close(false);
  }
  set_events(client_, up_.wants_to_read(), down_.wants_to_write());
  set_events(server_, down_.wants_to_read(), up_.wants_to_write());
  set_timer();
}

/// epoll reports a hang-up for ever, so a side that has hung up is watched only while there is
/// something to do with it.
void ProxiedConnection::set_events(Side& side, bool read, bool write) {
  const std::uint32_t events = (read ? EPOLLIN : 0U) | (write ? EPOLLOUT : 0U);
  const bool wanted = events != 0 || !side.hung_up;
  if (!wanted) {
    if (side.watch != 0) loop_.unwatch(std::exchange(side.watch, 0), side.fd);
    return;
  }
  if (side.watch == 0) {
    side.events = events;
    watch(side);
  } else if (side.events != events) {
    side.events = events;
    loop_.change(side.watch, side.fd, events);
  }
}

void ProxiedConnection::set_timer() {
  std::optional<Moment> next = up_.next();
  if (const auto other = down_.next()) next = next ? std::min(*next, *other) : other;
  if (timer_ && next && timer_->first == *next) return;
  if (timer_) loop_.cancel(*timer_);
  timer_.reset();
  if (!next) return;
  timer_ = loop_.at(*next, [this] {
    timer_.reset();
    advance();
  });
}

void ProxiedConnection::add(const std::shared_ptr<const Toxic>& toxic) {
  link(toxic->stream).add(toxic, EventLoop::Clock::now());
}

void ProxiedConnection::change(const std::shared_ptr<const Toxic>& toxic) {
  if (!link(toxic->stream).change(toxic, EventLoop::Clock::now())) must_cut_ = true;
}

void ProxiedConnection::remove(const Toxic& toxic) {
  if (!link(toxic.stream).remove(toxic.name)) must_cut_ = true;
}

void ProxiedConnection::close(bool reset) {
  if (reset) {
    const linger at_once{1, 0};
    for (const Side* side : {&client_, &server_}) {
      ::setsockopt(side->fd.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    }
  }
  const auto on_over = std::move(on_over_);
  on_over();  // this is destroyed now
}

}  // namespace holdfast::service
