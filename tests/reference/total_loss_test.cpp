// The host is gone: the service comes back from the repository, the recovery kit and one identity.

#include <atomic>
#include <thread>

#include "harness/reference.h"

namespace reference::tests {
namespace {

using holdfast::tests::Result;

void write(const fs::path& file, const std::string& text) {
  std::ofstream(file) << text;
}

/// A service on a host that can be lost as a whole. Redis and the issuer are others' services.
class TotalLoss : public ::testing::Test {
 protected:
  TotalLoss() : cluster_(place_.cluster()), redis_(scratch()) {
    std::ofstream file(cluster_->data_directory() / "postgresql.conf", std::ios::app);
    // Where the restored one will serve; the old one's own options say otherwise.
    file << fmt::format(
        "listen_addresses = '127.0.0.1'\nport = {}\nfsync = off\n"
        "unix_socket_directories = '{}'\n",
        port_, host().string());
    file.close();
    fs::create_directories(host() / "uploads");
    write(host() / "uploads" / "waiting.csv", "tenant\nA\n");
    fs::copy_file(reference_binary(), scratch() / "reference-api");
    write(host() / "app.env",
          fmt::format("DATABASE_URL='postgresql://postgres:ca$nary-w0rd@/postgres?host={}'\n"
                      "LISTEN=127.0.0.1:{}\nREDIS_URL={}\nCLERK_ISSUER={}\nCLERK_JWKS_URL={}\n"
                      "CLERK_AUTHORIZED_PARTIES={}\nIMPORT_UPLOAD_DIR={}\n",
                      cluster_->server().socket_directory().string(), api_port_, redis_.url(),
                      issuer_.url(), issuer_.jwks_url(), Issuer::party,
                      (host() / "uploads").string()));
    write(scratch() / "deploy",
          fmt::format("set -a\n. {0}/app.env\ncd {1}\n"
                      "[ ! -f pid ] || kill $(cat pid) 2>/dev/null || true\n"
                      "setsid ./reference-api >>api.log 2>&1 </dev/null &\necho $! >pid\n",
                      host().string(), scratch().string()));
    write_smoke();
    seal();
    for (const fs::path& each : {host(), scratch()}) {
      place_.give_to_server_user(each);
      for (const auto& entry : fs::recursive_directory_iterator(each)) {
        place_.give_to_server_user(entry.path());
      }
    }
  }
  ~TotalLoss() override {
    stop_api(SIGKILL);
    if (fs::exists(data() / "postmaster.pid")) {
      holdfast::tests::run_tool(cluster_->installation(), "pg_ctl",
                                {"-D", data().string(), "-m", "immediate", "-w", "stop"});
    }
  }

  fs::path host() const {
    fs::create_directories(place_.path("host"));
    return place_.path("host");
  }
  fs::path scratch() const {
    fs::create_directories(place_.path("elsewhere"));
    return place_.path("elsewhere");
  }
  fs::path data() const { return cluster_->data_directory(); }
  fs::path identity() const { return scratch() / "identity.txt"; }
  Client client(const std::string& role = "editor") const {
    return {api_port_, issuer_.token("org_ours", role)};
  }
  void stop_api(int signal) const {
    const std::string pid = text_of(scratch() / "pid");
    if (!pid.empty()) ::kill(std::stoi(pid), signal);
  }
  void run_as_server_user(const std::vector<std::string>& line) const {
    holdfast::base::Command command;
    command.argv = line;
    command.directory = scratch();
    command.user =
        holdfast::base::running_as_root() ? holdfast::postgres::server_user() : std::nullopt;
    holdfast::base::run_checked(command);
  }

  void write_smoke() const {
    write(host() / "smoke.toml",
          fmt::format("url = \"http://127.0.0.1:{}\"\nrate = 20\nduration = \"1s\"\n"
                      "[headers]\nAuthorization = \"Bearer {}\"\n"
                      "[[request]]\nname = \"ready\"\npath = \"/ready\"\n"
                      "[[request]]\nname = \"list\"\npath = \"/buildings\"\n",
                      api_port_, issuer_.token("org_ours", "viewer")));
  }

  /// Two recipients, one off line; and all that `recover` must know.
  void seal() const {
    std::vector<std::string> recipients;
    for (const fs::path& file : {identity(), scratch() / "offline.txt"}) {
      holdfast::base::Command keygen;
      keygen.argv = {"age-keygen", "-o", file.string()};
      const std::string said = holdfast::base::run(keygen).errors;
      const std::size_t at = said.find("age1");
      recipients.push_back(said.substr(at, said.find('\n', at) - at));
    }
    std::ofstream(place_.configuration(), std::ios::app) << fmt::format(
        "[secrets]\nrecipients = [\"{0}\"]\noffline = [\"{1}\"]\nenv_files = [\"{2}/app.env\"]\n"
        "[files.uploads]\npath = \"{2}/uploads\"\n"
        "[files.smoke]\npath = \"{2}/smoke.toml\"\n"
        "[files.configuration]\npath = \"{3}\"\n"
        "[recover]\nconnection = \"host=127.0.0.1 port={4} user=postgres dbname=postgres\"\n"
        "database_host = \"127.0.0.1\"\ndatabase_port = {4}\n"
        "environment_file = \"{2}/app.env\"\n"
        "ready = \"http://127.0.0.1:{5}/ready\"\nproof = \"http://127.0.0.1:{5}/ready\"\n"
        "smoke = \"{2}/smoke.toml\"\n"
        "[recover.command]\ndeploy = \"sh {6}/deploy\"\nprovision = \"mkdir -p {2}\"\n"
        "reconnect = \"true\"\n",
        recipients[0], recipients[1], host().string(), place_.configuration().string(), port_,
        api_port_, scratch().string());
  }

