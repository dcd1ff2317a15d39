#pragma once

// The reference service as tests use it: the real program with a real PostgreSQL, a real Redis and
// an issuer of tokens; each of them can be stopped, hung and started again.

#include <httplib.h>
#include <signal.h>

#include <fstream>
#include <map>
#include <sstream>

#include "harness/harness.h"
#include "harness/issuer.h"
#include "harness/witness.h"

namespace reference::tests {

namespace fs = std::filesystem;
using holdfast::base::Child;
using holdfast::tests::Cluster;
using holdfast::tests::eventually;
using holdfast::tests::free_port;
using holdfast::tests::Place;
using nlohmann::json;

/// The program under test: $REFERENCE_BIN, or the one that was built with the tests.
inline fs::path reference_binary() {
  const char* path = std::getenv("REFERENCE_BIN");
  return path == nullptr ? REFERENCE_BINARY : path;
}

inline std::string text_of(const fs::path& file) {
  std::ostringstream text;
  text << std::ifstream(file).rdbuf();
  return text.str();
}

/// All processes below this one, and itself.
inline std::vector<pid_t> family(pid_t pid) {
  std::vector<pid_t> all = {pid};
  for (std::size_t at = 0; at < all.size(); ++at) {
    const std::string of = std::to_string(all[at]);
    std::istringstream children(text_of("/proc/" + of + "/task/" + of + "/children"));
    for (pid_t child = 0; children >> child;) all.push_back(child);
  }
  return all;
}

/// A server that accepts connections and says nothing, until this is gone.
class Hang {
 public:
  explicit Hang(pid_t pid) {
    // The parent first, so that no child is forgotten.
    ::kill(pid, SIGSTOP);
    stopped_ = family(pid);
    for (const pid_t each : stopped_) ::kill(each, SIGSTOP);
  }
  ~Hang() {
    for (const pid_t each : stopped_) ::kill(each, SIGCONT);
  }
  Hang(const Hang&) = delete;
  Hang& operator=(const Hang&) = delete;

 private:
  std::vector<pid_t> stopped_;
};

/// A Redis on a socket in a directory, that keeps nothing when it ends.
class Redis {
 public:
  explicit Redis(const fs::path& directory) : directory_(directory) { start(); }

  std::string url() const { return "unix:" + (directory_ / "redis.sock").string(); }
  pid_t pid() const { return child_->pid(); }
  void start() {
    holdfast::base::Command command;
    command.argv = {"redis-server",
                    "--port",
                    "0",
                    "--unixsocket",
                    directory_ / "redis.sock",
                    "--unixsocketperm",
                    "777",  // the fault proxy runs as another user
                    "--save",
                    "",
                    "--dir",
                    directory_};
    child_ = std::make_unique<Child>(command, directory_ / "redis.log");
    eventually("Redis answers", [this] { return say("PING") == "PONG"; });
  }
  /// kill -9.
  void kill() {
    child_->signal(SIGKILL);
    child_->wait();
  }
  /// What redis-cli prints.
  std::string say(const std::string& command) const {
    holdfast::base::Command client;
    client.argv = {"redis-cli", "-s", directory_ / "redis.sock"};
    std::istringstream words(command);
    for (std::string word; words >> word;) client.argv.push_back(word);
    std::string output = holdfast::base::run(client).output;
    while (output.ends_with('\n')) output.pop_back();
    return output;
  }

 private:
  fs::path directory_;
  std::unique_ptr<Child> child_;
};

/// An answer of the service.
struct Answer {
  int status = 0;  ///< 0: there was none
  std::string body;
  httplib::Headers headers;
  std::chrono::milliseconds took{0};
  json data() const { return json::parse(body); }
  std::string header(const std::string& name) const {
    const auto found = headers.find(name);
    return found == headers.end() ? "" : found->second;
  }
  std::string code() const { return data().at("error").at("code"); }
};

/// Somebody with a token, over a connection of his own.
class Client {
 public:
  Client(int port, const std::string& token) : client_("127.0.0.1", port) {
    client_.set_keep_alive(true);
    client_.set_tcp_nodelay(true);
    client_.set_read_timeout(30, 0);
    if (!token.empty()) client_.set_default_headers({{"Authorization", "Bearer " + token}});
  }

