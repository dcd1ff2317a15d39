// Figures, in the long version only: reads from the cache and from the database beside static
// answers of nginx, and the same with a Redis that does not answer. wrk makes the load on the same
// machine.

#include <arpa/inet.h>
#include <sys/socket.h>

#include "harness/reference.h"

namespace reference::tests {
namespace {

struct Figures {
  double per_second = 0;
  std::string p99;
  bool all_good = false;
};

Figures load(const std::string& url, const std::string& token) {
  holdfast::base::Command wrk;
  wrk.argv = {"wrk", "-t1", "-c32", "-d5s", "--latency", "-H", "Authorization: Bearer " + token,
              url};
  const std::string output = holdfast::base::run_checked(wrk);
  const auto after = [&](const std::string& name) {
    const std::size_t at = output.find(name);
    std::istringstream rest(at == std::string::npos ? "" : output.substr(at + name.size()));
    std::string word;
    rest >> word;
    return word;
  };
  return {std::stod(after("Requests/sec:")), after("99%"),
          output.find("Non-2xx") == std::string::npos &&
              output.find("Socket errors") == std::string::npos};
}

/// nginx, which answers with this text.
class Nginx {
 public:
  Nginx(const fs::path& directory, const std::string& text, int port) {
    fs::create_directories(directory / "www");
    std::ofstream(directory / "www" / "answer.json") << text;
    std::ofstream(directory / "nginx.conf")
        << "daemon off; worker_processes 1; pid " << directory.string() << "/nginx.pid;\n"
        << "error_log " << directory.string() << "/error.log; user root;\n"
        << "events { worker_connections 1024; }\n"
        << "http { access_log off; keepalive_requests 100000000; sendfile on;\n"
        << "open_file_cache max=10; server { listen 127.0.0.1:" << port << "; root "
        << directory.string() << "/www; } }\n";
    holdfast::base::Command command;
    command.argv = {"nginx", "-c", directory / "nginx.conf", "-p", directory};
    child_ = std::make_unique<Child>(command, directory / "nginx.log");
    httplib::Client client("127.0.0.1", port);
    eventually("nginx answers", [&] {
      const auto answer = client.Get("/answer.json");
      return answer && answer->status == 200;
    });
  }

 private:
  std::unique_ptr<Child> child_;
};

TEST(ReferenceLoad, reads_under_load_beside_nginx_and_with_a_redis_that_hangs) {
  if (std::getenv("HOLDFAST_LONG") == nullptr) GTEST_SKIP() << "HOLDFAST_LONG=1 measures";
  const Service service;
  Client editor = service.client();
  for (int at = 0; at < 100; ++at) {
    editor.make("buildings", {{"name", "N"}, {"address", "A"}, {"area_m2", at}});
  }
  service.await_cache();
  const std::string token = service.issuer.token(Service::ours, "viewer");
  const std::string root = "http://127.0.0.1:" + std::to_string(service.api->port());
  const std::string id = editor.get("/buildings").data().at("data").at(0).at("id");
  const auto measure = [&](const std::string& name, const std::string& url) {
    const Figures figures = load(url, token);
    fmt::print("{:<42} {:>8.0f}/s  p99 {}\n", name, figures.per_second, figures.p99);
    EXPECT_TRUE(figures.all_good) << name;
    return figures.per_second;
  };
  const int port = service.api->port() == 18977 ? 18978 : 18977;
  const Nginx nginx(service.scratch() / "nginx", editor.get("/buildings/" + id).body, port);
  const double yardstick = measure("nginx, a static file of the same size",
                                   "http://127.0.0.1:" + std::to_string(port) + "/answer.json");
  const double cached = measure("a row from the cache", root + "/buildings/" + id);
  measure("50 rows from the cache", root + "/buildings");
  const std::string none = root + "/exports?limit=1";
  measure("an empty list that is never cached", none);
  {
    const Hang hang(service.redis.pid());
    measure("the same, Redis hanging", none);
    measure("a row from the database, Redis hanging", root + "/buildings/" + id);
    measure("50 rows from the database, Redis hanging", root + "/buildings");
  }
  EXPECT_GT(cached, yardstick / 10);
}

}  // namespace
}  // namespace reference::tests
