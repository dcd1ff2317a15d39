#pragma once

// What a daemon remembers over restarts: when its jobs last ran and how that ended, which alarms
// are raised, and what could not be told to somebody yet.
//
// A small file, replaced in one step at each change, that one daemon at a time holds. If it cannot
// be written (disk full) the daemon goes on with what it has in memory; `trouble` says so, and it
// is tried again. A file that cannot be understood is put aside. Threads may share a State.
//
// A thread of its own writes, so that a disk that hangs stops nobody: a change waits for the file,
// but not long.

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/file.h"
#include "base/time.h"

namespace holdfast::serve {

struct JobRecord {
  base::Timestamp known_since;               ///< what was due before that never counts
  std::optional<base::Timestamp> slot;       ///< the last moment that was done, here or elsewhere
  std::optional<base::Timestamp> succeeded;  ///< when a run here last ended well
  std::optional<base::Timestamp> ended;      ///< when one last ended at all
  std::optional<int> status;                 ///< how

  base::Timestamp last() const { return slot.value_or(known_since); }
};

/// Something that is wrong, until it is not.
struct Alarm {
  std::string id;   ///< "status/main/local/rpo", "job/backup.main"
  bool bad = true;  ///< else a warning
  std::string what;
  std::string remedy;
  base::Timestamp since{};
  base::Timestamp told{};  ///< when somebody was last told of it; 0: never

  bool operator==(const Alarm& other) const = default;
};

/// Alarms as JSON, and back; throws for what is none.
std::string alarms_text(const std::map<std::string, Alarm>& alarms);
std::map<std::string, Alarm> alarms_from(const std::string& text);

/// A message that a channel has not delivered yet.
struct Message {
  std::uint64_t number = 0;
  std::string channel;
  std::string subject;
  std::string document;  ///< JSON
};

class State {
 public:
  struct Content {
    std::map<std::string, JobRecord> jobs;
    std::map<std::string, Alarm> alarms;
    std::vector<Message> outbox;
    std::uint64_t next_message = 1;
  };

  /// Reads the file or begins a new one. Throws Error(busy) if another daemon holds it.
  explicit State(const base::fs::path& file);

  Content content() const;
  JobRecord job(const std::string& name) const;
  /// Writes what is not written yet; waits for a disk that hangs.
  ~State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  /// Changes it and writes the file. `change` must not call the State.
  void change(const std::function<void(Content&)>& change);
  /// Nothing is being written.
  bool idle() const;
  /// Why the file could not be written or was put aside; empty: it is well.
  std::string trouble() const;

 private:
  using Clock = std::chrono::steady_clock;
  void read();
  void work(const std::stop_token& stop);

  base::fs::path file_;
  base::Fd lock_;
  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  Content content_;
  std::uint64_t changes_ = 0;
  std::uint64_t written_ = 0;  ///< of these
  std::optional<Clock::time_point> writing_since_;
  std::string unreadable_;
  std::string unwritable_;
  std::jthread writer_;
};

}  // namespace holdfast::serve
