#include "base/error.h"
#include "cli/command.h"
#include "serve/daemon.h"

namespace holdfast::cli {

void add_serve(CLI::App& app, Invocation& invocation) {
  CLI::App* command = add_command(
      app, invocation, "serve",
      "Keep the schedule, receive WAL, probe, and raise alarms, until stopped",
      {base::Code::configuration, base::Code::busy},
      [&invocation] { serve::Daemon(operations::find_configuration(invocation.config)).run(); },
      SilenceIs::unsaid);
  // It is of all clusters, and has no result.
  for (const char* each : {"--json", "--cluster"}) {
    command->remove_option(command->get_option(each));
  }
}

}  // namespace holdfast::cli
