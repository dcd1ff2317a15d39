// What a restore finds beside and inside of its directory may be somebody else's.

#include "faults/faults.h"
#include "harness/instant.h"

namespace holdfast::tests {
namespace {

using base::Code;

class RestorePlaces : public ::testing::Test {
 protected:
  RestorePlaces() : cluster_(place_.cluster()), directory_(place_.path("restored")) {
    cluster_->sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS id");
    place_.must({"backup"});
  }
  fs::path state() const { return operations::instant_place(directory_).state(); }
  Result restore(const std::vector<std::string>& more) const {
    std::vector<std::string> all = {"restore", directory_.string(), "--to", "immediate"};
    all.insert(all.end(), more.begin(), more.end());
    return holdfast_as_self(place_, all);
  }
  Result run(const std::string& command) const {
    std::vector<std::string> all = {command, directory_.string()};
    if (command == "unmount") all.insert(all.end(), {"--discard", "--yes"});
    return holdfast_as_self(place_, all);
  }

  Place place_;
  std::unique_ptr<Cluster> cluster_;
  fs::path directory_;
};

TEST_F(RestorePlaces, delta_follows_no_link_and_says_where_it_is) {
  for (const char* name : {"base", "global", "pg_wal", "pg_tblspc"}) {
    ASSERT_EQ(restore({"--delta"}).status, 0);
    const fs::path other = place_.path(std::string("other_") + name);
    fs::rename(directory_ / name, other);
    overwrite(other / "precious", "of another cluster");
    fs::create_directory_symlink(other, directory_ / name);
    const auto before = tree_of(other);
    const Result result = restore({"--delta"});
    EXPECT_EQ(result.status, status_of(Code::refused)) << result.errors;
    EXPECT_NE(result.errors.find((directory_ / name).string()), std::string::npos) << result.errors;
    EXPECT_EQ(tree_of(other), before);
    fs::remove(directory_ / name);
  }
  EXPECT_EQ(restore({"--delta"}).status, 0);
}

TEST_F(RestorePlaces, delta_changes_no_file_that_has_another_name_as_well) {
  ASSERT_EQ(restore({}).status, 0);
  const fs::path file = directory_ / "global/pg_filenode.map";
  const fs::path snapshot = place_.path("snapshot");
  overwrite(file, "of a snapshot by links");
  fs::create_hard_link(file, snapshot);
  ASSERT_EQ(restore({"--delta"}).status, 0);
  EXPECT_EQ(text_of(snapshot), "of a snapshot by links");
  EXPECT_NE(text_of(file), "of a snapshot by links");
}

TEST_F(RestorePlaces, a_state_directory_of_somebody_else_is_neither_used_nor_removed) {
  NEEDS_FUSE();
  fs::create_directory(state());
  overwrite(state() / "letter", "dear");
  EXPECT_EQ(restore({"--instant"}).status, status_of(Code::refused));
  for (const char* command : {"mount", "unmount", "settle"}) {
    EXPECT_EQ(run(command).status, status_of(Code::refused)) << command;
  }
  EXPECT_EQ(text_of(state() / "letter"), "dear");
}

/// As kill -9 leaves it right after the first step of a discard, and in the middle.
TEST_F(RestorePlaces, what_is_left_of_a_discard_is_only_discarded) {
  NEEDS_FUSE();
  ASSERT_EQ(restore({"--instant"}).status, 0);
  operations::unmount_instant(operations::instant_place(directory_));
  fs::rename(state() / "description", state() / "going");
  for (const bool half : {false, true}) {
    if (half) fs::remove(state() / "data/PG_VERSION");
    EXPECT_EQ(restore({"--instant"}).status, status_of(Code::refused));
    for (const char* command : {"mount", "settle"}) {
      const Result result = run(command);
      EXPECT_EQ(result.status, status_of(Code::refused)) << command;
      EXPECT_NE(result.errors.find("unmount --discard"), std::string::npos) << result.errors;
    }
  }
  const Result discarded = run("unmount");
  EXPECT_EQ(discarded.status, 0) << discarded.errors;
  EXPECT_FALSE(fs::exists(state()));
  EXPECT_FALSE(fs::exists(directory_));
  EXPECT_EQ(restore({"--instant"}).status, 0);
  EXPECT_EQ(run("unmount").status, 0);
}

TEST_F(RestorePlaces, what_is_not_whole_is_not_settled) {
  NEEDS_FUSE();
  ASSERT_EQ(restore({"--instant"}).status, 0);
  const operations::InstantPlace place = operations::instant_place(directory_);
  eventually("everything is local", [&] { return operations::instant_status(place).complete; });
  operations::unmount_instant(place);
  for (const char* name : {"PG_VERSION", "base/1/1259"}) {
    fs::rename(place.data() / name, place_.path("aside"));
    const Result result = run("settle");
    EXPECT_EQ(result.status, status_of(Code::corrupt)) << result.errors;
    EXPECT_NE(result.errors.find(name), std::string::npos) << result.errors;
    fs::rename(place_.path("aside"), place.data() / name);
  }
  EXPECT_EQ(run("settle").status, 0);
  EXPECT_TRUE(fs::exists(directory_ / "PG_VERSION"));
}

}  // namespace
}  // namespace holdfast::tests
