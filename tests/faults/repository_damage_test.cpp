// Damage at rest: whatever happens to one object, it is noticed, it is said for which backup it
// matters, nothing that could be started comes out of it, and what is intact can still be restored
// (TRAPS VE5, VE10, VE11, RC5, EK8).

#include "faults.h"
#include "postgres/wal_segment.h"
#include "repository/container.h"

namespace holdfast::tests {
namespace {

using base::Code;
using nlohmann::json;

/// Two backups; the second one's objects get hurt. With encryption, and without.
class DamagedRepository : public ::testing::TestWithParam<bool> {
 protected:
  DamagedRepository() {
    const auto cluster = place_.cluster(
        15, {},
        GetParam() ? std::vector<std::string>{} : std::vector<std::string>{"--no-encryption"});
    cluster->sql(
        "CREATE TABLE t AS SELECT g AS id, md5(g::text) AS v FROM generate_series(1, 9000) g");
    place_.must({"backup"});
    const auto packs = objects(place_, "packs");
    const auto shards = objects(place_, "maps");
    cluster->sql("INSERT INTO t SELECT g, md5(g::text) FROM generate_series(9001, 12000) g");
    place_.must({"backup"});
    pack_ = largest_new("packs", packs);
    shard_ = largest_new("maps", shards);
    cluster->stop();
    const std::vector<std::string> ids = backup_ids(place_);
    first_ = ids.at(0);
    second_ = ids.at(1);
  }

  fs::path largest_new(std::string_view kind, const std::vector<fs::path>& before) const {
    fs::path found;
    for (const fs::path& each : objects(place_, kind)) {
      if (std::find(before.begin(), before.end(), each) != before.end()) continue;
      if (found.empty() || fs::file_size(each) > fs::file_size(found)) found = each;
    }
    return found;
  }
  fs::path part_of_second(std::string_view part) const {
    return system_directory(place_) / "backups" / second_ / part;
  }

  Result verify() const { return place_.holdfast({"verify", "--json"}); }
  Result restore(const std::string& backup = "") {
    std::vector<std::string> arguments = {"restore", target().string()};
    if (!backup.empty())
      arguments.insert(arguments.end(), {"--backup", backup, "--to", "immediate"});
    return place_.holdfast(arguments);
  }
  fs::path target() const { return memory_.path() / "restored"; }

  static json verdict_on(const std::string& id, const json& report) {
    for (const json& each : report.at("backups")) {
      if (each.at("id") == id) return each;
    }
    return {{"restorable", false}, {"problems", json::array()}};
  }

  void expect_first_restores() {
    const Result restored = restore(first_);
    EXPECT_EQ(restored.status, 0) << restored.errors;
    EXPECT_TRUE(is_startable(target()));
    fs::remove_all(target());
  }
  void expect_restore_fails(const std::string& backup = "") {
    const Result failed = restore(backup);
    EXPECT_EQ(failed.status, status_of(Code::corrupt)) << failed.errors;
    EXPECT_NE(failed.errors.find("hint: "), std::string::npos) << failed.errors;
    EXPECT_TRUE(is_empty_or_absent(target())) << "a failed restore left something";
    fs::remove_all(target());
  }
  void expect_verify_blames_only_second() {
    const Result verified = verify();
    EXPECT_EQ(verified.status, status_of(Code::check_failed)) << verified.errors;
    const json report = verified.json();
    EXPECT_EQ(report.at("ok"), false);
    EXPECT_EQ(verdict_on(first_, report).at("restorable"), true) << report.dump(1);
    EXPECT_EQ(verdict_on(second_, report).at("restorable"), false) << report.dump(1);
    EXPECT_FALSE(verdict_on(second_, report).at("problems").empty());
  }
  /// The whole promise for an object without which the second backup is lost.
  void expect_second_is_lost() {
    expect_verify_blames_only_second();
    expect_restore_fails(second_);
    expect_first_restores();
  }

  repository::ContainerReader container(const fs::path& file, repository::Kind kind) const {
    const auto configuration = operations::read_configuration(place_.configuration());
    const operations::Site site = operations::open_site(configuration, "");
    const std::string directory =
        system_directory(place_).lexically_relative(place_.repository()).string();
    const std::string name = file.lexically_relative(system_directory(place_)).string();
    return repository::ContainerReader::open(site.repository.store(), directory, name, kind,
                                             site.repository.protection())
        .value();
  }

