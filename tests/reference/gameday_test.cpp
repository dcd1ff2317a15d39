// The contract that ships, on the reference service: each row against the real dependency; and that
// it fails, naming the row, when a promise is broken on purpose.

#include "base/error.h"
#include "harness/reference.h"

namespace reference::tests {
namespace {

/// PostgreSQL, Redis, an issuer (oauth2-mock-server), a schema with a building in it, and a
/// repository whose drills lay the evidence beside; no service, which the game day starts.
class GameDay : public ::testing::Test {
 protected:
  void SetUp() override {
    cluster_ = place_.cluster();
    redis_.emplace(scratch());
    start_issuer();
    fs::create_directory(scratch() / "uploads");
    // Whoever servers run as may not be able to read where this was checked out.
    for (const char* name : {"gameday.toml", "issuer.mjs"}) {
      fs::copy_file(fs::path(REFERENCE_SOURCE) / "ops" / name, scratch() / name);
    }
    fs::copy_file(reference_binary(), scratch() / "reference-api");
    environment_ = {{"ISSUER_URL", issuer_url_},
                    {"ISSUER_UPSTREAM", issuer_url_.substr(std::string("http://").size())},
                    {"REDIS_UPSTREAM", redis_->url()},
                    {"DATABASE_UPSTREAM", "unix:" + socket_of(*cluster_)},
                    {"GAMEDAY_DATABASE", "postgres"},
                    {"GAMEDAY_DATABASE_USER", "postgres"},
                    {"IMPORT_UPLOAD_DIR", scratch() / "uploads"},
                    {"REFERENCE_API", scratch() / "reference-api"}};
    for (const char* port : {"API", "PROXY", "DATABASE", "REDIS", "JWKS", "CLERK", "EDGE"}) {
      environment_[fmt::format("GAMEDAY_{}_PORT", port)] = std::to_string(free_port());
    }
    Environment direct = environment_;
    direct["DATABASE_URL"] = cluster_->connection();
    holdfast::base::run_checked(Api::command({"--migrate"}, direct));
    environment_["GAMEDAY_BUILDING"] = cluster_->sql(
        "WITH o AS (INSERT INTO organisations (clerk_id, name) VALUES ('org_gameday', 'G'), "
        "('org_stranger', 'S')) INSERT INTO buildings (organisation, name, address) VALUES "
        "('org_gameday', 'Tower', 'Street 1') RETURNING id");
    cluster_->sql(
        "INSERT INTO comps (organisation, building, tenant, area_m2, rent_per_m2, signed_on) "
        "SELECT 'org_gameday', id, 'Tenant', 100, 20, '2026-01-01' FROM buildings");
  }

  void start_issuer() {
    holdfast::base::Command command;
    command.argv = {"node", REFERENCE_SOURCE "/ops/issuer.mjs", "serve", "0"};
    const fs::path log = scratch() / "issuer.log";
    issuer_ = std::make_unique<Child>(command, log);
    eventually("the issuer serves", [&] {
      issuer_url_ = text_of(log);
      return issuer_url_.ends_with('\n');
    });
    issuer_url_.pop_back();
  }

  static std::string socket_of(const Cluster& cluster) {
    const std::string directory = cluster.sql("SHOW unix_socket_directories");
    return directory + "/.s.PGSQL." + cluster.sql("SHOW port");
  }

  fs::path scratch() const {
    fs::create_directories(place_.path("reference"));
    return place_.path("reference");
  }

  holdfast::tests::Result gameday(const std::vector<std::string>& rows,
                                  const std::string& broken = "") {
    std::vector<std::string> arguments = {"gameday", scratch() / "gameday.toml", "--json"};
    for (const std::string& row : rows) arguments.insert(arguments.end(), {"--row", row});
    std::vector<std::pair<std::string, std::string>> environment(environment_.begin(),
                                                                 environment_.end());
    environment.emplace_back("REFERENCE_BREAK", broken);
    return place_.holdfast(arguments, environment);
  }
  /// The rows that a game day found broken.
  static std::vector<std::string> failed(const holdfast::tests::Result& result) {
    std::vector<std::string> rows;
    const json told = result.json();
    for (const json& each : told.at("rows")) {
      if (each.at("outcome") == "failed") rows.push_back(each.at("name"));
    }
    return rows;
  }

