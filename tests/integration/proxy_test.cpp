// `holdfast proxy`: the command, with Toxiproxy's own client, and with an injector that dies.

#include <signal.h>

#include <thread>

#include "base/http.h"
#include "faults/faults.h"
#include "harness/witness.h"
#include "service/testing.h"

namespace holdfast::tests {
namespace {

using namespace service::testing;

/// A `holdfast proxy` in front of a server that says "hello" and closes.
class ProxyTest : public testing::Test {
 protected:
  ProxyTest() {
    server_ = std::jthread([this](const std::stop_token& stop) {
      while (!stop.stop_requested()) {
        const base::Fd client = upstream_.accept();
        if (client) send_all(client, "hello");
      }
    });
  }
  ~ProxyTest() override {
    server_.request_stop();
    connected(upstream_.address());
  }
  void start(std::vector<std::string> options = {}) {
    options.insert(options.begin(), {"proxy", "--json", "--listen", "127.0.0.1:0", "--proxy",
                                     "dep=127.0.0.1:0=" + upstream_.address()});
    command_ = std::make_unique<Running>(place_, options);
    eventually("it listens", [&] { return command_->said().ends_with("\n"); });
    const auto said = nlohmann::json::parse(command_->said());
    api_ = said.at("api");
    proxy_ = said.at("proxies").at("dep");
  }
  base::HttpAnswer post(const std::string& path, const std::string& body) {
    return client_.ask({"POST", "http://" + api_ + path, {}, body});
  }
  std::string said_by_dependency() const {
    const base::Fd client = connected(proxy_);
    return client ? receive(client, 100) : "refused";
  }

  Place place_;
  service::testing::Upstream upstream_;
  std::jthread server_;
  std::unique_ptr<Running> command_;
  std::string api_;
  std::string proxy_;
  base::HttpClient client_;
};

fs::path client_of_toxiproxy() {
  return fs::path(HOLDFAST_SOURCE) / "build" / "toxiproxy-client";
}

TEST_F(ProxyTest, serves_the_client_that_toxiproxy_has_for_node) {
  start();
  base::Command node;
  node.argv = {"node", (fs::path(HOLDFAST_SOURCE) / "tests/harness/toxiproxy_client.js").string(),
               api_, upstream_.address(), client_of_toxiproxy().string()};
  // The client makes a proxy of this name itself.
  EXPECT_EQ(client_.ask({"DELETE", "http://" + api_ + "/proxies/dep", {}, ""}).status, 204);
  const base::Outcome outcome = base::run(node);
  EXPECT_EQ(outcome.status, 0) << outcome.errors;
}

TEST_F(ProxyTest, ends_when_asked_to) {
  start();
  EXPECT_EQ(said_by_dependency(), "hello");
  command_->signal(SIGTERM);
  EXPECT_EQ(command_->wait(), 0);
  EXPECT_FALSE(connected(proxy_));
}

/// The injector is a process of its own, which renews its lease until it is killed.
TEST_F(ProxyTest, heals_and_goes_on_within_the_lease_of_an_injector_that_was_killed) {
  start();
  base::Command injector;
  injector.argv = {"node", "-e",
                   "const post = (path, body) => fetch('http://" + api_ +
                       "' + path, {method: 'POST', body: JSON.stringify(body)});"
                       "(async () => { await post('/lease', {ms: 1000});"
                       " await post('/proxies/dep', {enabled: false});"
                       " for (;;) { await post('/lease', {ms: 1000});"
                       " await new Promise((r) => setTimeout(r, 100)); } })()"};
  base::Child child(injector, place_.path("injector.log"));
  eventually("the fault is injected", [&] { return said_by_dependency() == "refused"; });
  // It holds for longer than one lease, as long as that is renewed.
  const auto renewed = std::chrono::steady_clock::now() + std::chrono::milliseconds(1500);
  while (std::chrono::steady_clock::now() < renewed) EXPECT_EQ(said_by_dependency(), "refused");
  child.signal(SIGKILL);
  const auto killed = std::chrono::steady_clock::now();
  eventually("it is healed", [&] { return said_by_dependency() == "hello"; });
  EXPECT_LT(std::chrono::steady_clock::now() - killed, std::chrono::milliseconds(2000));
  EXPECT_FALSE(command_->over());
  EXPECT_EQ(post("/proxies/dep", R"({"enabled":false})").status, 409) << "until the next lease";
}

TEST_F(ProxyTest, ends_with_the_lease_if_told_to) {
  start({"--end-with-lease"});
  EXPECT_EQ(post("/lease", R"({"ms":60000})").status, 200);
  EXPECT_EQ(post("/proxies/dep/toxics", R"({"type":"timeout"})").status, 200);
  EXPECT_EQ(post("/lease", R"({"ms":100})").status, 200);
  EXPECT_EQ(command_->wait(), 0);
}

TEST_F(ProxyTest, refuses_to_be_steered_from_elsewhere) {
  const Result open = place_.holdfast({"proxy", "--listen", "0.0.0.0:0"});
  EXPECT_EQ(open.status, status_of(base::Code::refused)) << open.errors;
  EXPECT_EQ(place_.holdfast({"proxy", "--proxy", "a=b"}).status, status_of(base::Code::usage));
  start();
  base::HttpRequest page{"POST", "http://" + api_ + "/reset", {{"Origin", "http://evil"}}, ""};
  EXPECT_EQ(client_.ask(page).status, 403);
  page.headers = {{"Host", "evil.example"}};
  EXPECT_EQ(client_.ask(page).status, 403);
}

}  // namespace
}  // namespace holdfast::tests
