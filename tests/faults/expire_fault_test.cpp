// `expire` while stores fail, processes die, maps are damaged, backups run and pins are set:
// nothing that is needed goes, and the next run ends where an undisturbed one would have (TRAPS
// GC3, GC4, GC5, GC10, LC3, RC9, RC10).

#include "fault_store.h"
#include "harness/witness.h"
#include "operations/expire.h"
#include "operations/pin.h"

namespace holdfast::tests {
namespace {

using base::Code;
using Kind = Fault::Kind;
using Names = std::set<std::string>;

operations::ExpireOutcome expire(const operations::Site& site,
                                 std::chrono::seconds lease_term = std::chrono::seconds(60)) {
  const operations::ExpireRequest request{base::Microseconds(0), {}, lease_term};
  base::Progress progress;
  const auto plan = operations::plan_expire(site, request);
  const auto outcome = operations::expire(site, plan, request, progress);
  if (!outcome.problems.empty()) base::fail(Code::corrupt, "{}", outcome.problems.front());
  return outcome;
}

/// A repository in memory: hundreds of runs need not wait for a disk.
class InMemory {
 public:
  explicit InMemory(const Place& place) {
    std::string name = "/dev/shm/holdfast-test.XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("could not make " + name);
    root_ = name;
    fs::create_directory(root_ / "repository");
    place.give_to_server_user(root_);
    place.give_to_server_user(root_ / "repository");
    fs::create_directory_symlink(root_ / "repository", place.repository());
  }
  ~InMemory() {
    std::error_code ignored;
    fs::remove_all(root_, ignored);
  }
  InMemory(const InMemory&) = delete;
  InMemory& operator=(const InMemory&) = delete;
  const fs::path& root() const { return root_; }

 private:
  fs::path root_;
};

/// Four backups, of which two go, with their WAL.
class ExpireFault : public ::testing::TestWithParam<Kind> {
 protected:
  ExpireFault() : cluster_(place_.cluster()) {
    cluster_->sql("CREATE TABLE t AS SELECT g AS id FROM generate_series(1, 1000) g");
    for (int i = 0; i < 4; ++i) {
      place_.must({"backup"});
      place_.archive_all(*cluster_);
    }
    std::string text = text_of(place_.configuration());
    text.resize(text.find("[keep]"));
    overwrite(place_.configuration(), text + "[keep]\nbackups = 2\n");
    ids_ = backup_ids(place_);
  }

  operations::Configuration configuration() const {
    return operations::read_configuration(place_.configuration());
  }
  Ended run(const Fault& fault = {}) const {
    return in_a_process([&] {
      const auto read = configuration();
      const auto outcome = expire(faulty_site(read, fault));
      if (!outcome.failures.empty()) throw base::Error(outcome.failures.front());
    });
  }
  /// What is in the repository, but for leases, marks and what gets a new name in each run.
  Names names() const {
    Names found;
    for (const fs::path& file : files_below(system_directory(place_))) {
      const std::string name = file.lexically_relative(system_directory(place_)).string();
      if (!name.starts_with("leases/") && !name.starts_with("expired-wal/")) found.insert(name);
    }
    return found;
  }
  /// Copies made of links: objects never change.
  void keep_copy() const { in_memory("cp -al repository copy"); }
  void put_back() const { in_memory("rm -rf repository && cp -al copy repository"); }
  void in_memory(const std::string& line) const {
    ASSERT_EQ(shell(place_, fmt::format("cd {} && {}", memory_.root().string(), line)).status, 0);
  }
  static void expect_all_of(const Names& needed, const Names& there) {
    for (const std::string& name : needed) EXPECT_TRUE(there.contains(name)) << name << " is gone";
  }

