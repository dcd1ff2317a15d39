// `events` names what happened, and what it prints brings it back.

#include "harness/witness.h"

namespace holdfast::tests {
namespace {

using nlohmann::json;

/// The events of a kind that name an object; fails the test unless there is exactly one.
json only(const json& report, const std::string& kind, const std::string& object,
          const std::string& database) {
  json found;
  for (const json& event : report.at("events")) {
    if (event.at("kind") != kind || !event.contains("objects")) continue;
    for (const json& each : event.at("objects")) {
      if (each.at("name") != object || each.at("database") != database) continue;
      EXPECT_TRUE(found.is_null()) << "told twice: " << event.dump();
      found = event;
    }
  }
  EXPECT_FALSE(found.is_null()) << kind << " " << object << "\n" << report.at("events").dump(1);
  return found;
}

std::set<std::string> kinds(const json& report) {
  std::set<std::string> all;
  for (const json& event : report.at("events")) all.insert(event.at("kind"));
  return all;
}

class Events : public testing::TestWithParam<int> {
 protected:
  Events() : source_(place_.cluster(GetParam())) {}

  json report_since(const std::string& since) {
    place_.archive_all(*source_);
    return place_.must({"events", "--since", since, "--json"}).json();
  }
  std::unique_ptr<Cluster> just_before(const json& event, const std::string& name) {
    EXPECT_TRUE(event.at("exclusive").get<bool>());
    return place_.restored(*source_, name,
                           {"--to", event.at("restore_to").get<std::string>(), "--exclusive"});
  }

