#pragma once

// `settle`: an instant restore becomes an ordinary data directory.
//
// Waits until everything is local, ends the mount, and puts the local directory in its place. The
// server must not run meanwhile: the user stops it, or says how it is stopped and started. May die
// at any step: settling again goes on, and in between no server can be started on what is there.

#include "base/report.h"
#include "operations/instant_mount.h"

namespace holdfast::operations {

struct SettleRequest {
  InstantPlace place;
  /// Shell commands that stop the server on the directory and start it again; empty: that is the
  /// user's affair.
  std::string stop;
  std::string start;
};

struct SettleOutcome {
  base::Microseconds down{};  ///< from stopping the server, or else the mount, to the end
};

SettleOutcome settle(const SettleRequest& request, base::Progress& progress);

}  // namespace holdfast::operations
