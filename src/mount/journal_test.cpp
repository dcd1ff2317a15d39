#include "mount/journal.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/testing.h"

namespace holdfast::mount {
namespace {

class JournalFile : public ::testing::Test {
 protected:
  base::TemporaryDirectory directory_{"journal"};
  base::fs::path path_ = directory_.path() / "journal";

  base::Bytes written() {
    Journal journal(path_);
    journal.gone("base/1/1");
    journal.local("base/1/2", {{0, 4}, {10, 1}});
    journal.local("base/1/2", {{4, 2}});
    journal.cut("base/1/3", 81920, false);
    journal.cut("base/1/4", 8192, false);
    journal.cut("base/1/4", 8192, true);
    journal.local("base/1/5", {{7, 1}});
    journal.gone("base/1/5");
    journal.sync();
    return base::read_existing_file(path_);
  }
};

TEST_F(JournalFile, says_again_what_was_recorded) {
  written();
  for (int i = 0; i < 2; ++i) {  // what it wrote anew says the same
    const Journal again(path_);
    const Journal::State& state = again.opened_with();
    EXPECT_EQ(state.gone, (std::set<std::string>{"base/1/1", "base/1/5"}));
    ASSERT_EQ(state.files.size(), 3U);
    const auto& ranges = state.files.at("base/1/2").local;
    ASSERT_EQ(ranges.size(), 2U);
    EXPECT_EQ(ranges[0].first, 0U);
    EXPECT_EQ(ranges[0].count, 6U);
    EXPECT_EQ(ranges[1].first, 10U);
    EXPECT_EQ(state.files.at("base/1/3").cut, 81920U);
    EXPECT_FALSE(state.files.at("base/1/3").cut_is_done);
    EXPECT_TRUE(state.files.at("base/1/4").cut_is_done);
  }
}

TEST_F(JournalFile, ends_at_the_first_record_that_is_not_whole) {
  const base::Bytes whole = written();
  std::size_t most = 0;
  for (std::size_t size = 25; size < whole.size(); ++size) {
    base::replace_file(path_, base::View(whole).first(size));
    const Journal torn(path_);
    const Journal::State& state = torn.opened_with();
    const std::size_t known = state.gone.size() + state.files.size();
    EXPECT_GE(known + 1, most) << "a longer one says no less (base/1/5 went)";
    most = std::max(most, known);
  }
  EXPECT_GT(most, 2U);
}

TEST_F(JournalFile, survives_what_a_disk_may_make_of_it) {
  const base::Bytes whole = written();
  base::testing::Random random(5);
  for (std::size_t i = 0; i < base::testing::fuzz_iterations(2000) / 10; ++i) {
    base::replace_file(path_, base::testing::mutated(whole, random));
    try {
      const Journal opened(path_);
      for (const auto& [name, file] : opened.opened_with().files) {
        EXPECT_TRUE(name.starts_with("base/1/")) << name;
      }
    } catch (const base::Error& error) {
      EXPECT_EQ(error.code(), base::Code::corrupt) << error.message();
    }
  }
}

}  // namespace
}  // namespace holdfast::mount
