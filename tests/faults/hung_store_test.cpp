// A repository that does not answer, as on a file server that is gone: nothing can end the wait in
// the kernel, but it is said, other repositories go on, and nothing is acknowledged (TRAPS OS5,
// WP5, WR20).

#include "harness/receiver.h"
#include "lossy_disk.h"

namespace holdfast::tests {
namespace {

constexpr const char* silent = "has not answered for";
constexpr const char* speaks = "answers again";

class HungStore : public ReceiveTest {
 protected:
  void SetUp() override {
    if (const auto why = LossyDisk::missing()) GTEST_SKIP() << *why;
    const fs::path before = place_.path("before");
    fs::rename(place_.repository(), before);
    disk_.emplace(place_, place_.repository());
    const std::string copy =
        fmt::format("cp -a {}/. {}", before.string(), place_.repository().string());
    ASSERT_EQ(shell(place_, copy).status, 0);
    insert("x");
    segment_ = source_->data_directory() / "pg_wal" /
               source_->sql("SELECT pg_walfile_name(pg_current_wal_lsn())");
    source_->sql("SELECT pg_switch_wal()");
  }
  std::string flushed() const {
    return source_->sql("SELECT flush_lsn FROM pg_stat_replication WHERE state = 'streaming'");
  }

  /// However a test ends: nobody could be waited for otherwise.
  struct AtEnd {
    LossyDisk& disk;
    ~AtEnd() { disk.release(); }
  };

  fs::path segment_;
  std::optional<LossyDisk> disk_;
};

TEST_F(HungStore, is_spoken_of_by_whoever_waits_for_it_and_all_end_well_when_it_is_back) {
  const std::vector<std::vector<std::string>> commands = {
      {"wal", "push", segment_.string()}, {"backup"}, {"status"}, {"list"}};
  disk_->hang();
  std::vector<std::unique_ptr<Running>> waiting;
  const AtEnd end{*disk_};
  for (const auto& each : commands) waiting.push_back(std::make_unique<Running>(place_, each));
  for (const auto& each : waiting) {
    await([&] { return each->said().find(silent) != std::string::npos; }, "word of the silence");
    EXPECT_FALSE(each->over());
    EXPECT_NE(each->said().find(place_.repository().string()), std::string::npos) << each->said();
  }
  disk_->release();
  for (const auto& each : waiting) {
    const int status = each->wait();
    EXPECT_TRUE(status == 0 || each == waiting[2]) << each->said();  // status finds no archiver
    EXPECT_NE(each->said().find(speaks), std::string::npos) << each->said();
  }
  EXPECT_EQ(backup_ids(place_).size(), 2U);
}

TEST_F(HungStore, among_several_is_left_out_of_wal_push_and_catches_up) {
  overwrite(place_.configuration(),
            text_of(place_.configuration()) +
                fmt::format("\n[repository.offsite]\nurl = \"file://{}\"\nkey_file = \"{}\"\n",
                            place_.path("offsite").string(), place_.path("offsite.key").string()));
  place_.must({"init"});
  const AtEnd end{*disk_};
  const auto stored = [&](const fs::path& repository) {
    const auto files = files_below(repository / "clusters");
    return std::ranges::any_of(
        files, [&](const fs::path& each) { return each.filename() == segment_.filename(); });
  };
  disk_->hang();
  const Result pushed = place_.holdfast({"wal", "push", segment_.string()});
  EXPECT_EQ(pushed.status, 0) << pushed.errors;
  EXPECT_NE(pushed.errors.find("repository local"), std::string::npos) << pushed.errors;
  EXPECT_NE(pushed.errors.find(silent), std::string::npos) << pushed.errors;
  EXPECT_TRUE(stored(place_.path("offsite")));
  disk_->release();
  EXPECT_FALSE(stored(place_.repository()));
  place_.must({"wal", "push", segment_.string()});
  EXPECT_TRUE(stored(place_.repository()));
  // All must have it, and one is silent: then it is no success, and PostgreSQL tries again.
  overwrite(place_.configuration(), text_of(place_.configuration()) + "[wal]\ncopies = 2\n");
  disk_->hang();
  const Result failed = place_.holdfast({"wal", "push", segment_.string()});
  disk_->release();
  EXPECT_EQ(failed.status, status_of(base::Code::io)) << failed.errors;
}

TEST_F(HungStore, WR20_keeps_the_receiver_connected_and_confirms_nothing) {
  restart({{"wal_sender_timeout", "3s"}});
  const auto receiver = receive();
  const AtEnd end{*disk_};
  insert("before");
  await_all_stored(*source_);
  disk_->hang();
  const std::string before = flushed();
  const std::string server =
      source_->sql("SELECT pid FROM pg_stat_replication WHERE state = 'streaming'");
  // Until it is said: three times as long as the server waits for a sign of life.
  const auto begun = std::chrono::steady_clock::now();
  await(
      [&] {
        insert("meanwhile");
        return receiver->said().find(silent) != std::string::npos;
      },
      "word of the silence");
  EXPECT_GT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(6));
  EXPECT_EQ(source_->sql("SELECT pid FROM pg_stat_replication WHERE state = 'streaming'"), server);
  EXPECT_EQ(flushed(), before);
  disk_->release();
  await_all_stored(*source_);
  receiver->signal(SIGTERM);
  EXPECT_EQ(receiver->wait(), 0) << receiver->said();
}

}  // namespace
}  // namespace holdfast::tests
