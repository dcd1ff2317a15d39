#include "repository/backups.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "repository/pack.h"
#include "repository/testing.h"
#include "repository/wal_archive.h"

namespace holdfast::repository {
namespace {

using base::Bytes;
using base::Code;
using nlohmann::json;
using testing::code_of;
using testing::place;

const BackupId id{"20261123T083000Z-4f2a"};

class BackupsTest : public ::testing::TestWithParam<bool> {
 protected:
  json document() const {
    return {{"id", id.text},           {"map", {{"bytes", 12345678901234}, {"ratio", 0.1}}},
            {"zone", "Europe/Berlin"}, {"note", "\"check\": \"not this\"\n}"},
            {"nothing", nullptr},      {"list", json::array()}};
  }
  Bytes& stored() { return made_.objects->at(backups_.object_name(id, "backup.json")); }
  bool is_found(const Bytes& changed) {
    stored() = changed;
    return !testing::succeeds_or(Code::corrupt, [&] { backups_.read(id); });
  }

  testing::TestRepository made_{GetParam()};
  Backups backups_{made_.repository, place};
  base::Compressor compressor_{base::Compressor::Effort::dense};
  base::Decompressor decompressor_;
};

INSTANTIATE_TEST_SUITE_P(Each, BackupsTest, ::testing::Bool(),
                         [](const auto& tested) { return tested.param ? "sealed" : "plain"; });

Shard some_shard(std::uint8_t pack) {
  PackId packed;
  packed.bytes.fill(pack);
  return {{{"base/1/1", 3 * page_bytes, 0600, "postgres:postgres", 7, 8, {{3, packed, {5}}}, {}},
           {"base/1/2", 0, 0600, "postgres:postgres", 9, 10, {}, {}}}};
}

TEST_P(BackupsTest, give_back_the_document) {
  EXPECT_FALSE(backups_.read(id));
  backups_.commit(id, document());
  EXPECT_EQ(backups_.read(id), document());
  EXPECT_EQ(backups_.all(), std::vector<BackupId>{id});
}

TEST_P(BackupsTest, are_documents_that_people_can_read_and_end_with_the_check) {
  backups_.commit(id, document());
  const std::string text(base::text(stored()));
  const json parsed = json::parse(text);
  EXPECT_EQ(parsed.at("zone"), "Europe/Berlin");
  const std::string end = "\n  \"check\": \"" + parsed.at("check").get<std::string>() + "\"\n}\n";
  EXPECT_TRUE(text.ends_with(end)) << text;
  EXPECT_EQ(parsed.at("check").get<std::string>(),
            made_.repository.mac("backup.json", text.substr(0, text.size() - end.size() - 1)));
}

TEST_P(BackupsTest, find_any_flipped_bit_of_the_document) {
  backups_.commit(id, document());
  const Bytes whole = stored();
  EXPECT_FALSE(is_found(whole));
  for (std::size_t bit = 0; bit < whole.size() * 8; ++bit) {
    Bytes changed = whole;
    changed[bit / 8] ^= static_cast<std::uint8_t>(1U << bit % 8);
    EXPECT_TRUE(is_found(changed)) << base::text(changed);
  }
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_TRUE(is_found({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)}));
  }
}

TEST_P(BackupsTest, find_any_other_damage_of_the_document) {
  backups_.commit(id, document());
  const Bytes whole = stored();
  base::testing::Random random(1);
  for (std::size_t i = 0; i < base::testing::fuzz_iterations(500); ++i) {
    const Bytes changed = base::testing::mutated(whole, random);
    EXPECT_EQ(is_found(changed), changed != whole);
  }
  EXPECT_TRUE(is_found({}));
  EXPECT_TRUE(is_found(base::copy(base::view("{}"))));
  EXPECT_TRUE(is_found(base::copy(base::view("null\n"))));
}

TEST_P(BackupsTest, do_not_parse_what_nobody_wrote) {
  // Deep enough to end any program that walks it by recursion.
  const std::string deep = std::string(1000000, '[') + std::string(1000000, ']');
  backups_.commit(id, document());
  const std::string whole(base::text(stored()));
  EXPECT_TRUE(is_found(base::copy(base::view("{\"id\": \"" + id.text + "\",\n  \"x\": " + deep +
                                             whole.substr(whole.rfind(",\n  \"check"))))));
}

TEST_P(BackupsTest, take_no_document_for_another_one) {
  const BackupId other{"20261124T083000Z-4f2a"};
  backups_.commit(id, document());
  made_.objects->all[backups_.object_name(other, "backup.json")] = stored();
  EXPECT_EQ(code_of([&] { backups_.read(other); }), Code::corrupt);
  EXPECT_EQ(code_of([&] { backups_.commit(other, document()); }), Code::internal);
}

TEST_P(BackupsTest, are_committed_once_INV_2) {
  backups_.commit(id, document());
  const Bytes whole = stored();
  json second = document();
  second["zone"] = "UTC";
  EXPECT_EQ(code_of([&] { backups_.commit(id, second); }), Code::conflict);
  EXPECT_EQ(stored(), whole);
}

TEST_P(BackupsTest, are_not_lost_over_text_that_is_not_utf_8) {
  json odd = document();
  odd["note"] = "caf\xe9";
  backups_.commit(id, odd);
  EXPECT_EQ(backups_.read(id)->at("note"), "caf\xef\xbf\xbd");
}

