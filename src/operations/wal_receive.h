#pragma once

// `wal receive`: WAL as it is written, streamed from the server into the repository.
//
// It connects through a replication slot, goes on where the repository's WAL ends on the history of
// the server's timeline, and confirms to the server what is durable in the repository and nothing
// else (INV-4). It follows promotions, reconnects for ever, and looks anew each time whether this
// is the right server. WAL that can no longer be had is recorded as a gap, and a new backup is
// taken while streaming goes on (INV-7).
//
// It ends with success only when it was asked to stop and all that it received is durable.

#include <functional>

#include "operations/catalog.h"
#include "operations/received_wal.h"
#include "postgres/wal_stream.h"

namespace holdfast::operations {

struct ReceiveRequest {
  bool synchronous = false;  ///< commits wait for us: slices are stored at once
  unsigned workers = 1;
  std::function<void(const std::string&)> say;  ///< for the user; called by several threads

  // For tests; nobody else needs other values.
  postgres::WalStream::Limits stream;
  std::chrono::milliseconds patience{std::chrono::minutes(1)};      ///< with a store that fails
  std::chrono::milliseconds backup_retry{std::chrono::minutes(1)};  ///< between tries of a backup
  std::chrono::seconds lease_term{60};
};

struct ReceiveOutcome {
  postgres::Timeline timeline;
  postgres::Lsn durable;     ///< all received WAL up to here is in the repository
  postgres::Lsn server_end;  ///< as far as the server said
  /// There is a gap behind the newest backup, and taking another one did not succeed.
  bool needs_backup = false;
};

/// Runs until a signal asks it to stop (base::catch_interrupts). A lease that ran out is taken
/// again. Throws Error(busy) if somebody else receives for this cluster, Error(foreign) if the
/// server is of another system, Error(conflict) if its WAL is not the repository's, and what the
/// store failed with if it cannot store for a minute. When it was stopped but could not store all,
/// it throws how much is missing.
ReceiveOutcome receive_wal(const Site& site, const ReceiveRequest& request);

}  // namespace holdfast::operations
