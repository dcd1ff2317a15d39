// A store that fails or a process that dies at each single call in turn: INV-1 and INV-2 hold after
// every one of them, what was there before is untouched, and the next run simply works (TRAPS RC1,
// RC2, RC10, BK2, BK8, WP2, WP3, GC5).

#include "fault_store.h"
#include "operations/backup.h"
#include "operations/wal_push.h"

namespace holdfast::tests {
namespace {

using base::Code;
using Kind = Fault::Kind;

class StoreFault : public ::testing::TestWithParam<Kind> {
 protected:
  StoreFault() : cluster_(place_.cluster()) {
    cluster_->sql(
        "CREATE TABLE t AS SELECT g AS id, md5(g::text) AS v FROM generate_series(1, 20000) g");
  }
  void hold_archiver() {
    cluster_->sql("ALTER SYSTEM SET archive_command = ''");
    cluster_->sql("SELECT pg_reload_conf()");
  }
  Ended backup(const Fault& fault) const {
    return in_a_process([&] {
      const auto configuration = operations::read_configuration(place_.configuration());
      const operations::Site site = faulty_site(configuration, fault);
      base::Progress progress;
      operations::take_backup(site, {}, progress);
    });
  }
  static bool is_death(Kind kind) { return kind == Kind::death || kind == Kind::death_after; }
  /// A failure that was planted is an Error of the store, nothing else; a death is a death.
  void expect_planted(const Ended& ended) const {
    if (is_death(GetParam())) {
      EXPECT_EQ(ended.status, Fault::dead) << ended.why;
    } else {
      EXPECT_NE(ended.status, status_of(Code::internal)) << ended.why;
      EXPECT_LT(ended.status, 90) << ended.why;
    }
  }

  /// Everything but that one, as `expire` does it later. Each backup asks the store for each one
  /// that there is: it must not ask for more than the one before, or no end is ever reached.
  void leave_only(const std::string& backup) const {
    for (const auto& each : fs::directory_iterator(system_directory(place_) / "backups")) {
      if (each.path().filename() != backup) fs::remove_all(each.path());
    }
  }

