// Nothing that is secret leaves: not into an object, an output, a file or the list of processes;
// and what is stored under a key cannot be read without it (TRAPS EK2, EK10).

#include "faults.h"

namespace holdfast::tests {
namespace {

using base::Code;

constexpr std::string_view row = "CANARYrowCANARY";
constexpr std::string_view passphrase = "CANARYpassphraseCANARY";
constexpr std::string_view password = "CANARYpasswordCANARY";

/// Files below `directory` that hold `needle`.
std::vector<std::string> holding(const fs::path& directory, std::string_view needle) {
  std::vector<std::string> found;
  for (const fs::path& each : files_below(directory)) {
    const base::Bytes bytes = base::read_existing_file(each);
    if (base::text(bytes).find(needle) != std::string_view::npos) found.push_back(each);
  }
  return found;
}

class Secrets : public ::testing::Test {
 protected:
  /// A cluster full of one known text, whose configuration names a password.
  void fill(const std::vector<std::string>& init_arguments = {}) {
    cluster_ = place_.cluster(15, {}, init_arguments);
    cluster_->sql(
        fmt::format("CREATE TABLE t AS SELECT g AS id, '{}' || md5(g::text) AS v FROM "
                    "generate_series(1, 20000) g",
                    row));
    std::string text(base::text(base::read_existing_file(place_.configuration())));
    const std::string connection = cluster_->connection();
    text.replace(text.find(connection), connection.size(),
                 fmt::format("{} password={}", connection, password));
    base::replace_file(place_.configuration(), base::view(text), 0644);
  }
  /// Runs each command, well and badly, and keeps what they print.
  void run_everything(const std::vector<std::pair<std::string, std::string>>& environment = {}) {
    const std::string target = place_.path("restored").string();
    const std::vector<std::vector<std::string>> lines = {{"doctor"},
                                                         {"doctor", "--json"},
                                                         {"backup", "--json"},
                                                         {"backup"},
                                                         {"list"},
                                                         {"list", "--json"},
                                                         {"verify"},
                                                         {"verify", "--json"},
                                                         {"init"},
                                                         {"restore", target},
                                                         {"restore", target},
                                                         {"restore", "/proc/x"},
                                                         {"wal", "push", "x"},
                                                         {"wal", "fetch", "00000002.history", "x"}};
    for (const auto& line : lines) keep(place_.holdfast(line, environment));
    EXPECT_EQ(place_.holdfast({"verify"}, environment).status, 0);
  }
  void keep(const Result& result) { printed_ += result.output + result.errors; }

  Place place_;
  std::unique_ptr<Cluster> cluster_;
  std::string printed_;
};

TEST_F(Secrets, of_key_file_and_connection_stay_where_they_are) {
  fill();
  run_everything();
  place_.archive_all(*cluster_);
  cluster_->stop();
  run_everything();  // errors must not tell them either
  const std::string key(
      base::text(base::read_existing_file(place_.path("holdfast.key"))).substr(0, 64));
  const auto configuration = operations::read_configuration(place_.configuration());
  const std::string repository_key =
      repository::key_text(*operations::open_site(configuration, "").repository.protection().key);
  for (const std::string& secret : {key, repository_key, std::string(password)}) {
    EXPECT_EQ(holding(place_.repository(), secret), std::vector<std::string>{});
    EXPECT_EQ(holding(place_.path("restored"), secret), std::vector<std::string>{});
    EXPECT_EQ(printed_.find(secret), std::string::npos);
  }
  EXPECT_EQ(holding(place_.path(), key),
            std::vector<std::string>{place_.path("holdfast.key").string()});
  const auto mode = fs::status(place_.path("holdfast.key")).permissions();
  EXPECT_EQ(mode & fs::perms(0077), fs::perms::none) << "others can read the key";
}

TEST_F(Secrets, a_passphrase_stays_in_the_environment) {
  const std::vector<std::pair<std::string, std::string>> environment = {
      {"HOLDFAST_PASSPHRASE", std::string(passphrase)}};
  fill();
  cluster_->stop();  // an archiver that still runs would put WAL where nothing should be
  cluster_->start({{"archive_mode", "off"}});
  fs::remove_all(place_.repository());
  fs::remove(place_.configuration());
  const Result made = place_.holdfast({"init", "--connection", cluster_->connection(),
                                       "--data-directory", cluster_->data_directory().string(),
                                       "--repository", "file://" + place_.repository().string()},
                                      environment);
  EXPECT_EQ(made.status, 0) << made.errors;
  keep(made);
  run_everything(environment);
  EXPECT_EQ(printed_.find(passphrase), std::string::npos);
  EXPECT_EQ(holding(place_.path(), passphrase), std::vector<std::string>{});
}

// By CLI, by archive_command, as page, as WAL, as map: sealed.
TEST_F(Secrets, no_row_and_no_name_of_a_file_can_be_read_without_the_key) {
  fill();
  EXPECT_FALSE(holding(place_.path("data"), row).empty()) << "the canary is not there at all";
  place_.must({"backup"});
  place_.archive_all(*cluster_);
  for (const char* needle :
       {"CANARY", "pg_filenode.map", "START WAL LOCATION", "archive_command"}) {
    EXPECT_EQ(holding(place_.repository(), needle), std::vector<std::string>{}) << needle;
  }
  // The sizes tell whether it was compressed; bytes of a sealed object look like noise.
  for (const fs::path& pack : objects(place_, "packs")) {
    const base::Bytes bytes = base::read_existing_file(pack);
    std::array<std::size_t, 256> counts{};
    for (const std::uint8_t byte : bytes) ++counts[byte];
    const auto most = *std::max_element(counts.begin(), counts.end());
    EXPECT_LT(most, bytes.size() / 256 * 3 / 2 + 100) << pack << " is not noise";
  }
}

TEST_F(Secrets, are_not_in_the_list_of_processes) {
  fill();
  const std::string key(
      base::text(base::read_existing_file(place_.path("holdfast.key"))).substr(0, 64));
  const fs::path pipe = place_.path("pipe");
  shell(place_, "mkfifo pipe");
  std::string text(base::text(base::read_existing_file(place_.configuration())));
  const std::string line = "key_file";
  const std::size_t at = text.find(line);
  text.replace(at, text.find('\n', at) - at,
               fmt::format("key_command = \"cat {} {}\"", pipe.string(), "holdfast.key"));
  base::replace_file(place_.configuration(), base::view(text), 0644);
  Running backup(place_, {"backup"}, {{"HOLDFAST_PASSPHRASE", std::string(passphrase)}});
  // Opening the pipe for writing returns when the key command reads: everything runs then.
  const int writer = ::open(pipe.c_str(), O_WRONLY | O_CLOEXEC);
  ASSERT_GE(writer, 0);
  int seen = 0;
  for (const auto& each : fs::directory_iterator("/proc")) {
    const auto command = base::read_file(each.path() / "cmdline");
    if (!command || command->empty()) continue;
    const std::string_view arguments = base::text(*command);
    if (arguments.find(place_.configuration().string()) != std::string_view::npos) ++seen;
    for (const std::string_view secret : {std::string_view(key), passphrase, password}) {
      EXPECT_EQ(arguments.find(secret), std::string_view::npos) << each.path();
    }
  }
  EXPECT_GT(seen, 0) << "holdfast was not seen";
  ::close(writer);
  EXPECT_EQ(backup.wait(), 0) << backup.said();
  EXPECT_EQ(backup.said().find("CANARY"), std::string::npos);
}

}  // namespace
}  // namespace holdfast::tests
