// `extract`: somebody dropped a table at an unknown minute. Find it, take it from just before, put
// it back; production runs all the while (docs/runbooks/dropped-table.md).

#include "faults/faults.h"
#include "harness/instant.h"

namespace holdfast::tests {
namespace {

using base::Code;

class Extract : public ::testing::Test {
 protected:
  Extract() : cluster_(place_.cluster()) {
    cluster_->sql("CREATE DATABASE app");
    cluster_->sql("CREATE SCHEMA sales", "app");
    cluster_->sql("CREATE TABLE sales.orders (id serial PRIMARY KEY, v text NOT NULL)", "app");
    cluster_->sql("CREATE INDEX orders_v ON sales.orders (v)", "app");
    cluster_->sql(
        "INSERT INTO sales.orders (v) SELECT md5(g::text) FROM generate_series(1, 2000) g", "app");
    cluster_->sql("CREATE TABLE other AS SELECT 1 AS x", "app");
    place_.must({"backup"});
    cluster_->sql("INSERT INTO sales.orders (v) VALUES ('after the backup')", "app");
    before_ = orders();
  }
  std::string orders(const std::string& table = "sales.orders") const {
    return cluster_->sql(
        "SELECT count(*) || ' ' || sum(hashtextextended(t::text, 0)::numeric) FROM " + table + " t",
        "app");
  }
  /// As whoever runs the tests: as root it mounts, else it may not.
  Result run(std::vector<std::string> arguments) const {
    return holdfast_as_self(place_, arguments);
  }
  Result must(const std::vector<std::string>& arguments) const {
    Result result = run(arguments);
    EXPECT_EQ(result.status, 0) << result.errors << result.output;
    return result;
  }
  std::string into() const { return cluster_->connection("app"); }

