#include "repository/migrations.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "repository/signed_document.h"

namespace holdfast::repository {

namespace {

using base::Code;
using nlohmann::json;

constexpr std::string_view begin_purpose = "migration";
constexpr std::string_view end_purpose = "migration end";
constexpr std::string_view ended = "-ended";

}  // namespace

void sort_by_beginning(std::vector<Migration>& migrations) {
  std::ranges::sort(migrations, {}, [](const Migration& each) {
    return std::make_pair(each.begun, std::string_view(each.id));
  });
}

Migrations::Migrations(const Repository& repository, ClusterPlace place)
    : repository_(repository), place_(std::move(place)) {}

std::string Migrations::name_of(const std::string& id) const {
  return fmt::format("{}/migrations/{}", place_.directory(), id);
}

json Migrations::identity(const std::string& id) const {
  return {{"migration", id}, {"cluster", place_.cluster}, {"system_id", place_.system_id}};
}

void Migrations::begin(const Migration& migration) const {
  json document = identity(migration.id);
  document.update({{"begun", base::to_iso(migration.begun)},
                   {"backup", migration.backup.text},
                   {"restore_point", migration.restore_point},
                   {"lsn", migration.lsn},
                   {"timeline", migration.timeline},
                   {"commit", migration.commit},
                   {"program", migration.program},
                   {"by", migration.by}});
  const std::string name = name_of(migration.id);
  if (!put_signed(repository_, name, begin_purpose, document)) {
    base::fail(Code::conflict, "migration \"{}\" exists already", name);
  }
}

void Migrations::end(const Migration& migration, const Migration::End& end) const {
  json document = identity(migration.id);
  document.update({{"ended", base::to_iso(end.at)}, {"status", end.status}});
  const std::string name = name_of(migration.id) + std::string(ended);
  if (!put_signed(repository_, name, end_purpose, document)) {
    base::fail(Code::conflict, "the end of migration \"{}\" is there already", name);
  }
}

Migration Migrations::read_migration(const std::string& id) const {
  Migration found;
  found.id = id;
  found.readable = false;
  try {
    const auto begun = get_signed(repository_, name_of(id), begin_purpose, identity(id));
    if (!begun) return found;
    found.begun = base::from_iso(begun->at("begun").get<std::string>());
    found.backup = {begun->at("backup").get<std::string>()};
    begun->at("restore_point").get_to(found.restore_point);
    begun->at("lsn").get_to(found.lsn);
    begun->at("timeline").get_to(found.timeline);
    begun->at("commit").get_to(found.commit);
    begun->at("program").get_to(found.program);
    begun->at("by").get_to(found.by);
    found.readable = true;
    const auto end =
        get_signed(repository_, name_of(id) + std::string(ended), end_purpose, identity(id));
    if (end) {
      found.end = {base::from_iso(end->at("ended").get<std::string>()),
                   end->at("status").get<int>()};
    }
  } catch (const json::exception&) {
  } catch (const base::Error& error) {
    if (error.code() != Code::corrupt) throw;
  }
  return found;
}

std::vector<Migration> Migrations::all() const {
  std::vector<Migration> found;
  for (const std::string& name : repository_.store().names(place_.directory() + "/migrations")) {
    if (!name.ends_with(ended)) found.push_back(read_migration(name));
  }
  sort_by_beginning(found);
  return found;
}

}  // namespace holdfast::repository