  Place place_;
  MemoryPlace memory_;
  std::string first_;
  std::string second_;
  fs::path pack_;
  fs::path shard_;
};

INSTANTIATE_TEST_SUITE_P(Protection, DamagedRepository, ::testing::Bool(),
                         [](const auto& each) { return each.param ? "sealed" : "plain"; });

TEST_P(DamagedRepository, one_flipped_bit_in_a_pack_costs_the_backup_that_needs_it_and_no_other) {
  const auto frames = container(pack_, repository::Kind::pack).frames();
  const std::uint64_t index = frames.back().offset + frames.back().stored + 16;
  const Damage damage(pack_);
  const std::vector<std::pair<std::string, std::uint64_t>> parts = {
      {"magic", 0},
      {"kind", 9},
      {"protection", 10},
      {"id", 20},
      {"first frame", frames.front().offset},
      {"check of the first frame", frames.front().offset + frames.front().stored + 3},
      {"number of frames with pages", frames.back().offset},
      {"index", index},
      {"trailer's sizes", damage.size() - 20},
      {"trailer's end", damage.size() - 1}};
  for (const auto& [part, offset] : parts) {
    SCOPED_TRACE(part);
    damage.flip(offset);
    expect_second_is_lost();
  }
}

TEST_P(DamagedRepository,
       a_flipped_bit_in_what_a_pack_says_of_itself_is_found_and_costs_no_backup) {
  const auto frames = container(pack_, repository::Kind::pack).frames();
  const Damage damage(pack_);
  damage.flip(frames.at(frames.size() - 2).offset + 1);
  const Result verified = verify();
  EXPECT_EQ(verified.status, status_of(Code::check_failed));
  EXPECT_NE(verified.output.find(pack_.filename()), std::string::npos) << "it is not named";
  EXPECT_EQ(restore(second_).status, 0);
}

TEST_P(DamagedRepository, a_newer_version_in_a_header_is_not_guessed_at) {
  const Damage damage(pack_);
  damage.flip(8);
  damage.flip(8);
  base::Bytes bytes = base::read_existing_file(pack_);
  bytes[8] = 2;
  const base::Fd file = base::open_file(pack_, O_WRONLY);
  base::write_all(file, bytes, pack_);
  EXPECT_NE(verify().status, 0);
  EXPECT_EQ(restore(second_).status, status_of(Code::unsupported));
  EXPECT_TRUE(is_empty_or_absent(target()));
  expect_first_restores();
}

TEST_P(DamagedRepository, a_cut_or_missing_object_costs_the_backup_that_needs_it_and_no_other) {
  for (const fs::path& object : {pack_, shard_, part_of_second("map")}) {
    SCOPED_TRACE(object.string());
    const Damage damage(object);
    for (const std::uint64_t size : {damage.size() - 1, damage.size() / 2, std::uint64_t{0}}) {
      SCOPED_TRACE(size);
      damage.cut(size);
      expect_second_is_lost();
    }
    damage.remove();
    expect_second_is_lost();
  }
}

TEST_P(DamagedRepository, one_flipped_bit_in_a_map_costs_its_backup_and_no_other) {
  for (const fs::path& object : {shard_, part_of_second("map")}) {
    SCOPED_TRACE(object.string());
    const Damage damage(object);
    for (const std::uint64_t offset : {std::uint64_t{33}, damage.size() / 2, damage.size() - 30}) {
      damage.flip(offset);
      expect_second_is_lost();
    }
  }
}

TEST_P(DamagedRepository, a_backup_json_that_is_not_as_written_is_shown_and_not_used) {
  const Damage damage(part_of_second("backup.json"));
  for (int round = 0; round < 3; ++round) {
    if (round == 0) damage.flip(damage.size() / 2);
    if (round == 1) damage.cut(damage.size() - 30);
    if (round == 2) damage.cut(0);
    expect_second_is_lost();
    const Result listed = place_.holdfast({"list"});
    EXPECT_EQ(listed.status, status_of(Code::corrupt));
    EXPECT_NE(listed.output.find(second_ + "  UNREADABLE"), std::string::npos) << listed.output;
    EXPECT_NE(listed.output.find(first_ + "  good"), std::string::npos) << listed.output;
  }
}

TEST_P(DamagedRepository, what_no_backup_refers_to_is_counted) {
  const json before = verify().json();
  EXPECT_EQ(before.at("orphans"), 0);
  const Damage damage(part_of_second("backup.json"));
  damage.remove();
  const Result verified = verify();
  EXPECT_EQ(verified.status, 0) << "remains of a backup are no damage";
  EXPECT_GT(verified.json().at("orphans"), 1);
  EXPECT_GE(verified.json().at("orphan_bytes"), fs::file_size(pack_) + fs::file_size(shard_));
}

TEST_P(DamagedRepository, a_stray_file_does_not_keep_verify_from_the_rest) {
  for (const char* name :
       {"packs/x.json.tmp.y", "maps/stray", "wal/00000001/stray", "backups/stray"}) {
    SCOPED_TRACE(name);
    const fs::path stray = system_directory(place_) / name;
    base::replace_file(stray, base::view("stray"), 0644);
    place_.give_to_server_user(stray);
    const Result verified = verify();
    EXPECT_TRUE(verified.status == 0 || verified.status == status_of(Code::check_failed))
        << verified.status << verified.errors;
    if (!verified.output.empty()) {
      EXPECT_EQ(verdict_on(first_, verified.json()).at("restorable"), true);
    }
    fs::remove(stray);
  }
}

}  // namespace
}  // namespace holdfast::tests
