#pragma once

// What `doctor` and `status` find, one thing at a time.

#include <string>
#include <vector>

#include "base/error.h"
#include "operations/recovery_window.h"

namespace holdfast::operations {

struct Finding {
  enum class Level { good, warning, bad };
  Level level = Level::good;
  std::string what;    ///< "archive_mode is off: no WAL is archived"
  std::string remedy;  ///< the way out; empty if nothing is to be done
  /// What it is about, in a word that stays while numbers in `what` change: "rpo", "slot:x".
  std::string about;
  /// Of the cluster, whichever repository was looked at; else of that repository.
  bool of_cluster = false;
};

/// One look after the other. A look that fails is a finding, and the others go on.
class Findings {
 public:
  using Level = Finding::Level;
  void note(Level level, std::string what, std::string remedy = {}, std::string about = {}) {
    all_.push_back({level, std::move(what), std::move(remedy), std::move(about), of_cluster_});
  }
  template <typename Look>
  void attempt(const Look& look, std::string about = {}) {
    try {
      look();
    } catch (const base::Error& error) {
      note(Level::bad, error.message(), error.hint(), std::move(about));
    }
  }
  /// What is noted in `look` is of the cluster. A look that fails is a finding.
  template <typename Look>
  void attempt_of_cluster(const Look& look, std::string about) {
    of_cluster_ = true;
    attempt(look, std::move(about));
    of_cluster_ = false;
  }
  /// The windows of a history, the newest last: one that ends in a hole is bad if none goes on
  /// behind it.
  void note_windows(const std::vector<RecoveryWindow>& windows);

  const std::vector<Finding>& all() const { return all_; }
  /// Nothing is bad.
  bool ok() const;

 private:
  std::vector<Finding> all_;
  bool of_cluster_ = false;
};

}  // namespace holdfast::operations
