#pragma once

// WAL as a server streams it (START_REPLICATION; protocol-replication.html, walsender.c).
//
// The stream is trusted in nothing: what comes must begin where it was asked for and each piece
// where the one before ended, over segment boundaries too (TRAPS WR2, WR3). What is confirmed to
// the server is what the caller says is durable, and nothing else, for write, flush and apply alike
// (TRAPS WR4, WR5). A server that stays silent though it was asked to answer is an Error (TRAPS
// WR17).

#include <chrono>
#include <optional>
#include <variant>

#include "base/time.h"
#include "postgres/replication.h"

namespace holdfast::postgres {

/// A message of the server: 'w' and 'k'.
struct WalData {
  Lsn start;
  Lsn server_end;  ///< how far the server has WAL; says nothing of what it sent
  base::View bytes;
};
struct WalKeepalive {
  Lsn server_end;
  bool wants_reply = false;
};
using WalMessage = std::variant<WalData, WalKeepalive>;
/// Throws Error(postgres) for anything else.
WalMessage parse_wal_message(base::View message);
/// The answer 'r': `durable` is written, flushed and applied.
base::Bytes wal_status(Lsn durable, base::Timestamp now, bool wants_reply);

/// Holds the pieces of a stream together.
class WalSequence {
 public:
  explicit WalSequence(Lsn start) : end_(start) {}
  /// What of `data` is new. A server may begin before what was asked for, but not behind it; from
  /// then on each piece begins where the one before ended. Throws Error(postgres) otherwise.
  base::View take(const WalData& data);
  Lsn end() const { return end_; }

 private:
  Lsn end_;
  bool began_ = false;
};

/// One START_REPLICATION on a connection, until the server ends it.
class WalStream {
 public:
  struct Limits {
    std::chrono::milliseconds status{10000};   ///< between two confirmations at most
    std::chrono::milliseconds silence{30000};  ///< without any message, though one was asked for
  };
  /// Begins at `start` on `timeline`, through `slot` if that is not empty. `durable` is what can be
  /// confirmed already; who never has more than 0 to confirm is waited for by no commit.
  WalStream(Replication& connection, const std::string& slot, Timeline timeline, Lsn start,
            Lsn durable, Limits limits);

  enum class Event {
    data,     ///< see bytes(); they begin at what end() was before
    asked,    ///< the server waits for a confirmation: it is told at once what is durable now
    nothing,  ///< nothing came in time
    end,      ///< the server has ended the timeline, or itself: see finish()
  };
  /// Waits for the next message, up to `wait`. Confirms now and then what confirm() was told.
  Event next(std::chrono::milliseconds wait);
  base::View bytes() const { return bytes_; }
  /// The position behind all that was received.
  Lsn end() const { return sequence_.end(); }
  /// How far the server has WAL, as far as it said.
  Lsn server_end() const { return server_end_; }

  /// Tells the server at once if that is news to it.
  void confirm(Lsn durable);
  /// Lets the server know that we are alive while we cannot read.
  void keep_alive();

  struct Next {
    Timeline timeline;
    Lsn start;
  };
  /// After `end`: the timeline that the server goes on with, or nullopt if it shuts down. Throws
  /// what the server ended the stream for, if that was an error.
  std::optional<Next> finish();
  /// Ends the stream from our side: the last thing that the server hears is what is durable.
  void leave();

 private:
  void send(bool wants_reply);

  using Clock = std::chrono::steady_clock;
  Replication& connection_;
  Limits limits_;
  WalSequence sequence_;
  Lsn server_end_;
  Lsn durable_;
  Lsn confirmed_;
  base::View bytes_;
  Clock::time_point sent_;
  Clock::time_point heard_;
};

}  // namespace holdfast::postgres
