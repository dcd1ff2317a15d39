// Secrets: sealed beside the backups by the distribution's age, and back where they are needed.

#include <sys/resource.h>

#include <algorithm>

#include "base/error.h"
#include "base/http.h"
#include "harness/harness.h"
#include "repository/repository.h"
#include "service/environment_file.h"

namespace holdfast::tests {
namespace {

using base::Code;
using nlohmann::json;

const std::string harness_directory = HOLDFAST_SOURCE "/tests/harness/";
const std::string password = "CANARYp$a'ss\"w\\o#rd\nCANARY=";
const std::string token = "CANARYtokenCANARY";
const std::string binary = std::string("CANARY\0\xff\xfe", 9) + "binary";

int status_of(Code code) {
  return base::info(code).exit_status;
}

class Sealing : public ::testing::Test {
 protected:
  Sealing() {
    fs::create_directory(place_.repository());
    const auto key = repository::make_key_file(place_.path("key"));
    repository::Repository::create(store::open_store(place_.repository()),
                                   {{}, place_.path("key"), {}});
    on_call_ = make_identity("identity.txt");
    safe_ = make_identity("safe.txt");
    write("app.env",
          service::environment_text({{"DATABASE_URL", password}, {"TUNNEL_TOKEN", token}}));
    write("tunnel.json", binary);
    configure(fmt::format("recipients = [\"{}\"]\noffline = [\"{}\"]\n", on_call_, safe_));
  }
  /// Of a key of age, in a file; returns the public one.
  std::string make_identity(const std::string& name) {
    const std::string all = sh("age-keygen -o " + name + " 2>&1").output;
    return all.substr(all.find("age1"), all.find_last_not_of('\n') + 1 - all.find("age1"));
  }
  void write(const std::string& name, const std::string& text) {
    base::replace_file(place_.path(name), base::view(text), 0600);
    place_.give_to_server_user(place_.path(name));
  }
  void configure(const std::string& recipients) {
    write("holdfast.toml",
          "[cluster.main]\nconnection = \"x\"\n[repository.local]\nurl = \"" +
              place_.repository().string() + "\"\nkey_file = \"" + place_.path("key").string() +
              "\"\n[secrets]\n" + recipients +
              "env_files = [\"app.env\"]\n[secrets.files]\ntunnel = \"tunnel.json\"\n"
              "[secrets.commands]\nCOMMANDED = \"echo CANARYcommandedCANARY\"\n"
              "[secrets.about.DATABASE_URL]\nclass = \"database\"\nowner = \"platform\"\n");
    sh("true");  // and gives everything to the user that holdfast runs as
  }
  Result sh(const std::string& script,
            const std::vector<std::pair<std::string, std::string>>& environment = {}) {
    for (const auto& each : fs::recursive_directory_iterator(place_.path())) {
      place_.give_to_server_user(each.path());
    }
    base::Command command;
    command.argv = {"/bin/sh", "-c", script};
    command.directory = place_.path();
    command.environment = environment;
    const auto who = base::status_of(place_.path());
    if (base::running_as_root()) command.user = base::find_user(who->st_uid);
    const base::Outcome outcome = base::run(command);
    return {outcome.status, outcome.output, outcome.errors};
  }
  Result run(std::vector<std::string> arguments,
             const std::vector<std::pair<std::string, std::string>>& environment = {}) {
    arguments.insert(arguments.begin(), "secrets");
    Result result = place_.holdfast(arguments, environment);
    EXPECT_EQ((result.output + result.errors).find("CANARY"), std::string::npos) << "told it";
    return result;
  }
  void expect(Code code, const Result& result, std::string_view said) {
    EXPECT_EQ(result.status, status_of(code)) << result.output << result.errors;
    EXPECT_NE(result.errors.find(said), std::string::npos) << result.errors;
  }
  std::string content(const std::string& name) {
    return std::string(base::text(base::read_existing_file(place_.path(name))));
  }
  unsigned mode(const std::string& name) {
    return static_cast<unsigned>(base::status_of(place_.path(name))->st_mode & 07777);
  }

