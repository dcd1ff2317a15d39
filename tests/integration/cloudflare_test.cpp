// Cloudflare as a recovery uses it. The API is a fake (harness/cloudflare.py), and Cloudflare's own
// client for Node looks at what was done to it.

#include "service/cloudflare.h"

#include <signal.h>

#include <fstream>

#include "base/error.h"
#include "base/http.h"
#include "harness/witness.h"

namespace holdfast::tests {
namespace {

using base::Code;
using nlohmann::json;
using service::Cloudflare;

const std::string harness = HOLDFAST_SOURCE "/tests/harness/";
const std::string token = "TOKEN-CANARY";

class FakeCloudflare {
 public:
  explicit FakeCloudflare(const fs::path& directory) : out_(directory / "cloudflare") {
    base::Command command;
    command.argv = {"python3", harness + "cloudflare.py"};
    fake_ = std::make_unique<base::Child>(command, out_);
    eventually("it listens", [&] { return text_of(out_).ends_with("\n"); });
    url_ = "http://127.0.0.1:" + text_of(out_);
    url_.pop_back();
  }
  ~FakeCloudflare() {
    fake_->signal(SIGKILL);
    fake_->wait();
  }
  FakeCloudflare(const FakeCloudflare&) = delete;
  FakeCloudflare& operator=(const FakeCloudflare&) = delete;

  std::string api() const { return url_ + "/client/v4"; }
  std::string control() const { return url_ + "/control"; }
  void tell(const json& what) const {
    base::HttpClient client;
    EXPECT_EQ(client.ask({"POST", control(), {}, what.dump()}).status, 200);
  }
  json seen() const {
    return json::parse(base::http_get(url_ + "/seen", std::chrono::seconds(10)).body);
  }
  json state() const { return seen().at("state"); }
  std::size_t changes() const {
    const json all = seen().at("requests");
    return static_cast<std::size_t>(std::ranges::count_if(
        all, [](const json& each) { return !each.get<std::string>().starts_with("GET"); }));
  }
  /// What Cloudflare's own client sees, after it has changed it if `argument` is "change".
  json client(const std::string& argument = "") const {
    base::Command node;
    node.argv = {"node", harness + "cloudflare_client.js", url_,
                 HOLDFAST_SOURCE "/build/cloudflare-client", argument};
    const base::Outcome outcome = base::run(node);
    EXPECT_EQ(outcome.status, 0) << outcome.errors;
    return json::parse(outcome.output, nullptr, false);
  }

 private:
  fs::path out_;
  std::unique_ptr<base::Child> fake_;
  std::string url_;
};

class CloudflareApi : public ::testing::Test {
 protected:
  Cloudflare api(std::chrono::milliseconds limit = std::chrono::seconds(10),
                 const std::string& with = token) const {
    return {fake_.api(), with, limit};
  }
  /// Runs `work`, which must fail so; gives back the message.
  template <typename Work>
  static std::string failure(Code code, Work work) {
    try {
      work();
    } catch (const base::Error& error) {
      EXPECT_EQ(error.code(), code) << error.message();
      EXPECT_EQ((error.message() + error.hint()).find(token), std::string::npos);
      return error.message() + "\n" + error.hint();
    }
    ADD_FAILURE() << "nothing failed";
    return "";
  }
  Cloudflare::Remember remember() {
    return [this](const std::string& before) { before_.push_back(before); };
  }
  void set_dns(Cloudflare&& api, const std::string& content) { set_dns(api, content); }
  void set_dns(Cloudflare& api, const std::string& content) {
    api.set_dns("zone", "db.example.com", "A", content, remember());
  }

