#include "mount/tree.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include "mount/testing.h"

namespace holdfast::mount {
namespace {

using base::Bytes;
using repository::page_bytes;
using testing::TestBackup;
using testing::TestMount;

Bytes pages(std::size_t bytes, std::uint64_t seed) {
  return base::testing::Random(seed).bytes(bytes);
}

std::map<std::string, Bytes> some_files() {
  Bytes holes = pages(40 * page_bytes, 7);
  std::fill_n(holes.begin() + 10 * page_bytes, 20 * page_bytes, std::uint8_t{0});
  return {{"PG_VERSION", Bytes{'1', '5', '\n'}},
          {"base/1/1259", pages(100 * page_bytes, 1)},
          {"base/1/1260", pages(3 * page_bytes + 100, 2)},
          {"base/1/1261", Bytes{}},
          {"base/1/1262", holes},
          {"base/1/1263", pages(page_bytes, 3)},
          {"global/1213", pages(5 * page_bytes, 4)},
          {"postgresql.conf", pages(700, 5)}};
}

class MountedTree : public ::testing::Test {
 protected:
  TestBackup backup_{some_files()};
  base::TemporaryDirectory directory_{"tree"};
  std::unique_ptr<TestMount> mount_ = std::make_unique<TestMount>(backup_, directory_.path());

