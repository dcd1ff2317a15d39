// `drill`: passes when all is well, fails with the reason in its record when it is not, disturbs
// nobody, and leaves nothing behind.

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <poll.h>
#include <atomic>
#include <thread>

#include "faults/faults.h"
#include "harness/witness.h"
#include "postgres/page.h"

namespace holdfast::tests {
namespace {

using nlohmann::json;

/// A port of this machine that counts who comes, and answers like a service that is ready as soon
/// as a file is there.
class Listener {
 public:
  explicit Listener(fs::path ready = {}) : ready_(std::move(ready)) {
    socket_ = base::Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* at = reinterpret_cast<sockaddr*>(&address);
    if (::bind(socket_.get(), at, size) != 0 || ::listen(socket_.get(), 16) != 0 ||
        ::getsockname(socket_.get(), at, &size) != 0) {
      throw std::runtime_error("could not listen");
    }
    port_ = ntohs(address.sin_port);
    thread_ = std::jthread([this](const std::stop_token& stop) { serve(stop); });
  }
  int port() const { return port_; }
  int guests() const { return guests_; }

 private:
  void serve(const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      pollfd waiting{socket_.get(), POLLIN, 0};
      if (::poll(&waiting, 1, 20) != 1) continue;
      const base::Fd guest(::accept(socket_.get(), nullptr, nullptr));
      ++guests_;
      std::array<char, 4096> request{};
      pollfd speaking{guest.get(), POLLIN, 0};
      if (::poll(&speaking, 1, 1000) == 1) {
        static_cast<void>(::recv(guest.get(), request.data(), request.size(), 0));
      }
      const std::string answer =
          fmt::format("HTTP/1.1 {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                      !ready_.empty() && fs::exists(ready_) ? "200 OK" : "503 Service Unavailable");
      static_cast<void>(::send(guest.get(), answer.data(), answer.size(), MSG_NOSIGNAL));
    }
  }

  fs::path ready_;
  base::Fd socket_;
  int port_ = 0;
  std::atomic<int> guests_ = 0;
  std::jthread thread_;
};

/// Processes that work in a scratch place below a directory.
std::vector<std::string> at_work_below(const fs::path& directory) {
  std::vector<std::string> found;
  for (const auto& process : fs::directory_iterator("/proc")) {
    const auto line = base::read_file(process.path() / "cmdline");
    if (!line || line->empty()) continue;
    const std::string text(base::text(*line));
    if (text.find((directory / "holdfast-scratch-").string()) != std::string::npos) {
      found.push_back(process.path().filename().string() + " " + text);
    }
  }
  return found;
}

class Drill : public testing::TestWithParam<int> {
 protected:
  explicit Drill(int major = 15) : source_(place_.cluster(major)) {
    configure(fmt::format("[drill]\ndirectory = \"{}\"", place_.path("scratch").string()));
    source_->sql("CREATE TABLE t (id serial PRIMARY KEY, v text)");
    insert(5000);
  }
  void configure(const std::string& lines) const {
    overwrite(place_.configuration(), text_of(place_.configuration()) + "\n" + lines + "\n");
  }
  void insert(int rows) const {
    source_->sql(
        fmt::format("INSERT INTO t (v) SELECT md5(i::text) FROM generate_series(1, {}) i", rows));
  }
  fs::path evidence() const { return place_.path("docs/audit/restore-drills"); }

  /// Drills, and looks whether command, record and log agree.
  json drill(const std::string& verdict, const std::vector<std::string>& options = {},
             const std::vector<std::pair<std::string, std::string>>& environment = {}) const {
    std::vector<std::string> arguments{"drill", "--json"};
    arguments.insert(arguments.end(), options.begin(), options.end());
    const Result result = place_.holdfast(arguments, environment);
    const int status = verdict == "pass"   ? 0
                       : verdict == "fail" ? status_of(base::Code::check_failed)
                                           : status_of(base::Code::inconclusive);
    EXPECT_EQ(result.status, status) << result.output << result.errors;
    const json said = result.json();
    EXPECT_EQ(said.at("verdict"), verdict) << result.output;
    const json record = json::parse(text_of(said.at("record").get<std::string>()));
    EXPECT_EQ(record.at("verdict"), verdict);
    EXPECT_EQ(record.at("notes"), said.at("notes"));
    EXPECT_NE(text_of(evidence() / "drill-log.md").find(said.at("id").get<std::string>()),
              std::string::npos);
    EXPECT_TRUE(at_work_below(place_.path("scratch")).empty());
    return said;
  }
  /// Drills, which must fail for this reason.
  json fails_for(const std::string& reason, const std::vector<std::string>& options = {}) const {
    json said = drill("fail", options);
    EXPECT_NE(said.at("notes").get<std::string>().find(reason), std::string::npos) << said.dump(2);
    EXPECT_TRUE(fs::exists(fs::path(said.at("remains").get<std::string>()) / "findings.txt"));
    return said;
  }
  std::string outcome_of(const json& said, const std::string& name) const {
    for (const json& check : said.at("checks")) {
      if (check.at("name").get<std::string>().find(name) != std::string::npos) {
        return check.at("outcome");
      }
    }
    return "there is no such check";
  }

