#include "base/secrecy.h"

#include <malloc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include <cerrno>

#include "base/error.h"

namespace holdfast::base {

void guard_memory() {
  const rlimit none{0, 0};
  if (::prctl(PR_SET_DUMPABLE, 0) != 0 || ::setrlimit(RLIMIT_CORE, &none) != 0) {
    fail_errno("turn core dumps off", errno);
  }
  ::mallopt(M_PERTURB, 0xa5);
  // Under a limit, allocations would fail once it is reached: all or nothing.
  const rlimit unlimited{RLIM_INFINITY, RLIM_INFINITY};
  if (::setrlimit(RLIMIT_MEMLOCK, &unlimited) == 0) {
    static_cast<void>(::mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT));
  }
}

}  // namespace holdfast::base
