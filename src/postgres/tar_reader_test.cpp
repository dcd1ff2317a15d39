#include "postgres/tar_reader.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/testing.h"
#include "postgres/tar_builder.h"

namespace holdfast::postgres {
namespace {

using base::Bytes;
using base::View;
using base::testing::Random;
using testing::append;
using testing::Noted;
using testing::tar_file;
using testing::tar_header;

Bytes some_archive() {
  Bytes bytes = tar_header("./pg_wal/archive_status/", 0, '5');
  append(bytes, tar_file("PG_VERSION", "15\n"));
  append(bytes, tar_file("base/1/empty", ""));
  append(bytes, tar_file("base/1/block", std::string(512, 'b')));
  append(bytes, tar_file("global/pg_control", std::string(8192, 'c')));
  return bytes;
}

/// Reads an archive in pieces of `piece` bytes.
Noted read(View bytes, std::size_t piece) {
  Noted noted;
  TarReader reader(noted);
  for (std::size_t at = 0; at < bytes.size(); at += piece) {
    reader.feed(bytes.subspan(at, std::min(piece, bytes.size() - at)));
  }
  reader.finish();
  return noted;
}

base::Code code_of(View bytes) {
  try {
    read(bytes, bytes.size());
  } catch (const base::Error& error) {
    return error.code();
  }
  return base::Code::internal;
}

TEST(TarReader, gives_files_and_directories_however_the_bytes_come) {
  Bytes bytes = some_archive();
  append(bytes, Bytes(1024));
  for (const std::size_t piece : {1UL, 7UL, 511UL, 512UL, 513UL, 100000UL}) {
    const Noted noted = read(bytes, piece);
    EXPECT_EQ(noted.directories.at("pg_wal/archive_status"), "700 postgres:postgres");
    EXPECT_EQ(noted.files.size(), 4U);
    EXPECT_EQ(noted.files.at("PG_VERSION"), "15\n");
    EXPECT_EQ(noted.files.at("base/1/empty"), "");
    EXPECT_EQ(noted.files.at("base/1/block"), std::string(512, 'b'));
    EXPECT_EQ(noted.files.at("global/pg_control"), std::string(8192, 'c'));
  }
}

TEST(TarReader, an_archive_may_lack_the_zeros_at_its_end) {
  EXPECT_EQ(read(some_archive(), 512).files.size(), 4U);
}

TEST(TarReader, BK4_one_that_ends_in_a_member_is_refused) {
  const Bytes bytes = some_archive();
  std::size_t whole = 0;
  for (std::size_t size = 0; size <= bytes.size(); ++size) {
    Noted noted;
    TarReader reader(noted);
    reader.feed(View(bytes).first(size));
    try {
      reader.finish();
      ++whole;
    } catch (const base::Error&) {
    }
  }
  EXPECT_EQ(whole, 6U) << "only where a member begins, or the archive ends";
}

TEST(TarReader, reads_sizes_of_more_than_eight_gigabytes) {
  Noted noted;
  TarReader reader(noted);
  reader.feed(tar_header("large", (std::uint64_t{9} << 30) + 5));
  EXPECT_EQ(noted.sizes.at("large"), (std::uint64_t{9} << 30) + 5);
}

TEST(TarReader, refuses_paths_that_lead_out) {
  for (const char* path : {"../x", "a/../b", "/etc/passwd", "a//b", ".", "", "a/.."}) {
    EXPECT_EQ(code_of(tar_file(path, "x")), base::Code::corrupt) << path;
  }
}

TEST(TarReader, refuses_links_other_formats_and_what_follows_the_end) {
  EXPECT_EQ(code_of(tar_header("link", 0, '2')), base::Code::corrupt);
  EXPECT_EQ(code_of(tar_header("fifo", 0, '6')), base::Code::corrupt);
  EXPECT_EQ(code_of(tar_header("directory/", 7, '5')), base::Code::corrupt);
  Bytes old = tar_file("old", "x");
  old[257] = 'x';
  testing::put_checksum(old);
  EXPECT_EQ(code_of(old), base::Code::corrupt);
  Bytes more(1024);
  append(more, tar_file("more", "x"));
  EXPECT_EQ(code_of(more), base::Code::corrupt);
}

TEST(TarReader, a_flipped_bit_of_a_header_is_refused_or_changes_nothing) {
  const Bytes good = tar_file("name", "content");
  std::size_t refused = 0;
  for (std::size_t bit = 0; bit < std::size_t{512} * 8; ++bit) {
    Bytes bytes = good;
    bytes[bit / 8] ^= static_cast<std::uint8_t>(1U << bit % 8);
    if (code_of(bytes) == base::Code::corrupt) {
      ++refused;
      continue;
    }
    // A space for a leading zero of the checksum.
    EXPECT_TRUE(bit / 8 >= 148 && bit / 8 < 156) << "bit " << bit;
    EXPECT_EQ(read(bytes, 512).files.at("name"), "content");
  }
  EXPECT_GT(refused, 4080U);
}

TEST(TarReader, survives_anything) {
  Random random(1);
  for (std::size_t i = base::testing::fuzz_iterations(20000); i > 0; --i) {
    Bytes bytes = base::testing::mutated(some_archive(), random);
    // Half of them pass the checksum, to get further.
    if (bytes.size() >= 512 && random.chance(50)) {
      Bytes header(bytes.begin(), bytes.begin() + 512);
      testing::put_checksum(header);
      std::ranges::copy(header, bytes.begin());
    }
    try {
      const Noted noted = read(bytes, 1 + random.below(1000));
      for (const auto& [path, content] : noted.files) EXPECT_TRUE(is_plain_path(path));
    } catch (const base::Error& error) {
      EXPECT_EQ(error.code(), base::Code::corrupt);
    }
  }
}

}  // namespace
}  // namespace holdfast::postgres
