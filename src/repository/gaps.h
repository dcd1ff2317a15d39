#pragma once

// Gaps: stretches of WAL that the server had and the repository never will; and breaks: places
// where nothing is missing, but what follows does not continue what is before (INV-7).
//
// A gap is an immutable object gaps/TIMELINE-FROM-TO below the system's directory, whose name is
// the gap itself: the same one found twice is one record, and two gaps are never one (TRAPS WR12).
// A break is a gap of no length.
// It is small JSON for people; its last member is a keyed digest, as that of backup.json.

#include <string>
#include <vector>

#include "repository/repository.h"

namespace holdfast::repository {

struct Gap {
  std::uint32_t timeline = 0;  ///< on whose history the WAL is missing
  std::uint64_t from = 0;      ///< the first byte that is missing
  std::uint64_t to = 0;        ///< the first one that is there again
  base::Timestamp found;
  std::string why;

  bool is_break() const { return from == to; }
};

/// WAL of the history of `timeline` from byte `at` on is of another life of the server than that
/// before: its storage was set back to an earlier state meanwhile.
struct Break {
  std::uint32_t timeline = 0;
  std::uint64_t at = 0;
};

class Gaps {
 public:
  Gaps(const Repository& repository, ClusterPlace place);

  /// Durable on return. False if it was recorded before.
  bool record(const Gap& gap) const;

  struct Listed {
    std::vector<Gap> gaps;                ///< by timeline and position
    std::vector<std::string> unreadable;  ///< names of records that are not as they were written
  };
  Listed list() const;
  /// What the names say, so that a record that is damaged holds, too.
  std::vector<Break> breaks() const;

 private:
  const Repository& repository_;
  ClusterPlace place_;
};

}  // namespace holdfast::repository