  Place place_;
  std::unique_ptr<Cluster> cluster_;
  std::optional<Redis> redis_;
  std::unique_ptr<Child> issuer_;
  std::string issuer_url_;
  Environment environment_;
};

TEST_F(GameDay, finds_every_promise_of_the_runbook_kept) {
  const auto result = gameday({});
  ASSERT_EQ(result.status, 0) << result.errors << result.output;
  const json told = result.json();
  EXPECT_EQ(told.at("verdict"), "pass");
  EXPECT_GE(told.at("rows").size(), 18U);
  EXPECT_EQ(place_.must({"drill", "verify", "--json"}).json().at("records").size(), 1U);
}

class BrokenPromise : public GameDay,
                      public ::testing::WithParamInterface<std::vector<std::string>> {};

TEST_P(BrokenPromise, is_found_and_its_row_named) {
  const std::string& promise = GetParam().at(0);
  const std::vector<std::string> rows(GetParam().begin() + 1, GetParam().end());
  const auto result = gameday(rows, promise);
  EXPECT_EQ(result.status, holdfast::base::info(holdfast::base::Code::check_failed).exit_status)
      << result.errors << result.output;
  EXPECT_EQ(failed(result), rows) << result.output;
  EXPECT_EQ(result.json().at("verdict"), "fail");
}

INSTANTIATE_TEST_SUITE_P(
    Each, BrokenPromise,
    ::testing::Values(std::vector<std::string>{"no-database-timeout", "The database hangs"},
                      std::vector<std::string>{"cache-errors", "Redis is down", "Redis hangs"},
                      std::vector<std::string>{"no-jwks-cache", "JWKS is down for a short time"},
                      std::vector<std::string>{"ready-ignores-database", "The database is down"}),
    [](const auto& each) {
      std::string name = each.param.at(0);
      std::replace(name.begin(), name.end(), '-', '_');
      return name;
    });

/// A service that runs already, with a proxy before it that runs already, too.
class StandingService : public ::testing::Test {
 protected:
  void SetUp() override {
    edge_ = free_port();
    holdfast::base::Command proxy;
    proxy.argv = {holdfast::tests::holdfast_binary(),
                  "proxy",
                  "--listen",
                  fmt::format("127.0.0.1:{}", api_),
                  "--proxy",
                  fmt::format("edge=127.0.0.1:{}=127.0.0.1:{}", edge_, service_.api->port())};
    proxy_ = std::make_unique<Child>(proxy, service_.scratch() / "proxy.log");
    eventually("the edge is there", [&] { return answers(); });
    // A game day touches neither of them; their records are theirs.
    std::ofstream(service_.place.configuration())
        << "[cluster.main]\nconnection = \"host=/nowhere\"\n[repository.local]\n"
           "url = \"file:///nowhere\"\nencryption = \"none\"\n";
  }

  /// The contract: `request` through the edge, which refuses for as long as it takes.
  void write_contract(const std::string& more = "") const {
    std::ofstream(service_.place.path("gameday.toml")) << fmt::format(
        "[service]\nurl = \"http://127.0.0.1:{}\"\nproxy = \"127.0.0.1:{}\"\n"
        "[dependency.edge]\nlisten = \"127.0.0.1:{}\"\nupstream = \"127.0.0.1:{}\"\n"
        "[request.outside]\nurl = \"http://127.0.0.1:{}/health\"\ntimeout = \"1s\"\n"
        "[[row]]\nname = \"The edge is down\"\ndependency = \"edge\"\nfault = \"refuse\"\n"
        "observe = \"60s\"\n[[row.expect]]\nrequest = \"outside\"\nstatus = \"none\"\n{}",
        service_.api->port(), api_, edge_, service_.api->port(), edge_, more);
  }
  std::unique_ptr<Child> start_gameday() const {
    holdfast::base::Command command;
    command.argv = {holdfast::tests::holdfast_binary(),  "--config",
                    service_.place.configuration(),      "gameday",
                    service_.place.path("gameday.toml"), "--yes"};
    return std::make_unique<Child>(command, service_.scratch() / "gameday.log");
  }
  nlohmann::json newest_record() const {
    fs::path newest;
    for (const auto& each :
         fs::directory_iterator(service_.place.path("docs/audit/restore-drills"))) {
      const std::string name = each.path().filename();
      if (name.ends_with(".json") && name != "head.json" && each.path() > newest) {
        newest = each.path();
      }
    }
    return nlohmann::json::parse(holdfast::tests::text_of(newest));
  }
  bool answers() const { return Client(edge_, "").get("/health").status == 200; }

