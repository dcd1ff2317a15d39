#include "serve/turn.h"

#include <algorithm>

#include "base/error.h"

namespace holdfast::serve {

namespace {

using base::Timestamp;

/// A clock that is wrong by more than this is not believed.
constexpr std::chrono::days ahead{1};

/// "2026-11-23T02-00-00.000000Z": sorts as text, and is a name that every store takes.
std::string name_of(Timestamp slot) {
  std::string name = base::to_iso(slot);
  std::ranges::replace(name, ':', '-');
  return name;
}

}  // namespace

Turn::Turn(const repository::Repository& repository, const repository::ClusterPlace& place,
           const std::string& job, Timestamp slot)
    : repository_(repository),
      directory_(place.directory() + "/runs/" + job),
      slot_(slot),
      lease_(repository, place, "serve-" + job) {}

std::optional<Timestamp> Turn::newest_done() const {
  const std::string last_believed = name_of(slot_ + ahead);
  std::optional<Timestamp> newest;
  for (std::string name : repository_.store().names(directory_)) {
    if (name < name_of(slot_) || name > last_believed || name.size() != last_believed.size()) {
      continue;
    }
    name[13] = name[16] = ':';
    newest = base::from_iso(name);
  }
  return newest;
}

std::unique_ptr<Turn> Turn::take(const repository::Repository& repository,
                                 const repository::ClusterPlace& place, const std::string& job,
                                 Timestamp slot, Timestamp& done) {
  std::unique_ptr<Turn> turn(new Turn(repository, place, job, slot));
  const auto newest = turn->newest_done();
  if (!newest) return turn;
  done = *newest;
  return nullptr;
}

void Turn::finish() {
  lease_.check();
  const std::string name = name_of(slot_);
  // That it is there already is as good.
  [[maybe_unused]] const bool fresh =
      repository_.store().put(directory_ + "/" + name, base::view("{}\n"));
  for (const std::string& each : repository_.store().names(directory_)) {
    if (each != name) repository_.store().remove(directory_ + "/" + each);
  }
}

}  // namespace holdfast::serve
