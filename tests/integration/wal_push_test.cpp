// `wal push`: what may enter the archive, and what PostgreSQL hears about the rest.

#include "harness/witness.h"
#include "postgres/control_file.h"

namespace holdfast::tests {
namespace {

constexpr int usage = 2;
constexpr int corrupt = 10;
constexpr int foreign = 11;
constexpr int conflict = 12;

/// A server that has archived one segment, which is still in its pg_wal.
class WalPush : public testing::Test {
 protected:
  WalPush() : source_(place_.cluster()) {
    source_->sql("CREATE TABLE t AS SELECT g FROM generate_series(1, 1000) g");
    segment_ = finish_segment(place_, *source_);
    bytes_ = text_of(in_pg_wal(segment_));  // the server may reuse the file later
    fs::create_directory(place_.path("inbox"));
    fs::permissions(place_.path("inbox"), fs::perms(0777));
  }

  fs::path in_pg_wal(const std::string& name) const {
    return source_->data_directory() / "pg_wal" / name;
  }
  const std::string& bytes() const { return bytes_; }

  /// What happens to these bytes under this name.
  Result push(const std::string& name, std::string_view content) const {
    overwrite(place_.path("inbox") / name, content);
    const Result result = place_.holdfast({"wal", "push", (place_.path("inbox") / name).string()});
    // The archiver takes anything above for a reason to restart (pgarch.c).
    EXPECT_LE(result.status, 125);
    return result;
  }

  std::map<std::string, std::string> archive() const {
    return tree_of(object_of(place_, *source_, "wal"));
  }

  Place place_;
  std::unique_ptr<Cluster> source_;
  std::string segment_;
  std::string bytes_;
};

TEST_F(WalPush, B22_WP3_the_same_bytes_again_are_accepted_and_change_nothing) {
  const auto before = archive();
  const Result result = place_.must({"wal", "push", "--json", in_pg_wal(segment_).string()});
  EXPECT_TRUE(result.json().at("was_there"));
  EXPECT_EQ(archive(), before);
}

TEST_F(WalPush, B22_INV_5_other_bytes_under_an_existing_name_are_refused) {
  const auto before = archive();
  std::string changed = bytes();
  changed[5000] = static_cast<char>(~changed[5000]);
  const Result result = push(segment_, changed);
  EXPECT_EQ(result.status, conflict) << result.errors;
  EXPECT_EQ(archive(), before);
}

TEST_F(WalPush, B23_WP7_a_truncated_segment_is_refused) {
  const auto before = archive();
  const std::string whole = bytes();
  for (const std::size_t length :
       {std::size_t{0}, std::size_t{100}, std::size_t{8192}, whole.size() / 2, whole.size() - 1}) {
    const Result result = push(segment_, whole.substr(0, length));
    EXPECT_EQ(result.status, corrupt) << length << ": " << result.errors;
  }
  EXPECT_EQ(push(segment_, whole + whole).status, corrupt) << "twice as long";
  EXPECT_EQ(archive(), before);
}

TEST_F(WalPush, a_segment_under_another_name_is_refused) {
  std::string other = segment_;
  other.replace(22, 2, "77");
  EXPECT_EQ(push(other, bytes()).status, corrupt);
  // Its timeline must be the name's, or an ancestor that the name's could have come from.
  other = segment_;
  other.replace(0, 8, "00000000");
  EXPECT_NE(push(other, bytes()).status, 0);
}

TEST_F(WalPush, B25_WP1_INV_5_wal_of_another_system_is_refused_at_numbers_that_are_free) {
  Cluster other(installation(15), place_.path("other"));
  const std::string first = "000000010000000000000001";
  const std::string free = "000000010000000000000050";
  EXPECT_EQ(
      run_tool(installation(15), "pg_resetwal", {"-l", free, "-D", other.data_directory().string()})
          .status,
      0);
  ASSERT_TRUE(fs::exists(other.data_directory() / "pg_wal" / free));
  const auto before = tree_of(place_.repository());
  const Result result =
      place_.holdfast({"wal", "push", (other.data_directory() / "pg_wal" / free).string()});
  EXPECT_EQ(result.status, foreign) << result.errors;
  EXPECT_EQ(push(free, text_of(other.data_directory() / "pg_wal" / free)).status, foreign);
  EXPECT_EQ(tree_of(place_.repository()), before);
}

TEST_F(WalPush, history_partial_and_backup_files_are_kept_beside_segments) {
  place_.must({"backup"});
  place_.archive_all(*source_);
  const auto names = archive();
  EXPECT_TRUE(std::ranges::any_of(names, [](const auto& each) {
    return each.first.ends_with(".backup");
  })) << "the backup history file that the server archives itself";

  EXPECT_EQ(push(segment_ + ".partial", bytes()).status, 0);
  EXPECT_TRUE(fs::exists(object_of(place_, *source_, "wal/00000001/" + segment_ + ".partial")));

  const std::string history = "1\t0/5000000\tno recovery target specified\n";
  EXPECT_EQ(push("00000002.history", history).status, 0);
  EXPECT_EQ(push("00000002.history", history).status, 0) << "identical";
  EXPECT_EQ(push("00000002.history", "1\t0/6000000\tanother\n").status, conflict);
  EXPECT_EQ(push("00000003.history", "not a history at all\n").status, corrupt);
}

TEST_F(WalPush, B26_a_backup_history_file_is_never_taken_for_its_segment) {
  place_.must({"backup"});
  const std::string later = finish_segment(place_, *source_);
  const std::string its_bytes = text_of(in_pg_wal(later));
  EXPECT_EQ(push(later + ".00000028.backup", "START WAL LOCATION: 0/5000028 (file x)\n").status, 0);
  place_.must({"wal", "fetch", later, place_.path("fetched").string()});
  EXPECT_EQ(text_of(place_.path("fetched")), its_bytes);
}

TEST_F(WalPush, names_that_postgresql_gives_to_no_wal_file_are_refused) {
  for (const char* name : {"postgresql.conf", "00000001", "00000001000000000000000z",
                           "000000010000000000000001.part", "1.history"}) {
    EXPECT_EQ(push(name, bytes()).status, usage) << name;
  }
  EXPECT_NE(place_.holdfast({"wal", "push", in_pg_wal("000000010000000000000099").string()}).status,
            0);
}

class SegmentSizes : public testing::TestWithParam<std::uint64_t> {};
INSTANTIATE_TEST_SUITE_P(MiB, SegmentSizes, testing::Values(1, 64),
                         [](const auto& each) { return std::to_string(each.param); });

TEST_P(SegmentSizes, B29_make_the_round_trip) {
  Place place;
  postgres::InitOptions options;
  options.wal_segment_bytes = GetParam() << 20;
  const auto source = place.cluster(15, options);
  source->sql("CREATE TABLE t AS SELECT g AS id FROM generate_series(1, 1000) g");
  place.must({"backup"});
  for (int round = 0; round < 2; ++round) {
    source->sql("INSERT INTO t SELECT g FROM generate_series(1, 20000) g");
    finish_segment(place, *source);
  }
  source->sql("SELECT pg_create_restore_point('here')");
  const std::string before = digest(*source);
  source->sql("DROP TABLE t");
  place.archive_all(*source);
  const auto restored = place.restored(*source, "restored", {"--to", "here"});
  EXPECT_EQ(digest(*restored), before);
  EXPECT_EQ(restored->sql("SHOW wal_segment_size"), fmt::format("{}MB", GetParam()));
  place.must({"verify"});
}

}  // namespace
}  // namespace holdfast::tests