  Place place_;
  std::unique_ptr<Cluster> source_;
};

class DrillOnEach : public Drill {
 protected:
  DrillOnEach() : Drill(GetParam()) {}
};
INSTANTIATE_TEST_SUITE_P(Versions, DrillOnEach, testing::Values(15, 17),
                         [](const auto& version) { return std::to_string(version.param); });

TEST_P(DrillOnEach, passes_end_to_end_and_leaves_its_record_only) {
  const Listener api(place_.path("ready"));
  const fs::path psql = installation(15).bin / "psql";
  configure(
      fmt::format("heartbeat = \"postgres.ops.heartbeat\"\n"
                  "api = \"\"\"{} \"$DATABASE_URL\" -Atc 'SELECT count(*) FROM t' > counted && mv "
                  "counted ready && exec sleep 100"
                  "\"\"\"\n"
                  "ready = \"http://127.0.0.1:{}/ready\"\n"
                  "[[drill.check]]\nname = \"all rows are there\"\ndatabase = \"postgres\"\n"
                  "sql = \"SELECT count(*) FROM public.t\"\nexpect = \"6000\"\n"
                  "[objectives]\nrpo = \"1h\"\nrto = \"1h\"",
                  psql.string(), api.port()));
  place_.must({"backup"});
  insert(1000);
  place_.must({"drill", "beat"});
  place_.archive_all(*source_);
  const json said = drill("pass");
  for (const char* name : {"target", "witness", "can be read", "emptied", "checksums", "amcheck",
                           "all rows are there", "heartbeat", "staging API", "RTO", "RPO"}) {
    EXPECT_EQ(outcome_of(said, name), "passed") << name << said.dump(2);
  }
  EXPECT_EQ(text_of(place_.path("ready")), "6000\n") << "the service saw the drill's database";
  std::int64_t sum = 0;
  for (const auto& [step, took] : said.at("steps").items()) {
    if (step != "teardown_ms") sum += took.get<std::int64_t>();
  }
  EXPECT_NEAR(static_cast<double>(said.at("rto_ms").get<std::int64_t>()), static_cast<double>(sum),
              6);
  EXPECT_GT(said.at("rpo_ms").get<std::int64_t>(), 0);
  EXPECT_LT(said.at("rpo_ms").get<std::int64_t>(), 60'000);
  EXPECT_TRUE(fs::is_empty(place_.path("scratch")));
  drill("fail", {"--random"});  // at most 5000 rows were there, or the beat was not
  EXPECT_EQ(drill("fail", {"--to", "immediate", "--full"}).at("rpo_ms"), nullptr);

  place_.must({"drill", "verify"});
  const Result alone = shell(
      place_, fmt::format("{} drill verify --key {}/signing-key.pub --records {}",
                          holdfast_binary().string(), evidence().string(), evidence().string()));
  EXPECT_EQ(alone.status, 0) << "with the public key alone: " << alone.errors;
  EXPECT_NE(place_.must({"drill", "--report"}).output.find("SOC 2 A1.3"), std::string::npos);
  const std::string record = text_of(said.at("record").get<std::string>());
  overwrite(said.at("record").get<std::string>(), record + " ");
  const Result tampered = place_.holdfast({"drill", "verify"});
  EXPECT_EQ(tampered.status, status_of(base::Code::check_failed));
  EXPECT_NE(tampered.output.find("was changed"), std::string::npos) << tampered.output;
}

TEST_F(Drill, fails_for_a_flipped_bit_in_a_pack) {
  place_.must({"backup"});
  fs::path largest;
  for (const fs::path& pack : objects(place_, "packs")) {
    if (largest.empty() || fs::file_size(pack) > fs::file_size(largest)) largest = pack;
  }
  flip_byte(largest, fs::file_size(largest) / 2);
  fails_for("restore: ");
}

TEST_F(Drill, fails_for_a_missing_segment) {
  place_.must({"backup"});
  insert(1);
  const std::string hole = finish_segment(place_, *source_);
  insert(1);
  finish_segment(place_, *source_);
  fs::remove(object_of(place_, *source_, "wal/00000001/" + hole));
  fails_for(fmt::format("segment {} is missing", hole));
}

TEST_F(Drill, fails_for_a_table_that_was_emptied_before_the_backup) {
  place_.must({"backup"});
  source_->sql("DELETE FROM t");
  place_.must({"backup"});
  const json said = fails_for("emptied before the backup: postgres.public.t has 0 rows");
  EXPECT_EQ(outcome_of(said, "witness"), "passed") << "the backup is perfect, and useless";
  place_.must({"backup"});
  drill("pass");  // it has been empty for long
}

TEST_F(Drill, fails_for_a_broken_index) {
  source_->sql("UPDATE pg_index SET indisready = false WHERE indexrelid = 't_pkey'::regclass");
  insert(10);
  source_->sql("UPDATE pg_index SET indisready = true WHERE indexrelid = 't_pkey'::regclass");
  place_.must({"backup"});
  const json said = fails_for("broken: postgres.public.t_pkey");
  EXPECT_NE(said.at("details").dump().find("lacks matching index tuple"), std::string::npos);
}

TEST_F(Drill, fails_for_a_service_that_cannot_connect_or_is_never_ready) {
  const Listener api;
  const fs::path psql = installation(15).bin / "psql";
  place_.must({"backup"});
  const std::string before = text_of(place_.configuration());
  configure(
      fmt::format("api = \"{} 'host=/nowhere' -c 'SELECT 1' || exit 3\"\n"
                  "ready = \"http://127.0.0.1:{}/ready\"",
                  psql.string(), api.port()));
  fails_for("staging API is ready: its command ended with status 3");
  overwrite(place_.configuration(), before);
  configure(
      fmt::format("api = \"exec sleep 100\"\nready_within = \"300ms\"\n"
                  "ready = \"http://127.0.0.1:{}/ready\"",
                  api.port()));
  fails_for("did not answer 200 within 300 ms: the last answer was 503");
}

TEST_F(Drill, fails_when_recovery_ends_before_its_target) {
  place_.must({"backup"});
  source_->sql("ALTER SYSTEM SET archive_command = '/bin/true'");
  source_->sql("SELECT pg_reload_conf()");
  fs::create_directory(place_.path("wal"));
  const auto archive = [&](bool broken) {
    insert(3000);
    const std::string name = current_segment(*source_);
    source_->sql("SELECT pg_switch_wal()");
    const fs::path copy = place_.path("wal") / name;
    fs::copy_file(source_->data_directory() / "pg_wal" / name, copy);
    place_.give_to_server_user(copy);
    // The archive holds what it was given, and PostgreSQL takes a bad record for the end of WAL.
    if (broken) flip_byte(copy, 100'000);
    place_.must({"wal", "push", copy.string()});
  };
  archive(true);
  archive(false);
  fails_for("recovery reached its target: replayed only to ");
}

/// Changes the pages of a table on the server's disk and makes their checksums right again. The
/// server has them in memory and does not notice.
void rot(const Cluster& cluster, const std::string& table,
         const std::function<void(base::MutableView page)>& change) {
  cluster.sql("CHECKPOINT");
  const fs::path file =
      cluster.data_directory() / cluster.sql("SELECT pg_relation_filepath('" + table + "')");
  base::Bytes bytes = base::read_existing_file(file);
  for (std::size_t at = 0; at < bytes.size(); at += postgres::page_size) {
    const base::MutableView page(bytes.data() + at, postgres::page_size);
    change(page);
    const auto block = static_cast<std::uint32_t>(at / postgres::page_size);
    base::store(page.data() + 8, postgres::page_checksum(page, block));
  }
  overwrite(file, base::text(bytes));
}

TEST_F(Drill, fails_for_rows_that_are_not_what_the_witness_saw) {
  source_->sql("CREATE TABLE u AS SELECT * FROM t LIMIT 500");
  source_->sql("SELECT count(*) FROM t");
  source_->sql("SELECT count(*) FROM u");
  rot(*source_, "t", [](base::MutableView page) {
    const std::string text(base::text(page));
    for (std::size_t at = text.find_first_of("0123456789abcdef", 2000); at + 32 < text.size();
         ++at) {
      const std::size_t end = std::min(text.find_first_not_of("0123456789abcdef", at), text.size());
      if (end - at >= 32) page[at] ^= 1U;
      at = end;
    }
  });
  constexpr std::size_t first_pointer = 24;
  rot(*source_, "u", [](base::MutableView page) {
    std::fill_n(page.begin() + first_pointer, 4 * 20, std::uint8_t{0});
  });
  place_.must({"backup"});
  const json said = fails_for("rows that the backup's witness saw are lost", {"--to", "immediate"});
  EXPECT_NE(said.at("notes").get<std::string>().find("are not what the backup's witness saw"),
            std::string::npos)
      << said.dump(2);
  EXPECT_EQ(outcome_of(said, "checksums"), "passed") << "nothing else tells";
  fails_for("rows that the backup's witness saw are lost");
}

class DrillOn17 : public Drill {
 protected:
  DrillOn17() : Drill(17) {}
};

TEST_F(DrillOn17, VE3_without_postgresql_is_inconclusive_and_recorded) {
  place_.must({"backup"});
  const json said = drill("inconclusive", {}, {{"HOLDFAST_PG_BIN", ""}});
  EXPECT_NE(said.at("notes").get<std::string>().find("could not find PostgreSQL 17"),
            std::string::npos)
      << said.dump(2);
}

TEST_F(Drill, RS6_disturbs_neither_archive_nor_publisher_and_needs_no_foreign_library) {
  const Listener publisher;
  source_->stop();
  source_->start({{"max_logical_replication_workers", "0"}});
  point_configuration_at(place_, *source_);
  source_->sql(
      fmt::format("CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1 port={} "
                  "connect_timeout=2' PUBLICATION p WITH (connect = false, slot_name = s)",
                  publisher.port()));
  source_->sql("ALTER SUBSCRIPTION s ENABLE");
  const fs::path settings = source_->data_directory() / "postgresql.conf";
  overwrite(settings, text_of(settings) +
                          "shared_preload_libraries = 'no_such_library, pg_cron'\n"
                          "ssl = on\nrecovery_end_command = 'touch " +
                          place_.path("ended").string() + "'\n");
  overwrite(source_->data_directory() / "pg_hba.conf", "local all all reject\n");
  place_.must({"backup"});
  place_.archive_all(*source_);
  const auto before = objects(place_, "wal");
  const json said = drill("pass");
  EXPECT_EQ(objects(place_, "wal"), before);
  EXPECT_EQ(publisher.guests(), 0);
  EXPECT_FALSE(fs::exists(place_.path("ended")));
  const json record = json::parse(text_of(said.at("record").get<std::string>()));
  EXPECT_EQ(record.at("facts").at("libraries left out"), "pg_cron, no_such_library");
}

TEST_F(Drill, leaves_no_server_behind_when_it_is_killed_and_the_next_one_cleans_up) {
  const Listener api;
  place_.must({"backup"});
  const std::string before = text_of(place_.configuration());
  configure(
      fmt::format("api = \"touch began && exec sleep 1000\"\n"
                  "ready = \"http://127.0.0.1:{}/ready\"",
                  api.port()));
  {
    Running running(place_, {"drill"});
    await([&] { return fs::exists(place_.path("began")); }, "the service is started");
    EXPECT_FALSE(at_work_below(place_.path("scratch")).empty());
    running.signal(SIGKILL);
    running.wait();
  }
  await([&] { return at_work_below(place_.path("scratch")).empty(); }, "the server is gone");
  EXPECT_FALSE(fs::is_empty(place_.path("scratch")));
  overwrite(place_.configuration(), before);
  drill("pass");
  EXPECT_TRUE(fs::is_empty(place_.path("scratch"))) << "VE17";
}

TEST_F(Drill, DS8_status_is_red_without_a_drill_after_a_failed_one_and_when_it_is_old) {
  place_.must({"backup"});
  const auto status = [&] { return place_.holdfast({"status"}); };
  const auto is_red_for = [&](const std::string& why) {
    const Result result = status();
    EXPECT_EQ(result.status, status_of(base::Code::check_failed));
    EXPECT_NE(result.output.find(why), std::string::npos) << result.output;
  };
  is_red_for("no drill has passed yet");
  drill("pass");
  EXPECT_EQ(status().status, 0) << status().output;
  const std::string before = text_of(place_.configuration());
  configure(
      "[[drill.check]]\nname = \"impossible\"\ndatabase = \"postgres\"\n"
      "sql = \"SELECT 'secret-value'\"\nexpect = \"other\"");
  const json said = fails_for("impossible: it yields another value than is expected");
  is_red_for("the newest drill's verdict is fail");
  for (const fs::path& file : files_below(evidence())) {
    EXPECT_EQ(text_of(file).find("secret-value"), std::string::npos) << "no value in " << file;
  }
  EXPECT_NE(text_of(fs::path(said.at("remains").get<std::string>()) / "findings.txt")
                .find("secret-value"),
            std::string::npos);
  overwrite(place_.configuration(), before);
  drill("pass");
  EXPECT_EQ(status().status, 0) << status().output;
  configure("[objectives]\ndrill_every = \"1ms\"");
  is_red_for("one every 1 ms is promised");
  overwrite(place_.configuration(), before + "\n[objectives]\ndrill_every = \"off\"\n");
  EXPECT_EQ(status().status, 0) << status().output;
}

}  // namespace
}  // namespace holdfast::tests