TEST_P(BackupsTest, that_were_begun_are_listed_but_not_committed_INV_1) {
  backups_.write_map(id, {});
  made_.objects->all[place.directory() + "/backups/something else/x"] = {};
  EXPECT_EQ(backups_.all(), std::vector<BackupId>{id});
  EXPECT_FALSE(backups_.read(id));
}

TEST_P(BackupsTest, give_back_shards_and_maps) {
  const ShardId shard = backups_.write_shard(some_shard(1), compressor_);
  const Shard back = backups_.read_shard(shard, decompressor_);
  EXPECT_EQ(encode(back).files, encode(some_shard(1)).files);
  EXPECT_EQ(backups_.read_shard_packs(shard, decompressor_),
            decode_packs(encode(some_shard(1)).packs));
  BackupMap map;
  map.shards = {{shard, "base/1/1", "base/1/2", 2, 3 * page_bytes}};
  map.attachments = {{"backup_label", Bytes(9 << 20, 'x')}};  // more than a frame holds
  backups_.write_map(id, map);
  const BackupMap map_back = backups_.read_map(id);
  EXPECT_EQ(map_back.shards, map.shards);
  EXPECT_EQ(map_back.attachments[0].content, map.attachments[0].content);
}

TEST_P(BackupsTest, miss_what_is_missing) {
  const ShardId shard{new_object_id()};
  EXPECT_EQ(code_of([&] { backups_.read_shard(shard, decompressor_); }), Code::corrupt);
  EXPECT_EQ(code_of([&] { backups_.read_shard_packs(shard, decompressor_); }), Code::corrupt);
  EXPECT_EQ(code_of([&] { backups_.read_map(id); }), Code::corrupt);
}

TEST_P(BackupsTest, take_no_shard_or_map_for_another_one) {
  const ShardId one = backups_.write_shard(some_shard(1), compressor_);
  const ShardId two = backups_.write_shard(some_shard(2), compressor_);
  const auto name = [](const ShardId& shard) {
    return place.directory() + "/maps/" + to_string(shard);
  };
  std::swap(made_.objects->at(name(one)), made_.objects->at(name(two)));
  EXPECT_EQ(code_of([&] { backups_.read_shard(one, decompressor_); }), Code::corrupt);
  EXPECT_EQ(code_of([&] { backups_.read_shard_packs(two, decompressor_); }), Code::corrupt);
  const BackupId other{"20261124T083000Z-4f2a"};
  backups_.write_map(id, {});
  made_.objects->all[backups_.object_name(other, "map")] =
      made_.objects->at(backups_.object_name(id, "map"));
  EXPECT_EQ(code_of([&] { backups_.read_map(other); }), Code::corrupt);
}

TEST_P(BackupsTest, write_a_lost_shard_again_under_its_name) {
  const ShardId shard = backups_.write_shard(some_shard(1), compressor_);
  EXPECT_EQ(code_of([&] { backups_.rewrite_shard(shard, some_shard(2)); }), Code::conflict);
  ASSERT_TRUE(made_.repository.store().remove(place.directory() + "/maps/" + to_string(shard)));
  backups_.rewrite_shard(shard, some_shard(2));
  EXPECT_EQ(encode(backups_.read_shard(shard, decompressor_)).packs, encode(some_shard(2)).packs);
}

TEST_P(BackupsTest, do_not_write_what_they_could_not_read) {
  BackupMap map;
  map.directories = {{"base", 040700, "postgres:postgres"}};  // with the type of the file
  EXPECT_THROW(backups_.write_map(id, map), base::Error);
  Shard shard = some_shard(1);
  std::swap(shard.files[0], shard.files[1]);
  EXPECT_EQ(code_of([&] { backups_.write_shard(shard, compressor_); }), Code::internal);
  EXPECT_TRUE(made_.objects->names_with("clusters/").empty());
}

// A key is derived from a container's id and its name, and its frames are numbered. So ids of
// containers that are ever begun must differ, also where an object is written anew.
TEST_P(BackupsTest, seal_nothing_twice_under_one_key_EK9) {
  std::multiset<Bytes> ids;
  made_.objects->after = [&](std::string_view call, const std::string& name) {
    if (call != "commit" || !name.starts_with("clusters/")) return;
    const Bytes& bytes = made_.objects->at(name);
    ids.insert(Bytes(bytes.begin() + 16, bytes.begin() + 32));
  };
  const WalArchive archive(made_.repository, place);
  for (int round = 0; round < 3; ++round) {
    const ShardId shard = backups_.write_shard(some_shard(1), compressor_);
    const std::string name = place.directory() + "/maps/" + to_string(shard);
    for (std::uint8_t again = 2; again < 4; ++again) {
      ASSERT_TRUE(made_.repository.store().remove(name));
      backups_.rewrite_shard(shard, some_shard(again));
    }
    backups_.write_map(id, {});
    archive.put("000000010000000000000001", Bytes(100, 1), 1);
    ASSERT_TRUE(made_.repository.store().remove(backups_.object_name(id, "map")));
    ASSERT_TRUE(made_.repository.store().remove(place.directory() +
                                                "/wal/00000001/000000010000000000000001"));
  }
  EXPECT_EQ(ids.size(), 15U);
  EXPECT_EQ(std::set<Bytes>(ids.begin(), ids.end()).size(), ids.size());
}

}  // namespace
}  // namespace holdfast::repository
