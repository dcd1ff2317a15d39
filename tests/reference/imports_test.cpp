// Imports as clients see them: what is uploaded becomes rows, each exactly once, whatever dies.

#include <gtest/gtest.h>
#include <sys/mount.h>
#include <zlib.h>

#include <random>

#include "harness/reference.h"

namespace reference::tests {
namespace {

constexpr const char* comps_header =
    "building_name,building_address,tenant,area_m2,rent_per_m2,signed_on,term_months,note\n";

std::string comp(int number, const std::string& building = "Tower") {
  return building + ",1 Main St,Tenant " + std::to_string(number) + ",100.50,12,2026-01-31,60,\n";
}

std::string gzip(std::string text) {
  z_stream zlib{};
  EXPECT_EQ(deflateInit2(&zlib, 9, Z_DEFLATED, 15 + 16, 9, Z_DEFAULT_STRATEGY), Z_OK);
  std::string packed(deflateBound(&zlib, text.size()), '\0');
  zlib.next_in = reinterpret_cast<Bytef*>(text.data());
  zlib.avail_in = static_cast<uInt>(text.size());
  zlib.next_out = reinterpret_cast<Bytef*>(packed.data());
  zlib.avail_out = static_cast<uInt>(packed.size());
  EXPECT_EQ(deflate(&zlib, Z_FINISH), Z_STREAM_END);
  packed.resize(zlib.total_out);
  deflateEnd(&zlib);
  return packed;
}

class Imports : public ::testing::Test {
 protected:
  /// A job that was taken; its id.
  static std::string upload(Client& client, const std::string& kind, const std::string& csv) {
    const Answer answer = client.send("POST", "/import_jobs?kind=" + kind, csv, "text/csv");
    EXPECT_EQ(answer.status, 202) << answer.body;
    EXPECT_EQ(answer.header("Location"), "/import_jobs/" + answer.data().value("id", ""));
    return answer.data().at("id");
  }
  static json ended(Client& client, const std::string& id) {
    json job;
    eventually("the import has ended", [&] {
      const Answer answer = client.get("/import_jobs/" + id);
      if (answer.status != 200) return false;
      job = answer.data();
      return job["state"] != "queued" && job["state"] != "running";
    });
    return job;
  }
  std::string sql(const std::string& statement) const { return service_.cluster.sql(statement); }
  bool nothing_is_staged() const { return fs::is_empty(uploads()); }
  fs::path uploads() const { return service_.scratch() / "uploads"; }

