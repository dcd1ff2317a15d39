// What users get wrong: each has its own exit status, says what is wrong and what to do, and
// changes nothing (TRAPS RC5, EK8, BK9, CC2, CC6, CC10, CC11; pitfalls B25, B42).

#include "faults.h"

namespace holdfast::tests {
namespace {

using base::Code;

class WrongInput : public ::testing::Test {
 protected:
  WrongInput() : cluster_(place_.cluster()) {
    place_.must({"backup"});
    place_.archive_all(*cluster_);
    cluster_->sql("ALTER SYSTEM SET archive_command = ''");
    cluster_->sql("SELECT pg_reload_conf()");
    text_ = base::text(base::read_existing_file(place_.configuration()));
  }

  std::string text() const { return text_; }
  void configure(const std::string& text) const {
    base::replace_file(place_.configuration(), base::view(text), 0644);
  }
  /// The configuration with one part of it replaced.
  void configure_with(const std::string& part, const std::string& by) const {
    std::string changed = text_;
    const std::size_t at = changed.find(part);
    ASSERT_NE(at, std::string::npos) << part << " in\n" << changed;
    changed.replace(at, part.size(), by);
    configure(changed);
  }
  std::string key_line() const {
    return fmt::format("key_file = \"{}\"", place_.path("holdfast.key").string());
  }
  void write(const std::string& name, const std::string& content, mode_t mode = 0644) const {
    base::replace_file(place_.path(name), base::view(content), mode);
    place_.give_to_server_user(place_.path(name));
  }

  /// Each of these commands fails with this status, says this, and leaves everything as it was.
  void expect_refused(
      Code code, const std::string& says,
      const std::vector<std::string>& commands = {"list", "verify", "backup"},
      const std::vector<std::pair<std::string, std::string>>& environment = {}) const {
    const bool there = fs::is_directory(place_.repository());
    const auto before = there ? tree(place_.repository()) : std::map<std::string, std::string>();
    for (const std::string& command : commands) {
      SCOPED_TRACE(command);
      const Result result = place_.holdfast({command}, environment);
      EXPECT_EQ(result.status, status_of(code)) << result.errors << result.output;
      EXPECT_NE(result.errors.find(says), std::string::npos) << result.errors;
      EXPECT_NE(result.errors.find("hint: "), std::string::npos) << "no way out: " << result.errors;
      EXPECT_TRUE(result.output.empty()) << result.output;
    }
    const fs::path target = place_.path("restored");
    const Result restored = place_.holdfast({"restore", target.string()}, environment);
    EXPECT_NE(restored.status, 0);
    EXPECT_TRUE(is_empty_or_absent(target));
    // PostgreSQL takes anything up to 125 for the end of WAL (pitfall B31).
    const Result fetched =
        place_.holdfast({"wal", "fetch", "000000010000000000000001", "x"}, environment);
    EXPECT_GT(fetched.status, 125);
    EXPECT_FALSE(fs::exists(place_.path("x")));
    if (there) {
      EXPECT_EQ(tree(place_.repository()), before) << "the repository was changed";
    }
  }