  Place place_;
  std::unique_ptr<Cluster> source_;
};
INSTANTIATE_TEST_SUITE_P(PostgreSQL, Events, testing::Values(15, 17),
                         testing::PrintToStringParamName());

TEST_P(Events, name_what_was_dropped_emptied_and_deleted_and_lead_to_the_moment_before) {
  source_->sql("CREATE DATABASE shop");
  source_->session("shop").run_script(R"(
    CREATE SCHEMA "my sales";
    CREATE TABLE "my sales".orders (id int PRIMARY KEY, note text);
    INSERT INTO "my sales".orders SELECT g, repeat('x', 50) FROM generate_series(1, 700) g;
    CREATE TABLE stock (id int PRIMARY KEY, note text);
    INSERT INTO stock SELECT g, 'y' FROM generate_series(1, 300) g;
    CREATE TABLE visits AS SELECT g AS id FROM generate_series(1, 5000) g)");
  source_->sql("CREATE DATABASE rented");
  source_->sql("CREATE TABLE kept AS SELECT generate_series(1, 11)", "rented");
  place_.must({"backup"});
  const std::string since = source_->sql("SELECT clock_timestamp()");
  source_->sql(R"(DROP TABLE "my sales".orders)", "shop");
  source_->sql("INSERT INTO visits VALUES (0)", "shop");
  source_->sql("TRUNCATE stock", "shop");
  source_->sql("DELETE FROM visits WHERE id > 2000", "shop");
  source_->sql("DROP DATABASE rented");
  const json found = report_since(since);
  EXPECT_EQ(kinds(found), (std::set<std::string>{"drop", "truncate", "bulk delete", "drop database",
                                                 "restore point"}))
      << found.at("events").dump(1);

  const auto rented = just_before(only(found, "drop database", "rented", "rented"), "rented");
  EXPECT_EQ(rented->sql("SELECT count(*) FROM kept", "rented"), "11");
  const json orders_event = only(found, "drop", "my sales.orders", "shop");
  only(found, "truncate", "public.stock", "shop");
  const json bulk = only(found, "bulk delete", "public.visits", "shop");
  EXPECT_EQ(bulk.at("rows"), 3000);
  if (GetParam() != 15) return;  // one server shows that the moments are right
  const auto orders = just_before(orders_event, "orders");
  EXPECT_EQ(orders->sql(R"(SELECT count(*) FROM "my sales".orders)", "shop"), "700");
  EXPECT_EQ(orders->sql("SELECT count(*) FROM stock", "shop"), "300");
  const auto visits = just_before(bulk, "visits");
  EXPECT_EQ(visits->sql("SELECT count(*) FROM visits", "shop"), "5001") << "nothing less";
  EXPECT_EQ(visits->sql("SELECT count(*) FROM stock", "shop"), "0") << "nothing less";
}

TEST_P(Events, tell_a_drop_from_all_else_that_removes_files) {
  const fs::path space = place_.path("space");
  fs::create_directory(space);
  place_.give_to_server_user(space);
  source_->session().run_script(R"(
    CREATE TABLE t (id int PRIMARY KEY, v text);
    INSERT INTO t SELECT g, repeat('z', 3000) FROM generate_series(1, 200) g;
    CREATE MATERIALIZED VIEW m AS SELECT generate_series(1, 9) AS id;
    CREATE TABLE doomed (id int))");
  source_->sql("CREATE DATABASE moved");
  source_->sql(fmt::format("CREATE TABLESPACE space LOCATION '{}'", space.string()));
  place_.must({"backup"});
  const std::string since = source_->sql("SELECT clock_timestamp()");
  source_->sql("VACUUM FULL t");
  source_->sql("VACUUM FULL pg_class");
  source_->sql("CLUSTER t USING t_pkey");
  source_->sql("ALTER TABLE t ALTER id TYPE bigint");
  source_->sql("REINDEX TABLE t");
  source_->sql("REINDEX TABLE CONCURRENTLY t");
  source_->sql("REFRESH MATERIALIZED VIEW m");
  source_->sql("ALTER TABLE t SET TABLESPACE space");
  source_->sql("ALTER DATABASE moved SET TABLESPACE space");
  source_->session().run_script(
      "CREATE TEMP TABLE scratch AS SELECT generate_series(1, 2000) AS id; DROP TABLE scratch");
  source_->session().run_script("BEGIN; CREATE TABLE brief (id int); DROP TABLE brief; COMMIT");
  source_->session().run_script("BEGIN; DROP TABLE doomed; ROLLBACK");
  source_->session().run_script("BEGIN; SAVEPOINT s; DELETE FROM t; ROLLBACK TO s; COMMIT");
  const json quiet = report_since(since);
  EXPECT_EQ(kinds(quiet), (std::set<std::string>{"restore point"})) << quiet.at("events").dump(1);

  source_->session().run_script(
      "BEGIN; SAVEPOINT s; CREATE TABLE other (id int); DROP TABLE doomed; RELEASE s; COMMIT");
  source_->sql("CREATE TABLE late (id int)");
  const std::string late = source_->sql("SELECT oid FROM pg_class WHERE relname = 'late'");
  source_->sql("DROP TABLE late");
  source_->session().run_script("BEGIN; TRUNCATE t; INSERT INTO t VALUES (1, 'again'); COMMIT");
  const json found = report_since(since);
  only(found, "drop", "public.doomed", "postgres");
  only(found, "drop", "relation " + late, "postgres");
  only(found, "truncate", "public.t", "postgres");
}

class OneServer : public Events {};
INSTANTIATE_TEST_SUITE_P(PostgreSQL, OneServer, testing::Values(15),
                         testing::PrintToStringParamName());

TEST_P(OneServer, count_rows_by_the_minute_and_see_a_delete_that_is_spread_over_transactions) {
  source_->sql("CREATE TABLE t AS SELECT generate_series(1, 4000) AS id");
  place_.must({"backup"});
  const std::string since = source_->sql("SELECT clock_timestamp()");
  for (int part = 0; part < 4; ++part) {
    source_->sql(fmt::format("DELETE FROM t WHERE id % 4 = {}", part));
  }
  source_->sql("INSERT INTO t SELECT generate_series(1, 50)");
  source_->sql("UPDATE t SET id = 7 WHERE id <= 20");
  source_->session().run_script("BEGIN; INSERT INTO t VALUES (1); ROLLBACK");
  source_->sql("SELECT pg_create_restore_point('at last')");
  const std::string until = source_->sql("SELECT clock_timestamp()");
  source_->sql("DROP TABLE t");
  place_.archive_all(*source_);
  const json found = place_.must({"events", "--since", since, "--until", until, "--json"}).json();
  std::uint64_t inserted = 0, updated = 0, deleted = 0, aborts = 0;
  for (const json& minute : found.at("minutes")) {
    inserted += minute.at("rows_inserted").get<std::uint64_t>();
    updated += minute.at("rows_updated").get<std::uint64_t>();
    deleted += minute.at("rows_deleted").get<std::uint64_t>();
    aborts += minute.at("aborts").get<std::uint64_t>();
  }
  EXPECT_EQ(inserted, 50U);
  EXPECT_EQ(updated, 20U);
  EXPECT_EQ(deleted, 4000U);
  EXPECT_EQ(aborts, 1U);
  ASSERT_FALSE(found.at("minutes").empty());
  if (found.at("minutes").size() == 1) {  // otherwise a minute ended meanwhile
    EXPECT_EQ(only(found, "bulk delete", "public.t", "postgres").at("rows"), 4000);
  }
  const json& point = found.at("events").back();
  EXPECT_EQ(point.at("kind"), "restore point");
  EXPECT_EQ(point.at("restore_to"), "name:at last");
  EXPECT_EQ(place_.holdfast({"events", "--since", until, "--until", since}).status, 2);
  EXPECT_EQ(place_.holdfast({"events", "--since", "13am"}).status, 2);
  const Result text = place_.must({"events", "--since", since});
  EXPECT_NE(text.output.find("drop public.t in postgres"), std::string::npos) << text.output;
  EXPECT_NE(text.output.find(" --exclusive"), std::string::npos) << text.output;
}

TEST_P(OneServer, DS5_are_told_around_a_hole_and_the_hole_is_said) {
  source_->sql("CREATE TABLE early (id int)");
  source_->sql("CREATE TABLE late (id int)");
  source_->sql("ALTER DATABASE template1 ALLOW_CONNECTIONS false");  // refuses us: no harm
  place_.must({"backup"});
  source_->sql("DROP TABLE early");
  place_.archive_all(*source_);
  source_->sql("CREATE TABLE unseen (id int)");
  const std::string hole = finish_segment(place_, *source_);
  source_->sql("DROP TABLE late");
  place_.archive_all(*source_);
  fs::remove(object_of(place_, *source_, "wal/00000001/" + hole));
  const json found = place_.must({"events", "--since", "1h", "--json"}).json();
  EXPECT_TRUE(only(found, "drop", "public.early", "postgres").at("restore_to").is_string());
  EXPECT_TRUE(only(found, "drop", "public.late", "postgres").at("restore_to").is_null());
  ASSERT_EQ(found.at("warnings").size(), 1U) << found.at("warnings").dump(1);
  EXPECT_NE(found.at("warnings")[0].get<std::string>().find("no readable WAL"), std::string::npos);
}

}  // namespace
}  // namespace holdfast::tests