  Place place_;
  FakeCloudflare fake_{place_.path()};
  std::vector<std::string> before_;
};

TEST_F(CloudflareApi, is_changed_in_one_place_and_nothing_else_as_its_own_client_sees) {
  json expected = fake_.client();
  Cloudflare api = this->api();
  api.set_ingress("acc", "tun", "api.example.com", "http://new:8080", remember());
  set_dns(api, "198.51.100.1");
  api.set_origin("acc", "p1", "main", "198.51.100.2", remember());
  EXPECT_EQ(before_, (std::vector<std::string>{"http://old:8080", "192.0.2.1", "192.0.2.10"}));
  expected["config"]["ingress"][0]["service"] = "http://new:8080";
  expected["dns"]["content"] = "198.51.100.1";
  expected["pool"]["origins"][0]["address"] = "198.51.100.2";
  EXPECT_EQ(fake_.client(), expected);
  const std::size_t changes = fake_.changes();
  set_dns(api, "198.51.100.1");
  EXPECT_EQ(fake_.changes(), changes) << "what is so already is not changed";
  EXPECT_EQ(before_.size(), 3U);
}

TEST_F(CloudflareApi, is_read_as_its_own_client_writes_it) {
  fake_.client("change");
  Cloudflare api = this->api();
  api.set_ingress("acc", "tun", "api.example.com", "http://new:8080", remember());
  set_dns(api, "198.51.100.1");
  api.set_origin("acc", "p1", "main", "198.51.100.2", remember());
  EXPECT_EQ(before_,
            (std::vector<std::string>{"http://client:1", "198.51.100.77", "198.51.100.78"}));
  EXPECT_TRUE(api.connectors("acc", "tun").empty()) << "it sent c1 away";
  fake_.tell({{"connect", "c2"}});
  ASSERT_EQ(api.connectors("acc", "tun").size(), 1U);
  EXPECT_EQ(api.connectors("acc", "tun")[0].id, "c2");
  EXPECT_EQ(api.connectors("acc", "tun")[0].connections, 1U);
  ASSERT_TRUE(api.connectors("acc", "tun")[0].began);
  EXPECT_LT(base::now() - *api.connectors("acc", "tun")[0].began, std::chrono::minutes(1));
  api.evict("acc", "tun", "c2");
  EXPECT_TRUE(fake_.client().at("connectors").empty());
}

TEST_F(CloudflareApi, is_waited_for_while_it_is_busy_or_out_of_order_and_no_longer) {
  fake_.tell({{"answers", {{429, "1"}, {503, nullptr}, {500, nullptr}}}});
  const auto begun = std::chrono::steady_clock::now();
  set_dns(api(), "198.51.100.1");
  EXPECT_GE(std::chrono::steady_clock::now() - begun, std::chrono::seconds(1)) << "it was asked to";
  EXPECT_EQ(fake_.state().at("dns").at(0).at("content"), "198.51.100.1");
  json always = json::array();
  for (int i = 0; i < 100; ++i) always.push_back({503, nullptr});
  fake_.tell({{"answers", always}});
  const std::string why = failure(
      Code::unreachable, [&] { set_dns(api(std::chrono::milliseconds(1500)), "198.51.100.9"); });
  EXPECT_NE(why.find("503: Please wait (code 971)"), std::string::npos) << why;
  fake_.tell({{"answers", {{429, "300"}}}});
  failure(Code::unreachable, [&] { set_dns(api(), "198.51.100.9"); });
}

TEST_F(CloudflareApi, that_refuses_is_not_asked_twice_and_the_message_says_what_to_do) {
  const std::size_t asked = fake_.seen().at("requests").size();
  const std::string wrong = failure(
      Code::permission, [&] { set_dns(api(std::chrono::seconds(10), "OTHER"), "198.51.100.1"); });
  EXPECT_NE(wrong.find("Invalid access token"), std::string::npos) << wrong;
  EXPECT_NE(wrong.find("docs/recover.md"), std::string::npos) << wrong;
  EXPECT_EQ(fake_.seen().at("requests").size(), asked + 1);
  failure(Code::not_found,
          [&] { api().set_dns("other zone", "db.example.com", "A", "198.51.100.1", remember()); });
  // Which one of two is meant cannot be known.
  const std::string two = failure(Code::not_found, [&] {
    api().set_dns("zone", "two.example.com", "A", "198.51.100.1", remember());
  });
  EXPECT_NE(two.find("there are 2 records"), std::string::npos) << two;
  failure(Code::not_found,
          [&] { api().set_ingress("acc", "tun", "nobody.example.com", "http://x", remember()); });
  const std::string rules = failure(Code::not_found, [&] {
    api().set_ingress("acc", "tun", "two.example.com", "http://x", remember());
  });
  EXPECT_NE(rules.find("2 rules"), std::string::npos) << rules;
  failure(Code::not_found,
          [&] { api().set_origin("acc", "p1", "third", "198.51.100.1", remember()); });
  EXPECT_EQ(fake_.changes(), 0U);
  EXPECT_TRUE(before_.empty());
}

TEST_F(CloudflareApi, that_says_strange_things_is_an_error_and_nothing_is_changed) {
  for (const char* strange :
       {"", "[]", "null", "{\"success\": \"yes\"}", "{\"success\": false, \"errors\": 5}",
        "{\"success\": true}", "{\"success\": true, \"result\": 5}",
        "{\"success\": true, \"result\": [{\"id\": 5}]}",
        "{\"success\": true, \"result\": {\"config\": null, \"origins\": {\"a\": 1}}}"}) {
    for (int kind = 0; kind < 4; ++kind) {
      fake_.tell({{"answers", {{200, strange}}}});
      try {
        Cloudflare api = this->api(std::chrono::milliseconds(100));
        if (kind == 0) {
          EXPECT_TRUE(api.connectors("acc", "tun").empty()) << strange;
        }
        if (kind == 1) api.set_ingress("acc", "tun", "api.example.com", "http://x", remember());
        if (kind == 2) api.set_origin("acc", "p1", "main", "198.51.100.1", remember());
        if (kind == 3) set_dns(api, "198.51.100.1");
        EXPECT_EQ(kind, 0) << strange;
      } catch (const base::Error& error) {
        EXPECT_NE(error.code(), Code::internal) << strange << error.message();
      }
    }
  }
  EXPECT_EQ(fake_.changes(), 0U);
}

TEST_F(CloudflareApi, gets_no_token_over_an_open_line) {
  EXPECT_THROW(Cloudflare("http://api.example.com/client/v4", token, std::chrono::seconds(1)),
               base::Error);
}

/// A recovery at whose end the world is led to the new host.
class RecoverEdge : public CloudflareApi {
 protected:
  RecoverEdge() : cluster_(place_.cluster()) {
    std::ofstream file(cluster_->data_directory() / "postgresql.conf", std::ios::app);
    file << fmt::format("unix_socket_directories = '{}'\nlisten_addresses = ''\nfsync = off\n",
                        cluster_->server().socket_directory().string());
    file.close();
    overwrite(place_.path("token"), token + "\n");
    place_.give_to_server_user(place_.path("token"));
    configure("curl -s -d '{\\\"connect\\\": \\\"c2\\\"}' " + fake_.control());
    cluster_->sql("CREATE TABLE orders AS SELECT i AS id FROM generate_series(1, 1000) i");
    place_.must({"backup"});
    cluster_->sql("INSERT INTO orders VALUES (0)");
  }
  ~RecoverEdge() override {
    run_tool(cluster_->installation(), "pg_ctl",
             {"-D", cluster_->data_directory().string(), "-m", "immediate", "-w", "stop"});
  }
  void configure(const std::string& connector) {
    if (plain_.empty()) plain_ = text_of(place_.configuration());
    overwrite(place_.configuration(),
              plain_ + fmt::format("\n[recover.cloudflare]\napi = \"{}\"\ntoken_file = \"token\"\n"
                                   "account = \"acc\"\ntunnel = \"tun\"\nconnector = \"{}\"\n"
                                   "hostname = \"api.example.com\"\nservice = \"http://new:8080\"\n"
                                   "zone = \"zone\"\nrecord = \"db.example.com\"\ntype = \"A\"\n"
                                   "content = \"198.51.100.1\"\npool = \"p1\"\norigin = \"main\"\n"
                                   "address = \"198.51.100.2\"\n[recover.limit]\n"
                                   "reconnect = \"8s\"\n",
                                   fake_.api(), connector));
  }
  void expect_led_here() {
    const json now = fake_.client();
    EXPECT_EQ(now.at("config").at("ingress").at(0).at("service"), "http://new:8080");
    EXPECT_EQ(now.at("dns").at("content"), "198.51.100.1");
    EXPECT_EQ(now.at("pool").at("origins").at(0).at("address"), "198.51.100.2");
    EXPECT_EQ(now.at("connectors"), json::parse(R"([{"id": "c2", "connections": 1}])"));
  }
  std::string said_;  ///< by all commands

