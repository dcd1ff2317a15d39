// Preloaded into a program (LD_PRELOAD): its clock is wrong by the seconds that the file
// $SHIFTED_CLOCK says, which may change while it runs. Clocks that nobody can set are left alone.

#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <ctime>

namespace {

std::time_t shift() {
  std::array<char, 32> text{};
  const char* name = std::getenv("SHIFTED_CLOCK");
  const int file = name == nullptr ? -1 : ::open(name, O_RDONLY | O_CLOEXEC);
  if (file < 0) return 0;
  const ssize_t size = ::read(file, text.data(), text.size() - 1);
  ::close(file);
  return size > 0 ? std::strtol(text.data(), nullptr, 10) : 0;
}

}  // namespace

extern "C" int clock_gettime(clockid_t clock, timespec* time) noexcept {
  using Call = int (*)(clockid_t, timespec*);
  static const Call original = reinterpret_cast<Call>(::dlsym(RTLD_NEXT, "clock_gettime"));
  const int result = original(clock, time);
  if (result == 0 && clock == CLOCK_REALTIME) time->tv_sec += shift();
  return result;
}