  Place place_;
  std::string on_call_;
  std::string safe_;
};

TEST_F(Sealing, opens_with_stock_age_by_each_recipient_alone) {
  const Result sealed = run({"seal"});
  ASSERT_EQ(sealed.status, 0) << sealed.errors;
  for (const char* identity : {"identity.txt", "safe.txt"}) {
    const json inside =
        sh(fmt::format("age -d -i {} repository/clusters/main/secrets/*.age", identity)).json();
    EXPECT_EQ(inside.at("values").at("DATABASE_URL"), password);
    EXPECT_EQ(inside.at("values").at("COMMANDED"), "CANARYcommandedCANARY");
    EXPECT_EQ(inside.at("values").at("tunnel"), base::to_hex(base::view(binary)));
  }
  EXPECT_NE(sh("grep -r CANARY repository").status, 0) << "it can be read without a key";
}

TEST_F(Sealing, brings_hostile_values_back_to_files_for_their_owner_alone) {
  run({"seal"});
  const auto restore = [&](const std::string& kind, const std::string& path) {
    return run({"restore", "--to", kind, "--path", path, "--identity", "safe.txt"});
  };
  ASSERT_EQ(restore("envfile", "new.env").status, 0);
  EXPECT_EQ(content("new.env"), "COMMANDED='CANARYcommandedCANARY'\n" + content("app.env"));
  EXPECT_EQ(mode("new.env"), 0600U);
  const Result directory = restore("compose-secrets", "run/secrets");
  ASSERT_EQ(directory.status, 0) << directory.errors;
  EXPECT_EQ(content("run/secrets/tunnel"), binary);
  EXPECT_EQ(content("run/secrets/DATABASE_URL"), password);
  EXPECT_EQ(mode("run/secrets"), 0700U);
  EXPECT_EQ(mode("run/secrets/tunnel"), 0400U);
  EXPECT_EQ(run({"verify", "--to", "compose-secrets", "--path", "run/secrets"}).status, 0);
  sh("chmod 600 run/secrets/tunnel; echo x > run/secrets/tunnel; rm run/secrets/COMMANDED");
  const Result wrong = run({"verify", "--to", "compose-secrets", "--path", "run/secrets"});
  EXPECT_EQ(wrong.status, status_of(Code::check_failed));
  EXPECT_NE(wrong.output.find("differs  tunnel"), std::string::npos) << wrong.output;
  EXPECT_NE(wrong.output.find("missing  COMMANDED"), std::string::npos) << wrong.output;
}

TEST_F(Sealing, seals_again_only_what_has_changed) {
  const json first = run({"seal", "--json"}).json();
  EXPECT_TRUE(first.at("sealed"));
  const json again = run({"seal", "--json"}).json();
  EXPECT_FALSE(again.at("sealed"));
  EXPECT_EQ(again.at("bundle"), first.at("bundle"));
  EXPECT_EQ(run({"diff"}).status, 0);
  write("app.env", "DATABASE_URL=other\nNEW=1\n");
  const Result diff = run({"diff", "--json"});
  EXPECT_EQ(diff.status, status_of(Code::check_failed));
  std::map<std::string, std::string> changes;
  const json different = diff.json();
  for (const json& each : different.at("secrets")) changes[each.at("name")] = each.at("change");
  EXPECT_EQ(changes, (std::map<std::string, std::string>{{"COMMANDED", "same"},
                                                         {"DATABASE_URL", "changed"},
                                                         {"NEW", "added"},
                                                         {"TUNNEL_TOKEN", "removed"},
                                                         {"tunnel", "same"}}));
  run({"seal"});
  const json list = run({"list", "--json"}).json();
  ASSERT_EQ(list.at("bundles").size(), 2U);
  const json secrets = list.at("bundles").back().at("secrets");
  const auto version = [&](std::string_view name) {
    return std::ranges::find_if(secrets, [&](const json& s) { return s.at("name") == name; })
        ->at("version");
  };
  EXPECT_EQ(version("DATABASE_URL"), 2);
  EXPECT_EQ(version("tunnel"), 1);
  const json plan = run({"rotate-plan", "--json"}).json();
  EXPECT_EQ(plan.at("secrets").at(0).at("rotate"), true);
}

TEST_F(Sealing, refuses_what_would_lose_or_tell_them) {
  configure(fmt::format("recipients = [\"{}\", \"{}\"]\n", on_call_, safe_));
  expect(Code::refused, run({"seal"}), "no recipient is off line");
  configure(fmt::format("recipients = [\"{0}\"]\noffline = [\"{0}\"]\n", on_call_));
  expect(Code::refused, run({"seal"}), "one recipient alone");
  configure("recipients = [\"AGE-SECRET-KEY-CANARY\"]\n");
  expect(Code::configuration, run({"seal"}), "secret key");
  configure("offline = [\"age1qqqqqqqqqqqqqqqqqqqqqqqq\"]\nrecipients = [\"" + on_call_ + "\"]\n");
  expect(Code::configuration, run({"seal"}), "age says");
  EXPECT_EQ(sh("ls repository/clusters").status, 2) << "something was stored";
}

TEST_F(Sealing, says_the_way_out_where_it_cannot_go_on) {
  const std::vector<std::string> restore = {"restore", "--to", "envfile", "--path", "new.env"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), restore.begin(), restore.end());
    return run(more);
  };
  expect(Code::not_found, with({}), "holdfast secrets seal");
  run({"seal"});
  expect(Code::key, with({}), "--identity");
  make_identity("stranger.txt");
  expect(Code::key, with({"--identity", "stranger.txt"}), "age says");
  expect(Code::usage, run({"restore", "--to", "vault", "--identity", "safe.txt"}), "VAULT_ADDR");
  write("new.env", "DATABASE_URL=newer\nOTHER=1\n");
  expect(Code::refused, with({"--identity", "safe.txt"}), "OTHER");
  EXPECT_EQ(with({"--identity", "safe.txt", "--dry-run"}).status, 0);
  EXPECT_EQ(content("new.env"), "DATABASE_URL=newer\nOTHER=1\n");
  EXPECT_EQ(with({"--identity", "safe.txt", "--replace"}).status, 0);
  EXPECT_EQ(content("new.env"), "COMMANDED='CANARYcommandedCANARY'\n" + content("app.env"));
  EXPECT_EQ(content("new.env.previous"), "DATABASE_URL=newer\nOTHER=1\n");
  ASSERT_EQ(sh("f=$(ls repository/clusters/main/secrets/*.age); chmod u+w $f; echo x >> $f").status,
            0);
  expect(Code::corrupt, with({"--identity", "safe.txt"}), "not as it was written");
}

