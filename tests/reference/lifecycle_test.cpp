// Overload, the end, migrations, settings, and the document that describes the routes.

#include <arpa/inet.h>
#include <sys/socket.h>

#include <set>
#include <thread>

#include "harness/reference.h"

namespace reference::tests {
namespace {

using holdfast::base::Outcome;

const json building = {{"name", "N"}, {"address", "A"}};

/// A bare connection, to say things that no client says.
class Socket {
 public:
  explicit Socket(int port) : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    const timeval limit{30, 0};
    ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    connected_ =
        ::connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  }
  ~Socket() { ::close(socket_); }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  bool connected() const { return connected_; }
  void say(const std::string& text) const {
    ::send(socket_, text.data(), text.size(), MSG_NOSIGNAL);
  }
  /// Everything until the other side closes.
  std::string hear() const {
    std::string all;
    char piece[4096];
    for (ssize_t count = 0; (count = ::recv(socket_, piece, sizeof piece, 0)) > 0;) {
      all.append(piece, static_cast<std::size_t>(count));
    }
    return all;
  }

 private:
  int socket_;
  bool connected_ = false;
};

TEST(ReferenceOverload, what_is_too_much_is_refused_at_once_and_the_rest_is_served) {
  Service service(Environment{{"HTTP_THREADS", "4"}, {"HTTP_WAITING", "4"}});
  const std::string token = service.issuer.token(Service::ours, "viewer");
  const std::string request =
      "GET /comps HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
      "Authorization: Bearer " +
      token + "\r\n\r\n";
  std::vector<std::unique_ptr<Socket>> crowd;
  {
    const Hang hang(service.cluster.server().pid());
    for (int at = 0; at < 8; ++at) {
      crowd.push_back(std::make_unique<Socket>(service.api->port()));
      crowd.back()->say(request);
    }
    // The threads and the queue are full, for as long as requests may wait for the database.
    const auto before = std::chrono::steady_clock::now();
    std::vector<std::unique_ptr<Socket>> refused;
    for (int at = 0; at < 20; ++at) {
      refused.push_back(std::make_unique<Socket>(service.api->port()));
      refused.back()->say(at == 7 ? "GET /health HTTP/1.1\r\nHost: x\r\n\r\n" : request);
    }
    for (std::size_t at = 0; at < refused.size(); ++at) {
      const std::string answer = refused[at]->hear();
      EXPECT_TRUE(answer.starts_with(at == 7 ? "HTTP/1.1 200 " : "HTTP/1.1 503 ")) << answer;
      EXPECT_NE(answer.find("Connection: close"), std::string::npos);
      EXPECT_NE(answer.find(at == 7 ? "ok" : "Retry-After: 1"), std::string::npos) << answer;
    }
    EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::milliseconds(1500));
    for (const auto& each : crowd) {
      const std::string answer = each->hear();
      EXPECT_TRUE(answer.starts_with("HTTP/1.1 503 ")) << answer;
    }
  }
  // Connections that rest do not keep others out.
  std::vector<std::unique_ptr<Client>> resting;
  for (int at = 0; at < 12; ++at) {
    resting.push_back(std::make_unique<Client>(service.api->client(token)));
    eventually("it is served", [&] { return resting.back()->get("/comps").status == 200; });
  }
}