  Service service_;
};

TEST_F(Imports, keep_good_rows_and_say_of_each_bad_one_what_is_wrong) {
  Client client = service_.client();
  const std::string csv = std::string("\xef\xbb\xbf") + comps_header + comp(1) +
                          "Tower,1 Main St,No area,,12,2026-01-31,60,\n"  // line 3
                          "\r\n" +
                          comp(2) +                                                    // 4, 5
                          "Tower,1 Main St,\"open,1,12,2026-01-31,60,\n" + comp(3) +   // 6, 7
                          "Tower,1 Main St,Day,1,12,2026-02-30,60,\n"                  // 8
                          "Tower,1 Main St,Few,1\n"                                    // 9
                          "Tower,1 Main St,Caf\xe9,1,12,2026-01-31,60,\n"              // 10
                          "Tower,1 Main St,Minus,-1,12,2026-01-31,60,\n"               // 11
                          "Annex,\"2 Main St, \"\"rear\"\"\",Last,1,0,2026-01-31,,x";  // 12
  const std::string id = upload(client, "comps", csv);
  const json job = ended(client, id);
  EXPECT_EQ(job["state"], "done") << job;
  EXPECT_EQ(job["rows_done"], 4);
  EXPECT_EQ(job["rows_failed"], 6);
  EXPECT_EQ(job["bytes_done"], csv.size());
  EXPECT_EQ(job["lines_done"], 12);

  const json errors = client.get("/import_jobs/" + id + "/errors").data();
  std::map<int, std::string> reasons;
  for (const json& each : errors["data"]) reasons[each["line"]] = each["reason"];
  EXPECT_EQ(reasons.size(), 6U) << errors;
  EXPECT_NE(reasons[3].find("area_m2 is missing"), std::string::npos);
  EXPECT_NE(reasons[6].find("quote"), std::string::npos);
  EXPECT_NE(reasons[8].find("signed_on"), std::string::npos);
  EXPECT_NE(reasons[9].find("fields"), std::string::npos);
  EXPECT_NE(reasons[10].find("UTF-8"), std::string::npos);
  EXPECT_NE(reasons[11].find("area_m2"), std::string::npos);
  const json page = client.get("/import_jobs/" + id + "/errors?after=6&limit=2").data();
  EXPECT_EQ(page["data"].size(), 2U);
  EXPECT_EQ(page["next"], 9);

  EXPECT_EQ(sql("SELECT string_agg(tenant, ',' ORDER BY import_line) FROM comps"),
            "Tenant 1,Tenant 2,Tenant 3,Last");
  EXPECT_EQ(sql("SELECT string_agg(address, '|' ORDER BY name) FROM buildings"),
            "2 Main St, \"rear\"|1 Main St");
  EXPECT_TRUE(nothing_is_staged());
  EXPECT_EQ(sql("SELECT count(*) FROM audit_logs WHERE organisation = 'org_ours' AND action ="
                " 'create' AND table_name IN ('comps', 'buildings')"),
            "6");
}

TEST_F(Imports, find_buildings_of_their_own_organisation_only) {
  Client ours = service_.client();
  Client theirs = service_.client("editor", Service::theirs);
  const std::string building =
      ours.make("buildings", {{"name", "TOWER"}, {"address", "1 main st"}});
  ended(ours, upload(ours, "comps", comps_header + comp(1)));
  const std::string id = upload(theirs, "comps", comps_header + comp(2));
  ended(theirs, id);
  EXPECT_EQ(sql("SELECT building FROM comps WHERE organisation = 'org_ours'"), building);
  EXPECT_EQ(sql("SELECT count(DISTINCT id) FROM buildings"), "2");
  EXPECT_EQ(ours.get("/import_jobs/" + id).status, 404);
  EXPECT_EQ(ours.get("/import_jobs/" + id + "/errors").status, 404);
  EXPECT_EQ(
      service_.client("viewer").send("POST", "/import_jobs?kind=comps", "x", "text/csv").status,
      403);
}

TEST_F(Imports, of_buildings_make_none_a_second_time) {
  Client client = service_.client();
  const std::string csv = "area_m2,Name,address\n1,A,x\n2,B,y\n3,a,X\n";
  EXPECT_EQ(ended(client, upload(client, "buildings", csv))["rows_done"], 2);
  const json again = ended(client, upload(client, "buildings", csv));
  EXPECT_EQ(again["rows_done"], 0);
  EXPECT_EQ(again["rows_failed"], 3);
  EXPECT_EQ(sql("SELECT count(*) FROM buildings"), "2");
}

TEST_F(Imports, that_are_sent_again_with_their_key_are_done_once) {
  Client client = service_.client();
  httplib::Client http("127.0.0.1", service_.api->port());
  const httplib::Headers headers = {
      {"Authorization", "Bearer " + service_.issuer.token(Service::ours, "editor")},
      {"Idempotency-Key", "monday"}};
  std::vector<std::string> ids;
  for (int time = 0; time < 2; ++time) {
    const auto result =
        http.Post("/import_jobs?kind=comps", headers, comps_header + comp(1), "text/csv");
    ASSERT_TRUE(result && result->status == 202);
    ids.push_back(json::parse(result->body)["id"]);
  }
  EXPECT_EQ(ids[0], ids[1]);
  ended(client, ids[0]);
  EXPECT_EQ(sql("SELECT count(*) FROM comps"), "1");
}

TEST_F(Imports, of_a_compressed_upload_that_was_cut_off_do_not_begin) {
  const std::string csv = comps_header + comp(1) + comp(2);
  const std::string packed = gzip(csv);
  const auto upload_packed = [&](const std::string& bytes) {
    httplib::Client http("127.0.0.1", service_.api->port());
    const httplib::Headers headers = {
        {"Authorization", "Bearer " + service_.issuer.token(Service::ours, "editor")},
        {"Content-Encoding", "gzip"}};
    const auto result = http.Post("/import_jobs?kind=comps", headers, bytes, "text/csv");
    return result ? *result : httplib::Response();
  };
  EXPECT_EQ(upload_packed(packed.substr(0, packed.size() / 2)).status, 400);
  EXPECT_EQ(upload_packed("\x1f\x8b").status, 400);
  EXPECT_EQ(sql("SELECT count(*) FROM import_jobs"), "0");
  EXPECT_TRUE(nothing_is_staged());
  const httplib::Response whole = upload_packed(packed);
  ASSERT_EQ(whole.status, 202) << whole.body;
  Client client = service_.client();
  EXPECT_EQ(ended(client, json::parse(whole.body)["id"])["rows_done"], 2);
}

TEST_F(Imports, that_cannot_be_meant_are_refused_or_fail_with_a_reason) {
  Client client = service_.client();
  const auto status = [&](const std::string& path, const std::string& type) {
    return client.send("POST", path, "a,b\n", type).status;
  };
  EXPECT_EQ(status("/import_jobs?kind=tims", "text/csv"), 400);
  EXPECT_EQ(status("/import_jobs", "text/csv"), 400);
  EXPECT_EQ(status("/import_jobs?kind=comps", "application/json"), 415);
  EXPECT_EQ(status("/import_jobs?kind=comps&file_name=%0a", "text/csv"), 400);
  const std::map<std::string, std::string> wrong = {{"name,city\nA,B\n", "address is missing"},
                                                    {"name,address,adress\nA,B,C\n", "no column"},
                                                    {"name,address,NAME\nA,B,C\n", "twice"},
                                                    {"\"name,address\nA,B\n", "quote"},
                                                    {"\n\n", "empty"},
                                                    {std::string("\0\0\0\0", 4), "NUL"},
                                                    {"\x89PNG\r\n\x1a\n", "UTF-8"}};
  for (const auto& [csv, reason] : wrong) {
    const json job = ended(client, upload(client, "buildings", csv));
    EXPECT_EQ(job["state"], "failed");
    EXPECT_NE(job["error"].get<std::string>().find(reason), std::string::npos) << job;
  }
  EXPECT_EQ(sql("SELECT count(*) FROM buildings"), "0");
  EXPECT_TRUE(nothing_is_staged());
}

/// Rows that look good here and that PostgreSQL refuses: they alone are bad.
TEST_F(Imports, lose_no_row_to_one_that_the_database_refuses) {
  sql("ALTER TABLE comps ADD CHECK (tenant <> 'Tenant 7')");
  Client client = service_.client();
  std::string csv = comps_header;
  for (int number = 1; number <= 20; ++number) csv += comp(number);
  const std::string id = upload(client, "comps", csv);
  const json job = ended(client, id);
  EXPECT_EQ(job["rows_done"], 19);
  EXPECT_EQ(client.get("/import_jobs/" + id + "/errors").data()["data"][0]["line"], 8);
  EXPECT_EQ(sql("SELECT count(*) FROM comps"), "19");
}

TEST_F(Imports, lose_and_double_no_row_when_they_are_killed_again_and_again) {
  Client before = service_.client();
  constexpr int rows = 20000;
  std::string csv = comps_header;
  for (int number = 1; number <= rows; ++number) {
    csv += number % 100 == 50 ? "bad\n" : comp(number, "Tower " + std::to_string(number % 37));
  }
  const std::string id = upload(before, "comps", csv);
  const auto lines = [&] {
    return std::stoll("0" + sql("SELECT lines_done FROM import_jobs WHERE id = '" + id + "'"));
  };
  std::mt19937 random(20261123);
  int kills = 0;
  for (long long goal = 1; goal < rows; goal += rows / 8) {
    eventually("it has come further", [&] { return lines() >= goal; });
    // Anywhere within a batch.
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 40000));
    service_.api->process().signal(SIGKILL);
    service_.api->process().wait();
    if (lines() < rows) ++kills;
    service_.start();
  }
  EXPECT_GE(kills, 3) << "it was quicker than the kills";
  Client client = service_.client();
  const json job = ended(client, id);
  EXPECT_EQ(job["state"], "done");
  EXPECT_EQ(job["rows_failed"], rows / 100);
  EXPECT_EQ(job["rows_done"], rows - rows / 100);
  EXPECT_EQ(sql("SELECT count(*) || ' ' || count(DISTINCT tenant) || ' ' ||"
                " count(DISTINCT import_line) FROM comps"),
            "19800 19800 19800");
  EXPECT_EQ(sql("SELECT count(*) FROM buildings"), "37");
  EXPECT_EQ(sql("SELECT count(*) FROM import_errors"), "200");
  EXPECT_EQ(sql("SELECT count(*) FROM audit_logs WHERE action = 'create' AND table_name = 'comps'"),
            "19800");
  EXPECT_TRUE(nothing_is_staged());
}

