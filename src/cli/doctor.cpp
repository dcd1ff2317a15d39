#include "cli/command.h"

namespace holdfast::cli {

void add_doctor(CLI::App& app, Invocation& invocation) {
  static_cast<void>(app);
  static_cast<void>(invocation);
}

}  // namespace holdfast::cli
