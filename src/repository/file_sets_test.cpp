#include "repository/file_sets.h"

#include <gtest/gtest.h>

#include "repository/testing.h"

namespace holdfast::repository {
namespace {

using base::Code;
using testing::code_of;
using testing::place;
using Entry = FileSetEntry;

const FileSetName name{{"20261123T083000Z-4f2a"}, "env"};

Entry entry(Entry::Kind kind, const std::string& path, const std::string& target = "") {
  return {kind, path, 0640, "root:root", 1'700'000'000'000'000'001, target};
}

class FileSets : public ::testing::TestWithParam<bool> {
 protected:
  /// Writes these entries; files have four bytes.
  void write(const std::vector<Entry>& entries, const FileSetName& as = name) {
    FileSetWriter writer(test_.repository, place, as);
    FileSetSummary summary{"/etc/x", base::now(), base::now(), entries.size(), 0, 0, 0};
    for (const Entry& each : entries) {
      const bool is_file = each.kind == Entry::Kind::file;
      writer.add(each, base::view(is_file ? "text" : ""));
      if (is_file) summary.bytes += 4;
    }
    writer.commit(summary);
  }
  std::vector<Entry> read() {
    FileSetReader reader(test_.repository, place, name);
    std::vector<Entry> found;
    base::View content;
    while (const auto each = reader.next(content)) found.push_back(*each);
    return found;
  }
  Code code_of_reading(const std::vector<Entry>& entries) {
    test_.objects->all.erase(object_of(place, name));
    write(entries);
    return code_of([&] { read(); });
  }

  testing::TestRepository test_{GetParam()};
};

INSTANTIATE_TEST_SUITE_P(Each, FileSets, ::testing::Bool(),
                         [](const auto& each) { return each.param ? "sealed" : "plain"; });

TEST_P(FileSets, are_given_back_as_they_were_written) {
  const std::vector<Entry> entries = {
      entry(Entry::Kind::directory, ""), entry(Entry::Kind::directory, "a"),
      entry(Entry::Kind::file, "a/b"), entry(Entry::Kind::link, "a/c", "../../etc/passwd"),
      entry(Entry::Kind::file, "a.b")};
  write(entries);
  EXPECT_EQ(read(), entries);
  EXPECT_EQ(file_sets(test_.repository, place), std::vector<FileSetName>{name});
}

TEST_P(FileSets, hold_files_of_many_pieces) {
  FileSetWriter writer(test_.repository, place, name);
  writer.add(entry(Entry::Kind::directory, ""), {});
  writer.add(entry(Entry::Kind::file, "large"), base::view("one"));
  writer.add_more(base::view("two"));
  writer.add_more(base::view("three"));
  writer.add(entry(Entry::Kind::file, "next"), base::view("x"));
  writer.commit({"/etc/x", base::now(), base::now(), 3, 12, 0, 0});
  FileSetReader reader(test_.repository, place, name);
  base::View content;
  reader.next(content);
  EXPECT_EQ(reader.next(content)->path, "large");
  std::string all(base::text(content));
  while (const auto more = reader.more()) all += base::text(*more);
  EXPECT_EQ(all, "onetwothree");
  EXPECT_EQ(reader.next(content)->path, "next");
  EXPECT_EQ(base::text(content), "x");
  EXPECT_EQ(reader.next(content), std::nullopt);
}

TEST_P(FileSets, that_would_lead_elsewhere_are_corrupt) {
  const Entry top = entry(Entry::Kind::directory, "");
  for (const char* path : {"../x", "/etc/x", "a/../x", "a", "b/c/d", "", "./x", "a//b"}) {
    const std::vector<Entry> entries = {top, entry(Entry::Kind::file, "a"),
                                        entry(Entry::Kind::file, path)};
    EXPECT_EQ(code_of_reading(entries), Code::corrupt) << path;
  }
  // Through a link, or a file, that the set itself made before.
  for (const auto kind : {Entry::Kind::link, Entry::Kind::file}) {
    EXPECT_EQ(code_of_reading({top, entry(kind, "a", "/etc"), entry(Entry::Kind::file, "a/x")}),
              Code::corrupt);
  }
  EXPECT_EQ(code_of_reading({entry(Entry::Kind::link, "", "/etc")}), Code::corrupt);
  EXPECT_EQ(code_of_reading({entry(Entry::Kind::file, ""), entry(Entry::Kind::file, "x")}),
            Code::corrupt);
}

TEST_P(FileSets, that_are_damaged_or_anothers_do_not_open) {
  write({entry(Entry::Kind::directory, ""), entry(Entry::Kind::file, "a")});
  const base::Bytes good = test_.objects->at(object_of(place, name));
  for (std::size_t i = 0; i < good.size(); ++i) {
    test_.objects->at(object_of(place, name))[i] ^= 0x10;
    // The version is the one byte that may be of a later Holdfast.
    EXPECT_EQ(code_of([&] { read(); }), i == 8 ? Code::unsupported : Code::corrupt) << i;
    test_.objects->at(object_of(place, name)) = good;
  }
  const FileSetName other{{"20261123T083000Z-4f2b"}, "env"};
  test_.objects->all[object_of(place, other)] = good;
  EXPECT_EQ(code_of([&] { FileSetReader(test_.repository, place, other); }), Code::corrupt);
  EXPECT_EQ(code_of([&] {
              FileSetReader(test_.repository, place, {name.backup, "none"});
            }),
            Code::not_found);
}

}  // namespace
}  // namespace holdfast::repository
