#pragma once

// A replication connection (walsender): its commands, and the COPY streams that they open
// (protocol-replication.html, libpq's COPY functions).
//
// Everything that reads WAL or files through the server stands on this: streaming WAL, and
// BASE_BACKUP. Failures are those of Session: Error(postgres) with the server's own message,
// Error(unreachable) when the connection cannot be made, is lost, or stays silent for too long.
// Waiting heeds signals that ask us to stop. Not for several threads.

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "base/bytes.h"
#include "postgres/session.h"

namespace holdfast::postgres {

class Replication {
 public:
  /// Connects with a libpq connection string; "replication=true" is added, and application_name is
  /// `name` unless the string sets one (synchronous_standby_names knows a receiver by it). TCP
  /// keepalives are on, so that a peer that died is noticed, and so is one that takes no bytes.
  Replication(const std::string& connection, const std::string& name);
  ~Replication();
  Replication(Replication&&) noexcept;
  Replication& operator=(Replication&&) noexcept;

  int version_number();  ///< 150020
  int major_version() { return version_number() / 10000; }

  /// Runs a command that answers with rows at most (IDENTIFY_SYSTEM, SHOW, CREATE_REPLICATION_SLOT,
  /// ...), and returns them.
  Rows command(const std::string& text);
  /// SHOW name; nullopt if the server has no such setting.
  std::optional<std::string> setting(const std::string& name);

  struct System {
    SystemId id;
    Timeline timeline;
    Lsn flushed;  ///< what the server has flushed (a standby: received)
  };
  System identify();  ///< IDENTIFY_SYSTEM
  SegmentSize segment_size();
  /// TIMELINE_HISTORY: the content of its history file; timelines above 1 only.
  std::string timeline_history(Timeline timeline);

  /// Sends a command whose answer may have several parts (BASE_BACKUP, START_REPLICATION,
  /// UPLOAD_MANIFEST); then ask next_answer() until it is `end`.
  void begin(const std::string& text);
  enum class Answer {
    rows,       ///< see answer_rows()
    copy_out,   ///< the server sends: read()
    copy_in,    ///< the server waits for bytes: write(), finish_writing()
    copy_both,  ///< both at once
    done,       ///< the command (or one of its parts) is complete
    end,        ///< nothing more: the connection is ready for the next command
  };
  Answer next_answer();
  const Rows& answer_rows() const;
  /// The SQLSTATE of the error that next_answer() threw last; empty if there was none.
  const std::string& error_state() const;

  /// One CopyData message. Valid until the next call of read().
  enum class Read { data, nothing, end };
  /// Waits up to `wait` for a message. `end`: the server has ended its stream.
  Read read(std::chrono::milliseconds wait);
  base::View message() const;
  /// The socket, to wait on together with others.
  int socket() const;

  void write(base::View bytes);  ///< one CopyData message, sent before it returns
  void finish_writing();         ///< CopyDone

 private:
  void flush();
  struct Connection;
  std::unique_ptr<Connection> connection_;
};

/// Quotes a name for a replication command: "holdfast" with its quotes.
std::string quoted_identifier(std::string_view name);
/// Quotes a text for a replication command: 'it''s'.
std::string quoted_literal(std::string_view text);

}  // namespace holdfast::postgres
