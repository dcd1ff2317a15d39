// Retention with real deletions: what is kept can be restored, what is not goes, nothing else does
// (TRAPS GC2, GC9, GC12, RC10, CC5).

#include "operations/expire.h"
#include "base/error.h"
#include "harness/witness.h"

namespace holdfast::tests {
namespace {

constexpr int refused = 19;
constexpr int not_found = 4;
constexpr int usage = 2;
constexpr int outside_window = 14;
constexpr int wal_missing = 20;

class Expire : public testing::Test {
 protected:
  Expire() : source_(place_.cluster()) { source_->sql("CREATE TABLE t (id serial, v text)"); }

  void write(const std::string& value) const {
    source_->sql("INSERT INTO t (v) VALUES ('" + value + "')");
    place_.archive_all(*source_);
  }
  std::string backup() const { return place_.must({"backup", "--json"}).json().at("id"); }
  static std::string rows(const Cluster& cluster) {
    return cluster.sql("SELECT string_agg(v, ' ' ORDER BY id) FROM t");
  }

  void rules(const std::string& lines) const {
    std::string text = text_of(place_.configuration());
    const std::size_t at = text.find("[keep]");
    text.resize(at == std::string::npos ? text.size() : at);
    overwrite(place_.configuration(), text + (lines.empty() ? "" : "[keep]\n" + lines));
  }

  /// As the command does it, but without the grace.
  operations::ExpireOutcome expire(std::optional<base::Timestamp> now = {}) const {
    const auto configuration = operations::read_configuration(place_.configuration());
    const operations::Site site = operations::open_site(configuration, "");
    operations::ExpireRequest request;
    request.grace = base::Microseconds(0);
    request.now = now;
    base::Progress progress;
    return operations::expire(site, operations::plan_expire(site, request), request, progress);
  }

  nlohmann::json listed() const { return place_.must({"list", "--json"}).json(); }
  std::vector<std::string> ids() const {
    std::vector<std::string> found;
    const nlohmann::json all = listed();
    for (const auto& each : all.at("backups")) found.push_back(each.at("id"));
    return found;
  }
  /// Names and contents of all objects but leases. (The archiver may have one unfinished.)
  std::map<std::string, std::string> repository() const {
    auto all = tree_of(place_.repository());
    std::erase_if(all,
                  [](const auto& each) { return each.first.find("/leases") != std::string::npos; });
    return all;
  }
  std::size_t count(std::string_view part) const {
    const auto all = repository();
    return static_cast<std::size_t>(std::ranges::count_if(
        all, [&](const auto& each) { return each.first.find(part) != std::string::npos; }));
  }

