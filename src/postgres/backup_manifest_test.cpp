#include "postgres/backup_manifest.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/seal.h"
#include "base/testing.h"

namespace holdfast::postgres {
namespace {

using base::testing::Random;

/// As PostgreSQL 17 writes it; before, there was no system identifier.
std::string manifest(bool old = false) {
  std::string text = old ? "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n"
                         : "{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n"
                           "\"System-Identifier\": 7300000000000000001,\n";
  text +=
      "\"Files\": [\n"
      "{ \"Path\": \"backup_label\", \"Size\": 226, \"Last-Modified\": \"2026-11-23 11:50:30 "
      "GMT\", \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"c4e2a1f0\" },\n"
      "{ \"Path\": \"a \\\"quoted\\\" \\u0007 name\", \"Size\": 0, \"Last-Modified\": \"2026-11-23 "
      "11:50:30 GMT\", \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"00000000\" },\n"
      "{ \"Encoded-Path\": \"fffe206e6f742055\", \"Size\": 5000000000, \"Last-Modified\": "
      "\"2026-11-23 11:50:30 GMT\", \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": "
      "\"01020304\" }\n"
      "],\n"
      "\"WAL-Ranges\": [\n"
      "{ \"Timeline\": 1, \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"0/2000100\" }\n"
      "],\n";
  return text + "\"Manifest-Checksum\": \"" + base::to_hex(base::sha256(base::view(text))) +
         "\"}\n";
}

/// All but the checksum may be changed: it is made right.
std::string changed(std::string text, const std::string& from, const std::string& to) {
  text.erase(text.find("\"Manifest-Checksum\""));
  text.replace(text.find(from), from.size(), to);
  return text + "\"Manifest-Checksum\": \"" + base::to_hex(base::sha256(base::view(text))) +
         "\"}\n";
}

std::vector<ManifestFile> read(std::string_view text, std::size_t piece,
                               ManifestReader::Summary* summary = nullptr) {
  std::vector<ManifestFile> files;
  ManifestReader reader([&](const ManifestFile& file) { files.push_back(file); });
  for (std::size_t at = 0; at < text.size(); at += piece) {
    reader.feed(base::view(text.substr(at, piece)));
  }
  const ManifestReader::Summary& found = reader.finish();
  if (summary != nullptr) *summary = found;
  return files;
}

TEST(BackupManifest, is_read_however_its_bytes_come) {
  for (const std::size_t piece : {1UL, 3UL, 100UL, 100000UL}) {
    ManifestReader::Summary summary;
    const auto files = read(manifest(), piece, &summary);
    EXPECT_EQ(summary.version, 2);
    EXPECT_EQ(summary.system, SystemId{7300000000000000001});
    ASSERT_EQ(summary.wal.size(), 1U);
    EXPECT_EQ(summary.wal[0].timeline, Timeline{1});
    EXPECT_EQ(to_string(summary.wal[0].start), "0/2000028");
    EXPECT_EQ(to_string(summary.wal[0].end), "0/2000100");
    ASSERT_EQ(files.size(), 3U);
    EXPECT_EQ(files[0].path, "backup_label");
    EXPECT_EQ(files[0].size, 226U);
    EXPECT_EQ(files[0].crc, 0xf0a1e2c4U);
  }
}

TEST(BackupManifest, B21_gives_paths_as_bytes) {
  const auto files = read(manifest(), 50);
  EXPECT_EQ(files[1].path, "a \"quoted\" \a name");
  EXPECT_EQ(files[2].path, "\xff\xfe not U");
}

TEST(BackupManifest, of_before_version_17_names_no_system) {
  ManifestReader::Summary summary;
  EXPECT_EQ(read(manifest(true), 1000, &summary).size(), 3U);
  EXPECT_EQ(summary.version, 1);
  EXPECT_EQ(summary.system, std::nullopt);
}

TEST(BackupManifest, BK4_a_part_of_one_is_refused) {
  const std::string whole = manifest();
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_THROW(read(whole.substr(0, size), 1000), base::Error) << size;
  }
  EXPECT_THROW(read(whole + "x", 1000), base::Error);
  EXPECT_THROW(read(whole + "\n", 1000), base::Error);
}

TEST(BackupManifest, every_changed_byte_is_found) {
  const std::string whole = manifest();
  for (std::size_t at = 0; at < whole.size(); ++at) {
    std::string bytes = whole;
    bytes[at] = static_cast<char>(bytes[at] ^ 1);
    EXPECT_THROW(read(bytes, 1000), base::Error) << at;
  }
}

TEST(BackupManifest, refuses_versions_and_checksums_that_it_does_not_know) {
  const auto code = [](const std::string& text) {
    try {
      read(text, 1000);
    } catch (const base::Error& error) {
      return error.code();
    }
    return base::Code::internal;
  };
  EXPECT_EQ(code(changed(manifest(), "Version\": 2", "Version\": 3")), base::Code::unsupported);
  EXPECT_EQ(code(changed(manifest(), "\"CRC32C\"", "\"NONE\"")), base::Code::unsupported);
  EXPECT_EQ(code(changed(manifest(), "c4e2a1f0", "c4e2a1")), base::Code::corrupt);
  EXPECT_EQ(code(changed(manifest(), "0/2000028", "somewhere")), base::Code::corrupt);
  EXPECT_EQ(code(changed(manifest(), "\"Size\": 226", "\"Size\": \"x\"")), base::Code::corrupt);
}

TEST(BackupManifest, survives_anything) {
  Random random(2);
  const std::string whole = manifest();
  for (std::size_t i = base::testing::fuzz_iterations(5000); i > 0; --i) {
    const base::Bytes bytes = base::testing::mutated(base::view(whole), random);
    if (base::text(bytes) == whole) continue;
    EXPECT_THROW(read(base::text(bytes), 1 + random.below(300)), base::Error);
  }
}

TEST(BackupManifest, that_a_server_is_given_names_files_and_wal_under_its_checksum) {
  for (const std::size_t count : {0UL, 1UL, 5000UL}) {
    std::string text;
    std::size_t pieces = 0;
    ManifestWriter writer(SystemId{7300000000000000001}, [&](base::View bytes) {
      text += base::text(bytes);
      ++pieces;
    });
    for (std::size_t i = 0; i < count; ++i) writer.add(fmt::format("base/5/{}", 16384 + i), 8192);
    writer.finish({{3}, {0x2000028}, {0x100000100}});
    EXPECT_EQ(pieces > 1, count > 1000) << "it must not be held as a whole";
    const auto document = nlohmann::json::parse(text);
    EXPECT_EQ(document.at("PostgreSQL-Backup-Manifest-Version"), 2);
    EXPECT_EQ(document.at("System-Identifier"), 7300000000000000001U);
    ASSERT_EQ(document.at("Files").size(), count);
    if (count > 0) {
      EXPECT_EQ(document.at("Files").back().at("Path"), fmt::format("base/5/{}", 16383 + count));
      EXPECT_EQ(document.at("Files").back().at("Size"), 8192);
    }
    EXPECT_EQ(document.at("WAL-Ranges"),
              nlohmann::json::parse(
                  R"([{"Timeline": 3, "Start-LSN": "0/2000028", "End-LSN": "1/100"}])"));
    // The server looks for the last line, and hashes all before it.
    const std::size_t last = text.rfind('\n', text.size() - 2) + 1;
    EXPECT_TRUE(text.ends_with('\n'));
    EXPECT_EQ(document.at("Manifest-Checksum"),
              base::to_hex(base::sha256(base::view(text.substr(0, last)))));
  }
}

}  // namespace
}  // namespace holdfast::postgres
