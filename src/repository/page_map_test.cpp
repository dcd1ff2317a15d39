#include "repository/page_map.h"

#include <gtest/gtest.h>

#include "repository/testing.h"

namespace holdfast::repository {
namespace {

using base::Bytes;
using base::Code;
using base::testing::Random;
using testing::code_of;
using testing::succeeds_or;

PackId pack(std::uint8_t number) {
  PackId id;
  id.bytes.fill(number);
  return id;
}

/// What a file's pages may have become after many backups: any mix of old packs, new ones and
/// zeros.
FileEntry random_file(Random& random, std::string path) {
  FileEntry file;
  file.path = std::move(path);
  file.size = random.chance(20) ? 0 : random.below(std::size_t{1} << (1 + random.below(33)));
  file.mode = static_cast<std::uint32_t>(random.below(010000));
  file.owner = random.chance(80) ? "postgres:postgres" : std::to_string(random.below(5)) + ":users";
  file.inode = random.next();
  file.birth = static_cast<std::int64_t>(random.next());
  for (std::uint64_t left = page_count(file.size); left > 0;) {
    Run run;
    run.pages = random.chance(30) ? left : 1 + random.below(std::min<std::uint64_t>(left, 100));
    if (random.chance(75)) run.pack = pack(static_cast<std::uint8_t>(random.below(6)));
    if (run.pack)
      run.slot.value = static_cast<std::uint32_t>(random.below(1 << (1 + random.below(30))));
    left -= run.pages;
    append_run(file.runs, run);
  }
  const std::uint64_t pages = page_count(file.size);
  if (pages < 100 && random.chance(50)) {
    for (std::uint64_t i = 0; i < pages; ++i) file.hashes.push_back(random.next());
  }
  return file;
}

Shard random_shard(Random& random) {
  Shard shard;
  for (std::size_t i = random.below(8); i > 0; --i) {
    std::string path =
        "base/" + std::to_string(random.below(3)) + "/" + std::to_string(random.below(3000));
    if (random.chance(20)) path += "_fsm";
    if (random.chance(20)) path += "/PG_17";
    shard.files.push_back(random_file(random, std::move(path)));
  }
  const auto path = [](const FileEntry& file) { return file.path; };
  std::ranges::sort(shard.files, comes_before, path);
  const auto [first, last] = std::ranges::unique(shard.files, {}, path);
  shard.files.erase(first, last);
  return shard;
}

/// What any decoded shard must be, whatever it was decoded from.
void expect_valid(const Shard& shard) {
  std::string_view previous;
  for (const FileEntry& file : shard.files) {
    EXPECT_TRUE(is_safe_path(file.path)) << file.path;
    EXPECT_TRUE(previous.empty() || comes_before(previous, file.path));
    previous = file.path;
    std::uint64_t covered = 0;
    for (const Run& run : file.runs) {
      EXPECT_GT(run.pages, 0U);
      covered += run.pages;
      EXPECT_LE(run.pack ? run.slot.value + run.pages : 0, 0xffffffffU);
    }
    EXPECT_EQ(covered, page_count(file.size));
  }
}

TEST(Slot, is_a_page_of_a_frame) {
  EXPECT_EQ(Slot{70}.frame(), 2U);
  EXPECT_EQ(Slot{70}.page(), 6U);
}

TEST(PageCount, counts_a_short_last_page) {
  EXPECT_EQ(page_count(0), 0U);
  EXPECT_EQ(page_count(1), 1U);
  EXPECT_EQ(page_count(8192), 1U);
  EXPECT_EQ(page_count(8193), 2U);
  EXPECT_EQ(page_count(~std::uint64_t{0}), std::uint64_t{1} << 51);
}

TEST(AppendRun, joins_only_what_continues) {
  std::vector<repository::Run> runs;
  append_run(runs, {0, pack(1), {5}});
  EXPECT_TRUE(runs.empty());
  append_run(runs, {2, pack(1), {5}});
  append_run(runs, {3, pack(1), {7}});
  ASSERT_EQ(runs.size(), 1U);
  EXPECT_EQ(runs[0].pages, 5U);
  append_run(runs, {1, pack(1), {11}});  // leaves a slot out
  append_run(runs, {1, pack(2), {12}});  // another pack
  append_run(runs, {1, {}, {}});         // zeros
  append_run(runs, {1, {}, {9}});        // more of them
  EXPECT_EQ(runs.size(), 4U);
  EXPECT_EQ(runs.back().pages, 2U);
}

TEST(SafePath, stays_below_where_it_is_put) {
  for (const char* path :
       {"a", "base/1/2", "pg_tblspc/16390/PG_17/x", "..a/b..", "...", "a b", "\xc3\xa4"}) {
    EXPECT_TRUE(is_safe_path(path)) << path;
  }
  for (const std::string& path :
       {std::string(), std::string("/"), std::string("/a"), std::string("a/"), std::string("a//b"),
        std::string("."), std::string("a/."), std::string(".."), std::string("../a"),
        std::string("a/../b"), std::string("a/.."), std::string("a\0b", 3)}) {
    EXPECT_FALSE(is_safe_path(path)) << path;
  }
}

TEST(PathOrder, is_that_of_a_walk_through_sorted_directories) {
  const std::vector<std::string_view> order = {"a",  "a/b", "a/b/c", "a/b!",
                                               "a!", "a-b", "ab",    "\xc3\xa4"};
  for (std::size_t i = 0; i < order.size(); ++i) {
    for (std::size_t j = 0; j < order.size(); ++j) {
      EXPECT_EQ(comes_before(order[i], order[j]), i < j) << order[i] << " " << order[j];
    }
  }
}

TEST(Shard, comes_back_as_it_was_whatever_its_files_went_through) {
  Random random(1);
  for (int i = 0; i < 300; ++i) {
    const Shard shard = random_shard(random);
    const EncodedShard encoded = encode(shard);
    const Shard back = decode_shard(encoded.packs, encoded.files);
    ASSERT_EQ(back.files.size(), shard.files.size());
    for (std::size_t file = 0; file < back.files.size(); ++file) {
      EXPECT_EQ(back.files[file], shard.files[file]) << shard.files[file].path;
    }
    expect_valid(back);
  }
}

TEST(Shard, names_each_pack_that_it_refers_to_once) {
  Shard shard;
  shard.files.push_back({"a",
                         4 * page_bytes,
                         0600,
                         "o:g",
                         1,
                         2,
                         {{1, pack(3), {0}}, {1, pack(1), {0}}, {1, {}, {}}, {1, pack(3), {9}}},
                         {}});
  EXPECT_EQ(decode_packs(encode(shard).packs), (std::vector<PackUse>{{pack(1), 1}, {pack(3), 2}}));
}

TEST(Shard, is_refused_in_every_truncation) {
  Random random(2);
  Shard shard;
  while (shard.files.size() < 4) shard = random_shard(random);
  const auto [packs, files] = encode(shard);
  for (std::size_t size = 0; size < files.size(); ++size) {
    EXPECT_EQ(code_of([&] { decode_shard(packs, base::View(files).first(size)); }), Code::corrupt);
  }
  for (std::size_t size = 0; size < packs.size(); ++size) {
    EXPECT_EQ(code_of([&] { decode_shard(base::View(packs).first(size), files); }), Code::corrupt);
    EXPECT_EQ(code_of([&] { decode_packs(base::View(packs).first(size)); }), Code::corrupt);
  }
}

TEST(Shard, decodes_damage_to_nothing_or_to_something_valid) {
  Random random(3);
  for (std::size_t i = 0; i < base::testing::fuzz_iterations(3000); ++i) {
    const auto [packs, files] = encode(random_shard(random));
    succeeds_or(Code::corrupt, [&, wrong = base::testing::mutated(files, random)] {
      expect_valid(decode_shard(packs, wrong));
    });
    succeeds_or(Code::corrupt, [&, wrong = base::testing::mutated(packs, random)] {
      expect_valid(decode_shard(wrong, files));
    });
  }
}

TEST(Shard, decodes_any_bytes_to_nothing_or_to_something_valid) {
  Random random(4);
  for (std::size_t i = 0; i < base::testing::fuzz_iterations(3000); ++i) {
    const Bytes packs = random.bytes(random.below(40));
    const Bytes files = random.bytes(random.below(60));
    succeeds_or(Code::corrupt, [&] { expect_valid(decode_shard(packs, files)); });
  }
}

TEST(Shard, is_refused_if_its_list_of_packs_counts_other_pages) {
  Shard shard;
  shard.files.push_back({"a", 2 * page_bytes, 0600, "o:g", 1, 2, {{2, pack(1), {0}}}, {}});
  const auto [packs, files] = encode(shard);
  Bytes wrong = packs;
  wrong.back() = 1;
  EXPECT_EQ(code_of([&] { decode_shard(wrong, files); }), Code::corrupt);
}

using Runs = std::vector<holdfast::repository::Run>;

TEST(PartOf, gives_the_runs_of_any_range_of_pages) {
  const Runs runs{{4, pack(1), {10}}, {2, {}, {}}, {3, pack(2), {0}}};
  EXPECT_EQ(part_of(runs, 0, 9), runs);
  EXPECT_EQ(part_of(runs, 3, 2), (Runs{{1, pack(1), {13}}, {1, {}, {}}}));
  EXPECT_EQ(part_of(runs, 5, 3), (Runs{{1, {}, {}}, {2, pack(2), {0}}}));
  EXPECT_EQ(part_of(runs, 8, 1), (Runs{{1, pack(2), {2}}}));
  EXPECT_TRUE(part_of(runs, 9, 0).empty());
}

FileEntry simple_file(std::string path) {
  return {std::move(path), page_bytes, 0600, "o:g", 1, 2, {{1, pack(1), {0}}}, {}};
}

TEST(Shard, is_not_written_if_it_could_not_be_read) {
  const auto refused = [](const std::vector<FileEntry>& files) {
    return code_of([&] { encode(Shard{files}); }) == Code::internal;
  };
  const FileEntry good = simple_file("b");
  encode(Shard{{simple_file("a"), good}});
  EXPECT_TRUE(refused({good, simple_file("a")}));
  EXPECT_TRUE(refused({good, good}));
  EXPECT_TRUE(refused({simple_file("../b")}));
  EXPECT_TRUE(refused({simple_file("")}));
  FileEntry wrong = good;
  wrong.mode = 0100600;  // the type of the file is no permission
  EXPECT_TRUE(refused({wrong}));
  wrong = good;
  wrong.size = page_bytes + 1;
  EXPECT_TRUE(refused({wrong}));
  wrong = good;
  wrong.runs.push_back({1, {}, {}});
  EXPECT_TRUE(refused({wrong}));
  wrong = good;
  wrong.runs = {{0, pack(1), {0}}, {1, pack(1), {0}}};
  EXPECT_TRUE(refused({wrong}));
  wrong = good;
  wrong.runs[0].slot.value = 0xffffffff;
  EXPECT_TRUE(refused({wrong}));
  wrong = good;
  wrong.hashes = {1, 2};
  EXPECT_TRUE(refused({wrong}));
}

TEST(DecodePacks, wants_them_in_order_and_once) {
  const auto list = [](std::uint8_t first, std::uint8_t second) {
    base::ByteWriter out;
    out.varint(2);
    for (const std::uint8_t number : {first, second}) {
      out.raw(pack(number).bytes);
      out.varint(1);
    }
    return out.take();
  };
  EXPECT_EQ(decode_packs(list(1, 2)).size(), 2U);
  EXPECT_EQ(code_of([&] { decode_packs(list(2, 1)); }), Code::corrupt);
  EXPECT_EQ(code_of([&] { decode_packs(list(1, 1)); }), Code::corrupt);
}

BackupMap some_map() {
  BackupMap map;
  map.directories = {{"base", 0700, "postgres:postgres"}, {"base/1", 0700, "postgres:postgres"}};
  map.links = {{"pg_tblspc/16390", "/srv/space"}};
  map.attachments = {{"backup_label", base::copy(base::view("START WAL LOCATION: 0/28\n"))},
                     {"tablespace_map", {}}};
  map.shards = {{ShardId{new_object_id()}, "base/1/1", "base/1/9", 5, 100000},
                {ShardId{new_object_id()}, "global/1", "global/1", 1, 0}};
  return map;
}

TEST(BackupMap, comes_back_as_it_was) {
  const BackupMap map = some_map();
  const BackupMap back = decode_backup_map(encode(map));
  EXPECT_EQ(encode(back), encode(map));
  EXPECT_EQ(back.shards, map.shards);
  EXPECT_EQ(back.links[0].location, "/srv/space");
  EXPECT_EQ(base::text(back.attachment("backup_label")->content), "START WAL LOCATION: 0/28\n");
  EXPECT_EQ(back.attachment("nothing"), nullptr);
  EXPECT_TRUE(decode_backup_map(encode(BackupMap{})).shards.empty());
}

TEST(BackupMap, is_refused_in_every_truncation) {
  const Bytes whole = encode(some_map());
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_EQ(code_of([&] { decode_backup_map(base::View(whole).first(size)); }), Code::corrupt);
  }
}

TEST(BackupMap, leads_nowhere_else) {
  const auto refused = [](auto&& change) {
    BackupMap map = some_map();
    change(map);
    return code_of([&] { decode_backup_map(encode(map)); }) == Code::corrupt;
  };
  EXPECT_TRUE(refused([](BackupMap& map) { map.directories[0].path = "/etc"; }));
  EXPECT_TRUE(refused([](BackupMap& map) { map.links[0].path = "../x"; }));
  EXPECT_TRUE(refused([](BackupMap& map) { map.attachments[0].name = "a/../../x"; }));
  EXPECT_TRUE(refused([](BackupMap& map) { std::swap(map.shards[0], map.shards[1]); }));
  EXPECT_TRUE(refused([](BackupMap& map) { map.shards[1].first_path = "base/1/9"; }));
}

TEST(BackupMap, decodes_damage_to_nothing_or_to_something_valid) {
  Random random(5);
  const Bytes whole = encode(some_map());
  for (std::size_t i = 0; i < base::testing::fuzz_iterations(3000); ++i) {
    const Bytes wrong =
        i % 2 == 0 ? base::testing::mutated(whole, random) : random.bytes(random.below(80));
    succeeds_or(Code::corrupt, [&] {
      const BackupMap map = decode_backup_map(wrong);
      EXPECT_EQ(encode(map), wrong);
      for (const auto& each : map.directories) EXPECT_TRUE(is_safe_path(each.path));
      for (const auto& each : map.links) EXPECT_TRUE(is_safe_path(each.path));
      for (const auto& each : map.attachments) EXPECT_TRUE(is_safe_path(each.name));
    });
  }
}

}  // namespace
}  // namespace holdfast::repository
