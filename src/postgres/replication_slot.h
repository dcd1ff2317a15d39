#pragma once

// The physical replication slot that keeps WAL on the server until it was received.

#include <functional>
#include <optional>
#include <string>

#include "postgres/replication.h"

namespace holdfast::postgres {

class ReplicationSlot {
 public:
  /// `connection` for what servers before 15 tell only in SQL; `server` must not be streaming.
  ReplicationSlot(Replication& server, std::string connection, std::string name);

  /// Where the slot begins to keep WAL. Makes it if it is not there, and makes it anew if it keeps
  /// nothing any more (the server let go of it: max_slot_wal_keep_size); says what it does.
  Lsn ensure(const std::function<void(const std::string&)>& say);
  void drop();

 private:
  struct State {
    std::optional<Lsn> start;
  };
  std::optional<State> read();

  Replication& server_;
  std::string connection_;
  std::string name_;
};

}  // namespace holdfast::postgres
