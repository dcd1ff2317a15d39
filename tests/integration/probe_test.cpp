// `holdfast probe` and `holdfast uptime`, on a real server behind a proxy that makes it hang.

#include "faults/faults.h"
#include "harness/witness.h"
#include "service/http_listener.h"
#include "service/testing.h"

namespace holdfast::tests {
namespace {

class ProbeTest : public testing::Test {
 protected:
  ProbeTest()
      : cluster_(place_.cluster()), web_(service::find_address("127.0.0.1:0"), [](const auto&) {
          return service::HttpResponse();
        }) {
    const fs::path socket = fs::path(cluster_->sql("SHOW unix_socket_directories")) /
                            (".s.PGSQL." + cluster_->sql("SHOW port"));
    db_ = proxies_.create({"db", "127.0.0.1:0", "unix:" + socket.string()}).settings.listen;
    const std::string port = db_.substr(db_.rfind(':') + 1);
    std::string text = text_of(place_.configuration());
    text += "\n[history]\nfile = \"probes.sqlite\"\n[probe.web]\nurl = \"http://" +
            web_.address().text() +
            "/\"\ninterval = \"1s\"\n[probe.db]\nconnection = \"host=127.0.0.1 port=" + port +
            " dbname=postgres user=" + cluster_->sql("SELECT current_user") +
            "\"\nsql = \"SELECT 1 + 1\"\nexpect = \"2\"\ninterval = \"2s\"\ntimeout = \"1s\"\n";
    overwrite(place_.configuration(), text);
  }
  nlohmann::json probe(int status) const {
    const Result result = place_.holdfast({"probe", "--json"});
    EXPECT_EQ(result.status, status) << result.errors << result.output;
    const nlohmann::json document = result.json();
    nlohmann::json found;
    for (const auto& each : document.at("probes")) found[each.at("name")] = each;
    return found;
  }
  void hang() { proxies_.add_toxic("db", service::toxic_from({{"type", "timeout"}})); }

  Place place_;
  std::unique_ptr<Cluster> cluster_;
  service::HttpListener web_;
  service::FaultProxies proxies_;
  std::string db_;
};

TEST_F(ProbeTest, finds_a_hanging_server_failed_within_the_limit) {
  EXPECT_EQ(probe(0).at("db").at("ok"), true);
  hang();
  const auto start = std::chrono::steady_clock::now();
  const auto found = probe(status_of(base::Code::check_failed));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(3));
  EXPECT_EQ(found.at("db").at("ok"), false);
  EXPECT_EQ(found.at("db").at("why"), "PostgreSQL did not answer in time");
  EXPECT_GE(found.at("db").at("latency_ms").get<double>(), 1000);
  EXPECT_EQ(found.at("web").at("ok"), true) << "others are not kept waiting";
}

TEST_F(ProbeTest, finds_a_statement_that_hangs_or_says_something_else_failed) {
  std::string text = text_of(place_.configuration());
  const std::string before = text;
  const auto with = [&](const std::string& sql) {
    std::string changed = before;
    changed.replace(changed.find("SELECT 1 + 1"), 12, sql);
    overwrite(place_.configuration(), changed);
    return probe(status_of(base::Code::check_failed)).at("db").at("why").get<std::string>();
  };
  EXPECT_EQ(with("SELECT pg_sleep(60)"), "PostgreSQL did not answer in time");
  EXPECT_EQ(with("SELECT 3"), "it answered another value");
  EXPECT_NE(with("SELECT nothing").find("does not exist"), std::string::npos);
}

TEST_F(ProbeTest, watches_by_the_intervals_and_tells_uptime) {
  Running watch(place_, {"probe", "--watch"});
  const auto minutes_of = [&](const std::string& name, const std::string& what) {
    const Result result = place_.holdfast({"uptime", "--json"});
    if (result.status == status_of(base::Code::not_found)) return 0.0;
    const nlohmann::json document = result.json();
    for (const auto& each : document.at("months")) {
      if (each.at("probe") == name) return each.at(what).get<double>();
    }
    return 0.0;
  };
  eventually("both were seen up", [&] {
    return minutes_of("db", "up_minutes") > 0 && minutes_of("web", "up_minutes") > 0;
  });
  hang();
  eventually("the server was seen down", [&] { return minutes_of("db", "down_minutes") > 0; });
  EXPECT_EQ(minutes_of("web", "down_minutes"), 0);
  place_.must({"uptime", "--planned", "2026-01-01 00:00", "2099-01-01 00:00", "--reason", "test"});
  EXPECT_EQ(minutes_of("db", "down_minutes"), 0);
  EXPECT_GT(minutes_of("db", "planned_minutes"), 0);
  EXPECT_NE(place_.holdfast({"uptime"}).output.find("test (declared afterwards)"),
            std::string::npos);
  watch.signal(SIGTERM);
  EXPECT_EQ(watch.wait(), 0) << watch.said();
}

}  // namespace
}  // namespace holdfast::tests