  Place place_;
  InMemory memory_{place_};
  std::unique_ptr<Cluster> cluster_;
  std::vector<std::string> ids_;
};

INSTANTIATE_TEST_SUITE_P(Kinds, ExpireFault,
                         ::testing::Values(Kind::once, Kind::lost_reply, Kind::death,
                                           Kind::death_after),
                         name_of);

TEST_P(ExpireFault, RC9_RC10_GC5_at_any_call_takes_nothing_needed_and_the_next_run_ends_the_same) {
  cluster_->stop();
  keep_copy();
  const Names before = names();
  ASSERT_EQ(run().status, 0);
  const Names after = names();
  ASSERT_LT(after.size(), before.size());
  expect_all_verifies(place_);
  // A death is found again by its effects; those of one kind fall on the calls between the others'.
  const std::uint64_t step = GetParam() == Kind::once ? 1 : 4;
  std::uint64_t fired = 0;
  for (std::uint64_t at = GetParam() == Kind::lost_reply ? 2 : 1;; at += step) {
    SCOPED_TRACE(at);
    put_back();
    const Ended ended = run({GetParam(), at});
    EXPECT_LT(ended.status, 90) << ended.why;
    const Names now = names();
    expect_all_of(after, now);
    for (const std::string& id : {ids_[2], ids_[3]}) {
      EXPECT_TRUE(now.contains("backups/" + id + "/backup.json"));
    }
    if (ended.status != 0) {
      ++fired;
      if (fired % 16 == 0) expect_all_verifies(place_);
      const Ended again = run();
      EXPECT_EQ(again.status, 0) << again.why;
    }
    EXPECT_EQ(names(), after);
    if (ended.status == 0 && at > 60) break;
    ASSERT_LT(at, 400U);
  }
  EXPECT_GT(fired, 60 / step) << "the faults did not fire";
}

/// Without parameters.
class ExpireBeside : public ExpireFault {};
INSTANTIATE_TEST_SUITE_P(One, ExpireBeside, ::testing::Values(Kind::none),
                         [](const auto&) { return std::string("it"); });

TEST_P(ExpireBeside, GC5_what_cannot_be_read_keeps_every_pack_shard_and_segment) {
  const fs::path backups = system_directory(place_) / "backups";
  std::vector<fs::path> broken = {backups / ids_[3] / "backup.json", backups / ids_[2] / "map",
                                  objects(place_, "maps").back()};
  keep_copy();
  const auto needed = [&] {
    Names all = names();
    std::erase_if(all, [](const std::string& name) {
      return !name.starts_with("packs/") && !name.starts_with("maps/") && !name.starts_with("wal/");
    });
    return all;
  };
  const Names before = needed();
  for (const fs::path& file : broken) {
    for (const bool cut : {false, true}) {
      SCOPED_TRACE(file.string() + (cut ? " cut" : " flipped"));
      put_back();
      // Damage writes in place, which would reach the copy, too.
      const std::string path = file.string();
      ASSERT_EQ(shell(place_, fmt::format("cp -p {0} {0}.x && mv {0}.x {0}", path)).status, 0);
      const Damage damage(file);
      if (cut) {
        damage.cut(damage.size() / 2);
      } else {
        damage.flip(40);
      }
      EXPECT_EQ(run().status, status_of(Code::corrupt));
      EXPECT_EQ(needed(), before);
      const Result said = place_.holdfast({"expire", "--yes"});
      EXPECT_EQ(said.status, status_of(Code::corrupt)) << said.errors;
      EXPECT_NE(said.errors.find("no pack, map shard or WAL is removed"), std::string::npos);
    }
  }
  put_back();
  EXPECT_EQ(run().status, 0);
  EXPECT_LT(needed().size(), before.size());
}

TEST_P(ExpireBeside, GC10_a_pin_that_is_set_at_any_moment_holds_or_is_refused) {
  keep_copy();
  enum class When { after_the_plan, after_the_mark, after_the_mark_by_command };
  for (const When when :
       {When::after_the_plan, When::after_the_mark, When::after_the_mark_by_command}) {
    SCOPED_TRACE(static_cast<int>(when));
    put_back();
    const Ended ended = in_a_process([&] {
      const auto read = configuration();
      const operations::Site other = operations::open_site(read, "");
      const auto until = base::now() + std::chrono::hours(1);
      bool pinned = false;
      bool was_refused = false;
      Fault fault;
      fault.after_commit = [&](store::ObjectStore&, const std::string& name) {
        const bool lease = name.find("/leases/") != std::string::npos;
        const bool mark = name.ends_with(ids_[0] + "/expired.json");
        if (pinned || was_refused || (when == When::after_the_plan ? !lease : !mark)) return;
        if (when == When::after_the_mark) {
          // As if its maker were about to look for the mark.
          const std::string system = system_directory(place_).filename();
          repository::Pins(other.repository, {"main", system})
              .add({ids_[0]}, base::now(), until, "x");
          pinned = true;
          return;
        }
        try {
          operations::pin_backup(other, ids_[0], until, "x");
          pinned = true;
        } catch (const base::Error& error) {
          if (error.code() != Code::busy) throw;
          was_refused = true;
        }
      };
      const auto outcome = expire(faulty_site(read, fault));
      if (!pinned && !was_refused) base::fail(Code::internal, "the pin was not set");
      if (was_refused != (when == When::after_the_mark_by_command)) {
        base::fail(Code::internal, "the pin was refused, or it was not");
      }
      if (outcome.spared.size() != (when == When::after_the_mark ? 1 : 0)) {
        base::fail(Code::internal, "the wrong number was spared");
      }
    });
    EXPECT_EQ(ended.status, 0) << ended.why;
    const auto left = backup_ids(place_);
    const bool holds = when != When::after_the_mark_by_command;
    EXPECT_EQ(left.front() == ids_[0], holds);
    EXPECT_EQ(left.size(), holds ? 3U : 2U) << "the other one goes all the same";
    expect_all_verifies(place_);
  }
}

TEST_P(ExpireBeside, GC3_B39_a_running_backup_makes_it_wait_and_a_killed_one_is_swept) {
  cluster_->sql(
      "CREATE TABLE big AS SELECT g AS id, md5(g::text) AS v FROM generate_series(1, 300000) g");
  const std::size_t packs = objects(place_, "packs").size();
  Running running(place_, {"backup", "--workers", "1", "--compare", "nothing"});
  await([&] { return objects(place_, "packs").size() > packs || running.over(); }, "a pack");
  running.signal(SIGSTOP);
  ASSERT_FALSE(running.over()) << running.said();
  const Names before = names();
  const Ended beside = run();
  EXPECT_EQ(beside.status, status_of(Code::busy)) << beside.why;
  EXPECT_EQ(place_.holdfast({"expire", "--yes"}).status, status_of(Code::busy));
  EXPECT_EQ(names(), before);
  running.signal(SIGKILL);
  running.wait();
  EXPECT_EQ(run().status, 0);
  const auto report = place_.must({"verify", "--json"}).json();
  EXPECT_EQ(report.at("orphans"), 0);
  EXPECT_EQ(backup_ids(place_), (std::vector<std::string>{ids_[2], ids_[3]}));
}

TEST_P(ExpireBeside, LC3_who_lost_the_lease_removes_nothing_more) {
  const Names before = names();
  const Ended ended = in_a_process([&] {
    const auto read = configuration();
    Fault fault;
    // Somebody else takes over when the first mark is there, and the term ends.
    fault.after_commit = [](store::ObjectStore& store, const std::string& name) {
      if (!name.ends_with("/expired.json")) return;
      const std::string system = name.substr(0, name.find("/backups/"));
      if (!store.put(system + "/leases/backup/0000009999", base::view("{}"))) ::_exit(97);
      const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(2);
      await([&] { return std::chrono::steady_clock::now() > end; }, "the end of the term");
    };
    expire(faulty_site(read, fault), std::chrono::seconds(1));
  });
  EXPECT_EQ(ended.status, status_of(Code::busy)) << ended.why;
  expect_all_of(before, names());
}

}  // namespace
}  // namespace holdfast::tests
