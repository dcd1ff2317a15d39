// Maps that are lost are written again from what the packs say of themselves, and then a restore is
// what it was, byte for byte.

#include "faults.h"
#include "harness/witness.h"

namespace holdfast::tests {
namespace {

using base::Code;

class RebuildMaps : public ::testing::Test {
 protected:
  explicit RebuildMaps(bool agentless = false) : cluster_(place_.cluster()) {
    // Every kind of file that a map has: empty, all zero, sparse, equal to another, larger than a
    // frame.
    cluster_->sql(
        "CREATE TABLE large AS SELECT g AS id, md5(g::text) AS v FROM generate_series(1, 50000) g");
    cluster_->sql("CREATE TABLE empty (id int)");
    cluster_->sql("CREATE TABLE twin_a AS SELECT g AS id FROM generate_series(1, 100) g");
    cluster_->sql("CREATE DATABASE copy TEMPLATE postgres");
    const fs::path data = cluster_->data_directory() / "base" / "1";
    plant(data / "99990001", base::Bytes(5 * 8192));
    plant(data / "99990002", base::Bytes(400 * 8192));
    base::Bytes holes(500 * 8192);
    for (const std::size_t page : {std::size_t{0}, std::size_t{77}, std::size_t{499}}) {
      std::fill_n(holes.begin() + static_cast<std::ptrdiff_t>(page * 8192 + 24), 100,
                  std::uint8_t{7});
    }
    plant(data / "stranger", holes);
    plant(data / "odd", base::Bytes(12345, 9));
    plant(data / "odd_twin", base::Bytes(12345, 9));
    plant(data / "nothing", {});
    if (agentless) {
      std::string text = text_of(place_.configuration());
      const std::size_t begin = text.find("data_directory");
      overwrite(place_.configuration(), text.erase(begin, text.find('\n', begin) + 1 - begin));
    }
    place_.must({"backup"});
    cluster_->stop();
    before_ = restored("before");
  }
  void plant(const fs::path& file, const base::Bytes& content) const {
    base::replace_file(file, content, 0640);
    place_.give_to_server_user(file);
  }
  std::map<std::string, std::string> restored(const std::string& name) const {
    place_.must({"restore", place_.path(name).string(), "--to", "immediate"});
    return tree(place_.path(name));
  }
  Result rebuild() const { return place_.holdfast({"verify", "--rebuild-maps", "--json"}); }

  Place place_;
  std::unique_ptr<Cluster> cluster_;
  std::map<std::string, std::string> before_;
};

TEST_F(RebuildMaps, brings_back_every_file_as_it_was) {
  ASSERT_TRUE(before_.contains("base/1/odd_twin"));
  ASSERT_TRUE(before_.contains("base/1/nothing"));
  for (const bool lost : {true, false}) {
    SCOPED_TRACE(lost ? "lost" : "corrupt");
    for (const fs::path& shard : objects(place_, "maps")) {
      if (lost) {
        fs::remove(shard);
      } else {
        fs::resize_file(shard, fs::file_size(shard) - 5);
      }
    }
    EXPECT_EQ(place_.holdfast({"verify"}).status, status_of(Code::check_failed));
    EXPECT_EQ(place_.holdfast({"restore", place_.path("lost").string()}).status,
              status_of(Code::corrupt));
    const Result rebuilt = rebuild();
    EXPECT_EQ(rebuilt.status, 0) << rebuilt.output << rebuilt.errors;
    EXPECT_EQ(rebuilt.errors.find("only in part"), std::string::npos) << rebuilt.errors;
    EXPECT_EQ(restored(lost ? "after" : "again"), before_);
  }
}

/// Its packs were written in another order, from pieces of another size.
class RebuildMapsOfStream : public RebuildMaps {
 protected:
  RebuildMapsOfStream() : RebuildMaps(true) {}
};

TEST_F(RebuildMapsOfStream, brings_back_every_file_as_it_was) {
  for (const fs::path& shard : objects(place_, "maps")) fs::remove(shard);
  const Result rebuilt = rebuild();
  EXPECT_EQ(rebuilt.status, 0) << rebuilt.output << rebuilt.errors;
  EXPECT_EQ(restored("after"), before_);
}

TEST_F(RebuildMaps, touches_nothing_that_is_right) {
  const auto objects_before = tree(place_.repository());
  EXPECT_EQ(rebuild().status, 0);
  EXPECT_EQ(tree(place_.repository()), objects_before);
}

TEST_F(RebuildMaps, does_not_call_a_backup_good_whose_packs_are_gone_too) {
  for (const fs::path& shard : objects(place_, "maps")) fs::remove(shard);
  const auto packs = objects(place_, "packs");
  fs::remove(packs.front());
  const Result rebuilt = rebuild();
  EXPECT_NE(rebuilt.status, 0);
  EXPECT_NE(place_.holdfast({"verify"}).status, 0);
  EXPECT_NE(place_.holdfast({"restore", place_.path("lost").string()}).status, 0);
  EXPECT_TRUE(is_empty_or_absent(place_.path("lost")));
}

}  // namespace
}  // namespace holdfast::tests