  Answer get(const std::string& path) { return send("GET", path, ""); }
  Answer post(const std::string& path, const json& body) { return send("POST", path, body.dump()); }
  Answer patch(const std::string& path, const json& body) {
    return send("PATCH", path, body.dump());
  }
  Answer remove(const std::string& path) { return send("DELETE", path, ""); }
  Answer send(const std::string& method, const std::string& path, const std::string& body,
              const std::string& content_type = "application/json") {
    httplib::Request request;
    request.method = method;
    request.path = path;
    request.body = body;
    if (!body.empty()) request.set_header("Content-Type", content_type);
    const auto before = std::chrono::steady_clock::now();
    const httplib::Result result = client_.send(request);
    Answer answer;
    answer.took = std::chrono::duration_cast<std::chrono::milliseconds>(
        std::chrono::steady_clock::now() - before);
    if (result) {
      answer.status = result->status;
      answer.body = result->body;
      answer.headers = result->headers;
    }
    return answer;
  }
  /// A row that must be made; its id.
  std::string make(const std::string& table, const json& body) {
    const Answer answer = post("/" + table, body);
    if (answer.status != 201) throw std::runtime_error(table + ": " + answer.body);
    return answer.data().at("id");
  }

 private:
  httplib::Client client_;
};

using Environment = std::map<std::string, std::string>;

/// The program, running.
class Api {
 public:
  Api(const Environment& environment, const fs::path& log) : log_(log) {
    fs::remove(log);
    child_ = std::make_unique<Child>(command({}, environment), log);
    const std::string said = "listening on 127.0.0.1:";
    eventually("the service listens", [&] {
      if (child_->finished()) throw std::runtime_error("it ended: " + text_of(log_));
      const std::string text = text_of(log_);
      const std::size_t at = text.find(said);
      if (at == std::string::npos || text.find('\n', at) == std::string::npos) return false;
      port_ = std::stoi(text.substr(at + said.size()));
      return true;
    });
  }
  static holdfast::base::Command command(const std::vector<std::string>& arguments,
                                         const Environment& environment) {
    holdfast::base::Command command;
    command.argv = {reference_binary()};
    command.argv.insert(command.argv.end(), arguments.begin(), arguments.end());
    command.environment.assign(environment.begin(), environment.end());
    return command;
  }

  int port() const { return port_; }
  Child& process() { return *child_; }
  std::string log() const { return text_of(log_); }
  Client client(const std::string& token = "") const { return {port_, token}; }

 private:
  fs::path log_;
  std::unique_ptr<Child> child_;
  int port_ = 0;
};

/// Everything at once: servers, a schema, two organisations, and the service.
class Service {
 public:
  static constexpr const char* ours = "org_ours";
  static constexpr const char* theirs = "org_theirs";

  /// `more` is added to the service's environment.
  explicit Service(const Environment& more = {}, bool with_organisations = true)
      : cluster(holdfast::tests::installation(15), place.path("data")), redis(scratch()) {
    start_database();
    fs::create_directory(scratch() / "uploads");
    environment = {{"LISTEN", "127.0.0.1:0"},
                   {"DATABASE_URL", database_url()},
                   {"REDIS_URL", redis.url()},
                   {"CLERK_ISSUER", issuer.url()},
                   {"CLERK_JWKS_URL", issuer.jwks_url()},
                   {"CLERK_AUTHORIZED_PARTIES", Issuer::party},
                   {"IMPORT_UPLOAD_DIR", scratch() / "uploads"}};
    for (const auto& [name, value] : more) environment[name] = value;
    holdfast::base::run_checked(Api::command({"--migrate"}, environment));
    start();
    if (!with_organisations) return;
    client("admin").make("organisations", {{"name", "Ours"}});
    client("admin", theirs).make("organisations", {{"name", "Theirs"}});
  }

  void start() { api = std::make_unique<Api>(environment, scratch() / "api.log"); }
  Client client(const std::string& role = "editor", const std::string& organisation = ours) const {
    return api->client(issuer.token(organisation, role));
  }
  /// Also again, after cluster.stop(): under the same URL, though each server has a socket of its
  /// own.
  void start_database() {
    cluster.start();
    fs::remove(scratch() / "pg");
    fs::create_directory_symlink(cluster.server().socket_directory(), scratch() / "pg");
  }
  std::string database_url(const std::string& database = "postgres") {
    return fmt::format("postgresql://postgres@/{}?host={}&port={}", database,
                       (scratch() / "pg").string(), cluster.server().port());
  }
  /// Once the cache works (a service that has just started empties it first).
  void await_cache() const {
    Client anyone = api->client();
    eventually("the cache works",
               [&] { return anyone.get("/ready").data().value("cache", false); });
  }
  /// A directory for everything that is not the database.
  fs::path scratch() const {
    fs::create_directories(place.path("reference"));
    return place.path("reference");
  }

  Place place;
  Issuer issuer;
  Cluster cluster;
  Redis redis;
  Environment environment;
  std::unique_ptr<Api> api;
};

}  // namespace reference::tests
