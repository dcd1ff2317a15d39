#pragma once

// How `doctor` and `status` show what they have found.

#include <nlohmann/json_fwd.hpp>

#include "operations/findings.h"

namespace holdfast::cli {

nlohmann::json findings_json(const operations::Findings& findings);
void print_findings(const operations::Findings& findings);

}  // namespace holdfast::cli
