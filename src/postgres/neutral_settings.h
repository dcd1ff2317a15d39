#pragma once

// Settings by which a server's recovery is asked for nothing.

#include "postgres/recovery_settings.h"

namespace holdfast::postgres {

/// Each setting that a server of this version knows and that steers recovery, as it is by default.
/// A restore writes them all, so that none can come from another file; of a recovery that is over
/// none must stay.
Settings neutral_recovery_settings(int major);

}  // namespace holdfast::postgres
