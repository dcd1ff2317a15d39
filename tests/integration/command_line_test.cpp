// The command line and the configuration: what is not understood is refused, at every level.

#include "harness/witness.h"

namespace holdfast::tests {
namespace {

constexpr int usage = 2;
constexpr int bad_configuration = 3;
constexpr int foreign = 11;

Result run(const std::vector<std::string>& arguments) {
  base::Command command;
  command.argv = {holdfast_binary().string()};
  command.argv.insert(command.argv.end(), arguments.begin(), arguments.end());
  command.directory = "/";
  const base::Outcome outcome = base::run(command);
  return {outcome.status, outcome.output, outcome.errors};
}

TEST(CommandLine, CC2_unknown_words_are_refused_at_each_level) {
  const std::vector<std::vector<std::string>> commands = {{},
                                                          {"bakcup"},
                                                          {"--colour"},
                                                          {"wal"},
                                                          {"wal", "recieve"},
                                                          {"backup", "now"},
                                                          {"backup", "--fast"},
                                                          {"list", "--all"},
                                                          {"verify", "--workers", "none"},
                                                          {"backup", "--workers", "0"},
                                                          {"backup", "--workers", "nan"},
                                                          {"restore"},
                                                          {"restore", "/tmp/x", "/tmp/y"},
                                                          {"doctor", "--fix", "it"},
                                                          {"init", "--colour"}};
  for (const auto& command : commands) {
    std::string line;
    for (const std::string& word : command) line += " " + word;
    const Result result = run(command);
    EXPECT_EQ(result.status, usage) << "holdfast" << line << "\n" << result.errors;
    EXPECT_NE(result.errors, "") << line;
  }
}

TEST(CommandLine, every_command_tells_its_exit_status) {
  const std::vector<std::vector<std::string>> commands = {
      {"init"},   {"backup"}, {"list"},        {"restore"},     {"verify"},
      {"doctor"}, {"demo"},   {"wal", "push"}, {"wal", "fetch"}};
  const std::string all = run({"--help"}).output;
  for (auto command : commands) {
    EXPECT_NE(all.find(command[0]), std::string::npos) << command[0];
    command.emplace_back("--help");
    const Result result = run(command);
    EXPECT_EQ(result.status, 0);
    EXPECT_NE(result.output.find("EXIT STATUS"), std::string::npos) << command[0];
  }
}

class Configured : public testing::Test {
 protected:
  Configured() : source_(place_.cluster()) { good_ = text_of(place_.configuration()); }

  /// Reads a configuration; the line that an error names must be `line`.
  void expect_refused(const std::string& text, int line) const {
    overwrite(place_.configuration(), text);
    const Result result = place_.holdfast({"list"});
    EXPECT_EQ(result.status, bad_configuration) << text << result.errors;
    EXPECT_NE(result.errors.find(fmt::format("holdfast.toml:{}:", line)), std::string::npos)
        << text << result.errors;
    overwrite(place_.configuration(), good_);
  }