TEST_F(Imports, keep_rows_and_progress_together_or_neither) {
  // Each first attempt to write down the progress of a batch fails.
  sql("CREATE SEQUENCE attempts");
  sql("CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
      " IF nextval('attempts') % 2 = 1 THEN RAISE EXCEPTION 'no'; END IF; RETURN NEW; END $$");
  sql("CREATE TRIGGER fail BEFORE UPDATE ON import_jobs FOR EACH ROW EXECUTE FUNCTION fail()");
  Client client = service_.client();
  std::string csv = comps_header;
  for (int number = 1; number <= 700; ++number) csv += comp(number);
  const json job = ended(client, upload(client, "comps", csv));
  EXPECT_EQ(job["rows_done"], 700);
  EXPECT_EQ(job["rows_failed"], 0);
  EXPECT_EQ(sql("SELECT count(*) || ' ' || count(DISTINCT tenant) FROM comps"), "700 700");
  EXPECT_EQ(sql("SELECT last_value FROM attempts"), "4");
}

TEST_F(Imports, are_shared_by_two_processes) {
  Api second(service_.environment, service_.scratch() / "second.log");
  Client client = service_.client();
  Client other = second.client(service_.issuer.token(Service::ours, "editor"));
  std::vector<std::string> jobs;
  for (int job = 0; job < 6; ++job) {
    std::string csv = comps_header;
    for (int number = 0; number < 1500; ++number) csv += comp(job * 10000 + number);
    jobs.push_back(upload(job % 2 == 0 ? client : other, "comps", csv));
  }
  for (const std::string& job : jobs) {
    const json done = ended(client, job);
    EXPECT_EQ(done["rows_done"], 1500);
    EXPECT_EQ(done["rows_failed"], 0) << "both did the same lines";
  }
  EXPECT_EQ(sql("SELECT count(*) || ' ' || count(DISTINCT tenant) FROM comps"), "9000 9000");
  EXPECT_EQ(sql("SELECT count(*) FROM buildings"), "1");
}

