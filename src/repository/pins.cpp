#include "repository/pins.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "repository/signed_document.h"

namespace holdfast::repository {

namespace {

using base::Code;
using nlohmann::json;

constexpr std::string_view pin_purpose = "pin";
constexpr std::string_view release_purpose = "pin release";
constexpr std::string_view released = "-released";

}  // namespace

Pins::Pins(const Repository& repository, ClusterPlace place)
    : repository_(repository), place_(std::move(place)) {}

std::string Pins::directory(const BackupId& backup) const {
  return fmt::format("{}/pins/{}", place_.directory(), backup.text);
}

Pin Pins::add(const BackupId& backup, base::Timestamp now, base::Timestamp until,
              const std::string& reason) const {
  const Pin pin{backup, to_string(new_object_id()), true, now, until, reason};
  json document = identity(backup, pin.id);
  document.update(
      {{"made", base::to_iso(now)}, {"until", base::to_iso(until)}, {"reason", reason}});
  const std::string name = directory(backup) + "/" + pin.id;
  if (!put_signed(repository_, name, pin_purpose, document)) {
    base::fail(Code::internal, "pin \"{}\" exists already", name);
  }
  return pin;
}

void Pins::release(const Pin& pin, base::Timestamp now) const {
  json document = identity(pin.backup, pin.id);
  document["released"] = base::to_iso(now);
  const std::string name = fmt::format("{}/{}{}", directory(pin.backup), pin.id, released);
  if (put_signed(repository_, name, release_purpose, document)) return;
  if (!is_released(pin)) {
    throw base::Error(Code::corrupt, fmt::format("cannot release: \"{}\" is corrupt", name),
                      "remove that object, and run it again");
  }
}

json Pins::identity(const BackupId& backup, const std::string& pin) const {
  return {{"backup", backup.text},
          {"cluster", place_.cluster},
          {"system_id", place_.system_id},
          {"pin", pin}};
}

bool Pins::is_released(const Pin& pin) const {
  const std::string object =
      fmt::format("{}/{}{}", directory(pin.backup), pin.id, std::string(released));
  try {
    return get_signed(repository_, object, release_purpose, identity(pin.backup, pin.id))
        .has_value();
  } catch (const base::Error& error) {
    if (error.code() != Code::corrupt) throw;
    return false;
  }
}

std::vector<Pin> Pins::of(const BackupId& backup) const {
  const std::vector<std::string> names = repository_.store().names(directory(backup));
  std::vector<Pin> found;
  for (const std::string& name : names) {
    if (name.ends_with(released)) continue;
    const std::string object = directory(backup) + "/" + name;
    const std::string release = name + std::string(released);
    Pin pin{backup, name, false, {}, {}, {}};
    try {
      if (std::ranges::find(names, release) != names.end() && is_released(pin)) continue;
      if (const auto document =
              get_signed(repository_, object, pin_purpose, identity(backup, name))) {
        pin.made = base::from_iso(document->at("made").get<std::string>());
        pin.until = base::from_iso(document->at("until").get<std::string>());
        pin.reason = document->at("reason").get<std::string>();
        pin.readable = true;
      }
    } catch (const json::exception&) {
    } catch (const base::Error& error) {
      if (error.code() != Code::corrupt) throw;
    }
    found.push_back(std::move(pin));
  }
  return found;
}

std::vector<Pin> Pins::all() const {
  std::vector<Pin> found;
  for (const std::string& name : repository_.store().names(place_.directory() + "/pins")) {
    if (!is_backup_id(name)) continue;
    try {
      for (Pin& pin : of({name})) found.push_back(std::move(pin));
    } catch (const base::Error& error) {
      if (error.code() != Code::corrupt) throw;
      found.push_back({{name}, "", false, {}, {}, {}});  // whatever is in there holds
    }
  }
  return found;
}

void Pins::take_back(const Pin& pin) const {
  repository_.store().remove(directory(pin.backup) + "/" + pin.id);
}

std::vector<std::string> Pins::objects_of(const BackupId& backup) const {
  std::vector<std::string> found;
  for (const std::string& name : repository_.store().names(directory(backup))) {
    found.push_back(directory(backup) + "/" + name);
  }
  return found;
}

}  // namespace holdfast::repository
