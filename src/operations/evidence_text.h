#pragma once

// Evidence for people to read: a record, the log of all, and the page that an auditor asks for.

#include <string>

#include "operations/evidence.h"

namespace holdfast::operations {

/// A record as Markdown.
std::string markdown_of(const Evidence& evidence, std::uint64_t number,
                        const std::string& previous);

/// drill-log.md: the runbook's table, a row for each record.
std::string log_of(const std::vector<EvidenceRecord>& records);

struct AuditorQuestions {
  base::Timestamp now;
  std::optional<base::Microseconds> drill_every;
  std::string cluster;  ///< empty: all
  std::string key;      ///< the fingerprint of the key that the records were checked with
};
/// One page: cadence, trend of what was measured, failures and when each was put right, controls.
std::string auditor_page(const EvidenceReport& report, const AuditorQuestions& questions);

}  // namespace holdfast::operations
