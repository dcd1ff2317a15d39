// `wal fetch`: "not found" (1) ends recovery and promotes, so it is said only on proof (INV-6).
// Everything else is 200, which makes the server stop.

#include "harness/witness.h"
#include "postgres/wal_segment.h"

namespace holdfast::tests {
namespace {

constexpr int fetched = 0;
constexpr int not_found = 1;
constexpr int must_stop = 200;

class WalFetch : public testing::Test {
 protected:
  WalFetch() : source_(place_.cluster()) {
    source_->sql("CREATE TABLE t (id int)");
    place_.must({"backup"});
    for (int i = 0; i < 4; ++i) {
      source_->sql(fmt::format("INSERT INTO t VALUES ({})", i));
      segments_.push_back(finish_segment(place_, *source_));
    }
  }

  Result fetch(const std::string& name) const {
    return place_.holdfast({"wal", "fetch", name, place_.path("fetched").string()});
  }
  int status(const std::string& name) const { return fetch(name).status; }

  fs::path object(const std::string& segment) const {
    return object_of(place_, *source_, "wal/" + segment.substr(0, 8) + "/" + segment);
  }

  /// The name of the segment that is being written and so is not archived yet.
  std::string next() const { return current_segment(*source_); }

  Place place_;
  std::unique_ptr<Cluster> source_;
  std::vector<std::string> segments_;
};

TEST_F(WalFetch, gives_the_bytes_that_were_pushed_and_says_not_found_at_the_proven_end) {
  EXPECT_EQ(status(segments_[1]), fetched);
  EXPECT_EQ(text_of(place_.path("fetched")),
            text_of(source_->data_directory() / "pg_wal" / segments_[1]));
  EXPECT_EQ(status(next()), not_found);
  EXPECT_EQ(status("00000002.history"), not_found);
}

TEST_F(WalFetch, B31_WF1_never_says_not_found_during_an_outage) {
  const std::string absent = next();
  fs::rename(place_.repository(), place_.path("elsewhere"));
  EXPECT_EQ(status(segments_[0]), must_stop);
  EXPECT_EQ(status(absent), must_stop);
  EXPECT_EQ(status("00000002.history"), must_stop);
  // An empty directory where the repository was: a mount that is not there.
  fs::create_directory(place_.repository());
  EXPECT_EQ(status(segments_[0]), must_stop);
  EXPECT_EQ(status(absent), must_stop);
  fs::remove(place_.repository());
  fs::rename(place_.path("elsewhere"), place_.repository());
  EXPECT_EQ(status(absent), not_found);
}

TEST_F(WalFetch, B31_never_says_not_found_when_wal_cannot_be_listed) {
  const std::string absent = next();
  const fs::path directory = object(segments_[0]).parent_path();
  fs::rename(directory, place_.path("elsewhere"));
  // The whole timeline is gone: the fetch must not take that for an archive that is just empty.
  EXPECT_EQ(status(segments_[0]), must_stop);
  fs::rename(place_.path("elsewhere"), directory);
  EXPECT_EQ(status(absent), not_found);
}

TEST_F(WalFetch, B31_never_says_not_found_without_the_key) {
  const std::string key = text_of(place_.path("holdfast.key"));
  overwrite(place_.path("holdfast.key"), std::string(64, 'a') + "\n");
  EXPECT_EQ(status(segments_[0]), must_stop);
  EXPECT_EQ(status(next()), must_stop);
  fs::remove(place_.path("holdfast.key"));
  EXPECT_EQ(status(next()), must_stop);
  overwrite(place_.path("holdfast.key"), key);
  place_.give_to_server_user(place_.path("holdfast.key"));
  EXPECT_EQ(status(next()), not_found);
}

TEST_F(WalFetch, B31_never_says_not_found_of_a_corrupted_object) {
  const auto size = fs::file_size(object(segments_[1]));
  for (const std::uint64_t at : {std::uint64_t{3}, size / 2, size - 30}) {
    flip_byte(object(segments_[1]), at);
    EXPECT_EQ(status(segments_[1]), must_stop) << "byte " << at;
    flip_byte(object(segments_[1]), at);
  }
  EXPECT_EQ(status(segments_[1]), fetched);
  fs::resize_file(object(segments_[1]), size / 2);
  EXPECT_EQ(status(segments_[1]), must_stop);
  fs::resize_file(object(segments_[1]), 0);
  EXPECT_EQ(status(segments_[1]), must_stop);
}

TEST_F(WalFetch, B31_never_says_not_found_without_a_configuration_that_it_understands) {
  const std::string good = text_of(place_.configuration());
  overwrite(place_.configuration(), "[cluster.main\n");
  EXPECT_EQ(status(next()), must_stop);
  overwrite(place_.configuration(), good + "colour = \"blue\"\n");
  EXPECT_EQ(status(next()), must_stop);
  overwrite(place_.configuration(), "");
  EXPECT_EQ(status(next()), must_stop);
  fs::remove(place_.configuration());
  EXPECT_EQ(status(next()), must_stop);
}

TEST_F(WalFetch, B31_never_says_not_found_to_arguments_that_it_does_not_understand) {
  const std::string to = place_.path("fetched").string();
  const std::string config = place_.configuration().string();
  const std::vector<std::vector<std::string>> commands = {
      {"wal", "fetch"},
      {"wal", "fetch", next()},
      {"wal", "fetch", next(), to, "and more"},
      {"wal", "fetch", next(), to, "--colour", "blue"},
      {"wal", "fetch", "not-a-wal-file", to},
      {"wal", "fetch", "", to},
      {"wal", "fetch", next(), to, "--system", "12"},
      {"wal", "fetch", next(), to, "--system", "none"},
      {"wal", "fetch", next(), to, "--cluster", "other"},
      {"wal", "--colour", "fetch", next(), to},
      {"wal", "--config", config, "fetch", "not-a-wal-file", to},
      {"wal", "fecth", next(), to},
      {"wall", "fetch", next(), to},
      {"fetch", next(), to},
      {"wal", "00000002.history", to},
  };
  for (const auto& command : commands) {
    std::string line;
    for (const std::string& word : command) line += " " + word;
    EXPECT_EQ(place_.holdfast(command).status, must_stop) << line;
  }
}

TEST_F(WalFetch, B31_a_destination_that_cannot_be_written_is_no_absence) {
  EXPECT_EQ(place_.holdfast({"wal", "fetch", segments_[0], "/proc/no/such/file"}).status,
            must_stop);
  EXPECT_EQ(
      place_.holdfast({"wal", "fetch", segments_[0], place_.path("no/such/file").string()}).status,
      must_stop);
}

TEST_F(WalFetch, B32_WF2_a_history_that_must_have_been_is_not_absent) {
  // WAL of timeline 3 whose ancestor 2 left no history: proof that both were there.
  const std::string third = "1\t0/5000000\tx\n2\t0/6000000\ty\n";
  overwrite(place_.path("00000003.history"), third);
  place_.must({"wal", "push", place_.path("00000003.history").string()});
  EXPECT_EQ(status("00000003.history"), fetched);
  EXPECT_EQ(status("00000002.history"), must_stop);
  EXPECT_EQ(status("00000004.history"), not_found);
}

TEST_F(WalFetch, WF3_a_hole_is_no_end) {
  fs::remove(object(segments_[2]));
  const Result result = fetch(segments_[2]);
  EXPECT_EQ(result.status, must_stop);
  EXPECT_NE(result.errors.find(segments_[2]), std::string::npos) << result.errors;
  EXPECT_EQ(status(segments_[3]), fetched);
}

TEST_F(WalFetch, the_last_segment_removed_is_an_end_like_any_other) {
  fs::remove(object(segments_[3]));
  EXPECT_EQ(status(segments_[3]), not_found);
}

/// The place beside pg_wal where segments wait that will be asked for next.
class Spool : public WalFetch {
 protected:
  Spool() {
    fs::create_directories(spool());
    give(place_.path("target"));
    give(place_.path("target/pg_wal"));
    give(spool());
  }
  void give(const fs::path& path) const { place_.give_to_server_user(path); }
  fs::path spool() const { return place_.path("target/pg_wal/holdfast.fetch"); }
  void plant(const std::string& name, std::string_view text) const {
    overwrite(spool() / name, text);
    give(spool() / name);
  }
  int fetch_to_target(const std::string& name) const {
    return place_
        .holdfast({"wal", "fetch", name, place_.path("target/pg_wal/RECOVERYXLOG").string()})
        .status;
  }
  std::string delivered() const { return text_of(place_.path("target/pg_wal/RECOVERYXLOG")); }
};

TEST_F(Spool, B33_garbage_in_it_is_not_served) {
  const std::string right = text_of(source_->data_directory() / "pg_wal" / segments_[1]);
  const std::vector<std::string> garbage = {
      "", "garbage", right.substr(0, right.size() / 2),
      text_of(source_->data_directory() / "pg_wal" / segments_[2])};  // another segment's bytes
  for (const std::string& text : garbage) {
    plant(segments_[1], text);
    EXPECT_EQ(fetch_to_target(segments_[1]), fetched);
    EXPECT_EQ(delivered(), right);
  }
}

TEST_F(Spool, WF9_a_stale_segment_of_another_system_is_not_served) {
  Cluster other(installation(15), place_.path("other"));
  const std::string first = "000000010000000000000001";
  plant(first, text_of(other.data_directory() / "pg_wal" / first));
  EXPECT_EQ(fetch_to_target(first), fetched);
  EXPECT_EQ(postgres::parse_segment_header(base::view(delivered())).system_id,
            postgres::read_control_file(source_->data_directory()).control.system_id);
}

TEST_F(Spool, WF9_a_segment_that_arrived_after_it_was_missed_is_found) {
  const std::string late = next();
  EXPECT_EQ(fetch_to_target(late), not_found);
  finish_segment(place_, *source_);
  EXPECT_EQ(fetch_to_target(late), fetched);
  EXPECT_EQ(delivered(), text_of(source_->data_directory() / "pg_wal" / late));
}

TEST_F(Spool, fills_with_what_will_be_asked_for_next_whole_or_not_at_all) {
  EXPECT_EQ(fetch_to_target(segments_[0]), fetched);
  eventually("segments are fetched ahead", [&] { return fs::exists(spool() / segments_[3]); });
  for (int i = 1; i < 4; ++i) {
    EXPECT_EQ(
        text_of(spool() / segments_[static_cast<std::size_t>(i)]),
        text_of(source_->data_directory() / "pg_wal" / segments_[static_cast<std::size_t>(i)]));
  }
  // What was served from it is the same, and leaves it.
  EXPECT_EQ(fetch_to_target(segments_[1]), fetched);
  EXPECT_FALSE(fs::exists(spool() / segments_[1]));
}

}  // namespace
}  // namespace holdfast::tests
