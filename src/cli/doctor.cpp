#include "operations/doctor.h"

#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/findings.h"

namespace holdfast::cli {

namespace {

using base::Code;

void doctor(Invocation& invocation, bool fix) {
  const operations::Configuration configuration = invocation.configuration();
  const operations::Diagnosis diagnosis =
      operations::diagnose(configuration, invocation.cluster, fix);
  if (!diagnosis.findings.ok()) invocation.exit_status = base::info(Code::check_failed).exit_status;
  if (invocation.json) {
    return print_json(invocation, {{"ok", diagnosis.findings.ok()},
                                   {"findings", findings_json(diagnosis.findings)},
                                   {"fixed", diagnosis.fixed},
                                   {"restart_needed", diagnosis.restart_needed}});
  }
  print_findings(diagnosis.findings);
  for (const std::string& each : diagnosis.fixed) std::cout << "fixed    " << each << "\n";
  if (diagnosis.restart_needed)
    std::cout << "The server must be restarted for this to take effect.\n";
}

}  // namespace

void add_doctor(CLI::App& app, Invocation& invocation) {
  const auto fix = std::make_shared<bool>(false);
  CLI::App* command = add_command(app, invocation, "doctor",
                                  "Say what is wrong with this installation, and how to mend it",
                                  {Code::check_failed, Code::configuration, Code::permission},
                                  [&invocation, fix] { doctor(invocation, *fix); });
  command->add_flag("--fix", *fix, "Set PostgreSQL's settings as they should be");
}

}  // namespace holdfast::cli