  Place place_;
  std::unique_ptr<Cluster> source_;
};

using Ids = std::vector<std::string>;

TEST_F(Expire,
       GC2_RC10_the_oldest_that_is_kept_restores_to_the_end_and_a_second_run_changes_nothing) {
  write("zero");
  const std::string segment = current_segment(*source_);
  backup();
  write("one");
  backup();
  write("two");
  // Nothing of what it stores was stored before: the packs of the first two are its alone to drop.
  const std::string third =
      place_.must({"backup", "--json", "--compare", "nothing"}).json().at("id");
  write("three");
  const std::string fourth = backup();
  write("four");
  const std::size_t packs = count("/packs/");
  const auto slice = [&](const std::string& of) {
    const fs::path made =
        object_of(place_, *source_, "wal/00000001/" + of + ".d/00000000-00000100");
    fs::create_directories(made.parent_path());
    base::replace_file(made, base::view("slice"));
    return made;
  };
  const fs::path old_slice = slice(segment);
  const fs::path live_slice = slice(current_segment(*source_));
  rules("backups = 2\n");
  EXPECT_EQ(expire().expired.size(), 2U);
  EXPECT_FALSE(fs::exists(old_slice)) << "it goes with its segment";
  EXPECT_TRUE(fs::exists(live_slice)) << "its segment is not complete yet";
  EXPECT_EQ(ids(), (Ids{third, fourth}));
  EXPECT_LT(count("/packs/"), packs);
  EXPECT_FALSE(fs::exists(object_of(place_, *source_, "wal/00000001/" + segment)));
  const auto after = repository();
  const auto again = expire();
  EXPECT_EQ(again.objects, 0U);
  EXPECT_EQ(repository(), after);
  const fs::path spent_slice = slice(finish_segment(place_, *source_));
  expire();
  EXPECT_FALSE(fs::exists(spent_slice)) << "its segment is complete";
  place_.must({"verify"});
  EXPECT_TRUE(listed().at("warnings").empty()) << listed().dump(1);
  EXPECT_EQ(rows(*place_.restored(*source_, "oldest", {"--backup", third})),
            "zero one two three four");
}

TEST_F(Expire, GC12_every_moment_of_the_window_is_restored_and_older_backups_only_to_their_end) {
  write("zero");
  const std::string first = backup();
  write("one");
  const std::string lost = source_->sql("SELECT clock_timestamp()");
  write("lost");
  const std::string second = backup();
  const auto anchor = base::from_iso(listed().at("backups")[1].at("stopped").get<std::string>());
  write("two");
  const std::string between = source_->sql("SELECT clock_timestamp()");
  write("three");
  backup();
  write("four");
  const std::string late = source_->sql("SELECT clock_timestamp()");
  write("five");
  place_.must({"pin", first, "--for", "30d", "--reason", "audit"});
  rules("window = \"1h\"\n");
  const std::size_t before = count("/wal/");
  expire(anchor + std::chrono::hours(1));
  EXPECT_EQ(ids().size(), 3U) << "pinned, anchor, newest";
  EXPECT_LT(count("/wal/"), before);
  place_.must({"verify"});
  EXPECT_TRUE(listed().at("warnings").empty()) << listed().dump(1);
  const auto windows = listed().at("recovery_windows");
  for (const auto& window : windows) {
    EXPECT_EQ(window.at("ends_in_hole"), false);
  }
  EXPECT_EQ(rows(*place_.restored(*source_, "between", {"--to", between})), "zero one lost two");
  EXPECT_EQ(rows(*place_.restored(*source_, "late", {"--to", late})),
            "zero one lost two three four");
  EXPECT_EQ(rows(*place_.restored(*source_, "pinned", {"--backup", first, "--to", "immediate"})),
            "zero");
  const auto restore = [&](const std::vector<std::string>& to) {
    std::vector<std::string> all = {"restore", place_.path("no").string()};
    all.insert(all.end(), to.begin(), to.end());
    return place_.holdfast(all).status;
  };
  EXPECT_EQ(restore({"--to", lost}), outside_window);
  EXPECT_EQ(restore({"--backup", first}), wal_missing);
}

TEST_F(Expire, GC9_CC5_a_pin_holds_its_backup_while_the_rest_goes_and_is_listed_with_its_reason) {
  const std::string pinned = backup();
  backup();
  const std::string newest =
      place_.must({"snapshot", "--reason", "before migration", "--for", "2w", "--json"})
          .json()
          .at("id");
  const std::string unknown = "20200101T000000Z-abcd";
  EXPECT_EQ(place_.holdfast({"unpin", pinned}).status, not_found);
  EXPECT_EQ(place_.holdfast({"unpin", unknown}).status, not_found);
  EXPECT_EQ(place_.holdfast({"pin", unknown, "--for", "1d", "--reason", "x"}).status, not_found);
  EXPECT_EQ(place_.holdfast({"pin", "../x", "--for", "1d", "--reason", "x"}).status, not_found);
  for (const std::vector<std::string>& wrong : std::vector<std::vector<std::string>>{
           {"--reason", "x"},
           {"--for", "1d"},
           {"--for", "0d", "--reason", "x"},
           {"--for", "inf", "--reason", "x"},
           {"--for", "1d", "--reason", ""},
           {"--until", "2020-01-01 00:00", "--reason", "x"},
           {"--until", "2099-01-01 00:00", "--for", "1d", "--reason", "x"}}) {
    std::vector<std::string> all = {"pin", pinned};
    all.insert(all.end(), wrong.begin(), wrong.end());
    EXPECT_EQ(place_.holdfast(all).status, usage) << wrong.front();
  }
  place_.must({"pin", pinned, "--until", "2099-12-24 12:00 Europe/Berlin", "--reason", "audit 7"});
  place_.must({"pin", pinned, "--for", "1d", "--reason", "other"});
  const auto backups = listed().at("backups");
  EXPECT_EQ(backups[0].at("pins").size(), 2U);
  EXPECT_EQ(backups[0].at("pins")[0].at("reason"), "audit 7");
  EXPECT_EQ(backups[0].at("pins")[0].at("until"), "2099-12-24T11:00:00.000000Z");
  EXPECT_EQ(backups[2].at("pins")[0].at("reason"), "before migration");
  EXPECT_NE(place_.must({"list"}).output.find("audit 7"), std::string::npos);

  rules("backups = 1\n");
  EXPECT_TRUE(listed().at("backups")[1].at("expires").get<bool>());
  EXPECT_EQ(expire().expired.size(), 1U);
  EXPECT_EQ(ids(), (Ids{pinned, newest}));
  place_.must({"verify"});
  EXPECT_EQ(place_.must({"unpin", pinned, "--json"}).json().at("released").size(), 2U);
  EXPECT_EQ(place_.holdfast({"unpin", pinned}).status, not_found);
  EXPECT_EQ(expire().expired.size(), 1U);
  EXPECT_EQ(ids(), Ids{newest});
  EXPECT_EQ(count("/pins/" + pinned + "/"), 0U);
}

TEST_F(Expire, asks_first_shows_why_and_leaves_what_went_readable_for_a_grace) {
  const std::string first = backup();
  write("one");
  const std::string second = backup();
  place_.archive_all(*source_);
  rules("");
  const Result unruled = place_.must({"expire", "--yes"});
  EXPECT_NE(unruled.errors.find("[keep]"), std::string::npos) << unruled.errors;
  rules("backups = 1\nbakcups = 2\n");
  EXPECT_EQ(place_.holdfast({"expire", "--yes"}).status, 3);
  rules("backups = 1\n");
  const auto before = repository();
  const Result unasked = place_.holdfast({"expire"});
  EXPECT_EQ(unasked.status, refused);
  EXPECT_NE(unasked.errors.find("--yes"), std::string::npos) << unasked.errors;
  const Result dry = place_.must({"expire", "--dry-run"});
  EXPECT_NE(dry.output.find(first + "  EXPIRES"), std::string::npos) << dry.output;
  EXPECT_NE(dry.output.find("the newest good backup"), std::string::npos) << dry.output;
  EXPECT_EQ(repository(), before);

  const auto done = place_.must({"expire", "--yes", "--json"}).json();
  EXPECT_EQ(done.at("done").at("expired"), nlohmann::json({first}));
  EXPECT_EQ(ids(), Ids{second});
  for (const auto& [name, bytes] : before) {
    if (!name.ends_with(first + "/backup.json")) {
      EXPECT_TRUE(repository().contains(name)) << name;
    }
  }
  const auto after = repository();
  EXPECT_NE(place_.must({"expire", "--yes"}).output.find("nothing to remove"), std::string::npos);
  EXPECT_EQ(repository(), after);
  place_.must({"verify"});
}

TEST_F(Expire, keeps_the_way_to_a_timeline_that_is_written_to) {
  write("one");
  const std::string first = backup();
  write("two");
  std::string branch;
  {
    // A copy of the first hours goes its own way, and archives here.
    place_.must({"restore", place_.path("second").string(), "--to", "immediate"});
    const auto second = adopt(source_->installation(), place_.path("second"));
    second->start(archiving(place_));
    second->server().await_recovery_end(std::chrono::seconds(60));
    write("elsewhere");
    backup();
    second->sql("INSERT INTO t (v) VALUES ('branch')");
    place_.archive_all(*second);
    branch = rows(*second);
  }
  rules("backups = 1\n");
  expire();
  EXPECT_EQ(ids().front(), first) << "only it leads to timeline 2";
  EXPECT_EQ(rows(*place_.restored(*source_, "latest")), branch);
  EXPECT_EQ(rows(*place_.restored(*source_, "other", {"--timeline", "1"})), "one two elsewhere");
}

}  // namespace
}  // namespace holdfast::tests