  Place place_;
  Issuer issuer_;
  int port_ = free_port();
  int api_port_ = free_port();
  std::unique_ptr<Cluster> cluster_;
  Redis redis_;
};

TEST_F(TotalLoss, of_a_service_under_load_is_recovered_from_the_repository_and_the_kit_alone) {
  Environment direct = {{"DATABASE_URL", cluster_->connection()}};
  holdfast::base::run_checked(Api::command({"--migrate"}, direct));
  run_as_server_user({"sh", (scratch() / "deploy").string()});
  eventually("the service is ready", [&] { return client().get("/ready").status == 200; });
  client("admin").make("organisations", {{"name", "Ours"}});
  place_.must({"secrets", "seal"});
  const std::string kit = place_.must({"init", "--recovery-kit"}).output;

  // What was acknowledged before WAL was archived for the last time must come back.
  std::atomic<bool> stop = false;
  std::atomic<int> made = 0;
  std::thread load([&] {
    Client editor = client();
    while (!stop) {
      const int number = made + 1;
      const json body = {{"name", fmt::format("B{}", number)}, {"address", "Street"}};
      if (editor.post("/buildings", body).status == 201) made = number;
    }
  });
  place_.must({"backup"});
  eventually("there is load", [&] { return made > 50; });
  const int archived = made;
  place_.archive_all(*cluster_);
  eventually("and some more, of which nobody knows", [&] { return made > archived + 20; });
  stop_api(SIGKILL);
  cluster_->server().kill();
  stop = true;
  load.join();
  fs::remove_all(host());
  fs::remove_all(data());
  const std::string key_file = place_.path("holdfast.key");
  for (const auto& entry : fs::directory_iterator(place_.path())) {
    const bool stays = entry.path() == place_.repository() || entry.path() == scratch();
    if (!stays) fs::remove_all(entry.path());
  }

  // A clean machine, and the kit.
  const std::string before = "  key          ";
  const std::size_t at = kit.find(before);
  ASSERT_NE(at, std::string::npos) << kit;
  write(place_.path("holdfast.key"),
        kit.substr(at + before.size(), kit.find('\n', at) - at - before.size()) + "\n");
  const std::size_t begin = kit.find("<<'END'\n") + 8;
  write(place_.configuration(), kit.substr(begin, kit.find("END\n", begin) - begin));
  for (const char* name : {"holdfast.key", "holdfast.toml"}) {
    fs::permissions(place_.path(name), fs::perms(0600));
    place_.give_to_server_user(place_.path(name));
  }
  place_.must({"files", "restore", "configuration", place_.path("restored.toml")});
  fs::rename(place_.path("restored.toml"), place_.configuration());

  const Result plan = place_.holdfast({"recover", "--full", "--plan"});
  EXPECT_NE(plan.status, 0) << "the sealed secrets need an identity";
  // The wrong key was taken from the safe.
  const fs::path wrong = scratch() / "wrong.txt";
  holdfast::base::Command keygen;
  keygen.argv = {"age-keygen", "-o", wrong.string()};
  holdfast::base::run_checked(keygen);
  place_.give_to_server_user(wrong);
  const Result failed = place_.holdfast({"recover", "--full", "--identity", wrong, "--yes"});
  EXPECT_NE(failed.status, 0);
  EXPECT_NE(failed.errors.find("nothing was touched"), std::string::npos) << failed.errors;
  const Result done =
      place_.holdfast({"recover", "--full", "--identity", identity(), "--yes", "--json"});
  ASSERT_EQ(done.status, 0) << done.errors << done.output;
  const json document = done.json();
  EXPECT_EQ(document.at("verdict"), "pass");
  EXPECT_GT(document.at("rpo_ms"), 0);
  EXPECT_LT(document.at("rto_ms"), 60000);
  EXPECT_FALSE(document.at("rotation").empty());
  EXPECT_EQ(client().get("/ready").status, 200);
  EXPECT_GE(
      std::stoi(holdfast::postgres::Session(
                    fmt::format("host=127.0.0.1 port={} user=postgres dbname=postgres", port_))
                    .value("SELECT count(*) FROM public.buildings")),
      archived);
  EXPECT_EQ(text_of(host() / "uploads" / "waiting.csv"), "tenant\nA\n");
  EXPECT_NE(client().post("/buildings", {{"name", "New"}, {"address", "S"}}).status, 0);
  // Nothing of the password anywhere but in the environment file.
  for (const auto& entry : fs::recursive_directory_iterator(place_.path())) {
    if (!entry.is_regular_file() || entry.path().filename().string().starts_with("app.env"))
      continue;
    EXPECT_EQ(text_of(entry.path()).find("ca$nary-w0rd"), std::string::npos) << entry.path();
  }
  EXPECT_EQ((done.errors + done.output).find("nary-w0rd"), std::string::npos);
  std::cout << "RTO " << document.at("rto_ms") << " ms, RPO " << document.at("rpo_ms") << " ms\n";
}

}  // namespace
}  // namespace reference::tests
