// One object of the repository that cannot be read, of whatever kind and in whatever way: it is
// named, and costs itself and no other. Nothing waits for what is no file.

#include "faults.h"
#include "harness/witness.h"
#include "repository/lease.h"

namespace holdfast::tests {
namespace {

using base::Code;

enum class Way { pipe, directory, loop, no_permission };

/// Something else in the place of an object, for a while.
class Replaced {
 public:
  Replaced(const Place& place, fs::path object, Way way)
      : object_(std::move(object)), aside_(place.path("aside")) {
    fs::rename(object_, aside_);
    if (way == Way::pipe && ::mkfifo(object_.c_str(), 0600) != 0)
      throw std::runtime_error("mkfifo");
    if (way == Way::directory) fs::create_directory(object_);
    if (way == Way::loop) fs::create_symlink(object_.filename(), object_);
    if (way == Way::no_permission) base::replace_file(object_, base::Bytes(100), 0000);
    if (way != Way::loop && way != Way::no_permission) place.give_to_server_user(object_);
  }
  ~Replaced() {
    std::error_code gone;
    fs::remove_all(object_, gone);
    fs::rename(aside_, object_, gone);
  }
  Replaced(const Replaced&) = delete;
  Replaced& operator=(const Replaced&) = delete;

 private:
  fs::path object_;
  fs::path aside_;
};

struct Answer {
  int status = -1;  ///< it did not end
  std::string said;
};

class UnreadableObject : public testing::Test {
 protected:
  UnreadableObject() : cluster_(place_.cluster()) {
    cluster_->sql("CREATE TABLE t AS SELECT g AS id FROM generate_series(1, 1000) g");
    for (int i = 0; i < 3; ++i) {
      place_.must({"backup"});
      place_.archive_all(*cluster_);
    }
    ids_ = backup_ids(place_);
  }
  /// Runs a command that must end, and by itself.
  Answer ask(const std::vector<std::string>& line) const {
    Running running(place_, line);
    const auto status = running.wait_for(std::chrono::seconds(30));
    if (!status) running.signal(SIGKILL);
    return {status.value_or(-1), running.said()};
  }
  static void expect_said(const Answer& answer, const std::string& what) {
    EXPECT_NE(answer.said.find(what), std::string::npos) << answer.said;
  }
  fs::path backup_json(const std::string& id) const {
    return system_directory(place_) / "backups" / id / "backup.json";
  }

