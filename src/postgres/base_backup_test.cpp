// The parts of a base backup, made by hand: what a server of version 13 or 14 sends (none is
// installed for the integration tests), and what must never pass for a backup.

#include "postgres/base_backup.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/seal.h"
#include "base/testing.h"
#include "postgres/crc32c.h"
#include "postgres/tar_builder.h"

namespace holdfast::postgres {
namespace {

using base::Bytes;
using base::View;
using base::testing::code_of;
using base::testing::Random;
using testing::append;
using testing::Noted;
using testing::tar_file;
using testing::tar_header;

constexpr SystemId our_system{7300000000000000001};
const BackupBegin begun{{0x2000028}, {1}, {{16390, "/space"}, {16391, "/space2"}}, 0};
const BackupEnd ended{{0x2000100}, {1}, false};

/// The path that both tablespaces and the data directory have (TRAPS BK10).
const std::string twin = "PG_15_202209061/5/16400";
const std::map<std::string, std::string> content = {
    {"backup_label", "START WAL LOCATION"},
    {"base/5/16384", std::string(8192, 'r')},
    {"PG_15_202209061/5/16400", "of the data directory"},
    {"global/pg_control", std::string(8192, 'c')},
    {"pg_tblspc/16390/PG_15_202209061/5/16400", "of space"},
    {"pg_tblspc/16391/PG_15_202209061/5/16400", "of space2"}};

std::string manifest_of(const std::map<std::string, std::string>& files) {
  std::string text = fmt::format(
      "{{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": {},\n\"Files\": [",
      our_system.value);
  std::string_view comma = "\n";
  for (const auto& [path, bytes] : files) {
    const std::uint32_t crc = crc32c(base::view(bytes));
    std::array<std::uint8_t, 4> stored{};
    base::store(stored.data(), crc);
    text += fmt::format(
        "{}{{ \"Path\": \"{}\", \"Size\": {}, \"Last-Modified\": \"x\", \"Checksum-Algorithm\": "
        "\"CRC32C\", \"Checksum\": \"{}\" }}",
        comma, path, bytes.size(), base::to_hex(stored));
    comma = ",\n";
  }
  text +=
      "\n],\n\"WAL-Ranges\": [\n{ \"Timeline\": 1, \"Start-LSN\": \"0/2000028\", \"End-LSN\": "
      "\"0/2000100\" }\n],\n";
  return text + "\"Manifest-Checksum\": \"" + base::to_hex(base::sha256(base::view(text))) +
         "\"}\n";
}

/// The archives in the order in which they come: those of tablespaces first.
std::vector<Bytes> archives() {
  std::vector<Bytes> all(3);
  for (const std::size_t i : {0UL, 1UL}) {
    append(all[i], tar_header("PG_15_202209061/", 0, '5'));
    append(all[i], tar_file(twin, i == 0 ? "of space" : "of space2"));
  }
  append(all[2], tar_file("backup_label", content.at("backup_label")));
  append(all[2], tar_header("./pg_wal/", 0, '5'));
  append(all[2], tar_file("base/5/16384", content.at("base/5/16384")));
  append(all[2], tar_file(twin, "of the data directory"));
  append(all[2], tar_file("global/pg_control", content.at("global/pg_control")));
  return all;
}

Bytes message(char kind, View bytes) {
  Bytes whole{static_cast<std::uint8_t>(kind)};
  append(whole, bytes);
  return whole;
}

Bytes named(const std::string& archive, const std::string& location) {
  return message('n', base::view(archive + '\0' + location + '\0'));
}

/// The messages of one COPY, as version 15 and later send them.
std::vector<Bytes> messages(const std::string& manifest = manifest_of(content)) {
  std::vector<Bytes> all;
  const std::vector<Bytes> tars = archives();
  const std::vector<Bytes> names = {named("16390.tar", "/space"), named("16391.tar", "/space2"),
                                    named("base.tar", "")};
  for (std::size_t i = 0; i < tars.size(); ++i) {
    all.push_back(names[i]);
    for (std::size_t at = 0; at < tars[i].size(); at += 3000) {
      all.push_back(message(
          'd', View(tars[i]).subspan(at, std::min<std::size_t>(3000, tars[i].size() - at))));
      all.push_back(message('p', Bytes(8)));
    }
    all.push_back(message('d', Bytes(1024)));
  }
  all.push_back(message('m', {}));
  all.push_back(message('d', base::view(manifest)));
  return all;
}

Noted read(const std::vector<Bytes>& all, const BackupEnd& end = ended) {
  Noted noted;
  BackupParser parser(begun, our_system, noted);
  for (const Bytes& each : all) parser.message(each);
  parser.finish(end);
  return noted;
}

TEST(BaseBackup, BK10_files_are_where_their_archive_belongs) {
  const Noted noted = read(messages());
  EXPECT_EQ(noted.files, content);
  EXPECT_TRUE(noted.directories.contains("pg_tblspc/16390/PG_15_202209061"));
  EXPECT_TRUE(noted.directories.contains("pg_wal"));
}

TEST(BaseBackup, of_versions_13_and_14_is_one_copy_for_each_archive) {
  Noted noted;
  BackupParser parser(begun, our_system, noted);
  for (const Bytes& tar : archives()) {  // without zeros at their ends
    parser.begin_copy();
    parser.copy(View(tar).first(700));
    parser.copy(View(tar).subspan(700));
  }
  parser.begin_copy();
  parser.copy(base::view(manifest_of(content)));
  parser.finish(ended);
  EXPECT_EQ(noted.files, content);
}

TEST(BaseBackup, of_versions_13_and_14_lacks_nothing) {
  const std::vector<Bytes> tars = archives();
  for (std::size_t copies = 0; copies < 4; ++copies) {
    EXPECT_EQ(code_of([&] {
                Noted noted;
                BackupParser parser(begun, our_system, noted);
                for (std::size_t i = 0; i < copies; ++i) {
                  parser.begin_copy();
                  if (i < tars.size()) parser.copy(tars[i]);
                }
                parser.finish(ended);
              }),
              base::Code::corrupt)
        << copies;
  }
}

TEST(BaseBackup, BK4_cut_anywhere_it_is_none) {
  const std::vector<Bytes> all = messages();
  for (std::size_t count = 0; count < all.size(); ++count) {
    std::vector<Bytes> some(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(count));
    EXPECT_EQ(code_of([&] { read(some); }), base::Code::corrupt) << count;
    // In the middle of the next message, too.
    if (all[count].size() < 2 || all[count].front() == 'p') continue;
    some.push_back(Bytes(all[count].begin(),
                         all[count].begin() + static_cast<std::ptrdiff_t>(all[count].size() / 2)));
    EXPECT_EQ(code_of([&] { read(some); }), base::Code::corrupt) << count;
  }
}

TEST(BaseBackup, BK4_without_one_of_its_messages_it_is_none) {
  const std::vector<Bytes> all = messages();
  for (std::size_t left_out = 0; left_out < all.size(); ++left_out) {
    if (all[left_out].front() == 'p' || all[left_out] == message('d', Bytes(1024))) continue;
    std::vector<Bytes> some = all;
    some.erase(some.begin() + static_cast<std::ptrdiff_t>(left_out));
    EXPECT_EQ(code_of([&] { read(some); }), base::Code::corrupt) << left_out;
  }
}

TEST(BaseBackup, is_compared_with_the_manifest) {
  const auto changed = [](const std::string& path, const std::string& bytes) {
    auto files = content;
    files[path] = bytes;
    return files;
  };
  auto fewer = content;
  fewer.erase("base/5/16384");
  for (const auto& files : {changed("base/5/16384", std::string(8191, 'r')),
                            changed("base/5/16384", std::string(8192, 's')),
                            changed("base/5/16385", "another file"), fewer}) {
    EXPECT_EQ(code_of([&] { read(messages(manifest_of(files))); }), base::Code::corrupt);
  }
}

TEST(BaseBackup, of_another_system_position_or_timeline_is_refused) {
  std::string foreign = manifest_of(content);
  foreign.erase(foreign.find("\"Manifest-Checksum\""));
  foreign.replace(foreign.find("7300000000000000001"), 19, "7300000000000000002");
  foreign +=
      "\"Manifest-Checksum\": \"" + base::to_hex(base::sha256(base::view(foreign))) + "\"}\n";
  EXPECT_EQ(code_of([&] { read(messages(foreign)); }), base::Code::foreign);
  EXPECT_EQ(code_of([] { read(messages(), {{0x2000108}, {1}, false}); }), base::Code::corrupt);
  EXPECT_EQ(code_of([] { read(messages(), {{0x2000100}, {2}, false}); }), base::Code::postgres);
}

TEST(BaseBackup, refuses_archives_that_nobody_announced_or_that_come_twice) {
  for (const char* name : {"16392.tar", "base.tar.gz", "x.tar", "16390.tarx", ""}) {
    auto all = messages();
    all[0] = named(name, "");
    EXPECT_EQ(code_of([&] { read(all); }), base::Code::corrupt) << name;
  }
  auto twice = messages();
  twice.insert(twice.begin(), twice.begin(), twice.begin() + 4);
  EXPECT_EQ(code_of([&] { read(twice); }), base::Code::corrupt);
}

TEST(BaseBackup, whatever_comes_either_fails_or_is_what_was_sent) {
  Random random(3);
  const std::vector<Bytes> all = messages();
  std::size_t refused = 0;
  for (std::size_t i = base::testing::fuzz_iterations(5000); i > 0; --i) {
    std::vector<Bytes> damaged = all;
    Bytes& one = damaged[random.below(damaged.size())];
    one = base::testing::mutated(one, random);
    try {
      EXPECT_EQ(read(damaged).files, content);
    } catch (const base::Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 0U);
}

}  // namespace
}  // namespace holdfast::postgres
