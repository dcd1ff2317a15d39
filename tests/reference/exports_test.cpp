// Exports as clients see them: all rows of one moment, or a download that visibly broke off.

#include <gtest/gtest.h>

#include "harness/reference.h"

namespace reference::tests {
namespace {

class Exports : public ::testing::Test {
 protected:
  std::string download_path(const std::string& kind, const std::string& organisation = ours) const {
    Client client = service_.client("editor", organisation);
    return "/exports/" + client.make("exports", {{"kind", kind}}) + "/download";
  }
  static constexpr const char* ours = Service::ours;
  std::string sql(const std::string& statement) const { return service_.cluster.sql(statement); }
  void make_buildings(int count, const std::string& organisation = ours) const {
    sql("INSERT INTO buildings (organisation, name, address) SELECT '" + organisation +
        "', 'Building ' || n, repeat('address ', 20) || n FROM generate_series(1, " +
        std::to_string(count) + ") AS n");
  }
  static std::vector<std::string> lines(const std::string& text) {
    std::vector<std::string> found;
    std::size_t at = 0;
    for (std::size_t end; (end = text.find("\r\n", at)) != std::string::npos; at = end + 2) {
      found.push_back(text.substr(at, end - at));
    }
    if (at < text.size()) found.push_back("unfinished: " + text.substr(at));
    return found;
  }