// While age runs, the values are in memory: nothing else may have them then (EK10).
TEST_F(Sealing, is_seen_by_nobody_in_arguments_files_or_cores) {
  fs::create_directory(place_.path("bin"));
  write("bin/age",
        "#!/bin/sh\ncat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' >> seen\n"
        "tr '\\0' '\\n' < /proc/self/environ >> seen\nulimit -c >> core\n"
        "exec /usr/bin/age \"$@\"\n");
  sh("chmod 755 bin/age");
  const std::vector<std::pair<std::string, std::string>> path = {
      {"PATH", place_.path("bin").string() + ":/usr/bin:/bin"}};
  rlimit limit{};  // children may dump core, unless somebody forbids it
  ::getrlimit(RLIMIT_CORE, &limit);
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_CORE, &limit);
  ASSERT_EQ(run({"seal"}, path).status, 0);
  const Result back =
      run({"restore", "--to", "compose-secrets", "--path", "back", "--identity", "safe.txt"}, path);
  ASSERT_EQ(back.status, 0) << back.errors;
  const std::string seen = content("seen");
  EXPECT_NE(seen.find("secrets seal"), std::string::npos) << "holdfast itself was not seen";
  EXPECT_EQ(seen.find("CANARY"), std::string::npos);
  EXPECT_EQ(content("core"), "0\n0\n");
  const Result found = sh("grep -rl CANARY . | sort");
  EXPECT_EQ(found.output,
            "./app.env\n./back/COMMANDED\n./back/DATABASE_URL\n./back/TUNNEL_TOKEN\n"
            "./back/tunnel\n./holdfast.toml\n./tunnel.json\n");
}