TEST_F(Imports, fail_clearly_when_staging_is_gone_and_nothing_else_does) {
  Client client = service_.client();
  fs::rename(uploads(), service_.scratch() / "elsewhere");
  const Answer refused =
      client.send("POST", "/import_jobs?kind=comps", comps_header + comp(1), "text/csv");
  EXPECT_EQ(refused.status, 503) << refused.body;
  EXPECT_EQ(refused.code(), "staging_unavailable");
  EXPECT_EQ(client.get("/health").status, 200);
  EXPECT_EQ(client.get("/ready").status, 200);
  client.make("buildings", {{"name", "A"}, {"address", "x"}});
  EXPECT_EQ(client.get("/comps").status, 200);
  EXPECT_EQ(sql("SELECT count(*) FROM import_jobs"), "0");
  fs::rename(service_.scratch() / "elsewhere", uploads());
  EXPECT_EQ(ended(client, upload(client, "comps", comps_header + comp(1)))["state"], "done");
}

TEST_F(Imports, whose_file_vanished_fail_and_keep_what_they_have) {
  Client client = service_.client();
  std::string csv = comps_header;
  for (int number = 1; number <= 20000; ++number) csv += comp(number);
  const std::string id = upload(client, "comps", csv);
  eventually("some rows are there", [&] { return sql("SELECT count(*) FROM comps") != "0"; });
  for (const auto& entry : fs::directory_iterator(uploads())) fs::remove(entry.path());
  const json job = ended(client, id);
  EXPECT_EQ(job["state"], "failed");
  EXPECT_NE(job["error"].get<std::string>().find("staged file"), std::string::npos);
  EXPECT_EQ(sql("SELECT count(*) FROM comps"), std::to_string(job["rows_done"].get<int>()));
}

TEST_F(Imports, say_that_the_staging_disk_is_full) {
  if (::mount("tmpfs", uploads().c_str(), "tmpfs", 0, "size=64k,mode=0777") != 0) {
    GTEST_SKIP() << "only root may mount a small disk";
  }
  Client client = service_.client();
  std::string csv = comps_header;
  for (int number = 0; number < 5000; ++number) csv += comp(number);
  for (int time = 0; time < 2; ++time) {
    const Answer refused = client.send("POST", "/import_jobs?kind=comps", csv, "text/csv");
    EXPECT_EQ(refused.status, 507) << refused.body;
    EXPECT_EQ(refused.code(), "staging_full");
    EXPECT_TRUE(nothing_is_staged()) << "what was begun is removed";
  }
  EXPECT_EQ(client.get("/comps").status, 200);
  EXPECT_EQ(client.get("/ready").status, 200);
  EXPECT_EQ(ended(client, upload(client, "comps", comps_header + comp(1)))["state"], "done");
  ::umount(uploads().c_str());
}

TEST_F(Imports, go_on_after_their_connection_was_cut) {
  Client client = service_.client();
  std::string csv = comps_header;
  for (int number = 1; number <= 20000; ++number) csv += comp(number);
  const std::string id = upload(client, "comps", csv);
  for (int time = 0, before = 0; time < 3; ++time) {
    eventually("some more rows are there", [&] {
      const int now = std::stoi(sql("SELECT count(*) FROM comps"));
      return now > std::exchange(before, std::max(before, now));
    });
    EXPECT_NE(sql("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                  " WHERE application_name = 'reference-api'"),
              "0");
  }
  eventually("the service goes on", [&] { return client.get("/import_jobs/" + id).status == 200; });
  EXPECT_EQ(ended(client, id)["rows_done"], 20000);
  EXPECT_EQ(sql("SELECT count(*) || ' ' || count(DISTINCT tenant) FROM comps"), "20000 20000");
}

}  // namespace
}  // namespace reference::tests