  Place place_;
  std::unique_ptr<Cluster> cluster_;
  std::string text_;
};

TEST_F(WrongInput, a_configuration_that_is_not_understood_is_refused_with_its_line) {
  const auto line = [&](int number) { return fmt::format("holdfast.toml:{}: ", number); };
  configure("colour = \"blue\"\n" + text());
  expect_refused(Code::configuration, line(1) + "unknown key \"colour\"");
  configure_with("connection =", "conection =");
  expect_refused(Code::configuration, "connection");
  configure_with("[cluster.main]\n", "[cluster.main]\nretention = 3\n");
  expect_refused(Code::configuration, line(2) + "unknown key \"retention\" in [cluster.main]");
  configure_with("connection = \"", "connection = ");
  expect_refused(Code::configuration, line(2));
  configure_with("[repository.local]", "[repository.local");
  expect_refused(Code::configuration, "holdfast.toml:");
  configure_with("[repository.local]", "[repository.local]\nurl = \"file:///elsewhere\"");
  expect_refused(Code::configuration, "holdfast.toml:");
  configure("");
  expect_refused(Code::configuration, "there is no [cluster.NAME]");
  configure(std::string("\0\xff\xfe", 3));
  expect_refused(Code::configuration, "holdfast.toml:");
}

TEST_F(WrongInput, a_configuration_that_is_not_there_is_not_replaced_by_another) {
  fs::remove(place_.configuration());
  expect_refused(Code::configuration, "there is no such file");
  write("elsewhere.toml", text());
  expect_refused(Code::configuration, "there is no such file", {"list"},
                 {{"HOLDFAST_CONFIG", place_.path("elsewhere.toml").string()}});
}

TEST_F(WrongInput, a_wrong_or_missing_key_is_said_to_be_one_and_nothing_is_called_corrupt) {
  const std::string path = place_.path("holdfast.key").string();
  write("holdfast.key", std::string(64, 'a') + "\n", 0600);
  expect_refused(Code::key, "the key of \"" + path + "\" does not fit");
  write("holdfast.key", "not a key\n", 0600);
  expect_refused(Code::key, "it is not 64 hexadecimal digits");
  write("holdfast.key", "", 0600);
  expect_refused(Code::key, "it is not 64 hexadecimal digits");
  fs::remove(path);
  expect_refused(Code::key, "there is no such file");
  fs::create_directory(path);
  place_.give_to_server_user(path);
  const Result directory = place_.holdfast({"list"});
  EXPECT_NE(directory.status, 0);
  EXPECT_NE(directory.errors.find(path), std::string::npos) << directory.errors;
  fs::remove(path);
  configure_with(key_line(), "");
  expect_refused(Code::key, "no key is configured");
  expect_refused(Code::key, "wrong passphrase", {"list", "verify", "backup"},
                 {{"HOLDFAST_PASSPHRASE", "guess"}});
  configure_with(key_line(), "encryption = \"none\"");
  expect_refused(Code::key, "no key is configured");
}

TEST_F(WrongInput, a_key_command_that_fails_or_talks_nonsense_is_no_key) {
  configure_with(key_line(), "key_command = \"exit 3\"");
  expect_refused(Code::key, "the key command failed with status 3");
  configure_with(key_line(), "key_command = \"echo sesame\"");
  expect_refused(Code::key, "the output of the key command");
  configure_with(key_line(), "key_command = \"kill -9 $$\"");
  expect_refused(Code::key, "the key command failed");
}

TEST_F(WrongInput, a_passphrase_opens_its_repository_and_a_wrong_one_does_not) {
  Place place;
  const auto init = [&](const std::string& passphrase) {
    return place.holdfast({"init", "--connection", cluster_->connection(), "--data-directory",
                           cluster_->data_directory().string(), "--repository",
                           "file://" + place.repository().string()},
                          {{"HOLDFAST_PASSPHRASE", passphrase}});
  };
  EXPECT_EQ(init("correct horse").status, 0);
  const std::vector<std::pair<std::string, std::string>> right = {
      {"HOLDFAST_PASSPHRASE", "correct horse"}};
  EXPECT_EQ(place.holdfast({"backup"}, right).status, 0);
  EXPECT_EQ(place.holdfast({"verify"}, right).status, 0);
  for (const std::string wrong : {"Correct horse", "correct horse ", ""}) {
    const Result verified = place.holdfast({"verify"}, {{"HOLDFAST_PASSPHRASE", wrong}});
    EXPECT_EQ(verified.status, status_of(Code::key)) << verified.errors;
    EXPECT_EQ(init(wrong).status, status_of(Code::key));
  }
}

TEST_F(WrongInput, a_place_that_is_no_repository_is_not_taken_for_one) {
  const std::string url = "url = \"file://" + place_.repository().string();
  configure_with(url, "url = \"file://" + place_.path("nowhere").string());
  expect_refused(Code::not_found, "cannot find a repository");
  EXPECT_FALSE(fs::exists(place_.path("nowhere"))) << "it made one";
  write("file", "a file");
  configure_with(url, "url = \"file://" + place_.path("file").string());
  const Result listed = place_.holdfast({"list"});
  EXPECT_NE(listed.status, 0);
  EXPECT_NE(listed.errors.find(place_.path("file").string()), std::string::npos) << listed.errors;
  EXPECT_NE(listed.status, status_of(Code::internal));
  const Result made = place_.holdfast({"init"});
  EXPECT_NE(made.status, 0);
  EXPECT_NE(made.status, status_of(Code::internal)) << made.errors;
  EXPECT_EQ(base::text(base::read_existing_file(place_.path("file"))), "a file");
  configure_with(url, "url = \"ftp://somewhere");
  expect_refused(Code::configuration, "cannot use \"ftp://");
  configure_with(url, "url = \"relative");
  expect_refused(Code::configuration, "cannot use \"relative");
}

// TRAPS RC5, pitfall B42: only proven absence is absence, and an unknown format is not an old one.
TEST_F(WrongInput, a_marker_that_cannot_be_read_is_not_an_absent_one) {
  const fs::path marker = place_.repository() / "holdfast.json";
  const std::string content(base::text(base::read_existing_file(marker)));
  const auto mark = [&](const std::string& by) {
    base::replace_file(marker, base::view(by), 0600);
    place_.give_to_server_user(marker);
  };
  for (const char* newer : {"1", "3", "99", "-1", "1.5", "18446744073709551617"}) {
    std::string other = content;
    other.replace(other.find("\"format\": 2"), 11, fmt::format("\"format\": {}", newer));
    mark(other);
    const Result result = place_.holdfast({"backup"});
    EXPECT_TRUE(result.status == status_of(Code::unsupported) ||
                result.status == status_of(Code::corrupt))
        << newer << result.errors;
  }
  mark(content);
  fs::permissions(marker, fs::perms(0));
  if (base::running_as_root()) {  // holdfast runs as postgres then, and is shut out
    base::replace_file(marker, base::view(content), 0);
  }
  expect_refused(Code::permission, "holdfast.json", {"list", "verify", "backup", "init"});
  fs::remove(marker);
  fs::create_directory(marker);
  place_.give_to_server_user(marker);
  EXPECT_NE(place_.holdfast({"init"}).status, 0) << "a second repository over the first";
}

// TRAPS BK9, pitfall B25.
TEST_F(WrongInput, the_data_directory_of_another_server_is_not_backed_up) {
  Cluster other(installation(15), place_.path("other"));
  configure_with(cluster_->data_directory().string(), other.data_directory().string());
  const auto before = tree(place_.repository());
  const Result result = place_.holdfast({"backup"});
  EXPECT_EQ(result.status, status_of(Code::foreign)) << result.errors;
  EXPECT_NE(result.errors.find("is the data directory of system"), std::string::npos)
      << result.errors;
  EXPECT_NE(result.errors.find("hint: "), std::string::npos) << result.errors;
  EXPECT_EQ(tree(place_.repository()), before);
}

TEST_F(WrongInput, a_stale_copy_of_the_data_directory_is_not_backed_up) {
  cluster_->sql("CHECKPOINT");
  fs::copy(cluster_->data_directory(), place_.path("copy"), fs::copy_options::recursive);
  for (const auto& each : fs::recursive_directory_iterator(place_.path("copy"))) {
    place_.give_to_server_user(each.path());
  }
  place_.give_to_server_user(place_.path("copy"));
  configure_with(cluster_->data_directory().string(), place_.path("copy").string());
  const auto before = backup_ids(place_);
  const Result result = place_.holdfast({"backup"});
  EXPECT_EQ(result.status, status_of(Code::foreign)) << result.errors;
  EXPECT_NE(result.errors.find("hint: "), std::string::npos) << result.errors;
  EXPECT_EQ(backup_ids(place_), before);
  EXPECT_EQ(place_.must({"verify", "--json"}).json().at("orphans"), 0);
}

TEST_F(WrongInput, another_system_under_this_name_is_not_accepted) {
  Cluster other(installation(15), place_.path("other"));
  other.start();
  configure_with(cluster_->data_directory().string(), other.data_directory().string());
  std::string changed(base::text(base::read_existing_file(place_.configuration())));
  changed.replace(changed.find(cluster_->connection()), cluster_->connection().size(),
                  other.connection());
  configure(changed);
  const auto before = tree(place_.repository());
  for (const std::string command : {"backup", "init"}) {
    const Result result = place_.holdfast({command});
    EXPECT_EQ(result.status, status_of(Code::foreign)) << command << result.errors;
    EXPECT_NE(result.errors.find("--new-system"), std::string::npos) << result.errors;
  }
  const std::string wal = other.sql("SELECT pg_walfile_name(pg_current_wal_lsn())");
  other.sql("SELECT pg_switch_wal()");
  const Result pushed =
      place_.holdfast({"wal", "push", (other.data_directory() / "pg_wal" / wal).string()});
  EXPECT_EQ(pushed.status, status_of(Code::foreign)) << pushed.errors;
  EXPECT_EQ(tree(place_.repository()), before);
}

TEST_F(WrongInput, a_command_line_that_is_not_understood_does_nothing) {
  const std::vector<std::vector<std::string>> lines = {
      {},
      {"bakcup"},
      {"backup", "now"},
      {"backup", "--fast"},
      {"wal"},
      {"wal", "pull"},
      {"restore"},
      {"restore", "a", "b"},
      {"backup", "--workers", "0"},
      {"backup", "--workers", "nan"},
      {"backup", "--workers", "99999999999999999999"},
      {"restore", "a", "--timeline", "-1"},
      {"list", "--to", "latest"},
      {"backup", "--compare", "foo"},
      {"backup", "--compare", ""},
      {"restore", ""},
      {"restore", "a", "--to", ""},
      {"restore", "a", "--action", "explode"},
      {"restore", "a", "--tablespace", "x"},
      {"pin", "x"},
      {"pin", "x", "--reason", "", "--for", "1d"},
      {"snapshot"},
      {"snapshot", "--reason", ""},
      {"unpin"},
      {"events"},
      {"events", "--since", "nonsense"},
      {"events", "--since", "-1h"},
      {"events", "--since", "1h", "--until", "2h"},
      {"wal", "push", "nonsense"}};
  for (const auto& line : lines) {
    const Result result = place_.holdfast(line);
    EXPECT_EQ(result.status, status_of(Code::usage))
        << ::testing::PrintToString(line) << result.errors;
    EXPECT_NE(result.errors.find("hint: "), std::string::npos)
        << ::testing::PrintToString(line) << result.errors;
    EXPECT_EQ(result.errors.find("warning: "), std::string::npos) << "said twice" << result.errors;
  }
  EXPECT_EQ(backup_ids(place_).size(), 1U);
}

TEST_F(WrongInput, a_name_that_the_configuration_does_not_have_is_answered_with_those_it_has) {
  for (const std::string command : {"backup", "list", "status", "expire", "verify"}) {
    const Result repository = place_.holdfast({command, "--repository", "nope"});
    EXPECT_EQ(repository.status, status_of(Code::not_found)) << command << repository.errors;
    EXPECT_NE(repository.errors.find("hint: it has: local"), std::string::npos)
        << repository.errors;
    const Result cluster = place_.holdfast({command, "--cluster", "nope"});
    EXPECT_EQ(cluster.status, status_of(Code::not_found)) << command << cluster.errors;
    EXPECT_NE(cluster.errors.find("hint: it has: main"), std::string::npos) << cluster.errors;
  }
}

TEST_F(WrongInput, a_value_that_nobody_can_mean_is_refused_with_its_line) {
  for (const char* section :
       {"[wal]\ncopies = 0", "[wal]\ncopies = -3", "[wal]\ncopies = \"many\"",
        "[wal]\nslice_interval = \"0s\"", "[wal]\nslice_interval = \"-1s\"",
        "[wal]\nslice_interval = \"9999999d\"", "[wal]\nslice_interval = 5", "[wal]\nslot = \"\"",
        "[wal]\nslot = \"Big Slot\"", "[keep]\nbackups = 0", "[keep]\nbackups = \"\"",
        "[keep]\nbackups = \"0d\"", "[keep]\nbackups = 1.5", "[keep]\nwindow = \"soon\"",
        "[keep]\nforever = true", "[objectives]\nrpo = \"-10min\"", "[objectives]\nrtt = \"10min\"",
        "[wall]\nx = 1"}) {
    configure(text() + "\n" + section + "\n");
    const Result result = place_.holdfast({"list"});
    EXPECT_EQ(result.status, status_of(Code::configuration)) << section << result.errors;
    EXPECT_NE(result.errors.find("holdfast.toml:"), std::string::npos) << result.errors;
    EXPECT_NE(result.errors.find("hint: "), std::string::npos) << section << result.errors;
  }
  configure(text() + "\n[wal]\ncopies = 2\n");
  expect_refused(Code::configuration, "the number of repositories is 1");
}

TEST_F(WrongInput, one_place_is_not_two_repositories) {
  const std::string same = place_.path("./repository/").string();
  configure(text() + "\n[repository.copy]\nurl = \"file://" + same + "\"\n" + key_line() + "\n");
  expect_refused(Code::configuration, "[repository.copy] is the same place as [repository.local]",
                 {"list", "verify", "backup", "init"});
}

TEST_F(WrongInput, a_directory_is_no_configuration) {
  const Result result = shell(place_, fmt::format("{} --config {} list", holdfast_binary().string(),
                                                  place_.path().string()));
  EXPECT_EQ(result.status, status_of(Code::configuration)) << result.errors;
  EXPECT_NE(result.errors.find("it is a directory"), std::string::npos) << result.errors;
  EXPECT_NE(result.errors.find("hint: "), std::string::npos) << result.errors;
}

}  // namespace
}  // namespace holdfast::tests