  Place place_;
  std::unique_ptr<Cluster> cluster_;
  std::string before_;
};

TEST_F(Extract, puts_back_a_table_that_was_dropped_at_an_unknown_minute) {
  cluster_->sql("DROP TABLE sales.orders", "app");
  cluster_->sql("INSERT INTO other VALUES (2)", "app");
  place_.archive_all(*cluster_);
  const auto events = place_.must({"events", "--since", "2020-01-01 00:00:00+00", "--json"}).json();
  nlohmann::json drop;
  for (const auto& event : events.at("events")) {
    if (event.at("kind") == "drop" && event.dump().find("orders") != std::string::npos) {
      drop = event;
    }
  }
  ASSERT_FALSE(drop.empty()) << events.dump(2);
  std::vector<std::string> extract = {"extract", "sales.orders", "--to", drop.at("restore_to"),
                                      "--into",  into()};
  if (drop.at("exclusive").get<bool>()) extract.emplace_back("--exclusive");
  must(extract);
  EXPECT_EQ(orders(), before_);
  EXPECT_EQ(cluster_->sql("SELECT count(*) FROM other", "app"), "2") << "production went on";
  cluster_->sql("INSERT INTO sales.orders (v) VALUES ('goes on')", "app");
  const auto left = fs::directory_iterator(place_.path());
  for (const auto& entry : left) {
    EXPECT_EQ(entry.path().filename().string().find("holdfast-scratch"), std::string::npos);
  }
}

TEST_F(Extract, puts_a_table_beside_the_one_that_is_there) {
  cluster_->sql("UPDATE sales.orders SET v = 'wrong'", "app");
  place_.archive_all(*cluster_);
  const Result clash = run({"extract", "orders", "--to", "immediate", "--into", into()});
  EXPECT_EQ(clash.status, status_of(Code::postgres));
  EXPECT_NE(clash.errors.find("--as"), std::string::npos) << clash.errors;
  const Result done = must({"extract", "orders", "--to", "immediate", "--into", into(), "--as",
                            "orders_before", "--json"});
  EXPECT_EQ(done.json().at("tables").at(0).at("rows"), 2000);
  EXPECT_EQ(done.json().at("tables").at(0).at("as"), "sales.orders_before");
  EXPECT_EQ(cluster_->sql("SELECT count(*) FROM sales.orders_before", "app"), "2000");
  EXPECT_EQ(cluster_->sql("SELECT count(*) FROM sales.orders WHERE v = 'wrong'", "app"), "2001");
}

TEST_F(Extract, writes_sql_to_a_file_or_to_stdout) {
  const Result printed = must({"extract", "--schema", "sales", "--to", "immediate"});
  EXPECT_NE(printed.output.find("CREATE TABLE sales.orders"), std::string::npos);
  EXPECT_EQ(printed.output.find("CREATE TABLE public.other"), std::string::npos);
  const fs::path file = place_.path("app.sql");
  must({"extract", "--database", "app", "--whole-database", "--to", "immediate", "--output",
        file.string()});
  EXPECT_NE(text_of(file).find("CREATE TABLE public.other"), std::string::npos);
  EXPECT_NE(text_of(file).find("CREATE TABLE sales.orders"), std::string::npos);
}

TEST_F(Extract, takes_a_partitioned_table_with_its_partitions) {
  cluster_->sql("CREATE TABLE parts (id int) PARTITION BY RANGE (id)", "app");
  cluster_->sql("CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10)", "app");
  cluster_->sql("INSERT INTO parts SELECT generate_series(1, 9)", "app");
  place_.must({"backup"});
  cluster_->sql("DROP TABLE parts", "app");
  must({"extract", "parts", "--to", "immediate", "--into", into()});
  EXPECT_EQ(cluster_->sql("SELECT count(*) FROM parts", "app"), "9");
}

TEST_F(Extract, refuses_what_it_cannot_understand_and_says_the_way_out) {
  const auto expect = [&](const std::vector<std::string>& arguments, Code code) {
    const Result result = run(arguments);
    EXPECT_EQ(result.status, status_of(code)) << result.errors;
    EXPECT_NE(result.errors.find("hint:"), std::string::npos) << result.errors;
  };
  expect({"extract"}, Code::usage);
  expect({"extract", "a", "b", "--as", "c"}, Code::usage);
  expect({"extract", "--whole-database"}, Code::usage);
  expect({"extract", "other", "--json"}, Code::usage);
  expect({"extract", "nothing_of_that_name", "--to", "immediate"}, Code::not_found);
  expect({"extract", "other", "--into", "host='"}, Code::configuration);
}

TEST_F(Extract, says_what_does_not_come_along_and_takes_names_as_sql_writes_them) {
  cluster_->sql("CREATE SCHEMA \"The Books\"", "app");
  cluster_->sql("CREATE TABLE \"The Books\".\"Mixed Case\" (id int, scan oid)", "app");
  cluster_->sql("INSERT INTO \"The Books\".\"Mixed Case\" VALUES (1, lo_from_bytea(0, 'x'))",
                "app");
  cluster_->sql("CREATE UNLOGGED TABLE quick AS SELECT generate_series(1, 5) AS x", "app");
  place_.must({"backup"});
  const auto says = [&](std::vector<std::string> arguments, const std::string& what) {
    arguments.insert(arguments.end(), {"--to", "immediate"});
    const Result result = must(arguments);
    EXPECT_NE(result.errors.find(what), std::string::npos) << result.errors;
    return result;
  };
  const std::string objects = "refers to 1 large objects";
  says({"extract", "\"Mixed Case\""}, objects);
  says({"extract", "--schema", "\"The Books\""}, objects);
  const Result renamed =
      says({"extract", "\"The Books\".\"Mixed Case\"", "--as", "\"A.b\""}, objects);
  EXPECT_NE(renamed.output.find("CREATE TABLE \"The Books\".\"A.b\""), std::string::npos);
  says({"extract", "QUICK"}, "public.quick is unlogged");
  const Result all =
      says({"extract", "--whole-database", "--database", "app"}, "public.quick is unlogged");
  EXPECT_EQ(all.errors.find("large objects"), std::string::npos) << all.errors;
  EXPECT_NE(all.output.find("lo_create"), std::string::npos);
}

}  // namespace
}  // namespace holdfast::tests
