#include "base/file.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "base/error.h"
#include "base/testing.h"

namespace holdfast::base {
namespace {

class FileTest : public ::testing::Test {
 protected:
  fs::path path(const char* name) const { return directory_.path() / name; }
  TemporaryDirectory directory_{"file"};
};

using testing::code_of;

TEST_F(FileTest, reads_back_what_it_replaced) {
  replace_file(path("a"), view("first"));
  replace_file(path("a"), view("second, longer"), 0640);
  EXPECT_EQ(text(*read_file(path("a"))), "second, longer");
  EXPECT_EQ(status_of(path("a"))->st_mode & 07777, 0640U);
  EXPECT_EQ(directory_names(directory_.path()), std::vector<std::string>{"a"});
}

TEST_F(FileTest, leaves_no_temporary_file_when_replacing_fails) {
  fs::create_directories(path("a") / "full");
  EXPECT_THROW(replace_file(path("a"), view("x")), Error);
  EXPECT_EQ(directory_names(directory_.path()), std::vector<std::string>{"a"});
}

TEST_F(FileTest, says_absent_only_for_what_is_not_there_OS2) {
  replace_file(path("file"), view("x"));
  fs::create_symlink("loop", path("loop"));
  for (const char* name : {"nothing", "nothing/below", "file/below"}) {
    EXPECT_FALSE(read_file(path(name))) << name;
    EXPECT_FALSE(open_if_exists(path(name), O_RDONLY)) << name;
    EXPECT_FALSE(status_of(path(name))) << name;
    EXPECT_FALSE(directory_names(path(name))) << name;
    EXPECT_EQ(code_of([&] { read_existing_file(path(name)); }), Code::io);
  }
  EXPECT_EQ(code_of([&] { read_file(path("loop")); }), Code::io);
  EXPECT_EQ(code_of([&] { status_of(path("loop")); }), Code::io);
  EXPECT_EQ(code_of([&] { directory_names(path("loop")); }), Code::io);
  EXPECT_EQ(code_of([&] { read_file(directory_.path()); }), Code::io);
  EXPECT_TRUE(S_ISLNK(status_of(path("loop"), false)->st_mode));
}

TEST_F(FileTest, reads_files_that_do_not_know_their_size) {
  EXPECT_FALSE(read_file("/proc/self/stat")->empty());
}

TEST_F(FileTest, reads_and_writes_at_an_offset) {
  const Fd file = open_file(path("a"), O_RDWR | O_CREAT);
  write_all(file, view("0123456789"), "a");
  write_at(file, view("xy"), 4, "a");
  Bytes into(4);
  EXPECT_EQ(read_at(file, into, 3, "a"), 4U);
  EXPECT_EQ(text(into), "3xy6");
  EXPECT_EQ(read_at(file, into, 8, "a"), 2U);
  EXPECT_EQ(read_at(file, into, 100, "a"), 0U);
  EXPECT_EQ(file_size(file, "a"), 10U);
}

TEST_F(FileTest, tells_a_failed_read_from_the_end_of_a_file_OS1) {
  const Fd directory = open_file(directory_.path(), O_RDONLY);
  Bytes into(1);
  EXPECT_EQ(code_of([&] { read_at(directory, into, 0, "a"); }), Code::io);
}

TEST_F(FileTest, says_no_space_when_there_is_none) {
  const Fd full = open_file("/dev/full", O_WRONLY);
  EXPECT_EQ(code_of([&] { write_all(full, view("x"), "a"); }), Code::no_space);
  EXPECT_EQ(code_of([&] { write_at(full, view("x"), 0, "a"); }), Code::no_space);
}

TEST(FailErrno, picks_the_code_that_a_user_can_act_on) {
  EXPECT_EQ(code_of([] { fail_errno("x", ENOSPC); }), Code::no_space);
  EXPECT_EQ(code_of([] { fail_errno("x", EDQUOT); }), Code::no_space);
  EXPECT_EQ(code_of([] { fail_errno("x", EACCES); }), Code::permission);
  EXPECT_EQ(code_of([] { fail_errno("x", EROFS); }), Code::permission);
  EXPECT_EQ(code_of([] { fail_errno("x", EIO); }), Code::io);
}

TEST_F(FileTest, makes_all_directories_that_are_missing) {
  make_directories(path("a/b/c"));
  make_directories(path("a/b/c"));
  make_directories(path("a/b/d/"));
  EXPECT_EQ(directory_names(path("a/b")), (std::vector<std::string>{"c", "d"}));
  replace_file(path("file"), view("x"));
  EXPECT_EQ(code_of([&] { make_directories(path("file")); }), Code::io);
  EXPECT_EQ(code_of([&] { make_directories(path("file/below")); }), Code::io);
}

TEST_F(FileTest, names_a_directory_s_content_in_order_of_bytes) {
  for (const char* name : {"b", "a", "B", "\xc3\xa4", ".hidden"}) replace_file(path(name), {});
  EXPECT_EQ(directory_names(directory_.path()),
            (std::vector<std::string>{".hidden", "B", "a", "b", "\xc3\xa4"}));
}

TEST_F(FileTest, syncs_what_is_there_and_complains_of_what_is_not) {
  sync_directory(directory_.path());
  sync_file_system(directory_.path());
  EXPECT_THROW(sync_directory(path("nothing")), Error);
  EXPECT_THROW(sync_file_system(path("nothing")), Error);
}

TEST(Fd, closes_what_it_owns_once) {
  Fd first = open_file("/dev/null", O_RDONLY);
  const int number = first.get();
  Fd second = std::move(first);
  EXPECT_FALSE(first);  // NOLINT(bugprone-use-after-move): what a moved one holds is the promise
  EXPECT_EQ(second.get(), number);
  EXPECT_NE(::fcntl(number, F_GETFD) & FD_CLOEXEC, 0);
  second = open_file("/dev/zero", O_RDONLY);
  EXPECT_EQ(::fcntl(number, F_GETFD), -1);
}

TEST(TemporaryDirectory, goes_away_with_all_in_it) {
  fs::path path;
  {
    const TemporaryDirectory directory("holdfast-test");
    path = directory.path();
    make_directories(path / "a/b");
    replace_file(path / "a/b/c", view("x"));
    EXPECT_EQ(status_of(path)->st_mode & 0777, 0700U);
  }
  EXPECT_FALSE(status_of(path));
}

}  // namespace
}  // namespace holdfast::base
