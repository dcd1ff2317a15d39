// Changed-pages backups: where the idea of "unchanged" must not be trusted (U1 to U11).
//
// Each test stands still before it backs up, so that the truth is what is on disk.

#include <fcntl.h>

#include "base/error.h"
#include "faults/faults.h"
#include "harness/witness.h"
#include "postgres/page.h"

namespace holdfast::tests {
namespace {

const postgres::Settings quiet = {{"autovacuum", "off"},
                                  {"bgwriter_lru_maxpages", "0"},
                                  {"checkpoint_timeout", "1h"},
                                  {"wal_keep_size", "128MB"}};

/// A cluster with a table of many pages and a first backup.
class ChangedPages : public testing::Test {
 protected:
  void begin(const postgres::InitOptions& options = {}, int major = 15) {
    cluster_ = place_.cluster(major, options);
    again();
    for (const char* statement :
         {"CREATE TABLE t (i int, filler text) WITH (autovacuum_enabled = off)",
          "INSERT INTO t SELECT i, repeat('x', 200) FROM generate_series(1, 20000) AS i",
          "CREATE INDEX ON t (i)", "VACUUM t"}) {
      cluster_->sql(statement);
    }
    backup("auto");
  }
  /// Stops and starts it, with `between` while it is down.
  void again(
      const std::function<void()>& between = [] {},
      postgres::Server::StopMode mode = postgres::Server::StopMode::fast) {
    cluster_->stop(mode);
    between();
    postgres::Settings settings = quiet;
    for (const auto& each : archiving(place_)) settings.push_back(each);
    cluster_->start(settings);
    point_configuration_at(place_, *cluster_);
  }
  nlohmann::json backup(const std::string& way) {
    const Result result = place_.must({"backup", "--json", "--compare", way});
    warnings_ = result.errors;
    return last_ = result.json();
  }
  /// The last backup is what is on disk.
  void expect_right() {
    const std::string name = fmt::format("restored-{}", ++restores_);
    place_.must(
        {"restore", place_.path(name).string(), "--backup", last_.at("id"), "--to", "immediate"});
    EXPECT_EQ(differences_on_disk(cluster_->data_directory(), place_.path(name)), "");
  }
  fs::path file_of(const std::string& relation) const {
    return cluster_->data_directory() /
           cluster_->sql("SELECT pg_relation_filepath('" + relation + "')");
  }

