// The file system that the power-cut tests stand on: it loses what was not synced, and nothing
// else.

#include "lossy_disk.h"
#include "faults.h"

namespace holdfast::tests {
namespace {

using Unsynced = LossyDisk::Unsynced;
using Change = LossyDisk::Change;

class LossyDiskTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const auto why = LossyDisk::missing()) GTEST_SKIP() << *why;
    disk_.emplace(place_, root_);
  }
  base::Fd write(const std::string& name, std::string_view bytes, bool sync) const {
    base::Fd file = base::open_file(root_ / name, O_CREAT | O_WRONLY | O_APPEND, 0644);
    base::write_all(file, base::view(bytes), name);
    if (sync) base::sync_file(file, name);
    return file;
  }
  std::string text(const std::string& name) const {
    const auto bytes = base::read_file(root_ / name);
    return bytes ? std::string(base::text(*bytes)) : "(absent)";
  }

  Place place_;
  fs::path root_ = place_.path("disk");
  std::optional<LossyDisk> disk_;
};

TEST_F(LossyDiskTest, keeps_what_was_synced_and_loses_what_was_written_after) {
  write("file", "kept", true);
  base::sync_directory(root_);
  write("file", " and lost", false);
  EXPECT_EQ(text("file"), "kept and lost");
  disk_->cut();
  EXPECT_EQ(text("file"), "kept");
}

TEST_F(LossyDiskTest, loses_the_name_of_a_synced_file_in_a_directory_that_was_not) {
  write("file", "bytes", true);
  disk_->cut();
  EXPECT_EQ(text("file"), "(absent)");
}

TEST_F(LossyDiskTest, loses_the_bytes_of_a_file_that_was_not_synced_but_named) {
  write("zeros", "bytes", false);
  base::sync_directory(root_);
  disk_->cut(Unsynced::zeros);
  EXPECT_EQ(text("zeros"), std::string(5, '\0'));
  write("empty", "bytes", false);
  base::sync_directory(root_);
  disk_->cut(Unsynced::empty);
  EXPECT_EQ(text("empty"), "");
}

TEST_F(LossyDiskTest, undoes_renames_links_and_removals_that_were_not_synced) {
  write("one", "1", true);
  write("two", "2", true);
  base::sync_directory(root_);
  fs::rename(root_ / "one", root_ / "other");
  fs::remove(root_ / "two");
  fs::create_hard_link(root_ / "other", root_ / "linked");
  EXPECT_EQ(text("linked"), "1");
  disk_->cut();
  EXPECT_EQ(text("one"), "1");
  EXPECT_EQ(text("two"), "2");
  EXPECT_EQ(text("other"), "(absent)");
  EXPECT_EQ(text("linked"), "(absent)");
  fs::rename(root_ / "one", root_ / "two");
  base::sync_directory(root_);
  disk_->cut();
  EXPECT_EQ(text("one"), "(absent)");
  EXPECT_EQ(text("two"), "1");
}

TEST_F(LossyDiskTest, needs_each_directory_on_the_way_synced) {
  fs::create_directories(root_ / "a" / "b");
  write("a/b/file", "bytes", true);
  base::sync_directory(root_ / "a" / "b");
  base::sync_directory(root_);
  disk_->cut();
  EXPECT_TRUE(fs::is_empty(root_ / "a"));
}

TEST_F(LossyDiskTest, takes_a_second_fsync_after_a_failed_one_for_done_and_loses_the_bytes) {
  const base::Fd file = write("file", "bytes", false);
  base::sync_directory(root_);
  disk_->plan({.at = 1, .error = EIO, .of = {Change::sync}});
  EXPECT_THROW(base::sync_file(file, "file"), base::Error);
  EXPECT_NO_THROW(base::sync_file(file, "file"));
  disk_->cut(Unsynced::empty);
  EXPECT_EQ(text("file"), "");
}

TEST_F(LossyDiskTest, kills_who_calls_at_the_change_that_was_planned_and_takes_nothing_more) {
  const auto writes = [&] {
    return shell(place_, fmt::format("cd {}; echo 1 >a; echo 2 >b; echo 3 >c", root_.string()));
  };
  disk_->plan({});
  EXPECT_EQ(writes().status, 0);
  const std::uint64_t changes = disk_->count();
  EXPECT_EQ(changes, 6U);
  disk_->cut();
  EXPECT_TRUE(fs::is_empty(root_));
  disk_->plan({.at = 3});
  EXPECT_EQ(writes().status, 128 + SIGKILL);
  EXPECT_TRUE(disk_->fired());
  EXPECT_THROW(write("d", "", false), base::Error);
  disk_->revive();
  EXPECT_EQ(text("a"), "1\n");
  EXPECT_EQ(text("b"), "(absent)");
}

TEST_F(LossyDiskTest, fails_once_or_for_ever_and_goes_back_to_what_was_kept) {
  write("file", "bytes", true);
  disk_->keep();
  disk_->plan({.at = 1, .error = ENOSPC});
  EXPECT_THROW(write("one", "1", false), base::Error);
  EXPECT_NO_THROW(write("one", "1", false));
  disk_->plan({.at = 2, .error = EIO, .for_ever = true});
  EXPECT_NO_THROW(fs::remove(root_ / "file"));
  EXPECT_THROW(write("two", "2", false), base::Error);
  EXPECT_THROW(write("two", "2", false), base::Error);
  disk_->put_back();
  disk_->plan({});
  EXPECT_EQ(text("file"), "bytes");
  EXPECT_EQ(text("one"), "(absent)");
}

TEST_F(LossyDiskTest, hangs_until_it_is_released) {
  disk_->hang();
  std::thread asks([&] { write("file", "bytes", false); });
  await([&] { return disk_->waiting() > 0; }, "somebody who waits");
  disk_->release();
  asks.join();
  EXPECT_EQ(text("file"), "bytes");
}

}  // namespace
}  // namespace holdfast::tests