  Tree& tree() { return mount_->tree(); }
  /// What is there after the process that served died.
  void die_and_mount_again() {
    mount_.reset();
    mount_ = std::make_unique<TestMount>(backup_, directory_.path());
  }
  Tree::Handle open(const std::string& path, int flags = O_RDWR) {
    Tree::Handle handle;
    EXPECT_EQ(tree().open(path, flags, handle), 0) << path;
    return handle;
  }
  void write(const std::string& path, std::uint64_t offset, const Bytes& bytes, bool sync = false) {
    const Tree::Handle handle = open(path);
    ASSERT_EQ(tree().write(handle, bytes, offset), static_cast<int>(bytes.size()));
    if (sync) {
      ASSERT_EQ(tree().sync(handle), 0);
    }
  }
  void put(const std::string& path, const Bytes& bytes) {
    Tree::Handle handle;
    ASSERT_EQ(tree().create(path, O_RDWR, 0600, {::getuid(), ::getgid()}, handle), 0);
    ASSERT_EQ(tree().write(handle, bytes, 0), static_cast<int>(bytes.size()));
  }
  std::set<std::string> names(const std::string& path) {
    std::set<std::string> found;
    EXPECT_EQ(
        tree().list(path, [&](const std::string& name, const struct stat&) { found.insert(name); }),
        0);
    return found;
  }
};

TEST_F(MountedTree, shows_every_file_of_the_backup_at_once) {
  EXPECT_EQ(names(""),
            (std::set<std::string>{"PG_VERSION", "base", "global", "pg_wal", "postgresql.conf"}));
  EXPECT_EQ(names("base/1"), (std::set<std::string>{"1259", "1260", "1261", "1262", "1263"}));
  for (const auto& [path, content] : backup_.files()) {
    struct stat status {};
    ASSERT_EQ(tree().attributes(path, status), 0) << path;
    EXPECT_EQ(static_cast<std::size_t>(status.st_size), content.size());
    EXPECT_EQ(status.st_mode, S_IFREG | 0600U);
  }
  struct stat status {};
  EXPECT_EQ(tree().attributes("base/1/1264", status), -ENOENT);
}

TEST_F(MountedTree, reads_any_part_of_any_file) {
  base::testing::Random random(11);
  for (int i = 0; i < 300; ++i) {
    auto each = backup_.files().begin();
    std::advance(each, static_cast<std::ptrdiff_t>(random.below(backup_.files().size())));
    const Bytes& content = each->second;
    const std::size_t offset = random.below(content.size() + 1);
    Bytes got(random.below(5 * page_bytes));
    const auto expected = std::min(got.size(), content.size() - offset);
    ASSERT_EQ(tree().read(open(each->first), got, offset), static_cast<int>(expected));
    EXPECT_TRUE(std::equal(got.begin(), got.begin() + static_cast<std::ptrdiff_t>(expected),
                           content.begin() + static_cast<std::ptrdiff_t>(offset)));
  }
}

TEST_F(MountedTree, keeps_what_a_partial_write_does_not_cover) {
  Bytes expected = backup_.files().at("base/1/1259");
  const Bytes some = pages(page_bytes, 99);
  write("base/1/1259", 5 * page_bytes + 100, some);
  std::ranges::copy(some, expected.begin() + 5 * page_bytes + 100);
  EXPECT_EQ(mount_->content("base/1/1259"), expected);
}

TEST_F(MountedTree, shows_nothing_of_the_backup_behind_where_a_file_was_cut) {
  for (const std::size_t size : {2 * page_bytes, 2 * page_bytes + 10}) {
    SCOPED_TRACE(size);
    const std::string path = size % page_bytes == 0 ? "base/1/1259" : "base/1/1262";
    ASSERT_EQ(tree().truncate(path, size), 0);
    ASSERT_EQ(tree().truncate(path, 8 * page_bytes), 0);
    Bytes expected = backup_.files().at(path);
    expected.resize(size);
    expected.resize(8 * page_bytes);
    EXPECT_EQ(mount_->content(path), expected);
    die_and_mount_again();
    EXPECT_EQ(mount_->content(path), expected);
    mount_->hydrate();
    EXPECT_EQ(mount_->content(path), expected);
  }
}

TEST_F(MountedTree, forgets_removed_files_for_ever) {
  write("base/1/1260", 0, pages(10, 1), true);
  ASSERT_EQ(tree().remove("base/1/1260"), 0);
  ASSERT_EQ(tree().remove("base/1/1263"), 0);
  EXPECT_EQ(tree().remove("base/1/1263"), -ENOENT);
  die_and_mount_again();
  EXPECT_EQ(names("base/1"), (std::set<std::string>{"1259", "1261", "1262"}));
  put("base/1/1263", pages(20, 2));
  mount_->hydrate();
  die_and_mount_again();
  EXPECT_EQ(mount_->content("base/1/1263"), pages(20, 2));
  EXPECT_EQ(mount_->content("base/1/1260"), std::nullopt);
}

TEST_F(MountedTree, replaces_a_file_of_the_backup_in_one_step) {
  put("postgresql.conf.tmp", pages(50, 3));
  ASSERT_EQ(tree().rename("postgresql.conf.tmp", "postgresql.conf", 0), 0);
  EXPECT_EQ(mount_->content("postgresql.conf"), pages(50, 3));
  die_and_mount_again();
  EXPECT_EQ(mount_->content("postgresql.conf"), pages(50, 3));
  ASSERT_EQ(tree().remove("postgresql.conf"), 0);
  EXPECT_EQ(mount_->content("postgresql.conf"), std::nullopt) << "the backup's came back";
}

TEST_F(MountedTree, moves_a_file_of_the_backup_with_all_its_pages) {
  ASSERT_EQ(tree().rename("base/1/1259", "base/1/9", 0), 0);
  die_and_mount_again();
  EXPECT_EQ(mount_->content("base/1/1259"), std::nullopt);
  EXPECT_EQ(mount_->content("base/1/9"), backup_.files().at("base/1/1259"));
}

TEST_F(MountedTree, keeps_the_control_file_apart) {
  put("global/new", pages(30, 8));
  ASSERT_EQ(tree().rename("global/new", "global/pg_control", 0), 0);
  EXPECT_EQ(mount_->content("global/pg_control"), pages(30, 8));
  EXPECT_TRUE(names("global").contains("pg_control"));
  EXPECT_TRUE(base::status_of(directory_.path() / "pg_control"));
  EXPECT_FALSE(base::status_of(directory_.path() / "data/global/pg_control"));
}

TEST_F(MountedTree, marks_every_local_file_that_has_holes) {
  open("base/1/1259");
  const auto local = directory_.path() / "data/base/1/1259";
  EXPECT_TRUE(base::status_of(local)->st_mode & unfinished_bit);
  struct stat seen {};
  ASSERT_EQ(tree().attributes("base/1/1259", seen), 0);
  EXPECT_EQ(seen.st_mode, S_IFREG | 0600U) << "nobody else sees the mark";
  mount_->hydrate();
  EXPECT_FALSE(base::status_of(local)->st_mode & unfinished_bit);
}

TEST_F(MountedTree, is_an_ordinary_directory_once_hydrated) {
  write("base/1/1259", 3 * page_bytes, pages(page_bytes, 42));
  mount_->hydrate();
  for (const auto& [path, content] : backup_.files()) {
    Bytes expected = content;
    if (path == "base/1/1259") {
      std::ranges::copy(pages(page_bytes, 42), expected.begin() + 3 * page_bytes);
    }
    EXPECT_EQ(base::read_existing_file(directory_.path() / "data" / path), expected) << path;
  }
  // The repository is not needed any more, not even for names.
  backup_.in().objects->set(backup_.in().objects->before, [](std::string_view, const std::string&) {
    base::fail(base::Code::unreachable, "could not reach the store");
  });
  EXPECT_EQ(mount_->content("base/1/1263"), backup_.files().at("base/1/1263"));
}

TEST_F(MountedTree, fails_instead_of_inventing_pages_when_the_store_does) {
  const auto fail = [](std::string_view, const std::string& name) {
    if (name.find("packs/") != std::string::npos) {
      base::fail(base::Code::unreachable, "could not reach the store");
    }
  };
  auto& objects = *backup_.in().objects;
  objects.set(objects.before, fail);
  Bytes page(page_bytes);
  const Tree::Handle handle = open("base/1/1259");
  EXPECT_EQ(repository::testing::code_of([&] { tree().read(handle, page, 0); }),
            base::Code::unreachable);
  EXPECT_EQ(repository::testing::code_of([&] { tree().write(handle, Bytes(10), 5); }),
            base::Code::unreachable)
      << "a part of a page cannot be written without the rest";
  objects.set(objects.before, [](std::string_view, const std::string&) {});
  EXPECT_EQ(mount_->content("base/1/1259"), backup_.files().at("base/1/1259"))
      << "it goes on when the store does";
}

TEST_F(MountedTree, INV_9_never_hands_out_a_corrupt_page) {
  for (const std::string& name : backup_.in().objects->names_with("/packs/")) {
    backup_.in().objects->at(name)[5000] ^= 1;
  }
  int failed = 0;
  for (const auto& [path, content] : backup_.files()) {
    for (std::size_t at = 0; at < content.size(); at += page_bytes) {
      Bytes page(std::min(page_bytes, content.size() - at));
      try {
        tree().read(open(path), page, at);
        EXPECT_TRUE(std::ranges::equal(page, base::View(content).subspan(at, page.size())));
      } catch (const base::Error& error) {
        EXPECT_EQ(error.code(), base::Code::corrupt);
        ++failed;
      }
    }
  }
  EXPECT_GT(failed, 0);
}

TEST_F(MountedTree, refuses_a_directory_that_still_has_files_of_the_backup) {
  EXPECT_EQ(tree().remove_directory("base/1"), -ENOTEMPTY);
  for (const char* name : {"1259", "1260", "1261", "1262", "1263"}) {
    ASSERT_EQ(tree().remove(std::string("base/1/") + name), 0);
  }
  EXPECT_EQ(tree().remove_directory("base/1"), 0);
  ASSERT_EQ(tree().make_directory("base/1", 0700, {::getuid(), ::getgid()}), 0);
  EXPECT_EQ(names("base/1"), std::set<std::string>{});
}

}  // namespace
}  // namespace holdfast::mount