  Place place_;
  std::unique_ptr<Cluster> cluster_;
  nlohmann::json last_;
  std::string warnings_;
  int restores_ = 0;
};

TEST_F(ChangedPages, cost_next_to_nothing_where_nothing_changed) {
  begin();
  for (const char* way : {"wal", "pages", "content"}) {
    EXPECT_EQ(backup(way).at("compared"), way);
    EXPECT_LT(last_.at("stored_bytes").get<int>(), 100'000) << way;
    expect_right();
  }
}

TEST_F(ChangedPages, store_only_what_changed) {
  begin();
  cluster_->sql("UPDATE t SET i = -i WHERE i % 1000 = 0");
  const auto bytes = backup("wal").at("stored_bytes").get<int>();
  EXPECT_EQ(last_.at("compared"), "wal");
  EXPECT_LT(bytes, 300'000);
  expect_right();
  EXPECT_GT(backup("nothing").at("stored_bytes").get<int>(), 3 * bytes);
}

TEST_F(ChangedPages, find_a_bit_of_the_visibility_map_that_changed_without_a_trace_U1) {
  begin();
  // Clearing it leaves neither an LSN on the map's page nor a block reference in WAL.
  cluster_->sql("DELETE FROM t WHERE i = 77");
  backup("wal");
  expect_right();
  cluster_->sql("DELETE FROM t WHERE i = 9000");
  backup("pages");
  expect_right();
}

TEST_F(ChangedPages, compare_by_content_where_hints_are_not_logged) {
  begin({.checksums = false});
  cluster_->sql("DELETE FROM t WHERE i % 5000 = 0");
  cluster_->sql("VACUUM t");  // sets the all-visible flag of pages without a new LSN
  EXPECT_EQ(backup("pages").at("compared"), "content");
  expect_right();
}

TEST_F(ChangedPages, compare_another_file_at_the_same_path_by_content_U5) {
  begin();
  const fs::path file = file_of("t");
  again([&] {
    // A file-level copy from elsewhere: old LSNs, other bytes.
    const fs::path copy = file.string() + ".copy";
    fs::copy_file(file, copy);
    place_.give_to_server_user(copy);
    const base::Fd open = base::open_file(copy, O_RDWR);
    base::Bytes page(8192);
    base::read_at(open, page, 3 * 8192, copy);
    ASSERT_EQ(::pwrite(open.get(), page.data(), page.size(), 2 * 8192), 8192);
    fs::rename(copy, file);
  });
  const Result result = place_.holdfast({"backup", "--json", "--compare", "wal"});
  // The page stands where its checksum does not fit, so the backup is a damaged one, but it is
  // true.
  last_ = result.json();
  EXPECT_EQ(last_.at("compared"), "wal");
  EXPECT_EQ(result.status, status_of(base::Code::damaged));
  expect_right();
}

TEST_F(ChangedPages, do_not_build_on_a_damaged_backup) {
  begin();
  const fs::path file = file_of("t");
  again([&] { flip_byte(file, 5 * 8192 + 4000); });
  EXPECT_EQ(place_.holdfast({"backup", "--compare", "content"}).status,
            status_of(base::Code::damaged));
  // WAL says that this page has not changed. It is damaged all the same, and the next one says so.
  const Result next = place_.holdfast({"backup", "--json"});
  EXPECT_EQ(next.status, status_of(base::Code::damaged));
  EXPECT_EQ(next.json().at("compared"), "content");
}

/// Puts the bytes of another time into files in place: what a snapshot of a disk does.
void roll_back(const fs::path& from, const fs::path& to) {
  for (const auto& each : fs::recursive_directory_iterator(from)) {
    const fs::path target = to / each.path().lexically_relative(from);
    if (!each.is_regular_file()) continue;
    const base::Fd file = base::open_file(target, O_WRONLY | O_CREAT | O_TRUNC);
    base::write_all(file, base::read_existing_file(each.path()), target);
  }
}

TEST_F(ChangedPages, compare_by_content_after_storage_was_rolled_back_U4) {
  begin();
  const fs::path copy = place_.path("snapshot");
  again([&] { fs::copy(cluster_->data_directory(), copy, fs::copy_options::recursive); });
  cluster_->sql("UPDATE t SET filler = 'first life' WHERE i < 4000");
  backup("auto");
  const std::string archived = current_segment(*cluster_);
  cluster_->stop();
  roll_back(copy, cluster_->data_directory());
  cluster_->start(quiet);
  point_configuration_at(place_, *cluster_);
  cluster_->sql("UPDATE t SET filler = 'second life' WHERE i > 16000");
  // Nothing that the new life archives may meet what the old one did.
  while (current_segment(*cluster_) <= archived) {
    cluster_->sql("SELECT pg_logical_emit_message(false, '', 'x')");
    cluster_->sql("SELECT pg_switch_wal()");
  }
  EXPECT_EQ(backup("auto").at("compared"), "content");
  EXPECT_NE(warnings_.find("other WAL"), std::string::npos) << warnings_;
  expect_right();
}

/// Changes a byte of a file's first page as if WAL had done it, at `lsn`, with a checksum that
/// fits.
void change_first_page(const fs::path& file, postgres::Lsn lsn) {
  constexpr std::size_t checksum_at = 8;
  const base::Fd open = base::open_file(file, O_RDWR);
  base::Bytes page(8192);
  ASSERT_EQ(base::read_at(open, page, 0, file), page.size());
  base::store(page.data(), static_cast<std::uint32_t>(lsn.value >> 32));
  base::store(page.data() + 4, static_cast<std::uint32_t>(lsn.value));
  page.back() ^= 1;
  base::store(page.data() + checksum_at, postgres::page_checksum(page, 0));
  ASSERT_EQ(::pwrite(open.get(), page.data(), page.size(), 0), std::ssize(page));
}

TEST_F(ChangedPages, notice_a_list_of_changes_that_misses_some) {
  begin();
  // One file in 64 is looked at, so that all of them are missed once in 60,000 runs.
  cluster_->sql(
      "DO $$ BEGIN FOR i IN 1..700 LOOP EXECUTE format('CREATE TABLE small%s AS SELECT 1 AS i, "
      "''to be changed'' AS t', i); END LOOP; END $$");
  backup("auto");
  cluster_->sql("SELECT pg_logical_emit_message(false, '', 'x')");
  const auto lsn = postgres::parse_lsn(cluster_->sql("SELECT pg_current_wal_insert_lsn()"));
  const auto session = cluster_->session().query(
      "SELECT pg_relation_filepath(oid) FROM pg_class WHERE relname ~ '^small[0-9]'");
  ASSERT_EQ(session.size(), 700U);
  again([&] {
    for (const auto& row : session) {
      change_first_page(cluster_->data_directory() / row[0].value(), lsn.value());
    }
  });
  EXPECT_EQ(backup("wal").at("compared"), "pages");
  EXPECT_NE(warnings_.find("has changed, but is not among the changes"), std::string::npos)
      << warnings_;
  expect_right();
  place_.must({"verify"});
}

TEST_F(ChangedPages, compare_by_content_after_checksums_were_switched_U6) {
  begin({.checksums = false});
  again([&] {
    const Result enabled = run_tool(cluster_->installation(), "pg_checksums",
                                    {"--enable", "-D", cluster_->data_directory().string()});
    ASSERT_EQ(enabled.status, 0) << enabled.errors;
  });
  EXPECT_EQ(backup("auto").at("compared"), "content");
  EXPECT_NE(warnings_.find("checksums"), std::string::npos) << warnings_;
  expect_right();
}

TEST_F(ChangedPages, read_all_pages_if_wal_between_is_missing_U11) {
  begin();
  cluster_->sql("UPDATE t SET i = -i WHERE i % 3000 = 0");
  const std::string segment = finish_segment(place_, *cluster_);
  finish_segment(place_, *cluster_);
  fs::remove(object_of(place_, *cluster_, "wal/" + segment.substr(0, 8) + "/" + segment));
  fs::rename(cluster_->data_directory() / "pg_wal" / segment, place_.path("aside"));
  EXPECT_EQ(backup("auto").at("compared"), "pages");
  EXPECT_EQ(backup("wal").at("compared"), "wal");  // the next one has all it needs again
  expect_right();
  fs::rename(place_.path("aside"), cluster_->data_directory() / "pg_wal" / segment);
}

TEST_F(ChangedPages, do_without_a_map_shard_that_is_damaged) {
  begin();
  const auto shards = objects(place_, "maps");
  ASSERT_FALSE(shards.empty());
  const Damage damage(shards.front());
  damage.flip(damage.size() / 2);
  backup("auto");
  EXPECT_NE(warnings_.find("shard"), std::string::npos) << warnings_;
  expect_right();
}

TEST_F(ChangedPages, of_a_relation_of_more_than_one_file_B1) {
  begin();
  const fs::path file = file_of("t");
  // Zero pages up to 1 GB, then a second file: sparse, so that it costs little.
  const auto length = std::uint64_t{131072} * 8192;
  again([&] {
    const fs::path second = file.string() + ".1";
    fs::resize_file(file, length);
    overwrite(second, "");
    place_.give_to_server_user(second);
    fs::resize_file(second, std::uint64_t{64} * 8192);
  });
  EXPECT_EQ(cluster_->sql("SELECT count(*) FROM t"), "20000");
  cluster_->sql("INSERT INTO t SELECT i, repeat('z', 2000) FROM generate_series(1, 2000) AS i");
  backup("wal");
  expect_right();
  cluster_->sql("DELETE FROM t WHERE filler LIKE 'z%'");
  cluster_->sql("VACUUM (INDEX_CLEANUP ON) t");  // cuts the second file off, and most of the first
  EXPECT_LT(fs::file_size(file), length);
  backup("wal");
  expect_right();
}

TEST_F(ChangedPages, follow_a_promotion_by_wal_and_by_pages_U3) {
  begin();
  cluster_->sql("UPDATE t SET i = -i WHERE i % 700 = 0");
  place_.archive_all(*cluster_);
  auto promoted = place_.restored(*cluster_, "promoted");
  cluster_->stop();
  promoted->stop();
  cluster_ = std::move(promoted);
  again();
  cluster_->sql("UPDATE t SET i = -i WHERE i % 900 = 0");
  backup("auto");
  expect_right();
  cluster_->sql("UPDATE t SET i = -i WHERE i % 800 = 0");
  EXPECT_EQ(backup("wal").at("compared"), "wal");
  expect_right();
}

}  // namespace
}  // namespace holdfast::tests