  Place place_;
  std::unique_ptr<Cluster> cluster_;
  std::vector<std::string> ids_;
};

TEST_F(UnreadableObject, an_old_backup_that_cannot_be_read_costs_no_other) {
  const std::vector<fs::path> before = files_below(system_directory(place_) / "packs");
  for (const Way way : {Way::pipe, Way::directory, Way::loop, Way::no_permission}) {
    SCOPED_TRACE(static_cast<int>(way));
    const Replaced replaced(place_, backup_json(ids_[0]), way);
    const Answer listed = ask({"list"});
    EXPECT_EQ(listed.status, status_of(Code::corrupt));
    for (const std::string& id : ids_) expect_said(listed, id);
    const Answer verified = ask({"verify"});
    EXPECT_EQ(verified.status, status_of(Code::check_failed)) << verified.said;
    expect_said(verified, ids_[0]);
    expect_said(ask({"status"}), ids_[0]);
    const Answer expired = ask({"expire", "--yes"});
    EXPECT_EQ(expired.status, status_of(Code::corrupt)) << expired.said;
    expect_said(expired, ids_[0]);
  }
  for (const fs::path& pack : before) EXPECT_TRUE(fs::exists(pack)) << pack;
  const Replaced replaced(place_, backup_json(ids_[0]), Way::pipe);
  const Answer restored = ask({"restore", place_.path("restored").string()});
  EXPECT_EQ(restored.status, 0) << restored.said;
  EXPECT_EQ(ask({"backup"}).status, 0);
  const Answer drilled = ask({"drill"});
  EXPECT_EQ(drilled.status, 0) << drilled.said;
}

TEST_F(UnreadableObject, of_every_kind_is_named_by_verify_and_nothing_hangs) {
  place_.must({"pin", ids_[0], "--for", "1d", "--reason", "a test"});
  place_.must({"migrate", "--", "true"});
  const fs::path system = system_directory(place_);
  const std::vector<fs::path> kinds = {files_below(system / "packs").front(),
                                       files_below(system / "maps").front(),
                                       files_below(system / "pins").front(),
                                       files_below(system / "migrations").front(),
                                       files_below(system / "leases" / "backup").front(),
                                       files_below(system / "wal").front(),
                                       system / "backups" / ids_[1] / "map"};
  std::size_t turn = 0;
  for (const fs::path& object : kinds) {
    const Way way = std::vector{Way::pipe, Way::loop, Way::no_permission}.at(turn++ % 3);
    SCOPED_TRACE(fmt::format("{} {}", object.string(), static_cast<int>(way)));
    const Replaced replaced(place_, object, way);
    const Answer verified = ask({"verify"});
    EXPECT_EQ(verified.status, status_of(Code::check_failed)) << verified.said;
    expect_said(verified, object.filename() == "map" ? ids_[1] : object.filename().string());
    const Answer listed = ask({"list"});
    for (const std::string& id : ids_) expect_said(listed, id);
    EXPECT_NE(ask({"expire", "--yes"}).status, -1);
    EXPECT_NE(ask({"migrate", "--list"}).status, -1);
  }
  EXPECT_EQ(ask({"verify"}).status, 0);
}

TEST_F(UnreadableObject, a_pipe_that_is_pushed_as_wal_is_refused) {
  const fs::path segment = place_.path("000000010000000000000099");
  ASSERT_EQ(::mkfifo(segment.c_str(), 0600), 0);
  place_.give_to_server_user(segment);
  const Answer pushed = ask({"wal", "push", segment.string()});
  EXPECT_GT(pushed.status, 0) << pushed.said;
  expect_said(pushed, "it is a pipe");
}

TEST_F(UnreadableObject, what_expire_cannot_remove_is_named_and_all_else_goes) {
  std::string text = text_of(place_.configuration());
  text.resize(text.find("[keep]"));
  overwrite(place_.configuration(), text + "[keep]\nbackups = 1\n");
  // Closed also to the user whom holdfast runs as.
  const fs::path closed = backup_json(ids_[0]).parent_path();
  if (base::running_as_root()) {
    ASSERT_EQ(::chown(closed.c_str(), 0, 0), 0);
  }
  ASSERT_EQ(::chmod(closed.c_str(), 0555), 0);
  for (int round = 0; round < 2; ++round) {
    const Answer expired = ask({"expire", "--yes"});
    EXPECT_EQ(expired.status, status_of(Code::permission)) << expired.said;
    expect_said(expired, ids_[0]);
    expect_said(expired, "could not be removed");
    EXPECT_EQ(backup_ids(place_), (std::vector<std::string>{ids_[0], ids_[2]}));
  }
  EXPECT_EQ(ask({"verify"}).status, 0) << "what stays is whole";
  ASSERT_EQ(::chmod(closed.c_str(), 0755), 0);
  place_.give_to_server_user(closed);
  EXPECT_EQ(ask({"expire", "--yes"}).status, 0);
  EXPECT_EQ(backup_ids(place_), (std::vector<std::string>{ids_[2]}));
}

TEST_F(UnreadableObject, who_waits_for_an_expire_is_told_that_it_is_one) {
  const auto configuration = operations::read_configuration(place_.configuration());
  const operations::Site site = operations::open_site(configuration, "");
  const repository::ClusterPlace at{"main", system_directory(place_).filename().string()};
  const repository::Lease lease(site.repository, at, "backup", std::chrono::seconds(60), "expire");
  const Answer refused = ask({"backup"});
  EXPECT_EQ(refused.status, status_of(Code::busy));
  expect_said(refused, "another expire of cluster main is running");
}

}  // namespace
}  // namespace holdfast::tests
