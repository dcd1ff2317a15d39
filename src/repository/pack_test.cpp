#include "repository/pack.h"

#include <gtest/gtest.h>

#include <set>

#include "base/workers.h"
#include "repository/testing.h"

namespace holdfast::repository {
namespace {

using base::Bytes;
using base::Code;
using testing::code_of;

const std::string directory = "clusters/main/1";

PackedFile file(std::string path) {
  return {std::move(path), 5 * page_bytes, 0600, "postgres:postgres"};
}

class Pack : public ::testing::TestWithParam<bool> {
 protected:
  Pack() {
    if (GetParam()) protection_.key = base::Secret(Bytes(32, 0x42));
  }
  PackWriter writer() {
    PackWriter::Options options;
    options.backup = "20261123T083000Z-4f2a";
    options.stamp = 77;
    return {store_, directory, protection_, hash_, options};
  }
  PackReader reader(const PackId& id) { return {store_, directory, protection_, id}; }
  Bytes page_at(const PackWriter::Place& place) {
    PackReader from = reader(place.pack);
    base::Decompressor decompressor;
    from.fetch(place.slot.frame(), 1);
    Bytes frame(from.raw_size(place.slot.frame()));
    from.decode(place.slot.frame(), decompressor, frame);
    const auto at = frame.begin() + static_cast<std::ptrdiff_t>(place.slot.page() * page_bytes);
    return {at, at + page_bytes};
  }