  Result recover(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "recover");
    Result result = place_.holdfast(arguments);
    said_ += result.output + result.errors;
    return result;
  }

  std::unique_ptr<Cluster> cluster_;
  std::string plain_;
};

TEST_F(RecoverEdge, leads_the_world_here_and_back_also_when_it_is_killed_in_between) {
  const json before = fake_.client();
  const Result plan = recover({"--plan"});
  EXPECT_NE(plan.output.find("api.example.com to http://new:8080"), std::string::npos)
      << plan.output;
  EXPECT_EQ(fake_.changes(), 0U);

  // The change is made, and it is dead before it hears of it.
  fake_.tell({{"hang_after", "PATCH"}});
  base::Command command;
  command.argv = {holdfast_binary().string(), "--config", place_.configuration().string(),
                  "recover", "--yes"};
  command.directory = place_.path();
  command.user = base::running_as_root() ? postgres::server_user() : std::nullopt;
  base::Child child(command, place_.path("log"));
  eventually("the record is changed", [&] {
    return child.finished() || fake_.state().at("dns").at(0).at("content") == "198.51.100.1";
  });
  child.signal(SIGKILL);
  child.wait();
  said_ += text_of(place_.path("log"));
  const Result done = recover({"--resume", "--yes"});
  ASSERT_EQ(done.status, 0) << done.errors << text_of(place_.path("log"));
  expect_led_here();

  // What is set back is what was changed, whatever the configuration says today.
  const std::string right = text_of(place_.configuration());
  std::string other = right;
  other.replace(other.find("db.example.com"), 2, "tw");
  overwrite(place_.configuration(), other);
  const Result refused = recover({"--undo", "--yes"});
  EXPECT_EQ(refused.status, base::info(Code::configuration).exit_status) << refused.errors;
  EXPECT_NE(refused.errors.find("db.example.com any more, which was 192.0.2.1"), std::string::npos)
      << refused.errors;
  overwrite(place_.configuration(), right);
  const Result undone = recover({"--undo", "--yes"});
  ASSERT_EQ(undone.status, 0) << undone.errors;
  json after = fake_.client();
  // Who serves the tunnel is the old host's own business.
  after["connectors"] = before.at("connectors");
  EXPECT_EQ(after, before);

  EXPECT_EQ(said_.find(token), std::string::npos) << said_;
  base::Command grep;
  grep.argv = {"grep", "-rl", token, place_.path().string()};
  EXPECT_EQ(base::run(grep).output, place_.path("token").string() + "\n");
}

TEST_F(RecoverEdge, that_nobody_can_connect_says_so_and_keeps_who_serves) {
  configure("true");
  const Result failed = recover({"--yes"});
  EXPECT_EQ(failed.status, base::info(Code::check_failed).exit_status) << failed.errors;
  EXPECT_NE(failed.errors.find("no new connector serves the tunnel"), std::string::npos)
      << failed.errors;
  EXPECT_NE(failed.errors.find("--resume"), std::string::npos) << failed.errors;
  EXPECT_TRUE(fake_.state().at("connectors").contains("c1")) << "nobody serves the tunnel";
  EXPECT_EQ(fake_.changes(), 0U);
  // One that was away when it was asked who serves is no new one.
  fake_.tell({{"connect", "c0"}, {"run_at", "2026-01-01T00:00:00Z"}});
  EXPECT_EQ(recover({"--resume", "--yes"}).status, base::info(Code::check_failed).exit_status);
  EXPECT_EQ(fake_.changes(), 0U);
  // Somebody starts it by hand.
  fake_.tell({{"connect", "c2"}});
  fs::remove(place_.path("token"));
  const Result without = recover({"--resume", "--yes"});
  EXPECT_NE(without.status, 0);
  EXPECT_NE(without.errors.find("token"), std::string::npos) << without.errors;
  overwrite(place_.path("token"), token);
  place_.give_to_server_user(place_.path("token"));
  const Result done = recover({"--resume", "--yes"});
  ASSERT_EQ(done.status, 0) << done.errors;
  expect_led_here();
}

TEST_F(RecoverEdge, counts_who_was_connected_by_the_command_before_it) {
  configure("true");
  std::ofstream(place_.configuration(), std::ios::app)
      << "[recover.command]\nreconnect = \"curl -s -d '{\\\"connect\\\": \\\"c2\\\"}' "
      << fake_.control() << "\"\n";
  const Result done = recover({"--yes"});
  ASSERT_EQ(done.status, 0) << done.errors;
  expect_led_here();
}

}  // namespace
}  // namespace holdfast::tests