  Place place_;
  std::unique_ptr<Cluster> cluster_;
};

INSTANTIATE_TEST_SUITE_P(Kinds, StoreFault,
                         ::testing::Values(Kind::once, Kind::for_ever, Kind::lost_reply,
                                           Kind::death, Kind::death_after),
                         name_of);

TEST_P(StoreFault, at_any_call_of_a_backup_leaves_nothing_that_is_taken_for_one) {
  place_.must({"backup"});
  const std::vector<fs::path> first = objects(place_, "packs");
  const std::string first_backup = backup_ids(place_).front();
  std::uint64_t at = 1;
  for (;; ++at) {
    SCOPED_TRACE(at);
    const Ended ended = backup({GetParam(), at});
    const std::size_t now = backup_ids(place_).size();
    if (ended.status == 0 && now == 2 && at > 30) break;
    if (ended.status != 0) expect_planted(ended);
    // Whose reply to the commit is lost, or who dies after it, leaves a backup; nobody else does.
    EXPECT_LE(now, 2U);
    if (ended.status != 0 && (GetParam() == Kind::once || GetParam() == Kind::for_ever)) {
      EXPECT_EQ(now, 1U) << ended.why;
    }
    for (const fs::path& pack : first) EXPECT_TRUE(fs::exists(pack)) << "the first backup was hurt";
    ASSERT_LT(at, 300U);
    if (at % 8 == 0) expect_all_verifies(place_);
    leave_only(first_backup);
  }
  EXPECT_GT(at, 30U);
  expect_all_verifies(place_);
  place_.must({"backup"});
  place_.archive_all(*cluster_);
  const auto report = place_.must({"verify", "--json"}).json();
  if (GetParam() == Kind::once) {
    EXPECT_LE(report.at("orphans"), 1) << "somebody did not clean up";
  }
}

TEST_P(StoreFault, at_any_call_of_wal_push_leaves_the_segment_whole_or_not_at_all) {
  hold_archiver();
  const std::string name = cluster_->sql("SELECT pg_walfile_name(pg_current_wal_lsn())");
  cluster_->sql("SELECT pg_switch_wal()");
  const fs::path segment = cluster_->data_directory() / "pg_wal" / name;
  const fs::path object = system_directory(place_) / "wal" / name.substr(0, 8) / name;
  const fs::path fetched = place_.path("fetched");
  std::uint64_t at = 1;
  for (;; ++at) {
    SCOPED_TRACE(at);
    fs::remove(object);
    const Ended ended = in_a_process([&] {
      const auto configuration = operations::read_configuration(place_.configuration());
      operations::push_wal(faulty_site(configuration, {GetParam(), at}), segment, 1);
    });
    if (ended.status != 0) expect_planted(ended);
    if (ended.status == 0) {
      EXPECT_TRUE(fs::exists(object)) << "acknowledged, and not there";
    }
    place_.must({"wal", "push", segment.string()});
    place_.must({"wal", "fetch", name, fetched.string()});
    EXPECT_EQ(base::read_existing_file(fetched), base::read_existing_file(segment));
    if (ended.status == 0) break;
    ASSERT_LT(at, 50U);
  }
  EXPECT_GT(at, 5U) << "the fault did not fire";
}

TEST_P(StoreFault, at_any_call_of_making_a_repository_leaves_one_that_can_be_made) {
  const auto source = operations::read_configuration(place_.configuration()).repository().key;
  const std::string root = place_.path("made").string();
  std::uint64_t at = 1;
  for (;; ++at) {
    SCOPED_TRACE(at);
    fs::remove_all(root);
    const auto make = [&](const Fault& fault) {
      return in_a_process([&] {
        auto store = std::make_unique<FaultStore>(store::open_store(root), fault);
        if (repository::Repository::exists(*store)) {
          repository::Repository::open(std::move(store), source).register_system({"main", "1"}, "");
        } else {
          auto made = repository::Repository::create(std::move(store), source);
          made.repository.register_system({"main", "1"}, "");
        }
      });
    };
    const Ended ended = make({GetParam(), at});
    if (ended.status != 0) expect_planted(ended);
    EXPECT_EQ(make({}).status, 0);
    const Ended opened = in_a_process([&] {
      const auto repository = repository::Repository::open(store::open_store(root), source);
      if (!repository.is_registered({"main", "1"})) base::fail(Code::not_found, "no system");
    });
    EXPECT_EQ(opened.status, 0) << opened.why;
    if (ended.status == 0) break;
    ASSERT_LT(at, 50U);
  }
  EXPECT_GT(at, 5U) << "the fault did not fire";
}

/// TRAPS BK2: whatever a backup needs is asked for before the commit.
class Vanishing : public ::testing::TestWithParam<const char*> {
 protected:
  Place place_;
};

INSTANTIATE_TEST_SUITE_P(Objects, Vanishing, ::testing::Values("packs", "maps", "wal", "backups"),
                         [](const auto& each) { return std::string(each.param); });

TEST_P(Vanishing, objects_that_go_before_the_commit_prevent_it) {
  const auto cluster = place_.cluster();
  cluster->sql("ALTER SYSTEM SET archive_command = ''");
  cluster->sql("SELECT pg_reload_conf()");
  const std::string part = std::string("/") + GetParam() + "/";
  for (const bool cut : {false, true}) {
    // WAL is looked for, not read: a backup that took hours has much of it.
    if (cut && part == "/wal/") continue;
    SCOPED_TRACE(cut ? "cut" : "removed");
    const Ended ended = in_a_process([&] {
      const auto configuration = operations::read_configuration(place_.configuration());
      Fault fault;
      // The map is the last object before the check and the commit.
      fault.after_commit = [&](store::ObjectStore& store, const std::string& name) {
        if (!name.ends_with("/map")) return;
        int taken = 0;
        for (const auto& object : store.list("clusters")) {
          if (object.name.find(part) == std::string::npos) continue;
          ++taken;
          store.remove(object.name);
          if (cut && !store.put(object.name, base::view("cut"))) ::_exit(97);
        }
        if (taken == 0) ::_exit(97);
      };
      const operations::Site site = faulty_site(configuration, fault);
      base::Progress progress;
      operations::take_backup(site, {}, progress);
    });
    EXPECT_EQ(ended.status, status_of(Code::corrupt)) << ended.why;
    EXPECT_TRUE(backup_ids(place_).empty()) << "it was committed";
    // What is left of WAL is cut now, and in the way of the next round.
    for (const fs::path& each : objects(place_, "wal")) fs::remove(each);
  }
}

}  // namespace
}  // namespace holdfast::tests
