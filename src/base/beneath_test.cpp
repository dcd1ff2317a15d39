#include "base/beneath.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "base/process.h"
#include "base/testing.h"

namespace holdfast::base {
namespace {

class BeneathTest : public ::testing::Test {
 protected:
  BeneathTest() {
    fs::create_directories(outside() / "deep");
    fs::create_directories(inside() / "real");
    replace_file(outside() / "file", view("theirs"));
    fs::create_symlink(outside(), inside() / "way");
    fs::create_symlink(outside() / "file", inside() / "one");
    fs::create_symlink("real", inside() / "own");
  }
  fs::path inside() const { return place_.path() / "in"; }
  fs::path outside() const { return place_.path() / "out"; }
  std::string theirs() const { return std::string(text(read_existing_file(outside() / "file"))); }

  TemporaryDirectory place_{"beneath"};
};

TEST_F(BeneathTest, nothing_leads_out_of_it) {
  const Beneath here(inside());
  const auto is_refused = [](auto&& action) { EXPECT_EQ(testing::code_of(action), Code::refused); };
  for (const char* path : {"way/file", "one", "own/x", "../out/file"}) {
    is_refused([&] { here.open(path, O_RDWR); });
    is_refused([&] { here.open(path, O_RDWR | O_CREAT); });
  }
  is_refused([&] { here.make_directory("way/new", 0700); });
  is_refused([&] { here.make_link("x", "way/new"); });
  is_refused([&] { here.rename("way/file", "mine"); });
  is_refused([&] { here.remove("way/file"); });
  is_refused([&] { here.names("way"); });
  is_refused([&] { here.set_mode("one", 0777); });
  EXPECT_EQ(theirs(), "theirs");
  EXPECT_EQ(directory_names(outside())->size(), 2U);
}

TEST_F(BeneathTest, a_link_is_a_name_like_any_other) {
  const Beneath here(inside());
  EXPECT_TRUE(S_ISLNK(here.status_of("way")->st_mode));
  EXPECT_EQ(here.link_target("own"), "real");
  EXPECT_EQ(here.link_target("real"), std::nullopt);
  here.replace_file("one", view("mine"));
  EXPECT_EQ(text(*here.read_file("one")), "mine");
  fs::create_symlink(outside(), inside() / "real/way");
  EXPECT_EQ(here.remove_all("real"), 2U);
  EXPECT_TRUE(here.remove("way"));
  EXPECT_FALSE(here.remove("way"));
  EXPECT_EQ(theirs(), "theirs");
  EXPECT_EQ(here.names("").size(), 2U);
}

TEST_F(BeneathTest, steps_find_what_the_kernel_finds) {
  const Beneath here(inside());
  replace_file(inside() / "real/file", view("mine"));
  for (const char* path : {"way/file", "one", "own", "own/file", "real/file", "real", "", "none",
                           "real/none", "real/file/none", "../out/file"}) {
    for (const int flags : {O_RDONLY, O_PATH | O_DIRECTORY}) {
      const Fd stepped(open_beneath_by_steps(here.descriptor().get(), path, flags, 0));
      const int failed = stepped ? 0 : errno;
      bool opened = false;
      try {
        opened = here.open_if_exists(path, flags).has_value();
      } catch (const Error&) {
      }
      EXPECT_EQ(opened, static_cast<bool>(stepped)) << path << " " << failed;
    }
  }
}

TEST_F(BeneathTest, is_made_with_what_is_above_it) {
  const Beneath made = Beneath::make(inside() / "a" / "b");
  made.replace_file("x", view("y"));
  EXPECT_TRUE(fs::exists(inside() / "a/b/x"));
  EXPECT_FALSE(Beneath::find(inside() / "c"));
}

TEST_F(BeneathTest, as_root_a_link_of_somebody_else_leads_only_to_what_is_his) {
  if (!running_as_root()) return;  // nobody else's link matters to him
  constexpr uid_t somebody = 12345;
  fs::create_directory(place_.path() / "his");
  ASSERT_EQ(::lchown((place_.path() / "his").c_str(), somebody, somebody), 0);
  fs::create_symlink(place_.path() / "his", place_.path() / "to-his");
  fs::create_symlink(outside(), place_.path() / "to-ours");
  for (const char* link : {"to-his", "to-ours"}) {
    ASSERT_EQ(::lchown((place_.path() / link).c_str(), somebody, somebody), 0);
  }
  EXPECT_NO_THROW(Beneath(place_.path() / "to-his"));
  EXPECT_EQ(testing::code_of([&] { Beneath(place_.path() / "to-ours"); }), Code::refused);
  EXPECT_EQ(testing::code_of([&] { Beneath::make(place_.path() / "to-ours/new"); }), Code::refused);
  EXPECT_NO_THROW(Beneath(inside() / "way"));  // root's own
}

}  // namespace
}  // namespace holdfast::base
