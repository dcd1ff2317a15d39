#pragma once

// How the commands that leave evidence tell what they found.

#include "cli/command.h"
#include "operations/evidence.h"

namespace holdfast::cli {

/// The checks, as a JSON list of name, outcome and what was found.
nlohmann::json checks_json(const operations::Evidence& evidence);

/// "pass"; anything else aloud: "FAIL".
std::string loud(operations::Verdict verdict);

/// 0 only for a pass.
void end_with(Invocation& invocation, operations::Verdict verdict);

}  // namespace holdfast::cli