  Service service_;
};

TEST_F(Exports, give_the_rows_of_their_organisation_as_csv) {
  Client client = service_.client();
  const std::string building = client.make(
      "buildings", {{"name", "Tower \"A\", rear"}, {"address", "1 Main St"}, {"area_m2", 12.5}});
  client.make("comps", {{"building", building},
                        {"tenant", "=HYPERLINK(\"http://evil\")"},
                        {"area_m2", 100},
                        {"rent_per_m2", 7.25},
                        {"signed_on", "2026-01-31"},
                        {"note", "-5 is a note"}});
  make_buildings(3, Service::theirs);
  const Answer buildings = client.get(download_path("buildings"));
  ASSERT_EQ(buildings.status, 200);
  EXPECT_EQ(lines(buildings.body).size(), 2U) << buildings.body;
  EXPECT_EQ(lines(buildings.body)[0], "id,name,address,city,area_m2,created_at,updated_at");
  EXPECT_TRUE(lines(buildings.body)[1].starts_with(building +
                                                   ",\"Tower \"\"A\"\", rear\",1 Main St,,12.50,"))
      << buildings.body;
  EXPECT_TRUE(buildings.header("Content-Type").starts_with("text/csv"));
  EXPECT_TRUE(buildings.header("Content-Disposition").starts_with("attachment; filename=\"build"));
  const Answer comps = client.get(download_path("comps"));
  EXPECT_NE(comps.body.find("\"'=HYPERLINK(\"\"http://evil\"\")\",100.00,7.25,2026-01-31,,'-5 is"),
            std::string::npos)
      << comps.body;
  EXPECT_EQ(client.get(download_path("tims")).body.find('\n'),
            client.get(download_path("tims")).body.size() - 1);
}

TEST_F(Exports, can_be_imported_again_as_they_were) {
  Client client = service_.client();
  const std::string building =
      client.make("buildings", {{"name", "@Tower, \"A\""}, {"address", "'1' Main St"}});
  for (const char* tenant : {"=1+1", "'quoted'", "plain", "+x,y", "größe", "-"}) {
    client.make("comps", {{"building", building},
                          {"tenant", tenant},
                          {"area_m2", 1},
                          {"rent_per_m2", 0},
                          {"signed_on", "2026-01-31"}});
  }
  const std::string csv = client.get(download_path("comps")).body;
  Client theirs = service_.client("editor", Service::theirs);
  const Answer job = theirs.send("POST", "/import_jobs?kind=comps", csv, "text/csv");
  ASSERT_EQ(job.status, 202);
  eventually("it is imported", [&] {
    return theirs.get("/import_jobs/" + job.data()["id"].get<std::string>()).data()["state"] ==
           "done";
  });
  const auto content = [&](const std::string& of) {
    return sql(
        "SELECT string_agg(concat_ws('|', b.name, b.address, c.tenant, c.area_m2,"
        " c.rent_per_m2, c.signed_on), ';' ORDER BY c.tenant) FROM comps AS c JOIN buildings"
        " AS b ON b.id = c.building WHERE c.organisation = '" +
        of + "'");
  };
  EXPECT_EQ(content(Service::theirs), content(Service::ours));
}

TEST_F(Exports, hold_all_rows_of_one_moment_in_little_memory) {
  constexpr int count = 200'000;
  make_buildings(count);
  const std::string path = download_path("buildings");
  httplib::Client http("127.0.0.1", service_.api->port());
  std::size_t bytes = 0;
  std::size_t rows = 0;
  bool is_changed = false;
  const auto result = http.Get(
      path, {{"Authorization", "Bearer " + service_.issuer.token(ours, "viewer")}},
      [&](const char* data, std::size_t size) {
        if (!std::exchange(is_changed, true)) {
          sql("DELETE FROM buildings WHERE name LIKE '%7'");
          sql("INSERT INTO buildings (organisation, name, address) VALUES ('org_ours', 'x', 'x')");
        }
        bytes += size;
        rows += static_cast<std::size_t>(std::count(data, data + size, '\n'));
        return true;
      });
  ASSERT_TRUE(result);
  EXPECT_EQ(rows, count + 1U);
  EXPECT_GT(bytes, 40'000'000U);
  const std::string status =
      text_of("/proc/" + std::to_string(service_.api->process().pid()) + "/status");
  const long peak = std::stol(status.substr(status.find("VmHWM:") + 6));
  EXPECT_LT(peak, 60'000) << "KiB";
}

TEST_F(Exports, that_break_off_are_seen_to) {
  make_buildings(200'000);
  const std::string path = download_path("buildings");
  httplib::Client http("127.0.0.1", service_.api->port());
  bool is_cut = false;
  const auto result =
      http.Get(path, {{"Authorization", "Bearer " + service_.issuer.token(ours, "viewer")}},
               [&](const char*, std::size_t) {
                 if (!std::exchange(is_cut, true)) {
                   sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                       " WHERE application_name = 'reference-api'");
                 }
                 return true;
               });
  EXPECT_TRUE(is_cut);
  EXPECT_FALSE(result) << "a part was taken for the whole";
}

TEST_F(Exports, are_few_at_once_and_leave_connections_to_others) {
  make_buildings(100'000);
  const std::string path = download_path("buildings");
  // Clients that read nothing: their downloads stand.
  std::vector<std::unique_ptr<httplib::Client>> slow;
  std::vector<std::thread> threads;
  std::atomic<int> standing = 0;
  std::atomic<bool> is_over = false;
  for (int each = 0; each < 4; ++each) {
    threads.emplace_back([&] {
      httplib::Client http("127.0.0.1", service_.api->port());
      http.Get(path, {{"Authorization", "Bearer " + service_.issuer.token(ours, "viewer")}},
               [&, seen = false](const char*, std::size_t) mutable {
                 if (!std::exchange(seen, true)) ++standing;
                 while (!is_over) std::this_thread::sleep_for(std::chrono::milliseconds(5));
                 return false;
               });
    });
  }
  eventually("four downloads stand", [&] { return standing == 4; });
  Client client = service_.client();
  const Answer fifth = client.get(path);
  EXPECT_EQ(fifth.status, 503);
  EXPECT_EQ(fifth.code(), "too_many_downloads");
  EXPECT_NE(fifth.header("Retry-After"), "");
  EXPECT_EQ(client.get("/buildings?limit=1").status, 200);
  is_over = true;
  for (std::thread& each : threads) each.join();
  eventually("there is room again", [&] { return client.get(path).status == 200; });
}

TEST_F(Exports, of_others_are_not_there) {
  const std::string path = download_path("buildings", Service::theirs);
  Client client = service_.client();
  EXPECT_EQ(client.get(path).status, 404);
  EXPECT_EQ(client.get("/exports/nonsense/download").status, 404);
  EXPECT_EQ(client.post("/exports", {{"kind", "audit_logs"}}).status, 422);
  EXPECT_EQ(client.post("/exports", {{"kind", 1}}).status, 422);
  EXPECT_EQ(client.post("/exports", json::array()).status, 422);
  EXPECT_EQ(service_.client("viewer").post("/exports", {{"kind", "comps"}}).status, 403);
}

}  // namespace
}  // namespace reference::tests