/// AWS Secrets Manager and Vault.
class Stores : public Sealing {
 protected:
  Stores() {
    base::Command command;
    command.argv = {"python3", harness_directory + "secret_stores.py"};
    fake_ = std::make_unique<base::Child>(command, place_.path("port"));
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (!content("port").ends_with("\n") && std::chrono::steady_clock::now() < end) {
      if (fake_->wait_for(std::chrono::milliseconds(20))) break;
    }
    url_ = "http://127.0.0.1:" + content("port");
    url_.pop_back();
    environment_ = {{"AWS_ACCESS_KEY_ID", "AKID"}, {"AWS_SECRET_ACCESS_KEY", "SECRET"},
                    {"AWS_REGION", "eu-west-1"},   {"AWS_ENDPOINT_URL_SECRETS_MANAGER", url_},
                    {"VAULT_ADDR", url_},          {"VAULT_TOKEN", "TOKEN"}};
    run({"seal"});
  }
  Result restore(const std::string& kind, std::vector<std::string> more = {}) {
    more.insert(more.begin(),
                {"restore", "--to", kind, "--prefix", "prod/", "--identity", "identity.txt"});
    return run(more, environment_);
  }
  json seen(const std::string& kind) {
    return json::parse(base::http_get(url_ + "/seen", std::chrono::seconds(10)).body).at(kind);
  }
  std::unique_ptr<base::Child> fake_;
  std::string url_;
  std::vector<std::pair<std::string, std::string>> environment_;
};

TEST_F(Stores, of_aws_get_each_value_once_as_botocore_reads_it) {
  const Result made = restore("aws-sm");
  ASSERT_EQ(made.status, 0) << made.errors;
  EXPECT_EQ(restore("aws-sm").status, 0);
  const json stored = seen("aws");
  for (const auto& [name, versions] : stored.items()) EXPECT_EQ(versions.size(), 1U) << name;
  const auto by_botocore = [&](const std::string& name) {
    // The checkout may be closed to the user that this runs as.
    const fs::path script = place_.path("secret_stores.py");
    fs::copy_file(harness_directory + "secret_stores.py", script,
                  fs::copy_options::overwrite_existing);
    return sh("python3 " + script.string() + " --client " + url_ + " " + name);
  };
  EXPECT_EQ(by_botocore("prod/DATABASE_URL").output, password)
      << by_botocore("prod/DATABASE_URL").errors;
  EXPECT_EQ(by_botocore("prod/tunnel").output, base::to_hex(base::view(binary)));
  const std::vector<std::string> verify = {"verify", "--to", "aws-sm", "--prefix", "prod/"};
  EXPECT_EQ(run(verify, environment_).status, 0);
  write("app.env", "DATABASE_URL=CANARYnew\nTUNNEL_TOKEN=CANARYnew\n");
  run({"seal"});
  EXPECT_EQ(run(verify, environment_).status, status_of(Code::check_failed));
  expect(Code::refused, restore("aws-sm"), "DATABASE_URL");
  EXPECT_EQ(restore("aws-sm", {"--replace"}).status, 0);
  EXPECT_EQ(seen("aws").at("prod/DATABASE_URL").size(), 2U);
  EXPECT_EQ(run(verify, environment_).status, 0);
  environment_[1].second = "WRONG";
  expect(Code::permission, restore("aws-sm"), "InvalidSignatureException");
}

TEST_F(Stores, of_vault_get_each_value_once_on_top_of_what_was_read) {
  const Result made = restore("vault");
  ASSERT_EQ(made.status, 0) << made.errors;
  EXPECT_EQ(restore("vault").status, 0);
  const std::string path = "/v1/secret/data/prod/DATABASE_URL";
  EXPECT_EQ(seen("vault").at(path), json::array({{{"value", password}}}));
  EXPECT_EQ(run({"verify", "--to", "vault", "--prefix", "prod/"}, environment_).status, 0);
  base::HttpRequest removal;  // a version that was deleted counts
  removal.method = "DELETE";
  removal.url = url_ + path;
  base::HttpClient().ask(removal);
  EXPECT_EQ(run({"verify", "--to", "vault", "--prefix", "prod/"}, environment_).status,
            status_of(Code::check_failed));
  EXPECT_EQ(restore("vault").status, 0);
  EXPECT_EQ(seen("vault").at(path).size(), 3U);
  environment_[5].second = "WRONG";
  expect(Code::permission, restore("vault"), "status 403");
  environment_[4].second = "http://example.org";
  expect(Code::refused, restore("vault"), "not https");
}

/// The commands of a section of a document: its lines that begin with four spaces.
std::vector<std::string> commands_in(const std::string& document, const std::string& heading) {
  std::vector<std::string> lines;
  const std::size_t begin = document.find("## " + heading);
  std::istringstream section(document.substr(begin, document.find("\n## ", begin) - begin));
  bool code = false;
  for (std::string line; std::getline(section, line);) {
    if (line.starts_with("```")) code = !code;
    if (!code && line.starts_with("    ")) lines.push_back(line.substr(4));
  }
  return lines;
}

