// Pages that are damaged in the cluster itself: a backup of them is taken, and says so everywhere.

#include <fcntl.h>

#include "harness/witness.h"

namespace holdfast::tests {
namespace {

constexpr int damaged_status = 17;
constexpr std::uint64_t page_bytes = 8192;

class Damage : public testing::Test {
 protected:
  Damage() : source_(place_.cluster()) {
    source_->sql(
        "CREATE TABLE t WITH (autovacuum_enabled = off) AS "
        "SELECT g AS id, repeat('x', 500) AS v FROM generate_series(1, 300) g");
    good_ = place_.must({"backup", "--json"}).json().at("id");
    file_ = source_->data_directory() / source_->sql("SELECT pg_relation_filepath('t')");
    source_->stop();
  }

  void write(std::uint64_t page, std::uint64_t offset, const base::Bytes& bytes) const {
    base::write_at(base::open_file(file_, O_WRONLY), bytes, page * page_bytes + offset, file_);
  }

  void start() {
    source_->start();
    point_configuration_at(place_, *source_);  // its socket is another one now
  }

  /// Starts the server again, takes a backup that must notice, and returns it as JSON.
  nlohmann::json backup_of_damage() {
    start();
    const Result result = place_.holdfast({"backup", "--json", "--compare", "nothing"});
    EXPECT_EQ(result.status, damaged_status) << result.errors;
    EXPECT_NE(result.errors.find("damaged pages"), std::string::npos) << result.errors;
    return result.json();
  }

  std::string name() const { return fs::relative(file_, source_->data_directory()).string(); }

  Place place_;
  std::unique_ptr<Cluster> source_;
  std::string good_;
  fs::path file_;
};

TEST_F(Damage, BK13_shows_in_the_exit_status_the_json_the_list_and_the_doctors_words) {
  flip_byte(file_, 5 * page_bytes + 6000);
  const auto backup = backup_of_damage();
  EXPECT_EQ(backup.at("state"), "damaged");
  EXPECT_EQ(backup.at("damaged_files"),
            nlohmann::json::parse(
                fmt::format(R"([{{"path": "{}", "pages": 1, "first_pages": [5]}}])", name())));

  const Result list = place_.must({"list"});
  EXPECT_NE(list.output.find("DAMAGED"), std::string::npos) << list.output;
  const auto listed = place_.must({"list", "--json"}).json().at("backups");
  ASSERT_EQ(listed.size(), 2U);
  EXPECT_EQ(listed[0].at("state"), "good");
  EXPECT_EQ(listed[1].at("state"), "damaged");
  EXPECT_NE(place_.holdfast({"doctor"}).output.find("holds damaged pages"), std::string::npos);
}

TEST_F(Damage, B15_BK7_a_page_with_a_high_lsn_is_not_forgiven) {
  // All that looks like a page of the far future, as if it were being written just now.
  write(3, 0, base::Bytes(8, 0xfe));
  EXPECT_EQ(backup_of_damage().at("damaged_files")[0].at("first_pages"), nlohmann::json({3}));
}

TEST_F(Damage, BK6_a_page_whose_pd_upper_is_zero_is_no_new_page) {
  write(2, 14, base::Bytes(2, 0));
  EXPECT_EQ(backup_of_damage().at("damaged_files")[0].at("first_pages"), nlohmann::json({2}));
}

TEST_F(Damage, a_page_that_is_zero_throughout_is_a_new_page_and_no_damage) {
  write(2, 0, base::Bytes(page_bytes, 0));
  start();
  EXPECT_EQ(place_.must({"backup", "--json"}).json().at("state"), "good");
}

TEST_F(Damage, restore_begins_from_the_good_backup_before_unless_told_otherwise) {
  flip_byte(file_, 5 * page_bytes + 6000);
  const std::string damaged = backup_of_damage().at("id");
  place_.archive_all(*source_);

  const auto chosen = place_.must({"restore", place_.path("good").string(), "--json"}).json();
  EXPECT_EQ(chosen.at("backup"), good_);
  const auto restored = adopt(source_->installation(), place_.path("good"));
  restored->start();
  restored->server().await_recovery_end(std::chrono::seconds(60));
  EXPECT_EQ(restored->sql("SELECT count(*) FROM t WHERE v = repeat('x', 500)"), "300");

  const Result named = place_.must({"restore", place_.path("bad").string(), "--backup", damaged});
  EXPECT_NE(named.errors.find("damaged pages"), std::string::npos) << named.errors;
}

TEST_F(Damage, a_damaged_backup_begins_no_recovery_window) {
  const auto before = place_.must({"list", "--json"}).json().at("recovery_windows");
  flip_byte(file_, 5 * page_bytes + 6000);
  backup_of_damage();
  const auto after = place_.must({"list", "--json"}).json().at("recovery_windows");
  ASSERT_EQ(after.size(), 1U);
  EXPECT_EQ(after[0].at("from_lsn"), before[0].at("from_lsn"));
}

TEST_F(Damage, pages_that_were_copied_with_their_damage_come_back_with_it) {
  flip_byte(file_, 5 * page_bytes + 6000);
  const std::string damaged = backup_of_damage().at("id");
  const std::string relation = name();
  const std::string source_bytes = text_of(file_);
  place_.must({"restore", place_.path("bad").string(), "--backup", damaged, "--to", "immediate"});
  EXPECT_EQ(text_of(place_.path("bad") / relation), source_bytes);
}

}  // namespace
}  // namespace holdfast::tests