  Service service_{{}, false};
  int api_ = free_port();
  int edge_ = 0;
  std::unique_ptr<Child> proxy_;
};

TEST_F(StandingService, is_healed_when_the_game_day_is_killed) {
  write_contract();
  const auto gameday = start_gameday();
  eventually("the edge is broken", [&] { return !answers(); });
  gameday->signal(SIGKILL);
  gameday->wait();
  EXPECT_FALSE(answers()) << "nobody can have healed it yet";
  eventually("it is healed", [&] { return answers(); });
  EXPECT_EQ(proxy_->finished(), std::nullopt) << "the service needs it";
}

TEST_F(StandingService, is_healed_when_the_game_day_is_interrupted) {
  write_contract();
  const auto gameday = start_gameday();
  eventually("the edge is broken", [&] { return !answers(); });
  gameday->signal(SIGINT);
  EXPECT_NE(gameday->wait(), 0);
  EXPECT_TRUE(answers()) << "at once";
  EXPECT_EQ(newest_record().at("verdict"), "inconclusive") << "and it is recorded";
}

TEST_F(StandingService, whose_proxy_is_killed_is_recorded_as_a_row_that_proves_nothing) {
  write_contract();
  const fs::path contract = service_.place.path("gameday.toml");
  std::string text = holdfast::tests::text_of(contract);
  text.replace(text.find("60s"), 3, "2s");
  std::ofstream(contract) << text;
  const auto gameday = start_gameday();
  eventually("the edge is broken", [&] { return !answers(); });
  proxy_->signal(SIGKILL);
  proxy_->wait();
  EXPECT_EQ(gameday->wait(), holdfast::base::info(holdfast::base::Code::inconclusive).exit_status);
  const auto record = newest_record();
  EXPECT_EQ(record.at("verdict"), "inconclusive");
  EXPECT_EQ(record.at("checks").at(0).at("outcome"), "not run");
}

TEST_F(StandingService, is_not_broken_by_a_slip_of_the_finger) {
  write_contract();
  const auto result =
      service_.place.holdfast({"gameday", service_.place.path("gameday.toml").string()});
  EXPECT_EQ(result.status, holdfast::base::info(holdfast::base::Code::usage).exit_status);
  EXPECT_NE(result.output.find("The edge is down: edge, connections refused for 1 min"),
            std::string::npos)
      << result.output;
  EXPECT_NE(result.errors.find("--yes"), std::string::npos) << result.errors;
}

TEST_F(StandingService, proves_nothing_where_nothing_was_well_before) {
  write_contract(
      "[request.nowhere]\nurl = \"/nowhere\"\n"
      "[[row.expect]]\nrequest = \"nowhere\"\nstatus = 200\n");
  const auto result = service_.place.holdfast(
      {"gameday", service_.place.path("gameday.toml").string(), "--yes", "--json"});
  EXPECT_EQ(result.status, holdfast::base::info(holdfast::base::Code::inconclusive).exit_status)
      << result.errors << result.output;
  EXPECT_NE(result.output.find("before anything was broken: nowhere: answered 4"),
            std::string::npos)
      << result.output;
}

TEST_F(StandingService, without_its_proxies_is_not_touched) {
  write_contract();
  proxy_->signal(SIGTERM);
  proxy_->wait();
  const auto result =
      service_.place.holdfast({"gameday", service_.place.path("gameday.toml").string(), "--yes"});
  EXPECT_EQ(result.status, holdfast::base::info(holdfast::base::Code::unreachable).exit_status);
  EXPECT_NE(result.errors.find("holdfast proxy"), std::string::npos) << result.errors;
}

}  // namespace
}  // namespace reference::tests
