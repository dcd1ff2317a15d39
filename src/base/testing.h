#pragma once

// For tests only: random numbers that are the same in every run, and damage made with them; which
// Error was thrown.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <string>

#include "base/bytes.h"
#include "base/error.h"

namespace holdfast::base::testing {

/// The code of the Error that `action` throws; a failure of the test if it throws none.
inline Code code_of(auto&& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.code();
  }
  ADD_FAILURE() << "nothing was thrown";
  return Code::internal;
}

/// Pseudo-random numbers from a fixed seed (splitmix64).
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    std::uint64_t mixed = state_ += 0x9e3779b97f4a7c15;
    mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9;
    mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111eb;
    return mixed ^ mixed >> 31;
  }
  /// A number from 0 to `limit` - 1; 0 if there is none.
  std::size_t below(std::size_t limit) { return limit == 0 ? 0 : next() % limit; }
  bool chance(unsigned percent) { return below(100) < percent; }
  Bytes bytes(std::size_t count) {
    Bytes made(count);
    for (std::uint8_t& each : made) each = static_cast<std::uint8_t>(next());
    return made;
  }

 private:
  std::uint64_t state_;
};

/// What a disk, a bug or an enemy may make of bytes: one to three changes, each a flipped bit, an
/// extreme byte, or bytes cut out, put in, repeated or cut off.
inline Bytes mutated(View original, Random& random) {
  static constexpr std::array<std::uint8_t, 6> extremes{0x00, 0x01, 0x7f, 0x80, 0xfe, 0xff};
  Bytes bytes = copy(original);
  for (std::size_t left = 1 + random.below(3); left > 0; --left) {
    const auto at = static_cast<std::ptrdiff_t>(random.below(bytes.size()));
    const auto room = static_cast<std::size_t>(std::ssize(bytes) - at);
    const auto length = static_cast<std::ptrdiff_t>(random.below(std::min<std::size_t>(room, 16)));
    const Bytes some(bytes.begin() + at, bytes.begin() + at + length);
    const auto index = static_cast<std::size_t>(at);
    const std::size_t kind = random.below(bytes.empty() ? 1 : 6);
    if (kind == 0) bytes.insert(bytes.begin() + at, extremes[random.below(extremes.size())]);
    if (kind == 1) bytes[index] ^= static_cast<std::uint8_t>(1U << random.below(8));
    if (kind == 2) bytes[index] = extremes[random.below(extremes.size())];
    if (kind == 3) bytes.erase(bytes.begin() + at, bytes.begin() + at + length);
    if (kind == 4) bytes.insert(bytes.begin() + at, some.begin(), some.end());
    if (kind == 5) bytes.resize(index);
  }
  return bytes;
}

/// How often a fuzz test tries: `usual`, or HOLDFAST_FUZZ_ITERATIONS for a long run.
inline std::size_t fuzz_iterations(std::size_t usual) {
  const char* wanted = std::getenv("HOLDFAST_FUZZ_ITERATIONS");
  return wanted == nullptr ? usual : std::strtoull(wanted, nullptr, 10);
}

}  // namespace holdfast::base::testing