  Protection protection_;
  base::KeyedHash hash_{base::Secret(Bytes(32, 1))};
  std::shared_ptr<testing::Objects> objects_ = std::make_shared<testing::Objects>();
  testing::MemoryStore store_{objects_};
  base::testing::Random random_{1};
};

INSTANTIATE_TEST_SUITE_P(Each, Pack, ::testing::Bool(),
                         [](const auto& tested) { return tested.param ? "sealed" : "plain"; });

TEST_P(Pack, gives_back_pages_of_many_files_where_it_said_they_would_be) {
  PackWriter into = writer();
  std::vector<std::pair<PackWriter::Place, Bytes>> pages;
  for (int number = 0; number < 5; ++number) {
    into.begin_file(file("base/1/" + std::to_string(number)));
    for (std::uint64_t page = 0; page < 15; ++page) {
      const Bytes bytes = random_.bytes(page_bytes);
      pages.emplace_back(into.add(bytes, page), bytes);
    }
  }
  into.finish();
  ASSERT_EQ(into.packs().size(), 1U);
  EXPECT_EQ(reader(into.packs()[0].id).data_frames(), 3U);
  EXPECT_EQ(into.stored_bytes(), objects_->all.begin()->second.size());
  for (std::size_t i = 0; i < pages.size(); ++i) {
    EXPECT_EQ(pages[i].first.slot.value, i);
    EXPECT_EQ(page_at(pages[i].first), pages[i].second);
  }
}

TEST_P(Pack, fills_up_a_short_page_with_zeros) {
  PackWriter into = writer();
  into.begin_file(file("a"));
  const auto place = into.add(Bytes(100, 9), 0);
  into.finish();
  Bytes expected(page_bytes);
  std::fill_n(expected.begin(), 100, std::uint8_t{9});
  EXPECT_EQ(page_at(place), expected);
}

TEST_P(Pack, takes_no_page_that_is_too_large) {
  PackWriter into = writer();
  into.begin_file(file("a"));
  EXPECT_EQ(code_of([&] { into.add(Bytes(page_bytes + 1), 0); }), Code::internal);
}

TEST_P(Pack, describes_its_pages) {
  PackWriter into = writer();
  std::vector<Bytes> pages;
  const auto add = [&](std::uint64_t number) {
    pages.push_back(random_.bytes(page_bytes));
    into.add(pages.back(), number);
  };
  into.begin_file(file("a"));
  for (const std::uint64_t number : {0U, 1U, 2U, 7U, 8U}) add(number);
  into.begin_file(file("without stored pages"));
  into.begin_file(file("b"));
  for (const std::uint64_t number : {9U, 3U}) add(number);
  into.finish();
  base::Decompressor decompressor;
  const PackDescription description = reader(into.packs()[0].id).description(decompressor);
  EXPECT_EQ(description.backup, "20261123T083000Z-4f2a");
  EXPECT_EQ(description.stamp, 77U);
  ASSERT_EQ(description.files.size(), 2U);
  EXPECT_EQ(description.files[0].path, "a");
  EXPECT_EQ(description.files[1].path, "b");
  EXPECT_EQ(description.files[1].size, 5 * page_bytes);
  EXPECT_EQ(description.files[1].owner, "postgres:postgres");
  const std::vector<std::array<std::uint64_t, 3>> expected = {
      {0, 0, 3}, {0, 7, 2}, {1, 9, 1}, {1, 3, 1}};
  ASSERT_EQ(description.extents.size(), expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const Extent& extent = description.extents[i];
    EXPECT_EQ((std::array<std::uint64_t, 3>{extent.file, extent.first_page, extent.pages}),
              expected[i]);
  }
  ASSERT_EQ(description.hashes.size(), pages.size());
  for (std::size_t i = 0; i < pages.size(); ++i) {
    EXPECT_EQ(description.hashes[i], hash_.hash64(pages[i]));
  }
}

TEST_P(Pack, describes_also_files_that_gave_it_no_pages) {
  PackId elsewhere{new_object_id()};
  PackWriter into = writer();
  into.begin_file(file("a"));
  into.add(random_.bytes(page_bytes), 0);
  into.note({file("b"), {{4, elsewhere, {9}}, {1, {}, {}}}});
  into.finish();
  base::Decompressor decompressor;
  const PackDescription description = reader(into.packs()[0].id).description(decompressor);
  ASSERT_EQ(description.others.size(), 1U);
  const OtherFile& other = description.others[0];
  EXPECT_EQ(other.file.path, "b");
  ASSERT_EQ(other.runs.size(), 2U);
  EXPECT_EQ(other.runs[0].pages, 4U);
  EXPECT_EQ(*other.runs[0].pack, elsewhere);
  EXPECT_EQ(other.runs[0].slot, Slot{9});
  EXPECT_FALSE(other.runs[1].pack);
}

TEST_P(Pack, refuses_a_description_of_runs_that_do_not_cover_a_file) {
  const PackId elsewhere{new_object_id()};
  const std::vector<std::vector<repository::Run>> wrong = {{},
                                                           {{4, elsewhere, {0}}},
                                                           {{6, elsewhere, {0}}},
                                                           {{5, {}, {}}, {1, {}, {}}},
                                                           {{0, {}, {}}, {5, {}, {}}}};
  for (const auto& runs : wrong) {
    PackWriter into = writer();
    into.begin_file(file("a"));
    into.add(Bytes(page_bytes, 1), 0);
    into.note({file("b"), runs});
    into.finish();
    base::Decompressor decompressor;
    EXPECT_EQ(code_of([&] { reader(into.packs()[0].id).description(decompressor); }),
              Code::corrupt);
  }
}

TEST_P(Pack, rolls_over_and_describes_the_file_again) {
  PackWriter into = writer();
  const Bytes some = random_.bytes(frame_bytes);  // a frame of it does not compress
  into.begin_file(file("large"));
  const std::uint64_t pages = pack_target_bytes / page_bytes + 40;
  std::vector<repository::Run> runs;
  for (std::uint64_t number = 0; number < pages; ++number) {
    const std::size_t at = number % pages_per_frame * page_bytes;
    const auto place = into.add(base::View(some).subspan(at, page_bytes), number);
    append_run(runs, {1, place.pack, place.slot});
  }
  into.finish();
  ASSERT_EQ(into.packs().size(), 2U);
  EXPECT_GE(into.packs()[0].bytes, pack_target_bytes);
  EXPECT_LT(into.packs()[0].bytes, pack_target_bytes + (1 << 20));
  ASSERT_EQ(runs.size(), 2U);
  std::uint64_t first_page = 0;
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(*runs[i].pack, into.packs()[i].id);
    base::Decompressor decompressor;
    const PackDescription description = reader(*runs[i].pack).description(decompressor);
    ASSERT_EQ(description.files.size(), 1U);
    EXPECT_EQ(description.files[0].path, "large");
    ASSERT_EQ(description.extents.size(), 1U);
    EXPECT_EQ(description.extents[0].first_page, first_page);
    EXPECT_EQ(description.extents[0].pages, runs[i].pages);
    first_page += runs[i].pages;
  }
  EXPECT_EQ(first_page, pages);
}

TEST_P(Pack, ids_are_never_used_twice_EK9) {
  std::mutex mutex;
  std::multiset<PackId> seen;
  base::run_workers(4, [&](unsigned, const std::stop_token&) {
    for (int attempt = 0; attempt < 5; ++attempt) {
      PackWriter into = writer();
      into.begin_file(file("a"));
      std::vector<PackId> used;
      // Two packs of one writer, and a third one that is begun and given up.
      for (int round = 0; round < 3; ++round) {
        used.push_back(into.add(Bytes(page_bytes, 1), 0).pack);
        if (round < 2) into.finish();
      }
      const std::lock_guard lock(mutex);
      seen.insert(used.begin(), used.end());
    }
  });
  EXPECT_EQ(seen.size(), 60U);
  EXPECT_EQ(std::set<PackId>(seen.begin(), seen.end()).size(), 60U);
  EXPECT_EQ(objects_->all.size(), 40U);
}

TEST_P(Pack, without_pages_is_not_written) {
  PackWriter into = writer();
  into.begin_file(file("a"));
  into.finish();
  EXPECT_TRUE(into.packs().empty());
  EXPECT_TRUE(objects_->all.empty());
}

TEST_P(Pack, that_is_missing_is_corruption_and_no_absence) {
  EXPECT_EQ(code_of([&] { reader(PackId{new_object_id()}); }), Code::corrupt);
}

TEST_P(Pack, gives_no_frame_that_holds_no_pages) {
  PackWriter into = writer();
  into.begin_file(file("a"));
  into.add(Bytes(page_bytes, 1), 0);
  into.finish();
  PackReader from = reader(into.packs()[0].id);
  from.fetch(0, 1);
  EXPECT_EQ(code_of([&] { from.fetch(1, 1); }), Code::corrupt);
  EXPECT_EQ(code_of([&] { from.fetch(0, 2); }), Code::corrupt);
  EXPECT_EQ(code_of([&] { from.fetch(0xffffffff, 1); }), Code::corrupt);
}

/// A pack whose last frames are `tail`, after one frame of one page.
PackId write_with_tail(store::ObjectStore& store, const Protection& protection,
                       const std::vector<Bytes>& tail) {
  const PackId id{new_object_id()};
  base::Compressor compressor(base::Compressor::Effort::fast);
  ContainerWriter container(store, directory, pack_name(id), Kind::pack, id, protection);
  container.add(Bytes(page_bytes, 1), compressor);
  for (const Bytes& frame : tail) container.add(frame, compressor);
  EXPECT_TRUE(container.commit());
  return id;
}

TEST_P(Pack, refuses_a_description_that_does_not_fit) {
  PackWriter into = writer();
  into.begin_file(file("a"));
  into.add(Bytes(page_bytes, 1), 0);
  into.finish();
  base::Decompressor decompressor;
  auto container = ContainerReader::open(store_, directory, pack_name(into.packs()[0].id),
                                         Kind::pack, protection_);
  Bytes right;
  container->read(1, decompressor, right);
  const Bytes counts = {1, 0, 0, 0};
  const auto describe = [&](const std::vector<Bytes>& tail) {
    reader(write_with_tail(store_, protection_, tail)).description(decompressor);
  };
  describe({right, counts});
  EXPECT_EQ(code_of([&] { describe({}); }), Code::corrupt);
  EXPECT_EQ(code_of([&] { describe({counts}); }), Code::corrupt);
  EXPECT_EQ(code_of([&] { describe({right, Bytes{0, 0, 0, 0}}); }), Code::corrupt);
  EXPECT_EQ(code_of([&] { describe({right, Bytes{3, 0, 0, 0}}); }), Code::corrupt);
  EXPECT_EQ(code_of([&] { describe({right, Bytes{2, 0, 0, 0}}); }), Code::corrupt);
  EXPECT_EQ(code_of([&] { describe({right, right, counts}); }), Code::corrupt);
  EXPECT_EQ(code_of([&] {
              describe({Bytes(page_bytes, 1), right, Bytes{2, 0, 0, 0}});
            }),
            Code::corrupt);
  for (std::size_t i = 0; i < base::testing::fuzz_iterations(500); ++i) {
    const Bytes wrong = base::testing::mutated(right, random_);
    testing::succeeds_or(Code::corrupt, [&] { describe({wrong, counts}); });
  }
}

}  // namespace
}  // namespace holdfast::repository
