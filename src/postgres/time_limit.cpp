#include "postgres/time_limit.h"

#include <algorithm>

#include "base/error.h"

namespace holdfast::postgres {

namespace {

thread_local std::optional<std::chrono::steady_clock::time_point> deadline;

}  // namespace

TimeLimit::TimeLimit(std::chrono::milliseconds limit) {
  deadline = std::chrono::steady_clock::now() + limit;
}

TimeLimit::~TimeLimit() {
  deadline.reset();
}

bool is_time_limited() {
  return deadline.has_value();
}

int time_left(int most) {
  if (!deadline) return most;
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(*deadline - std::chrono::steady_clock::now());
  if (left.count() <= 0) {
    throw base::Error(base::Code::unreachable, "PostgreSQL did not answer in time");
  }
  return static_cast<int>(std::min<std::chrono::milliseconds::rep>(left.count(), most));
}

}  // namespace holdfast::postgres
