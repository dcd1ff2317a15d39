#include "service/deployer.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <cstdlib>

#include "base/error.h"

namespace holdfast::service {
namespace {

using base::fs::path;

/// A PATH in which `docker` and `systemctl` are scripts that note how they were called.
class Deployer : public ::testing::Test {
 protected:
  void fake(const std::string& name, const std::string& body) const {
    const std::string script = "#!/bin/sh\nfor each; do echo \"$each\" >> '" + calls().string() +
                               "'; done\n" + body + "\n";
    base::replace_file(directory_.path() / name, base::view(script), 0755);
  }
  path calls() const { return directory_.path() / "calls"; }
  std::string called() const {
    const auto bytes = base::read_file(calls());
    return std::string(bytes ? base::text(*bytes) : "");
  }
  Deployment run(base::Command command, base::Microseconds limit = std::chrono::seconds(20),
                 const std::vector<std::string>& secrets = {}) const {
    const char* given = std::getenv("PATH");
    const std::string all = directory_.path().string() + ":" + given;
    // It is found by our own PATH, as the real one is.
    ::setenv("PATH", all.c_str(), 1);
    const std::string before = given;
    Deployment result = deploy(std::move(command), limit, secrets);
    ::setenv("PATH", before.c_str(), 1);
    return result;
  }
  base::TemporaryDirectory directory_{"holdfast-deployer"};
};

TEST_F(Deployer, compose_creates_the_container_again_and_waits_for_its_health) {
  fake("docker", "echo started");
  const auto command = compose_command({{"a.yml", "b.yml"}, {".env"}, "shop", "api"},
                                       std::chrono::milliseconds(1500));
  const Deployment done = run(command);
  EXPECT_TRUE(done.ok()) << done.output;
  EXPECT_EQ(done.output, "started\n");
  EXPECT_EQ(called(),
            "compose\n--project-name\nshop\n-f\na.yml\n-f\nb.yml\n--env-file\n.env\nup\n-d\n"
            "--no-deps\n--force-recreate\n--wait\n--wait-timeout\n2\napi\n");
}

TEST_F(Deployer, a_service_that_does_not_become_well_is_a_failure_with_its_words) {
  fake("docker", "echo 'container is unhealthy' >&2; exit 1");
  const Deployment failed = run(compose_command({{}, {}, "", "api"}, std::chrono::seconds(5)));
  EXPECT_FALSE(failed.ok());
  EXPECT_EQ(failed.status, 1);
  EXPECT_EQ(failed.output, "container is unhealthy\n");
}

TEST_F(Deployer, systemd_restarts_the_unit) {
  fake("systemctl", "");
  EXPECT_TRUE(run(systemd_command("api.service")).ok());
  EXPECT_EQ(called(), "restart\n--\napi.service\n");
}

TEST_F(Deployer, a_plain_command_runs_in_its_directory) {
  const Deployment done = run(shell_command("pwd; exit 3", directory_.path()));
  EXPECT_EQ(done.status, 3);
  EXPECT_EQ(done.output, directory_.path().string() + "\n");
}

TEST_F(Deployer, what_takes_too_long_is_ended_with_all_that_it_started) {
  const Deployment late = run(shell_command("sleep 100 & echo $!; wait", directory_.path()),
                              std::chrono::milliseconds(300));
  EXPECT_TRUE(late.timed_out);
  EXPECT_FALSE(late.ok());
  EXPECT_LT(late.took, std::chrono::seconds(10));
  // A zombie may wait for its reaper: then it has no command line any more.
  const auto line = base::read_file("/proc/" + std::to_string(std::stoi(late.output)) + "/cmdline");
  EXPECT_TRUE(!line || line->empty());
}

TEST_F(Deployer, says_no_secret) {
  fake("docker", "echo 'url postgres://api:hun@ter2@db/app, key s3cr3t'; echo s3cr3t-longer >&2");
  const Deployment done = run(compose_command({{}, {}, "", "api"}, std::chrono::seconds(5)),
                              std::chrono::seconds(20), {"s3cr3t", "s3cr3t-longer", ""});
  EXPECT_EQ(done.output, "url postgres://api:***@db/app, key ***\n***\n");
}

TEST_F(Deployer, a_program_that_is_not_there_is_an_error) {
  base::Command command;
  command.argv = {"no-such-deployer"};
  EXPECT_THROW(run(command), base::Error);
}

}  // namespace
}  // namespace holdfast::service
