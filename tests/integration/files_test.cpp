// Files that go along with a backup: never in its way, and back as they were.

#include <fcntl.h>

#include "faults/faults.h"
#include "harness/witness.h"

namespace holdfast::tests {
namespace {

using base::Code;

class Files : public ::testing::Test {
 protected:
  Files() : cluster_(place_.cluster()) {
    fs::create_directories(source() / "sub");
    overwrite(source() / "app.env", "KEY=value\n");
    overwrite(source() / "sub" / "large", std::string((3 << 20) + 17, 'x'));
    overwrite(source() / "sub.txt", "");
    fs::create_symlink("/etc/shadow", source() / "sub" / "link");
    configure("[files.config]\npath = \"" + source().string() + "\"\n");
    base::run(
        shell("chmod 0640 app.env && chmod 0750 sub && touch -d 2020-02-02T02:02:02Z sub/large "
              "&& touch -d 2021-01-01T01:01:01Z sub"));
    give(source());
  }
  fs::path source() const { return place_.path("config.d"); }
  base::Command shell(const std::string& line) const {
    base::Command command;
    command.argv = {"sh", "-c", line};
    command.directory = source();
    return command;
  }
  /// To whom the binary runs as.
  void give(const fs::path& path) const {
    if (const auto user = server_user_if_root()) {
      base::Command command;
      command.argv = {"chown", "-hR", std::to_string(user->uid), path.string()};
      ASSERT_EQ(base::run(command).status, 0);
    }
  }
  void configure(const std::string& files) {
    if (without_.empty()) without_ = text_of(place_.configuration());
    overwrite(place_.configuration(), without_ + "\n" + files);
  }
  /// Names, modes, times, targets and contents below a directory.
  static std::string looks(const fs::path& directory) {
    base::Command command;
    command.argv = {"sh", "-c",
                    "find . -printf '%P %y %#m %u %T@ %l\\n' | sort; find . -type f | sort | "
                    "xargs sha256sum"};
    command.directory = directory;
    return base::run(command).output;
  }
  nlohmann::json list() const { return place_.must({"files", "list", "--json"}).json()["files"]; }
  fs::path only_set() const {
    for (const fs::path& each : files_below(place_.repository() / "clusters")) {
      if (each.filename() == "config") return each;
    }
    return {};
  }

  Place place_;
  std::unique_ptr<Cluster> cluster_;
  std::string without_;
};

TEST_F(Files, go_along_with_a_backup_and_come_back_as_they_were) {
  const std::string before = looks(source());
  const nlohmann::json made = place_.must({"backup", "--json"}).json();
  EXPECT_EQ(made.at("files_taken").at(0).at("entries"), 6) << made.dump(2);
  ASSERT_EQ(list().size(), 1U);
  EXPECT_EQ(list()[0].at("backup"), made.at("id"));
  fs::rename(source(), source().string() + ".gone");
  place_.must({"files", "restore", "config", source().string()});
  EXPECT_EQ(looks(source()), before);
  const Result again = place_.holdfast({"files", "restore", "config", source().string()});
  EXPECT_EQ(again.status, status_of(Code::refused)) << "nothing that is there is touched";
  EXPECT_EQ(place_.holdfast({"files", "restore", "none", place_.path("x").string()}).status,
            status_of(Code::not_found));
  EXPECT_EQ(place_.must({"verify", "--json"}).json().at("file_sets"), 1);
}

TEST_F(Files, that_are_not_there_cannot_be_read_or_are_too_much_do_not_make_a_backup_fail) {
  overwrite(source() / "secret", "x");
  base::run(shell("chown root secret; chmod 0 secret; mkfifo pipe; truncate -s 2G ../huge"));
  configure(
      "[files.absent]\npath = \"/nowhere/at/all\"\n[files.config]\npath = \"config.d\"\n"
      "[files.huge]\npath = \"huge\"\n");
  give(place_.path("huge"));
  const Result made = place_.holdfast({"backup", "--json"});
  ASSERT_EQ(made.status, 0) << made.errors;
  const auto taken = made.json().at("files_taken");
  EXPECT_NE(taken[0].at("note").dump().find("is not there"), std::string::npos);
  EXPECT_EQ(made.errors.find("absent"), std::string::npos) << "is no reason to warn";
  EXPECT_NE(made.errors.find("left out \"" + (source() / "pipe").string()), std::string::npos)
      << made.errors;
  EXPECT_NE(made.errors.find("left out \"" + (source() / "secret").string()), std::string::npos)
      << made.errors;
  EXPECT_NE(taken[2].at("note").dump().find("more than 1.0 GiB"), std::string::npos);
  ASSERT_EQ(list().size(), 1U);
  EXPECT_EQ(list()[0].at("left_out"), 2);
  EXPECT_EQ(place_.must({"verify", "--json"}).json().at("ok"), true);
}

TEST_F(Files, that_are_written_to_while_they_are_read_are_stored_and_marked) {
  std::jthread writer([&](const std::stop_token& stop) {
    const base::Fd file = base::open_file(source() / "sub" / "large", O_WRONLY);
    for (std::uint64_t at = 0; !stop.stop_requested(); ++at) {
      base::write_at(file, base::view("y"), at % 1000, "large");
    }
  });
  place_.must({"backup"});
  writer.request_stop();
  writer.join();
  EXPECT_EQ(list()[0].at("changed_meanwhile"), 1);
  place_.must({"files", "restore", "config", place_.path("back").string()});
  EXPECT_EQ(fs::file_size(place_.path("back") / "sub" / "large"), (3U << 20) + 17);
}

TEST_F(Files, are_kept_as_long_as_was_promised_and_no_longer_whatever_becomes_of_the_backup) {
  configure("[files.config]\npath = \"config.d\"\nkeep = \"1s\"\n");
  place_.must({"snapshot", "--reason", "pinned"});
  configure("[files.config]\npath = \"config.d\"\nkeep = \"1h\"\n");
  const auto end = base::from_iso(list()[0].at("until").get<std::string>());
  eventually("what was promised is over", [&] { return base::now() > end; });
  place_.must({"expire", "--yes"});
  EXPECT_EQ(list().size(), 1U) << "the configuration promises more now";
  configure("");
  const auto plan = place_.must({"expire", "--dry-run", "--json"}).json();
  EXPECT_EQ(plan.at("files").size(), 1U);
  place_.must({"expire", "--yes"});
  EXPECT_EQ(list().size(), 0U) << "the pin is the backup's";
  EXPECT_EQ(place_.must({"list", "--json"}).json().at("backups").size(), 1U);
}

TEST_F(Files, that_were_damaged_are_a_finding_and_leave_nothing_behind) {
  place_.must({"backup"});
  base::Bytes bytes = base::read_existing_file(only_set());
  bytes[200] ^= 1;
  base::replace_file(only_set(), bytes, 0644);
  const Result verified = place_.holdfast({"verify"});
  EXPECT_EQ(verified.status, status_of(Code::check_failed));
  EXPECT_NE(verified.output.find("PROBLEM  files config"), std::string::npos) << verified.output;
  fs::create_directory(place_.path("there"));
  give(place_.path("there"));
  const fs::path back = place_.path("there") / "back";
  EXPECT_EQ(place_.holdfast({"files", "restore", "config", back.string()}).status,
            status_of(Code::corrupt));
  EXPECT_TRUE(fs::is_empty(place_.path("there")));
}

}  // namespace
}  // namespace holdfast::tests
