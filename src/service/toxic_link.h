#pragma once

// One direction of a proxied connection: what came from one side and goes to the other, through the
// toxics of the proxy in their order.
//
// Holds at most about 1 MiB; when that is full nothing more is read, so that whoever sends is held
// up as he would be by a slow receiver. Toxics are added, changed and removed while data flows:
// what waited in one that is removed goes on at once. Bytes are lost only to a toxic that loses
// them (timeout), and then the connection cannot go on when that is removed.

#include <deque>
#include <memory>
#include <optional>
#include <random>
#include <vector>

#include "base/bytes.h"
#include "service/event_loop.h"
#include "service/toxic.h"

namespace holdfast::service {

using Moment = EventLoop::Clock::time_point;
using Dice = std::mt19937_64;

/// How bytes of one direction were seen. What was swallowed was received and not delivered.
struct Traffic {
  std::uint64_t received = 0;
  std::uint64_t delivered = 0;
};

class ToxicLink {
 public:
  /// What there is to do with the connection.
  enum class State {
    open,
    ended,  ///< this direction is over; the other may go on
    cut,    ///< both sides must be closed
    reset,  ///< both sides must be reset
  };

  ToxicLink(Dice& dice, Traffic& traffic) : dice_(dice), traffic_(traffic) {}

  void add(const std::shared_ptr<const Toxic>& toxic, Moment now);
  /// False if the connection has lost data and cannot go on.
  [[nodiscard]] bool change(const std::shared_ptr<const Toxic>& toxic, Moment now);
  [[nodiscard]] bool remove(const std::string& toxic);

  bool wants_to_read() const { return !source_ended_ && held_ < most_held; }
  bool wants_to_write() const { return !output_.empty(); }
  /// The moment at which something goes on without an event; nullopt if nothing waits for time.
  std::optional<Moment> next() const { return next_; }

  /// Takes what is there to be read.
  State read(const base::Fd& source, Moment now);
  /// Lets what is due pass through the toxics, and writes what can be written.
  State advance(const base::Fd& destination, Moment now);

 private:
  enum class What { data, end, cut };
  struct Chunk {
    What what = What::data;
    base::Bytes bytes;
    std::size_t begin = 0;  ///< bytes before it have gone
    Moment came;
    std::optional<Moment> due;

    std::size_t size() const { return bytes.size() - begin; }
  };
  using Queue = std::deque<Chunk>;
  /// One toxic, as this direction meets it.
  struct Stage {
    std::shared_ptr<const Toxic> toxic;
    bool active = true;
    bool has_dropped = false;
    bool over = false;  ///< it has cut the connection
    Moment begun;
    Moment free_at;  ///< when the last piece has passed
    std::int64_t passed = 0;
    Queue waiting;
  };
  static constexpr std::size_t most_held = 1 << 20;
  static constexpr std::size_t chunk_overhead = 128;

  std::vector<Stage>::iterator find(const std::string& toxic);
  bool roll(const Toxic& toxic);
  void wake(Moment when);
  bool is_due(Chunk& chunk, Moment due, Moment now);
  void push(Queue& to, Chunk&& chunk);
  void pass(Queue& from, Queue& to);
  void pass_piece(Queue& from, Queue& to, std::size_t size, Moment now);
  void drop(Stage& stage);
  void cut(Stage& stage, Queue& to);
  void run(Stage& stage, Queue& to, Moment now);
  void run_latency(Stage& stage, Queue& to, Moment now);
  void run_bandwidth(Stage& stage, Queue& to, Moment now);
  void run_slow_close(Stage& stage, Queue& to, Moment now);
  void run_timeout(Stage& stage, Queue& to, Moment now);
  void run_slicer(Stage& stage, Queue& to, Moment now);
  void run_limit(Stage& stage, Queue& to, Moment now);
  State write(const base::Fd& destination);

  Dice& dice_;
  Traffic& traffic_;
  std::vector<Stage> stages_;
  Queue output_;
  std::size_t held_ = 0;
  bool source_ended_ = false;
  bool ended_ = false;
  bool reset_ = false;
  std::optional<Moment> next_;
};

}  // namespace holdfast::service
