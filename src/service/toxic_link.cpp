#include "service/toxic_link.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace holdfast::service {

namespace {

std::chrono::milliseconds milliseconds(const Toxic& toxic, std::string_view attribute) {
  return std::chrono::milliseconds(toxic.attribute(attribute));
}

}  // namespace

bool ToxicLink::roll(const Toxic& toxic) {
  return std::uniform_real_distribution<double>(0, 1)(dice_) < toxic.toxicity;
}

void ToxicLink::add(const std::shared_ptr<const Toxic>& toxic, Moment now) {
  Stage stage;
  stage.toxic = toxic;
  stage.active = roll(*toxic);
  stage.begun = stage.free_at = now;
  stages_.push_back(std::move(stage));
}

std::vector<ToxicLink::Stage>::iterator ToxicLink::find(const std::string& toxic) {
  return std::ranges::find_if(stages_,
                              [&](const Stage& stage) { return stage.toxic->name == toxic; });
}

bool ToxicLink::change(const std::shared_ptr<const Toxic>& toxic, Moment now) {
  const auto stage = find(toxic->name);
  if (stage == stages_.end()) return true;
  stage->toxic = toxic;
  stage->active = roll(*toxic);
  stage->begun = stage->free_at = now;
  for (Chunk& chunk : stage->waiting) chunk.due.reset();
  return stage->active || !stage->has_dropped;
}

bool ToxicLink::remove(const std::string& toxic) {
  const auto stage = find(toxic);
  if (stage == stages_.end()) return true;
  const bool lost =
      stage->has_dropped || (stage->active && stage->toxic->kind == ToxicKind::timeout);
  // What is in the next one came earlier.
  Queue& next = stage + 1 == stages_.end() ? output_ : (stage + 1)->waiting;
  while (!stage->waiting.empty()) pass(stage->waiting, next);
  stages_.erase(stage);
  return !lost;
}

void ToxicLink::wake(Moment when) {
  next_ = next_ ? std::min(*next_, when) : when;
}

/// Whether a chunk may go on now; otherwise we come back when it may.
bool ToxicLink::is_due(Chunk& chunk, Moment due, Moment now) {
  if (!chunk.due) chunk.due = due;
  if (*chunk.due <= now) return true;
  wake(*chunk.due);
  return false;
}

void ToxicLink::push(Queue& to, Chunk&& chunk) {
  held_ += chunk.size() + chunk_overhead;
  to.push_back(std::move(chunk));
}

void ToxicLink::pass(Queue& from, Queue& to) {
  Chunk& chunk = from.front();
  if (chunk.due) chunk.came = *chunk.due;
  chunk.due.reset();
  to.push_back(std::move(chunk));
  from.pop_front();
}

/// The first `size` bytes of the front; all of it if it has no more.
void ToxicLink::pass_piece(Queue& from, Queue& to, std::size_t size, Moment now) {
  Chunk& chunk = from.front();
  if (size >= chunk.size()) return pass(from, to);
  const auto first = chunk.bytes.begin() + static_cast<std::ptrdiff_t>(chunk.begin);
  Chunk piece;
  piece.bytes.assign(first, first + static_cast<std::ptrdiff_t>(size));
  piece.came = chunk.due.value_or(now);
  chunk.begin += size;
  chunk.due.reset();
  held_ -= size;
  push(to, std::move(piece));
}

void ToxicLink::drop(Stage& stage) {
  stage.has_dropped = true;
  held_ -= stage.waiting.front().size() + chunk_overhead;
  stage.waiting.pop_front();
}

/// After what has passed so far the connection is closed, and nothing passes any more.
void ToxicLink::cut(Stage& stage, Queue& to) {
  if (stage.over) return;
  stage.over = true;
  Chunk last;
  last.what = What::cut;
  push(to, std::move(last));
}

void ToxicLink::run_latency(Stage& stage, Queue& to, Moment now) {
  const auto jitter = milliseconds(*stage.toxic, "jitter").count();
  while (!stage.waiting.empty()) {
    Chunk& chunk = stage.waiting.front();
    if (chunk.what == What::data) {
      auto delay = milliseconds(*stage.toxic, "latency");
      if (!chunk.due && jitter > 0) {
        delay += std::chrono::milliseconds(
            std::uniform_int_distribution<std::int64_t>(-jitter, jitter)(dice_));
      }
      if (!is_due(chunk, chunk.came + delay, now)) return;
    }
    pass(stage.waiting, to);
  }
}

void ToxicLink::run_bandwidth(Stage& stage, Queue& to, Moment now) {
  const std::int64_t rate = stage.toxic->attribute("rate");  // bytes per millisecond
  while (!stage.waiting.empty()) {
    Chunk& chunk = stage.waiting.front();
    if (chunk.what != What::data) {
      pass(stage.waiting, to);
      continue;
    }
    if (rate == 0) return;
    // A tenth of a second at a time, so that a slow line is slow and not a series of bursts.
    const auto size = std::min(static_cast<std::int64_t>(chunk.size()), rate * 100);
    const auto takes = std::chrono::microseconds(size * 1000 / rate);
    if (!is_due(chunk, std::max(stage.free_at, chunk.came) + takes, now)) return;
    stage.free_at = *chunk.due;
    pass_piece(stage.waiting, to, static_cast<std::size_t>(size), now);
  }
}

void ToxicLink::run_slow_close(Stage& stage, Queue& to, Moment now) {
  while (!stage.waiting.empty()) {
    Chunk& chunk = stage.waiting.front();
    if (chunk.what == What::end &&
        !is_due(chunk, chunk.came + milliseconds(*stage.toxic, "delay"), now)) {
      return;
    }
    pass(stage.waiting, to);
  }
}

