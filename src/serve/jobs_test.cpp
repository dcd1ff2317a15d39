#include "serve/jobs.h"

#include <gtest/gtest.h>

#include "base/testing.h"

namespace holdfast::serve {
namespace {

operations::Configuration configuration(const std::string& text) {
  return operations::parse_configuration(
      "[cluster.a]\nconnection = \"host=a\"\n[cluster.b]\nconnection = \"host=b\"\n"
      "[repository.local]\nurl = \"file:///nowhere\"\nkey_file = \"/key\"\n" +
          text,
      "/etc/holdfast.toml");
}

std::vector<std::string> jobs(const std::string& text) {
  std::vector<std::string> lines;
  for (const Job& each : jobs_of(configuration(text))) {
    std::string line = each.name + ":";
    for (const std::string& word : each.arguments) line += " " + word;
    lines.push_back(line + (each.follows.empty() ? "" : " after " + each.follows));
  }
  return lines;
}

TEST(Jobs, are_commands_that_a_person_could_run) {
  EXPECT_EQ(jobs("[schedule]\nbackup = \"daily 02:00\"\ndrill = \"after every backup\"\n"
                 "expire = \"hourly\"\n"),
            (std::vector<std::string>{
                "backup.a: backup --cluster a",
                "drill.a: drill --by holdfast serve --cluster a after backup.a",
                "expire.a: expire --yes --cluster a", "backup.b: backup --cluster b",
                "drill.b: drill --by holdfast serve --cluster b after backup.b",
                "expire.b: expire --yes --cluster b"}));
  EXPECT_EQ(
      jobs("[serve]\nwal_receive = true\n[probe.web]\nurl = \"http://x/\"\n"),
      (std::vector<std::string>{"wal-receive.a: wal receive --cluster a",
                                "wal-receive.b: wal receive --cluster b", "probe: probe --watch"}));
  EXPECT_TRUE(jobs("").empty());
}

TEST(Jobs, DS10_what_could_never_run_is_refused) {
  for (const char* text :
       {"[schedule]\nbackup = \"nightly\"", "[schedule]\nbackup = \"after every backup\"",
        "[schedule]\ndrill = \"after every backup\"", "[schedule]\ntimezone = \"Nowhere\"",
        "[schedule]\nexpire = \"0 0 31 2 *\"", "[schedule]\nbackups = \"daily 02:00\"",
        "[schedule]\njitter = \"13h\"", "[alert]\nwebhook = \"ftp://x\"",
        "[alert]\nemail = \"-oQ/tmp@x\"", "[alert]\nemail = \"a@x\\nBcc: b@x\"",
        "[serve]\ncheck_every = \"7h\"", "[serve]\nlisten = \"0.0.0.0:9187\"",
        "[serve]\nlisten = \"nonsense\""}) {
    EXPECT_EQ(base::testing::code_of([&] { jobs(text); }), base::Code::configuration) << text;
  }
}

}  // namespace
}  // namespace holdfast::serve
