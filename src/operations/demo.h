#pragma once

// `demo`: everything that Holdfast promises so far, on a throwaway PostgreSQL, for real.
//
// A server is made, filled with a schema like that of the runbook's service, written to without
// pause, backed up, and lost with its whole data directory in the middle of a write. Then it is
// restored to the last durable moment, and every row whose commit was acknowledged before that
// moment is looked for.

#include <functional>
#include <string>

#include "base/file.h"
#include "base/time.h"

namespace holdfast::operations {

struct DemoOutcome {
  int server_major = 0;
  std::uint64_t acknowledged = 0;  ///< commits that the writers saw before the loss
  std::uint64_t durable = 0;       ///< of these, before the last durable moment: must all be there
  std::uint64_t missing = 0;       ///< durable rows that are not there: 0, or Holdfast has failed
  std::uint64_t recovered = 0;     ///< acknowledged rows that are there
  base::Microseconds backup_time{};
  std::uint64_t backup_bytes = 0;
  base::Microseconds rpo{};           ///< the loss, less the last commit that was recovered
  base::Microseconds rto{};           ///< from the loss to the first answered query
  base::Microseconds restore_time{};  ///< of that: writing the files
};

/// Runs it below `directory` (which must be empty, and is left for the caller to remove), as an
/// ordinary user. `say` gets one line for each step.
DemoOutcome run_demo(const base::fs::path& directory,
                     const std::function<void(const std::string&)>& say);

}  // namespace holdfast::operations
