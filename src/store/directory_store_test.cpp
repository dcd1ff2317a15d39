#include "store/directory_store.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <atomic>

#include "base/error.h"
#include "base/workers.h"

namespace holdfast::store {
namespace {

using base::view;

class DirectoryStoreTest : public testing::Test {
 protected:
  base::TemporaryDirectory directory_{"store"};
  DirectoryStore store_{directory_.path() / "root"};
};

TEST_F(DirectoryStoreTest, returns_what_was_put) {
  EXPECT_TRUE(store_.put("a/b/c", view("hello")));
  EXPECT_EQ(base::text(*store_.get("a/b/c")), "hello");
  EXPECT_EQ(store_.stat("a/b/c")->size, 5U);
}

TEST_F(DirectoryStoreTest, says_absent_for_what_is_not_there) {
  EXPECT_FALSE(store_.get("nothing"));
  EXPECT_FALSE(store_.stat("nothing/below"));
  EXPECT_FALSE(store_.remove("nothing"));
  EXPECT_TRUE(store_.list("nothing").empty());
}

TEST_F(DirectoryStoreTest, OS2_an_unreadable_object_is_an_error_and_not_absent) {
  ASSERT_TRUE(store_.put("a/b", view("x")));
  // A symbolic link that leads to itself fails for root too, unlike a missing permission.
  base::fs::create_symlink("loop", directory_.path() / "root" / "a" / "loop");
  EXPECT_THROW(store_.get("a/loop"), base::Error);
  EXPECT_TRUE(store_.stat("a/loop"));
}

TEST_F(DirectoryStoreTest, keeps_the_first_of_two_objects_of_one_name) {
  EXPECT_TRUE(store_.put("name", view("first")));
  EXPECT_FALSE(store_.put("name", view("second")));
  EXPECT_EQ(base::text(*store_.get("name")), "first");
}

TEST_F(DirectoryStoreTest, LC1_lets_exactly_one_of_many_racers_win) {
  for (int round = 0; round < 20; ++round) {
    const std::string name = fmt::format("race/{}", round);
    std::atomic<int> winners = 0;
    std::atomic<unsigned> winner = 0;
    base::run_workers(8, [&](unsigned index, std::stop_token) {
      if (store_.put(name, view(fmt::format("racer {}", index)))) {
        ++winners;
        winner = index;
      }
    });
    EXPECT_EQ(winners, 1);
    EXPECT_EQ(base::text(*store_.get(name)), fmt::format("racer {}", winner.load()));
  }
}

TEST_F(DirectoryStoreTest, WP2_shows_nothing_of_an_object_that_was_not_committed) {
  {
    const auto writer = store_.create("half");
    writer->append(view("some bytes"));
  }
  EXPECT_FALSE(store_.get("half"));
  EXPECT_TRUE(store_.list("").empty());
  EXPECT_EQ(store_.sweep_unfinished(), 0U);
}

TEST_F(DirectoryStoreTest, sweeps_what_a_dead_writer_left_and_spares_a_living_one) {
  const auto living = store_.create("living");
  base::write_all(base::open_file(directory_.path() / "root" / ".tmp" / "dead", O_CREAT | O_WRONLY),
                  view("left behind"), "dead");
  EXPECT_EQ(store_.sweep_unfinished(), 1U);
  living->append(view("still here"));
  EXPECT_TRUE(living->commit());
  EXPECT_EQ(base::text(*store_.get("living")), "still here");
}

TEST_F(DirectoryStoreTest, lists_by_name_and_only_below_the_directory) {
  for (const char* name : {"a/2", "a/1", "a/c/3", "ab/4", "b"}) ASSERT_TRUE(store_.put(name, {}));
  std::vector<std::string> listed;
  for (const ObjectInfo& object : store_.list("a")) listed.push_back(object.name);
  EXPECT_EQ(listed, (std::vector<std::string>{"a/1", "a/2", "a/c/3"}));
  EXPECT_EQ(store_.names("a"), (std::vector<std::string>{"1", "2", "c"}));
  EXPECT_EQ(store_.list("").size(), 5U);
}

TEST_F(DirectoryStoreTest, RC3_treats_temporary_looking_names_as_any_other) {
  ASSERT_TRUE(store_.put("x.json.tmp.y/z.tmp", view("live")));
  EXPECT_EQ(store_.list("").size(), 1U);
  EXPECT_EQ(store_.sweep_unfinished(), 0U);
  EXPECT_TRUE(store_.get("x.json.tmp.y/z.tmp"));
}

TEST_F(DirectoryStoreTest, refuses_names_that_could_leave_it) {
  for (const char* name : {"", "/a", "a/", "../a", "a/../b", "a//b", ".tmp/x", "a\nb", "a b"}) {
    EXPECT_THROW(store_.get(name), base::Error) << name;
  }
}

TEST_F(DirectoryStoreTest, OS1_a_read_past_the_end_is_an_error_and_not_a_short_success) {
  ASSERT_TRUE(store_.put("short", view("12345")));
  base::Bytes into(6);
  EXPECT_THROW(store_.open("short")->read(0, into), base::Error);
}

TEST(OpenStore, takes_file_urls_and_absolute_paths_only) {
  EXPECT_EQ(open_store("file:///a/b/")->url(), "file:///a/b");
  EXPECT_EQ(open_store("/a/b")->url(), "file:///a/b");
  EXPECT_THROW(open_store("relative"), base::Error);
  EXPECT_THROW(open_store("s3://bucket"), base::Error);
}

TEST_F(DirectoryStoreTest, that_went_away_is_not_made_again_and_nothing_in_it_is_absent) {
  const base::fs::path root = directory_.path() / "root";
  ASSERT_TRUE(store_.put("identity", view("this one")));
  ASSERT_TRUE(store_.put("a/b", view("x")));
  store_.hold_to("identity");
  const auto unfinished = store_.create("a/c");
  base::fs::rename(root, directory_.path() / "away");
  const auto expect_refused = [&](const auto& work) {
    try {
      work();
      ADD_FAILURE() << "it was done";
    } catch (const base::Error& error) {
      EXPECT_EQ(error.code(), base::Code::unreachable) << error.message();
    }
  };
  const auto expect_all_refused = [&] {
    expect_refused([&] { (void)store_.put("a/d", view("x")); });
    expect_refused([&] { store_.get("a/b"); });
    expect_refused([&] { store_.stat("a/b"); });
    expect_refused([&] { store_.list("a"); });
    expect_refused([&] { store_.names("a"); });
    expect_refused([&] { store_.remove("a/b"); });
  };
  expect_all_refused();
  expect_refused([&] { (void)unfinished->commit(); });
  EXPECT_FALSE(base::fs::exists(root));
  // Neither in the empty directory below a mount, nor in another repository.
  base::fs::create_directory(root);
  expect_all_refused();
  base::replace_file(root / "identity", view("another"));
  expect_refused([&] { (void)store_.put("a/d", view("x")); });
  EXPECT_FALSE(base::fs::exists(root / "a"));
  base::fs::remove_all(root);
  base::fs::rename(directory_.path() / "away", root);
  EXPECT_TRUE(store_.put("a/d", view("x")));
  EXPECT_FALSE(store_.get("a/c"));
}

TEST_F(DirectoryStoreTest, what_is_no_plain_file_is_never_opened_and_costs_itself_alone) {
  const base::fs::path root = directory_.path() / "root";
  ASSERT_TRUE(store_.put("identity", view("this one")));
  store_.hold_to("identity");
  ASSERT_TRUE(store_.put("a/good", view("x")));
  ASSERT_EQ(::mkfifo((root / "a" / "fifo").c_str(), 0600), 0);
  base::fs::create_directory(root / "a" / "directory");
  base::fs::create_symlink("loop", root / "a" / "loop");
  base::fs::create_symlink("fifo", root / "a" / "link");
  for (const char* name : {"a/fifo", "a/directory", "a/loop", "a/link"}) {
    try {
      store_.get(name);
      ADD_FAILURE() << name << " was read";
    } catch (const base::Error& error) {
      EXPECT_EQ(error.code(), base::Code::corrupt) << error.message();
    }
  }
  EXPECT_EQ(store_.list("a").size(), 4U) << "a loop is in it and listed";
  EXPECT_EQ(base::text(*store_.get("a/good")), "x");
}

}  // namespace
}  // namespace holdfast::store
