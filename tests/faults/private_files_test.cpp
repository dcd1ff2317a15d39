// What holds a password is for nobody else to read.

#include "faults.h"
#include "harness/witness.h"

namespace holdfast::tests {
namespace {

class PrivateFiles : public testing::Test {
 protected:
  /// Runs `init` for a configuration of its own; returns that one's permissions.
  unsigned mode_after_init(const std::string& connection) {
    const fs::path configuration = place_.path(fmt::format("other{}.toml", ++count_));
    base::Command command = Running::command(place_, {"init"});
    command.argv.at(2) = configuration.string();
    command.argv.insert(
        command.argv.end(),
        {"--connection", connection, "--data-directory", cluster_->data_directory().string(),
         "--repository", place_.path(fmt::format("repository{}", count_)).string(), "--key-file",
         place_.path(fmt::format("key{}", count_)).string()});
    const base::Outcome outcome = base::run(command);
    EXPECT_EQ(outcome.status, 0) << outcome.errors;
    return base::status_of(configuration)->st_mode & 0777U;
  }

  Place place_;
  std::unique_ptr<Cluster> cluster_{place_.cluster()};
  int count_ = 0;
};

TEST_F(PrivateFiles, a_configuration_that_init_writes_with_a_password_in_any_form) {
  // Nobody listens there; the data directory tells all that init must know.
  EXPECT_EQ(mode_after_init("postgresql://u:CANARY@127.0.0.1:1/postgres"), 0600U);
  EXPECT_EQ(mode_after_init("host=127.0.0.1 port=1 sslpassword = 'x'"), 0600U);
  EXPECT_EQ(mode_after_init("host=127.0.0.1 port=1 passfile=/nowhere"), 0644U);
}

TEST_F(PrivateFiles, doctor_names_a_configuration_with_a_password_that_everybody_can_read) {
  const std::string text = text_of(place_.configuration());
  const std::string before = cluster_->connection();
  std::string with_password = text;
  with_password.replace(with_password.find(before), before.size(), before + " password=x");
  base::replace_file(place_.configuration(), base::view(with_password), 0644);
  const auto said = [&] { return place_.holdfast({"doctor"}).output; };
  EXPECT_NE(said().find("holds a password and everybody can read it"), std::string::npos);
  base::replace_file(place_.configuration(), base::view(with_password), 0600);
  place_.give_to_server_user(place_.configuration());
  EXPECT_EQ(said().find("holds a password"), std::string::npos);
}

}  // namespace
}  // namespace holdfast::tests
