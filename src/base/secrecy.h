#pragma once

// A process that holds other people's secrets for a moment.

namespace holdfast::base {

/// From now on until this process ends: no core dump of it or of its children, nobody but root may
/// look into its memory, and what it frees is overwritten. Where the limits allow it, its memory is
/// locked, so that nothing goes to swap; where they do not, that is left out.
void guard_memory();

}  // namespace holdfast::base
