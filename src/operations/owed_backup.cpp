#include "operations/owed_backup.h"

#include "base/error.h"
#include "base/workers.h"

namespace holdfast::operations {

OwedBackup::OwedBackup(const Site& site, BackupRequest request, std::chrono::milliseconds pause,
                       std::function<void(const std::string&)> say)
    : site_(site), request_(std::move(request)), pause_(pause), say_(std::move(say)) {}

void OwedBackup::want() {
  if (owed_.exchange(true)) return;
  thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
}

void OwedBackup::stop() {
  thread_.request_stop();
  if (thread_.joinable()) thread_.join();
}

bool OwedBackup::take(std::string& said) {
  try {
    say_("taking a new backup, as the ones before end at the gap");
    base::Progress progress;
    const BackupInfo made = take_backup(site_, request_, progress);
    say_(fmt::format("took backup {}: restoring works from {} on", made.id.text,
                     base::to_string(made.stopped)));
    return true;
  } catch (const std::exception& error) {
    if (error.what() != said) {
      said = error.what();
      say_(fmt::format("ALARM: there is a gap, and no backup behind it: {}", said));
    }
    return false;
  }
}

void OwedBackup::run(const std::stop_token& stop) {
  std::string said;
  while (!stop.stop_requested() && !base::interrupted()) {
    if (take(said)) {
      owed_ = false;
      return;
    }
    const auto again = std::chrono::steady_clock::now() + pause_;
    while (std::chrono::steady_clock::now() < again && !stop.stop_requested() &&
           !base::interrupted()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
  }
}

}  // namespace holdfast::operations
