// Segments that were stored with bytes of another one behind their switch, as earlier versions took
// them from standbys: they are the same WAL as the primary's own, and harmless (INV-2, INV-5).

#include <fcntl.h>

#include "faults/fault_store.h"
#include "harness/witness.h"
#include "postgres/segment_content.h"
#include "repository/wal_archive.h"

namespace holdfast::tests {
namespace {

class Remains : public testing::TestWithParam<int> {
 protected:
  Remains() : source_(place_.cluster(GetParam())) {
    source_->sql("CREATE TABLE t AS SELECT g FROM generate_series(1, 1000) g");
    place_.must({"backup"});
    const std::string older = current_segment(*source_);
    while (current_segment(*source_) == older) {
      source_->sql("SELECT pg_logical_emit_message(false, 'x', repeat('0123456789', 100000))");
    }
    older_ = base::read_existing_file(in_pg_wal(older));
    finish_segment(place_, *source_);
    set_archive_command("'/bin/false'");
    segment_ = current_segment(*source_);
    source_->sql("INSERT INTO t VALUES (0)");
    source_->sql("SELECT pg_switch_wal()");
    own_ = base::read_existing_file(in_pg_wal(segment_));
  }

  fs::path in_pg_wal(const std::string& name) const {
    return source_->data_directory() / "pg_wal" / name;
  }
  void set_archive_command(const std::string& command) const {
    source_->sql("ALTER SYSTEM SET archive_command = " + command);
    source_->sql("SELECT pg_reload_conf()");
    eventually("it is set", [&] {
      return source_->sql(
                 "SELECT setting <> '/bin/false' FROM pg_settings WHERE name = "
                 "'archive_command'") == (command == "DEFAULT" ? "t" : "f");
    });
  }
  /// With the older segment's bytes behind the switch.
  base::Bytes with_remains() const {
    base::Bytes bytes = own_;
    const postgres::SegmentEnd end = postgres::read_to_segment_end(bytes);
    EXPECT_TRUE(end.switched);
    std::copy(older_.begin() + static_cast<std::ptrdiff_t>(end.used), older_.end(),
              bytes.begin() + static_cast<std::ptrdiff_t>(end.used));
    EXPECT_NE(bytes, own_);
    return bytes;
  }
  /// Past all that looks at it, as it was done before.
  void store_as_it_is(const base::Bytes& bytes) const {
    const Ended ended = in_a_process([&] {
      const auto configuration = operations::read_configuration(place_.configuration());
      const operations::Site site = faulty_site(configuration, {});
      const std::string system = system_directory(place_).filename().string();
      repository::WalArchive(site.repository, {"main", system}).put(segment_, bytes, 1);
    });
    ASSERT_EQ(ended.status, 0) << ended.why;
  }
  Result push(const base::Bytes& bytes) const {
    const fs::path inbox = place_.path("inbox");
    fs::create_directories(inbox);
    fs::permissions(inbox, fs::perms(0777));
    overwrite(inbox / segment_, base::text(bytes));
    return place_.holdfast({"wal", "push", "--json", (inbox / segment_).string()});
  }
  base::Bytes fetched() const {
    const fs::path to = place_.path("inbox") / "fetched";
    const std::string system = system_directory(place_).filename().string();
    place_.must({"wal", "fetch", "--system", system, segment_, to.string()});
    return base::read_existing_file(to);
  }

  Place place_;
  std::unique_ptr<Cluster> source_;
  base::Bytes older_;
  std::string segment_;
  base::Bytes own_;
};

TEST_P(Remains, that_were_stored_before_are_in_nobody_s_way_INV_2_INV_5) {
  store_as_it_is(with_remains());
  const auto before = tree_of(object_of(place_, *source_, "wal"));
  // The primary's own, and once more what was stored, and what another standby may have.
  for (const base::Bytes& each : {own_, with_remains()}) {
    const Result pushed = push(each);
    EXPECT_EQ(pushed.status, 0) << pushed.errors;
    EXPECT_TRUE(pushed.json().at("was_there"));
  }
  EXPECT_EQ(tree_of(object_of(place_, *source_, "wal")), before) << "a committed object changed";
  EXPECT_EQ(fetched(), own_) << "what is no WAL was handed out";

  set_archive_command("DEFAULT");
  finish_segment(place_, *source_);
  const auto verified = place_.must({"verify", "--json"}).json();
  EXPECT_EQ(verified.at("wal_files_with_remains"), nlohmann::json::array({segment_}));
  EXPECT_NE(place_.must({"verify"}).output.find("no harm"), std::string::npos);
  EXPECT_EQ(digest(*place_.restored(*source_, "restored")), digest(*source_));
  EXPECT_NE(place_.must({"backup"}).errors.find("set back"), 0U);
  EXPECT_TRUE(place_.must({"list", "--json"}).json().at("gaps").empty());
}

TEST_P(Remains, are_not_stored_by_wal_push) {
  const Result pushed = push(with_remains());
  EXPECT_EQ(pushed.status, 0) << pushed.errors;
  EXPECT_FALSE(pushed.json().at("was_there"));
  EXPECT_EQ(fetched(), own_);
  EXPECT_TRUE(place_.must({"verify", "--json"}).json().at("wal_files_with_remains").empty());
}

TEST_P(Remains, do_not_hide_other_WAL_before_the_switch_INV_5) {
  store_as_it_is(with_remains());
  base::Bytes other = own_;
  other[100] = static_cast<std::uint8_t>(~other[100]);
  EXPECT_EQ(push(other).status, status_of(base::Code::conflict));
}

INSTANTIATE_TEST_SUITE_P(Versions, Remains, testing::Values(15, 17),
                         [](const auto& each) { return fmt::format("{}", each.param); });

}  // namespace
}  // namespace holdfast::tests