TEST_F(Sealing, goes_as_its_document_says) {
  const std::string document(
      base::text(base::read_existing_file(HOLDFAST_SOURCE "/docs/security/secrets-management.md")));
  fs::create_directory(place_.path("bin"));
  write("bin/pass", "#!/bin/sh\necho CANARY\n");
  write("bin/holdfast", "#!/bin/sh\nexec " + holdfast_binary().string() + " --config " +
                            place_.configuration().string() + " \"$@\"\n");
  sh("chmod 755 bin/*; rm identity.txt");
  const auto execute = [&](const std::string& heading, std::size_t expected) {
    const auto commands = commands_in(document, heading);
    EXPECT_EQ(commands.size(), expected) << heading;
    for (const std::string& each : commands) {
      const Result done = sh("PATH=$PWD/bin:$PATH; " + each);
      EXPECT_EQ(done.status, 0) << each << ": " << done.errors;
      if (!each.starts_with("age-keygen")) continue;
      const std::size_t begin = document.find("[secrets]");
      std::string toml = document.substr(begin, document.find("```", begin) - begin);
      for (const std::string& key : {done.errors.substr(done.errors.find("age1"), 62), safe_}) {
        toml.replace(toml.find("age1..."), 7, key);
      }
      const std::string text = content("holdfast.toml");
      write("holdfast.toml", text.substr(0, text.find("[secrets]")) + toml);
    }
  };
  execute("Setting it up", 3);
  execute("The machine is gone", 6);
}

// The objects beside the backups: read by verify, kept by expire.
TEST(SecretBundles, are_checked_by_verify_and_kept_by_expire) {
  Place place;
  const auto cluster = place.cluster();
  place.must({"backup"});
  base::Command keygen;
  std::vector<std::string> keys;
  for (const char* name : {"one", "two"}) {
    keygen.argv = {"age-keygen", "-o", place.path(name).string()};
    keys.push_back(base::run(keygen).errors.substr(12, 62));
  }
  const std::string before(base::text(base::read_existing_file(place.configuration())));
  base::replace_file(place.configuration(),
                     base::view(before + fmt::format("[secrets]\nrecipients=[\"{}\"]\n"
                                                     "offline=[\"{}\"]\n[secrets.commands]\n"
                                                     "X=\"echo x\"\n",
                                                     keys[0], keys[1])),
                     0644);
  place.must({"secrets", "seal"});
  place.must({"backup"});
  place.must({"expire", "--yes"});
  EXPECT_EQ(place.must({"verify", "--json"}).json().at("secret_bundles"), 1);
  EXPECT_NE(place.must({"init", "--recovery-kit"}).output.find("age --decrypt"), std::string::npos);
  for (const auto& each : fs::directory_iterator(place.repository() / "clusters/main/secrets")) {
    if (each.path().extension() != ".age") continue;
    base::Bytes bytes = base::read_existing_file(each.path());
    bytes.back() ^= 1;
    base::replace_file(each.path(), bytes, 0644);
  }
  const Result damaged = place.holdfast({"verify"});
  EXPECT_EQ(damaged.status, status_of(Code::check_failed));
  EXPECT_NE(damaged.output.find("PROBLEM  secrets"), std::string::npos) << damaged.output;
}

// Half a bundle is none, whichever half it is: who relies on it must hear of it.
TEST(SecretBundles, of_which_only_half_is_there_are_a_finding_of_verify) {
  Place place;
  const auto cluster = place.cluster();
  place.must({"backup"});
  const fs::path secrets = place.repository() / "clusters/main/secrets";
  const auto found = [&](const std::string& name) {
    fs::create_directories(secrets);
    base::replace_file(secrets / name, base::view("half"), 0644);
    const Result verified = place.holdfast({"verify", "--json"});
    fs::remove(secrets / name);
    EXPECT_EQ(verified.status, status_of(Code::check_failed)) << verified.errors;
    return verified.json().at("problems").dump();
  };
  EXPECT_NE(found("0193.age").find("secrets 0193: nothing describes this bundle"),
            std::string::npos);
  EXPECT_NE(found("0193.json").find("secrets 0193"), std::string::npos);
  EXPECT_EQ(place.must({"verify", "--json"}).json().at("problems"), nlohmann::json::array());
}

}  // namespace
}  // namespace holdfast::tests