TEST(ReferenceOverload, a_client_that_sends_slowly_or_too_much_is_cut_off) {
  Service service;
  const Socket large(service.api->port());
  large.say("GET /health HTTP/1.1\r\nX: " + std::string(100000, 'x'));
  EXPECT_TRUE(large.hear().starts_with("HTTP/1.1 431 "));
  const Socket endless(service.api->port());
  endless.say("GET /" + std::string(20000, 'a') + " HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(endless.hear().starts_with("HTTP/1.1 414 "));
  const Socket slow(service.api->port());
  slow.say("GET /health HTTP/1.1\r\nX: ");
  EXPECT_TRUE(slow.hear().starts_with("HTTP/1.1 408 "));
}

TEST(ReferenceOverload, a_request_whose_end_is_not_clear_is_refused) {
  Service service;
  const std::string token = service.issuer.token(Service::ours, "editor");
  const std::string start =
      "POST /buildings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
      "Authorization: Bearer " +
      token + "\r\n";
  const std::string hidden = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
  for (const std::string lengths :
       {"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 4\r\nContent-Length: 5\r\n", "Content-Length: -1\r\n",
        "Content-Length: 4x\r\n", "Transfer-Encoding: chunked, gzip\r\n"}) {
    const Socket socket(service.api->port());
    socket.say(start + lengths + "\r\n" + hidden);
    const std::string answer = socket.hear();
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 400 ")) << lengths << answer;
    EXPECT_EQ(answer.find("HTTP/1.1", 1), std::string::npos) << "took the body for a request";
  }
  // What comes after a body that nobody read is not a request either.
  const Socket refused(service.api->port());
  refused.say("POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: " +
              std::to_string(hidden.size()) + "\r\n\r\n" + hidden);
  const std::string answer = refused.hear();
  EXPECT_TRUE(answer.starts_with("HTTP/1.1 404 ")) << answer;
  EXPECT_EQ(answer.find("HTTP/1.1", 1), std::string::npos) << answer;
}

TEST(ReferenceEnd, running_requests_are_finished_and_new_ones_refused) {
  Service service;
  Client editor = service.client();
  const std::string path = "/buildings/" + editor.make("buildings", building);
  Client resting = service.client();
  EXPECT_EQ(resting.get(path).status, 200);
  holdfast::postgres::Session holder = service.cluster.session();
  holder.query("BEGIN");
  holder.query("SELECT * FROM buildings FOR UPDATE");
  std::thread running([&] {
    const Answer answer = editor.patch(path, {{"name", "done"}});
    EXPECT_EQ(answer.status, 200) << answer.body;
    EXPECT_EQ(answer.header("Connection"), "close");
  });
  eventually("it waits", [&] {
    return service.cluster.sql(
               "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = "
               "'Lock'") == "1";
  });
  service.api->process().signal(SIGTERM);
  eventually("nobody gets in", [&] { return !Socket(service.api->port()).connected(); });
  EXPECT_FALSE(service.api->process().finished());
  holder.query("ROLLBACK");
  running.join();
  EXPECT_EQ(service.api->process().wait_for(std::chrono::seconds(5)), 0);
  EXPECT_EQ(service.cluster.sql("SELECT name FROM buildings"), "done");
  EXPECT_NE(service.api->log().find("stopped"), std::string::npos);
}

TEST(ReferenceMigrations, twice_or_at_once_is_as_good_as_once) {
  Service service;
  const auto migrations =
      static_cast<int>(std::distance(fs::directory_iterator(REFERENCE_SOURCE "/migrations"), {}));
  const std::string count = std::to_string(migrations);
  const auto command = Api::command({"--migrate"}, service.environment);
  EXPECT_EQ(holdfast::base::run_checked(command), "") << "the second time there is nothing to do";
  service.cluster.sql("CREATE DATABASE another");
  Environment another = service.environment;
  another["DATABASE_URL"] = service.database_url("another");
  std::vector<std::thread> crowd;
  std::vector<Outcome> outcomes(6);
  for (Outcome& outcome : outcomes) {
    crowd.emplace_back(
        [&] { outcome = holdfast::base::run(Api::command({"--migrate"}, another)); });
  }
  std::string applied;
  for (std::size_t at = 0; at < crowd.size(); ++at) {
    crowd[at].join();
    EXPECT_EQ(outcomes[at].status, 0) << outcomes[at].errors;
    applied += outcomes[at].output;
  }
  EXPECT_EQ(std::count(applied.begin(), applied.end(), '\n'), migrations) << applied;
  EXPECT_EQ(service.cluster.sql("SELECT count(*) FROM schema_migrations", "another"), count);
}

TEST(ReferenceMigrations, what_fails_leaves_nothing_and_what_was_changed_is_refused) {
  Service service;
  const fs::path copy = service.scratch() / "migrations";
  fs::copy(REFERENCE_SOURCE "/migrations", copy);
  Environment copied = service.environment;
  copied["MIGRATIONS"] = copy;
  const auto migrate = [&] { return holdfast::base::run(Api::command({"--migrate"}, copied)); };
  EXPECT_EQ(migrate().status, 0);

  std::ofstream(copy / "9000_broken.sql") << "CREATE TABLE half (); SELECT 1 / 0;";
  const Outcome broken = migrate();
  EXPECT_EQ(broken.status, 1);
  EXPECT_NE(broken.errors.find("9000_broken: division by zero"), std::string::npos)
      << broken.errors;
  EXPECT_EQ(service.cluster.sql("SELECT to_regclass('half') IS NULL"), "t");
  std::ofstream(copy / "9000_broken.sql") << "CREATE TABLE whole ();";
  EXPECT_EQ(migrate().output, "applied 9000_broken\n");

  std::ofstream(copy / "9000_broken.sql", std::ios::app) << "-- more";
  EXPECT_NE(migrate().errors.find("is not what was applied"), std::string::npos);
  fs::remove(copy / "9000_broken.sql");
  EXPECT_NE(migrate().errors.find("knows only"), std::string::npos) << "an older program";
}

TEST(ReferenceSettings, what_cannot_be_meant_is_refused_by_name) {
  const auto refused = [](const std::string& name, const std::string& value) {
    const Outcome outcome = holdfast::base::run(Api::command({"--routes"}, {{name, value}}));
    EXPECT_EQ(outcome.status, 1);
    EXPECT_NE(outcome.errors.find(name), std::string::npos) << outcome.errors;
  };
  refused("REFERENCE_BREAK", "no-database-timeout,everything");
  refused("LISTEN", "8080");
  refused("HTTP_THREADS", "many");
  refused("JWKS_REFRESH", "5 minutes");
  refused("DATABASE_CONNECTIONS", "0");
  const Outcome nothing = holdfast::base::run(Api::command({}, {}));
  EXPECT_EQ(nothing.status, 1);
  EXPECT_NE(nothing.errors.find("DATABASE_URL"), std::string::npos) << nothing.errors;
}

/// What openapi.yaml describes, as lines "METHOD PATH ROLE"; its layout is regular.
std::set<std::string> described() {
  std::set<std::string> routes;
  std::istringstream lines(text_of(REFERENCE_SOURCE "/openapi.yaml"));
  std::string path;
  std::string method;
  for (std::string line; std::getline(lines, line) && line != "components:";) {
    if (line.starts_with("  /")) path = line.substr(2, line.size() - 3);
    for (const char* each : {"get", "post", "put", "patch", "delete"}) {
      if (line != std::string("    ") + each + ":") continue;
      method = each;
      std::transform(method.begin(), method.end(), method.begin(), ::toupper);
    }
    const std::string role = "      x-role: ";
    if (line.starts_with(role)) routes.insert(method + " " + path + " " + line.substr(role.size()));
    if (line == "      security: []") routes.insert(method + " " + path + " open");
  }
  return routes;
}

TEST(ReferenceDocument, openapi_describes_the_routes_that_there_are_and_no_others) {
  std::set<std::string> served;
  std::istringstream lines(holdfast::base::run_checked(Api::command({"--routes"}, {})));
  for (std::string line; std::getline(lines, line);) served.insert(line);
  EXPECT_GT(served.size(), 40U);
  EXPECT_EQ(described(), served);
}

}  // namespace
}  // namespace reference::tests
