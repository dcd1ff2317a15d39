// The pages for a bad night: each command in them, in its order, on a real cluster.

#include <signal.h>

#include <fstream>

#include "base/error.h"
#include "harness/instant.h"
#include "harness/witness.h"

namespace holdfast::tests {
namespace {

using base::Code;

class Document : public ::testing::Test {
 protected:
  Document() : cluster_(place_.cluster()) {
    std::ofstream(cluster_->data_directory() / "postgresql.conf", std::ios::app)
        << fmt::format("unix_socket_directories = '{}'\nlisten_addresses = ''\nfsync = off\n",
                       cluster_->server().socket_directory().string());
    cluster_->sql("CREATE TABLE orders AS SELECT i AS id FROM generate_series(1, 1000) i");
    write("migrate", "#!/bin/sh\nexit 0\n");
    fs::create_directory(place_.path("bin"));
    write("bin/holdfast", fmt::format("#!/bin/sh\nexec {} --config {} \"$@\"\n",
                                      holdfast_binary().string(), place_.configuration().string()));
    write("app.env", "DATABASE_URL='postgres://app@old/app'\n");
    serve_files();
    write("smoke.toml", fmt::format("url = \"http://127.0.0.1:{}\"\nrate = 10\nduration = \"1s\"\n"
                                    "[[request]]\nname = \"one\"\npath = \"/migrate\"\n",
                                    port_));
    configure();
    place_.must({"secrets", "seal"});
    place_.must({"backup"});
    place_.must({"probe"});
  }
  ~Document() override {
    if (fs::exists(cluster_->data_directory() / "postmaster.pid")) {
      run_tool(cluster_->installation(), "pg_ctl",
               {"-D", cluster_->data_directory().string(), "-m", "immediate", "-w", "stop"});
    }
  }

  void write(const std::string& name, const std::string& text) const {
    overwrite(place_.path(name), text);
    fs::permissions(place_.path(name), fs::perms(0755));
    place_.give_to_server_user(place_.path(name));
  }

  /// What is asked by the smoke gate and by the probe.
  void serve_files() {
    base::Command command;
    command.argv = {"python3", "-u", "-m", "http.server", "--bind", "127.0.0.1", "0"};
    command.directory = place_.path();
    server_ = std::make_unique<base::Child>(command, place_.path("http.log"));
    eventually("files are served", [&] {
      const std::string log = text_of(place_.path("http.log"));
      const std::string before = " port ";
      const std::size_t at = log.find(before);
      if (at == std::string::npos) return false;
      port_ = std::stoi(log.substr(at + before.size()));
      return true;
    });
  }

  void configure() const {
    std::string recipients[2];
    for (const int each : {0, 1}) {
      base::Command keygen;
      const fs::path file = place_.path(each == 0 ? "identity.txt" : "offline.txt");
      keygen.argv = {"age-keygen", "-o", file.string()};
      const std::string said = base::run(keygen).errors;
      recipients[each] = said.substr(said.find("age1"), 62);
      place_.give_to_server_user(file);
    }
    std::ofstream(place_.configuration(), std::ios::app) << fmt::format(
        "[secrets]\nrecipients = [\"{}\"]\noffline = [\"{}\"]\nenv_files = [\"app.env\"]\n"
        "[files.configuration]\npath = \"holdfast.toml\"\n"
        "[probe.api]\nurl = \"http://127.0.0.1:{}/migrate\"\n"
        "[recover]\nenvironment_file = \"app.env\"\n[recover.command]\nsmoke = \"test -f "
        "mended\"\n",
        recipients[0], recipients[1], port_);
  }

  static std::vector<std::string> commands_in(const std::string& name) {
    std::istringstream document(text_of(fs::path(HOLDFAST_SOURCE) / "docs" / name));
    std::vector<std::string> lines;
    for (std::string line; std::getline(document, line);) {
      if (line.starts_with("    holdfast ")) lines.push_back(line.substr(4));
    }
    return lines;
  }

  std::string restore_point() const {
    const auto all = place_.must({"migrate", "--list", "--json"}).json().at("migrations");
    return all.back().at("restore_point");
  }

  /// In a shell, as a person who is where holdfast.toml is.
  Result sh(const std::string& line, bool as_self) const {
    base::Command command;
    command.argv = {"sh", "-c", "PATH=$PWD/bin:$PATH; " + line};
    command.directory = place_.path();
    if (base::running_as_root() && !as_self) command.user = postgres::server_user();
    base::Outcome outcome = base::run(command);
    return {outcome.status, std::move(outcome.output), std::move(outcome.errors)};
  }

  /// Runs all of them; returns how many.
  std::size_t execute(const std::string& name) const {
    const auto commands = commands_in(name);
    std::size_t executed = 0;
    for (std::size_t i = 0; i < commands.size(); ++i) {
      std::string line = commands[i];
      const auto replace = [&](const std::string& what, const std::function<std::string()>& with) {
        const std::size_t at = line.find(what);
        if (at != std::string::npos) line.replace(at, what.size(), with());
      };
      replace("/var/lib/postgresql", [&] { return place_.path("").string(); });
      replace("RESTORE_POINT", [&] { return restore_point(); });
      const bool mounts = line.find("--instant") != std::string::npos ||
                          line.find(" unmount ") != std::string::npos;
      if (mounts && mount::cannot_mount()) continue;
      // Where a page goes on with --resume, something had failed.
      const bool fails = line.starts_with("holdfast recover --yes") && i + 1 < commands.size() &&
                         commands[i + 1] == "holdfast recover --resume";
      // It asks, and whoever follows the page is at a terminal.
      const bool asks = line.ends_with(" --resume") || line.ends_with(" --undo");
      fs::remove(place_.path("mended"));
      if (!fails) write("mended", "");
      const Result done = sh(asks ? line + " --yes" : line, mounts);
      const int red = base::info(Code::check_failed).exit_status;
      const bool may_be_red = line == "holdfast status" || line == "holdfast uptime";
      if (may_be_red) {
        EXPECT_TRUE(done.status == 0 || done.status == red) << line << ": " << done.errors;
      } else {
        EXPECT_EQ(done.status, fails ? red : 0) << line << ": " << done.errors << done.output;
      }
      ++executed;
    }
    return executed;
  }

  Place place_;
  int port_ = 0;
  std::unique_ptr<base::Child> server_;
  std::unique_ptr<Cluster> cluster_;
};

TEST_F(Document, about_backup_and_restore_can_be_followed) {
  EXPECT_GE(execute("ops/backup-restore.md"), 8U);
}
TEST_F(Document, about_production_can_be_followed) {
  EXPECT_EQ(execute("ops/production-runbook.md"), 13U);
}
TEST_F(Document, about_incidents_can_be_followed) {
  EXPECT_EQ(execute("security/incident-response.md"), 9U);
}

}  // namespace
}  // namespace holdfast::tests
