#pragma once

// A store that does not answer: a file server that is gone leaves whoever asks it waiting in the
// kernel, where nothing ends the wait. So it is said, and what can go on without it does.

#include <chrono>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "base/file.h"

namespace holdfast::store {

/// While there is one, each call to a store that has lasted for `limit` is spoken of, by a thread
/// of its own, again whenever it has lasted twice as long, and when it was answered after all. One
/// at a time in a process.
class SilenceWatch {
 public:
  SilenceWatch(std::chrono::milliseconds limit, std::function<void(const std::string&)> say);
  ~SilenceWatch();
  SilenceWatch(const SilenceWatch&) = delete;
  SilenceWatch& operator=(const SilenceWatch&) = delete;

  struct State;

 private:
  std::shared_ptr<State> state_;
};

/// A call to a store, for as long as it lives.
class Asking {
 public:
  explicit Asking(const base::fs::path& root);
  ~Asking();
  Asking(const Asking&) = delete;
  Asking& operator=(const Asking&) = delete;

  struct Call;

 private:
  std::shared_ptr<SilenceWatch::State> state_;
  std::list<Call>::iterator call_;
};

/// Which of these stores answer anything within `limit`. Each is asked by a process of its own,
/// which is left behind if it does not.
std::vector<bool> answering(const std::vector<std::string>& urls, std::chrono::milliseconds limit);

}  // namespace holdfast::store
