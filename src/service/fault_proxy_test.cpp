#include "service/fault_proxy.h"

#include <nlohmann/json.hpp>

#include "base/testing.h"
#include "service/testing.h"

namespace holdfast::service {
namespace {

using namespace testing;
using base::Code;
using base::testing::code_of;
using nlohmann::json;
using std::chrono::milliseconds;

class FaultProxyTest : public ::testing::Test {
 protected:
  FaultProxyTest() {
    address_ = proxies_.create({"p", "127.0.0.1:0", upstream_.address()}).settings.listen;
  }

  void connect() {
    client_ = connected(address_);
    server_ = upstream_.accept();
  }
  void toxic(const std::string& type, const json& attributes,
             const std::string& stream = "downstream") {
    proxies_.add_toxic(
        "p", toxic_from({{"type", type}, {"stream", stream}, {"attributes", attributes}}));
  }
  /// From the server to the client and how long it took.
  milliseconds answer(const std::string& bytes) {
    return time_of([&] {
      send_all(server_, bytes);
      EXPECT_EQ(receive(client_, bytes.size()), bytes);
    });
  }

  Upstream upstream_;
  FaultProxies proxies_;
  std::string address_;
  base::Fd client_;
  base::Fd server_;
};

TEST_F(FaultProxyTest, passes_bytes_and_half_closes_both_ways) {
  connect();
  send_all(client_, "question");
  ::shutdown(client_.get(), SHUT_WR);
  EXPECT_EQ(receive(server_, 100), "question") << "and then the end";
  answer("answer");
  ::shutdown(server_.get(), SHUT_WR);
  EXPECT_EQ(end_of(client_), 0);
  EXPECT_TRUE(soon([&] { return proxies_.view("p").open == 0; }));
  const ProxyView view = proxies_.view("p");
  EXPECT_EQ(view.connections, 1U);
  EXPECT_EQ(view.upstream.received, 8U);
  EXPECT_EQ(view.upstream.delivered, 8U);
  EXPECT_EQ(view.downstream.delivered, 6U);
}

TEST_F(FaultProxyTest, speaks_to_a_unix_socket) {
  const base::TemporaryDirectory place("holdfast-proxy");
  const std::string path = "unix:" + (place.path() / "socket").string();
  const base::Fd listener = bound_socket(find_address(path));
  ::listen(listener.get(), 1);
  proxies_.change("p", {std::nullopt, path, std::nullopt});
  client_ = connected(address_);
  EXPECT_TRUE(soon([&] {
    server_ = base::Fd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    return static_cast<bool>(server_);
  }));
  answer("from a Unix socket");
  server_.reset();
  EXPECT_EQ(end_of(client_), 0);
}

TEST_F(FaultProxyTest, delays_existing_connections_and_no_more_once_healed) {
  connect();
  answer("x");
  toxic("latency", {{"latency", 150}});
  const milliseconds slow = answer("x");
  EXPECT_GE(slow, milliseconds(150));
  EXPECT_LE(slow, milliseconds(400));
  // What waits goes on at once.
  proxies_.change_toxic("p", "latency_downstream", {{"attributes", {{"latency", 60'000}}}});
  send_all(server_, "waits");
  EXPECT_TRUE(is_silent(client_));
  EXPECT_LE(time_of([&] {
              proxies_.remove_toxic("p", "latency_downstream");
              EXPECT_EQ(receive(client_, 5), "waits");
            }),
            milliseconds(100));
}

TEST_F(FaultProxyTest, limits_bandwidth_to_what_was_said) {
  connect();
  toxic("bandwidth", {{"rate", 1000}});
  std::jthread sender([&] { send_all(server_, std::string(300'000, 'x')); });
  const milliseconds took = time_of([&] { EXPECT_EQ(receive(client_, 300'000).size(), 300'000U); });
  EXPECT_GE(took, milliseconds(280));
  EXPECT_LE(took, milliseconds(450));
}

TEST_F(FaultProxyTest, resets_existing_and_new_connections) {
  connect();
  toxic("reset_peer", {});
  EXPECT_EQ(end_of(client_), ECONNRESET);
  EXPECT_EQ(end_of(server_), ECONNRESET);
  connect();
  EXPECT_EQ(end_of(client_), ECONNRESET);
}

TEST_F(FaultProxyTest, passes_a_reset_on) {
  connect();
  const linger at_once{1, 0};
  ::setsockopt(server_.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  server_.reset();
  EXPECT_EQ(end_of(client_), ECONNRESET);
}

TEST_F(FaultProxyTest, refuses_while_disabled_and_comes_back_on_its_port) {
  connect();
  EXPECT_FALSE(proxies_.change("p", {std::nullopt, std::nullopt, false}).settings.enabled);
  EXPECT_EQ(end_of(client_), 0) << "existing connections are cut";
  EXPECT_FALSE(connected(address_));
  EXPECT_EQ(errno, ECONNREFUSED);
  // The port is not given to anybody else meanwhile.
  const SocketAddress where = find_address(address_);
  EXPECT_NE(::bind(new_socket(where).get(), where.get(), where.size), 0);
  EXPECT_EQ(errno, EADDRINUSE);
  proxies_.reset();
  EXPECT_EQ(proxies_.view("p").settings.listen, address_);
  connect();
  answer("again");
}

TEST_F(FaultProxyTest, swallows_in_a_black_hole_and_cuts_what_lost_data) {
  connect();
  toxic("timeout", {{"timeout", 0}});
  send_all(server_, "lost");
  EXPECT_TRUE(is_silent(client_));
  EXPECT_TRUE(soon([&] { return proxies_.view("p").downstream.received == 4; }));
  EXPECT_EQ(proxies_.view("p").downstream.delivered, 0U) << "counters show that the fault is real";
  send_all(client_, "the other way is open");
  EXPECT_EQ(receive(server_, 21).size(), 21U);
  proxies_.reset();
  EXPECT_EQ(end_of(client_), 0);
  connect();
  answer("well again");
}

TEST_F(FaultProxyTest, cuts_what_lost_data_also_when_the_toxic_is_changed_to_none) {
  connect();
  toxic("timeout", {{"timeout", 0}});
  send_all(server_, "lost");
  EXPECT_TRUE(soon([&] { return proxies_.view("p").downstream.received == 4; }));
  proxies_.change_toxic("p", "timeout_downstream", {{"toxicity", 0}});
  EXPECT_EQ(end_of(client_), 0);
}

TEST_F(FaultProxyTest, cuts_after_a_timeout) {
  connect();
  toxic("timeout", {{"timeout", 100}});
  const milliseconds took = time_of([&] { EXPECT_EQ(end_of(client_), 0); });
  EXPECT_GE(took, milliseconds(95));
  EXPECT_LE(took, milliseconds(500));
}

TEST_F(FaultProxyTest, cuts_after_so_many_bytes) {
  connect();
  toxic("limit_data", {{"bytes", 100}});
  send_all(server_, std::string(60, 'a'));
  send_all(server_, std::string(60, 'b'));
  EXPECT_EQ(receive(client_, 1000), std::string(60, 'a') + std::string(40, 'b'));
}

TEST_F(FaultProxyTest, closes_late) {
  connect();
  toxic("slow_close", {{"delay", 150}});
  server_.reset();
  EXPECT_GE(time_of([&] { EXPECT_EQ(end_of(client_), 0); }), milliseconds(145));
}

TEST_F(FaultProxyTest, slices_without_changing_anything) {
  connect();
  toxic("slicer", {{"average_size", 100}, {"size_variation", 50}, {"delay", 100}});
  base::testing::Random random(7);
  const base::Bytes bytes = random.bytes(20'000);
  const std::string text(base::text(bytes));
  std::jthread sender([&] { send_all(server_, text); });
  EXPECT_EQ(receive(client_, text.size()), text);
}

TEST_F(FaultProxyTest, applies_to_as_many_connections_as_said) {
  proxies_.add_toxic("p", toxic_from({{"type", "reset_peer"}, {"toxicity", 0.5}}));
  int reset = 0;
  for (int turn = 0; turn < 60; ++turn) {
    connect();
    send_all(server_, "x");
    server_.reset();
    if (end_of(client_) == ECONNRESET) ++reset;
  }
  EXPECT_GT(reset, 10);
  EXPECT_LT(reset, 50);
}

TEST_F(FaultProxyTest, holds_up_who_sends_to_a_slow_receiver) {
  connect();
  // Nobody reads at the client's end: kernel buffers fill, then ours, then the server must wait.
  std::uint64_t sent = 0;
  const std::string much(1 << 20, 'x');
  EXPECT_TRUE(soon([&] {
    const ssize_t more = ::send(server_.get(), much.data(), much.size(), MSG_DONTWAIT);
    if (more > 0) sent += static_cast<std::uint64_t>(more);
    const ProxyView view = proxies_.view("p");
    return more < 0 && view.downstream.received > view.downstream.delivered;
  }));
  EXPECT_LT(sent, 100U << 20);
  const ProxyView view = proxies_.view("p");
  EXPECT_LE(view.downstream.received - view.downstream.delivered, 1U << 21);
  EXPECT_EQ(receive(client_, sent).size(), sent) << "nothing is lost";
}

TEST_F(FaultProxyTest, closes_the_client_when_the_dependency_refuses) {
  proxies_.change("p", {std::nullopt, "127.0.0.1:1", std::nullopt});
  const base::Fd client = connected(address_);
  EXPECT_NE(end_of(client), -1);
  EXPECT_EQ(proxies_.view("p").unconnected, 1U);
}

TEST_F(FaultProxyTest, heals_when_a_lease_lapses_and_lets_no_fault_in_until_the_next) {
  proxies_.lease(milliseconds(150));
  connect();
  toxic("latency", {{"latency", 60'000}});
  proxies_.change("p", {std::nullopt, std::nullopt, false});
  EXPECT_TRUE(soon([&] { return proxies_.lapsed(); }));
  const ProxyView view = proxies_.view("p");
  EXPECT_TRUE(view.settings.enabled);
  EXPECT_TRUE(view.toxics.empty());
  connect();
  answer("healed");
  EXPECT_EQ(code_of([&] { toxic("timeout", {}); }), Code::refused);
  EXPECT_EQ(code_of([&] {
              proxies_.change("p", {std::nullopt, std::nullopt, false});
            }),
            Code::refused);
  proxies_.lease(milliseconds(60'000));
  toxic("timeout", {});
  EXPECT_FALSE(proxies_.lapsed());
}

TEST_F(FaultProxyTest, refuses_what_makes_no_sense) {
  EXPECT_EQ(code_of([&] {
              proxies_.create({"p", "127.0.0.1:0", upstream_.address()});
            }),
            Code::conflict);
  EXPECT_EQ(code_of([&] { proxies_.view("q"); }), Code::not_found);
  EXPECT_EQ(code_of([&] { proxies_.remove_toxic("p", "t"); }), Code::not_found);
  for (const char* address : {"", "x", "host", "127.0.0.1:99999", "::1:80", "unix:", ":80"}) {
    EXPECT_EQ(code_of([&] {
                proxies_.create({"q", "127.0.0.1:0", address});
              }),
              Code::usage)
        << address;
  }
  for (const char* toxic :
       {R"({})", R"([])", R"({"type":"plague"})", R"({"type":"latency","stream":"up"})",
        R"({"type":"latency","toxicity":2})", R"({"type":"latency","attributes":{"latancy":1}})",
        R"({"type":"latency","attributes":{"latency":-1}})",
        R"({"type":"latency","attributes":{"latency":"1"}})",
        R"({"type":"latency","attributes":{"latency":1e300}})"}) {
    EXPECT_EQ(code_of([&] { toxic_from(json::parse(toxic)); }), Code::usage) << toxic;
  }
}

/// Whatever is added, changed and removed while data flows: what arrives is what was sent.
TEST_F(FaultProxyTest, fuzz_of_toxics_that_lose_nothing) {
  base::testing::Random random(11);
  const std::size_t rounds = std::min<std::size_t>(base::testing::fuzz_iterations(6), 200);
  for (std::size_t round = 0; round < rounds; ++round) {
    connect();
    const base::Bytes bytes = random.bytes(200'000 + random.below(2'000'000));
    const std::string text(base::text(bytes));
    std::jthread sender([&] {
      send_all(client_, text);
      ::shutdown(client_.get(), SHUT_WR);
    });
    std::atomic<bool> over = false;
    std::string got;
    std::jthread receiver([&] {
      got = receive(server_, text.size() + 1);
      over = true;
    });
    const std::vector<json> some = {{{"latency", random.below(20)}, {"jitter", random.below(20)}},
                                    {{"rate", 1000 + random.below(100'000)}},
                                    {{"average_size", 1 + random.below(3000)},
                                     {"size_variation", random.below(500)},
                                     {"delay", random.below(50)}},
                                    {{"delay", random.below(20)}}};
    const std::vector<std::string> types = {"latency", "bandwidth", "slicer", "slow_close"};
    for (int step = 0; step < 30 && !over; ++step) {
      const std::size_t which = random.below(types.size());
      const std::string name = types[which] + "_upstream";
      try {
        switch (random.below(3)) {
          case 0:
            toxic(types[which], some[which], "upstream");
            break;
          case 1:
            proxies_.remove_toxic("p", name);
            break;
          default:
            proxies_.change_toxic("p", name, {{"attributes", some[which]}, {"toxicity", 0.5}});
        }
      } catch (const base::Error&) {
        continue;  // it was there already, or was not
      }
      std::this_thread::sleep_for(milliseconds(random.below(5)));
    }
    proxies_.reset();
    receiver.join();
    EXPECT_EQ(got == text, true) << "round " << round << ": " << got.size() << " of "
                                 << text.size();
  }
}

}  // namespace
}  // namespace holdfast::service