  Place place_;
  std::unique_ptr<Cluster> source_;
  std::string good_;
};

TEST_F(Configured, CC3_config_counts_before_and_after_the_command) {
  const std::string file = place_.configuration().string();
  const std::string none = place_.path("none.toml").string();
  EXPECT_EQ(run({"--config", file, "list"}).status, 0);
  EXPECT_EQ(run({"list", "--config", file}).status, 0);
  EXPECT_EQ(run({"--config", none, "list"}).status, bad_configuration);
  EXPECT_EQ(run({"list", "--config", none}).status, bad_configuration);
  EXPECT_EQ(run({"--config", file, "list", "--cluster", "other"}).status, 4);
}

TEST_F(Configured, CC11_repeated_and_unknown_keys_are_refused_with_their_line) {
  const std::string key = fmt::format("key_file = \"{}\"\n", place_.path("holdfast.key").string());
  const std::string repository =
      fmt::format("[repository.r]\nurl = \"file://{}\"\n{}", place_.repository().string(), key);
  const std::string cluster = fmt::format(
      "[cluster.main]\nconnection = \"host=/x\"\n"
      "data_directory = \"{}\"\n",
      source_->data_directory().string());
  expect_refused(cluster + "connection = \"host=/y\"\n" + repository, 4);
  expect_refused(cluster + "colour = \"blue\"\n" + repository, 4);
  expect_refused(cluster + repository + "retries = \"3\"\n", 7);
  expect_refused("colour = \"blue\"\n" + cluster + repository, 1);
  expect_refused(cluster + repository + "[scheduling]\n", 7);
  expect_refused(cluster + "[cluster.main]\n" + repository, 4);
  expect_refused("[cluster.main]\nconnection = 3\n", 2);
  expect_refused("[cluster.main]\ndata_directory = \"relative\"\nconnection = \"x\"\n", 1);
}

TEST_F(Configured, CC12_cluster_names_are_accepted_everywhere_or_refused_at_once) {
  for (const char* name : {"a.b", "with space", "../up", "x/y", ".tmp", "a\nb", "ü"}) {
    const std::string config = place_.path("other.toml").string();
    const Result result =
        run({"init", "--config", config, "--cluster", name, "--connection", source_->connection(),
             "--repository", "file://" + place_.path("other").string()});
    EXPECT_EQ(result.status, usage) << name << ": " << result.errors;
    EXPECT_FALSE(fs::exists(config)) << name;
    EXPECT_FALSE(fs::exists(place_.path("other"))) << name;
  }
  for (const char* name : {"global_x", "cluster", "wal-1", "packs"}) {
    const std::string config = place_.path(fmt::format("{}.toml", name)).string();
    const Result result =
        run({"init", "--config", config, "--cluster", name, "--connection", source_->connection(),
             "--repository", "file://" + place_.path(name).string()});
    EXPECT_EQ(result.status, 0) << name << result.errors;
    EXPECT_EQ(run({"--config", config, "list", "--cluster", name}).status, 0) << name;
  }
}

TEST_F(Configured, RC10_init_again_changes_no_byte) {
  const auto before = tree_of(place_.repository());
  const Result again = place_.must({"init"});
  EXPECT_NE(again.output.find("Everything was there already"), std::string::npos) << again.output;
  EXPECT_EQ(tree_of(place_.repository()), before);
  EXPECT_EQ(text_of(place_.configuration()), good_);
}

TEST_F(Configured, init_does_not_ignore_a_cluster_that_the_configuration_lacks) {
  const Result result = place_.holdfast({"init", "--cluster", "other"});
  EXPECT_EQ(result.status, 4) << result.errors;
  EXPECT_NE(result.errors.find("other"), std::string::npos) << result.errors;
  EXPECT_EQ(place_.holdfast({"init", "--cluster", "main"}).status, 0);
}

TEST_F(Configured, OS9_the_recovery_kit_can_be_had_again_and_opens_what_lost_its_keys) {
  place_.must({"backup"});
  const std::string kit =
      place_.must({"init", "--recovery-kit", "--json"}).json().at("recovery_kit");
  const std::size_t at = kit.find("  key          ");
  ASSERT_NE(at, std::string::npos) << kit;
  overwrite(place_.path("holdfast.key"), kit.substr(at + 15, 64) + "\n");
  fs::remove_all(place_.repository() / "keys");
  place_.must({"verify"});
  place_.must({"restore", place_.path("bare").string()});
}

TEST_F(Configured, init_refuses_another_system_under_a_known_name_unless_told) {
  Cluster other(installation(15), place_.path("other"));
  other.start();
  point_configuration_at(place_, other);
  const auto before = tree_of(place_.repository());
  const Result result = place_.holdfast({"init"});
  EXPECT_EQ(result.status, foreign) << result.errors;
  EXPECT_NE(result.errors.find("--new-system"), std::string::npos) << result.errors;
  EXPECT_EQ(tree_of(place_.repository()), before);
  EXPECT_EQ(place_.holdfast({"backup"}).status, foreign);
  place_.must({"init", "--new-system"});
  place_.must({"backup"});
}

TEST_F(Configured, doctor_finds_that_archiving_is_off_and_mends_it) {
  source_->stop();
  source_->start({{"archive_mode", "off"}, {"archive_command", ""}});
  point_configuration_at(place_, *source_);
  const Result ill = place_.holdfast({"doctor"});
  EXPECT_EQ(ill.status, 18) << ill.output;
  EXPECT_NE(ill.output.find("archive_mode = off"), std::string::npos) << ill.output;
  source_->stop();

  const fs::path settings = source_->data_directory() / "postgresql.conf";
  overwrite(settings, text_of(settings) + "archive_mode = off\narchive_command = ''\n");
  source_->start();
  point_configuration_at(place_, *source_);
  const Result fix = place_.holdfast({"doctor", "--fix"});
  EXPECT_NE(fix.output.find("must be restarted"), std::string::npos) << fix.output;
  source_->stop();
  source_->start();
  point_configuration_at(place_, *source_);
  place_.must({"backup"});
  source_->sql("SELECT 1");
  place_.archive_all(*source_);
  EXPECT_EQ(place_.must({"doctor", "--json"}).json().at("ok"), true);
}

}  // namespace
}  // namespace holdfast::tests