/// timeout and reset_peer: nothing passes until the connection is cut or reset.
void ToxicLink::run_timeout(Stage& stage, Queue& to, Moment now) {
  const bool resets = stage.toxic->kind == ToxicKind::reset_peer;
  const auto limit = milliseconds(*stage.toxic, "timeout");
  if (resets || limit.count() > 0) {
    if (stage.begun + limit > now) {
      wake(stage.begun + limit);
    } else if (resets) {
      reset_ = true;
    } else {
      cut(stage, to);
    }
  }
  if (resets) return;  // what waits is not lost, if the toxic is removed before
  while (!stage.waiting.empty()) {
    if (stage.waiting.front().what == What::data) {
      drop(stage);
    } else {
      pass(stage.waiting, to);
    }
  }
}

void ToxicLink::run_slicer(Stage& stage, Queue& to, Moment now) {
  const std::int64_t average = std::max<std::int64_t>(1, stage.toxic->attribute("average_size"));
  const std::int64_t variation = std::min(stage.toxic->attribute("size_variation"), average - 1);
  const auto delay = std::chrono::microseconds(stage.toxic->attribute("delay"));
  while (!stage.waiting.empty()) {
    Chunk& chunk = stage.waiting.front();
    if (chunk.what != What::data) {
      pass(stage.waiting, to);
      continue;
    }
    if (!is_due(chunk, std::max(stage.free_at, chunk.came), now)) return;
    // With tiny pieces what is held would grow by what each costs.
    if (held_ > 2 * most_held) return;
    stage.free_at = *chunk.due + delay;
    const auto size = std::uniform_int_distribution<std::int64_t>(average - variation,
                                                                  average + variation)(dice_);
    pass_piece(stage.waiting, to, static_cast<std::size_t>(size), now);
  }
}

void ToxicLink::run_limit(Stage& stage, Queue& to, Moment now) {
  while (!stage.waiting.empty()) {
    Chunk& chunk = stage.waiting.front();
    if (chunk.what != What::data) {
      pass(stage.waiting, to);
      continue;
    }
    const std::int64_t left =
        std::max<std::int64_t>(0, stage.toxic->attribute("bytes") - stage.passed);
    const auto size = std::min(left, static_cast<std::int64_t>(chunk.size()));
    if (size > 0) pass_piece(stage.waiting, to, static_cast<std::size_t>(size), now);
    stage.passed += size;
    if (stage.passed < stage.toxic->attribute("bytes")) continue;
    return cut(stage, to);
  }
}

void ToxicLink::run(Stage& stage, Queue& to, Moment now) {
  if (!stage.active) {
    while (!stage.waiting.empty()) pass(stage.waiting, to);
    return;
  }
  switch (stage.toxic->kind) {
    case ToxicKind::latency:
      return run_latency(stage, to, now);
    case ToxicKind::bandwidth:
      return run_bandwidth(stage, to, now);
    case ToxicKind::slow_close:
      return run_slow_close(stage, to, now);
    case ToxicKind::timeout:
    case ToxicKind::reset_peer:
      return run_timeout(stage, to, now);
    case ToxicKind::slicer:
      return run_slicer(stage, to, now);
    case ToxicKind::limit_data:
      return run_limit(stage, to, now);
  }
}

ToxicLink::State ToxicLink::read(const base::Fd& source, Moment now) {
  std::array<std::uint8_t, 32 << 10> buffer;
  // Others want their turn too.
  for (int turn = 0; turn < 8 && wants_to_read(); ++turn) {
    const ssize_t got = ::recv(source.get(), buffer.data(), buffer.size(), 0);
    if (got < 0) {
      if (errno == EINTR) continue;
      return errno == EAGAIN ? State::open : State::reset;
    }
    Chunk chunk;
    chunk.came = now;
    if (got == 0) {
      source_ended_ = true;
      chunk.what = What::end;
    } else {
      chunk.bytes.assign(buffer.begin(), buffer.begin() + got);
      traffic_.received += static_cast<std::uint64_t>(got);
    }
    push(stages_.empty() ? output_ : stages_.front().waiting, std::move(chunk));
  }
  return State::open;
}

ToxicLink::State ToxicLink::write(const base::Fd& destination) {
  while (!output_.empty()) {
    Chunk& chunk = output_.front();
    if (chunk.what == What::cut) return State::cut;
    if (chunk.what == What::end) {
      ::shutdown(destination.get(), SHUT_WR);
      ended_ = true;
      output_.clear();
      return State::ended;
    }
    const ssize_t sent = ::send(destination.get(), chunk.bytes.data() + chunk.begin, chunk.size(),
                                MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) {
      if (errno == EINTR) continue;
      return errno == EAGAIN ? State::open : State::reset;
    }
    const auto count = static_cast<std::size_t>(sent);
    traffic_.delivered += count;
    chunk.begin += count;
    held_ -= count;
    if (chunk.size() > 0) return State::open;
    held_ -= chunk_overhead;
    output_.pop_front();
  }
  return State::open;
}

ToxicLink::State ToxicLink::advance(const base::Fd& destination, Moment now) {
  if (ended_) return State::ended;
  next_.reset();
  for (std::size_t index = 0; index < stages_.size(); ++index) {
    const bool last = index + 1 == stages_.size();
    run(stages_[index], last ? output_ : stages_[index + 1].waiting, now);
  }
  if (reset_) return State::reset;
  return write(destination);
}

}  // namespace holdfast::service
