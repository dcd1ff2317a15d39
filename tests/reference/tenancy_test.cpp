// No request crosses into another organisation: every route of the service is tried.

#include "harness/reference.h"

namespace reference::tests {
namespace {

struct Route {
  std::string method;
  std::string path;
  std::string role;
  std::string table() const { return path.substr(1, path.find('/', 1) - 1); }
  bool of_row() const { return path.find("{id}") != std::string::npos; }
};

/// What the service itself says that it serves.
std::vector<Route> routes(const Service& service) {
  std::istringstream lines(
      holdfast::base::run_checked(Api::command({"--routes"}, service.environment)));
  std::vector<Route> all;
  for (Route route; lines >> route.method >> route.path >> route.role;) all.push_back(route);
  return all;
}

/// A row of each table, as our organisation has it.
struct OurRows {
  std::map<std::string, std::string> ids;
  std::map<std::string, json> samples;
  std::map<std::string, json> changes;
};

OurRows make_rows(const Service& service) {
  Client admin = service.client("admin");
  OurRows rows;
  rows.samples["buildings"] = {{"name", "Secret tower"}, {"address", "Secret street"}};
  rows.ids["buildings"] = admin.make("buildings", rows.samples["buildings"]);
  const std::string building = rows.ids["buildings"];
  rows.samples["comps"] = {{"building", building},
                           {"tenant", "Secret tenant"},
                           {"area_m2", 1},
                           {"rent_per_m2", 1},
                           {"signed_on", "2026-01-01"}};
  rows.samples["tims"] = {{"company", "Secret company"}};
  rows.samples["reports"] = {
      {"title", "Secret report"}, {"group_by", "tenant"}, {"building", building}};
  rows.samples["exports"] = {{"kind", "comps"}, {"title", "Secret export"}};
  rows.samples["memberships"] = {{"user_id", "user_secret"}, {"role", "viewer"}};
  for (const char* table : {"comps", "tims", "reports", "exports", "memberships"}) {
    rows.ids[table] = admin.make(table, rows.samples[table]);
  }
  const Answer job = admin.send("POST", "/import_jobs?kind=buildings&file_name=Secret",
                                "name,address\nSecret import,Secret road\n", "text/csv");
  rows.ids["import_jobs"] = job.data().at("id");
  eventually("the import is done", [&] {
    return admin.get("/import_jobs/" + rows.ids["import_jobs"]).data().at("state") == "done";
  });
  for (const char* table : {"organisations", "audit_logs"}) {
    rows.ids[table] =
        admin.get(std::string("/") + table).data().at("data").at(0).at("id").get<std::string>();
  }
  rows.changes = {{"organisations", {{"name", "X"}}}, {"memberships", {{"role", "admin"}}},
                  {"buildings", {{"name", "X"}}},     {"comps", {{"tenant", "X"}}},
                  {"tims", {{"company", "X"}}},       {"reports", {{"title", "X"}}},
                  {"exports", {{"title", "X"}}},      {"import_jobs", {{"note", "X"}}}};
  return rows;
}

/// Everything that is ours, as the database has it.
std::string everything_of(const Service& service, const std::string& organisation) {
  std::string all;
  for (const char* table : {"memberships", "buildings", "comps", "tims", "reports", "import_jobs",
                            "exports", "audit_logs"}) {
    all += service.cluster.sql(std::string("SELECT coalesce(string_agg(t::text, chr(10) ORDER BY "
                                           "t::text), '') FROM ") +
                               table + " t WHERE organisation = '" + organisation + "'") +
           "\n";
  }
  return all + service.cluster.sql(
                   "SELECT string_agg(t::text, ',') FROM organisations t WHERE "
                   "clerk_id = '" +
                   organisation + "'");
}

TEST(ReferenceTenancy, no_route_shows_or_changes_another_organisations_rows) {
  const Service service;
  const OurRows rows = make_rows(service);
  service.await_cache();
  Client ours = service.client("admin");
  Client theirs = service.client("admin", Service::theirs);
  const std::string before = everything_of(service, Service::ours);

  int tried = 0;
  for (const Route& route : routes(service)) {
    if (route.role == "open") continue;
    SCOPED_TRACE(route.method + " " + route.path);
    ++tried;
    const std::string table = route.table();
    std::string path = route.path;
    if (route.of_row()) {
      ASSERT_TRUE(rows.ids.contains(table)) << "a new route: give it a row here";
      path.replace(path.find("{id}"), 4, rows.ids.at(table));
    }
    Answer answer;
    if (route.method == "GET") {
      // What we have read may be in the cache.
      for (int twice = 0; twice < 2; ++twice) EXPECT_EQ(ours.get(path).status, 200);
      answer = theirs.get(path);
    } else if (route.method == "DELETE") {
      answer = theirs.remove(path);
    } else if (route.method == "PATCH") {
      answer = theirs.patch(path, rows.changes.at(table));
    } else {
      ASSERT_EQ(route.method, "POST") << "a new method: try it here";
      // Makes a row of theirs, but never one that refers to ours.
      json body = rows.samples.contains(table) ? rows.samples.at(table) : json{{"name", "X"}};
      answer = theirs.post(path, body);
      if (body.contains("building")) {
        EXPECT_EQ(answer.status, 422) << answer.body;
      }
    }
    if (route.of_row()) {
      EXPECT_EQ(answer.status, 404) << answer.body;
    }
    if (route.method != "POST") {
      EXPECT_EQ(answer.body.find("ecret"), std::string::npos) << answer.body;
    }
    EXPECT_EQ(service.api->client().send(route.method, path, "").status, 401);
  }
  EXPECT_GE(tried, 40);
  EXPECT_EQ(everything_of(service, Service::ours), before);
}

TEST(ReferenceTenancy, a_cursor_or_a_filter_of_one_organisation_gives_another_nothing) {
  const Service service;
  Client ours = service.client();
  Client theirs = service.client("viewer", Service::theirs);
  std::string house;
  for (int at = 0; at < 5; ++at) {
    house = ours.make("buildings", {{"name", "Secret"}, {"address", "x"}});
  }
  const std::string next = ours.get("/buildings?limit=2").data().at("next");
  EXPECT_EQ(ours.get("/buildings?cursor=" + next).data().at("data").size(), 3U);
  EXPECT_TRUE(theirs.get("/buildings?cursor=" + next).data().at("data").empty());
  EXPECT_TRUE(theirs.get("/buildings?name=Secret").data().at("data").empty());
  // A change cannot make a row refer to theirs either.
  Client editor = service.client("editor", Service::theirs);
  const std::string report = editor.make("reports", {{"title", "T"}, {"group_by", "all"}});
  EXPECT_EQ(editor.patch("/reports/" + report, {{"building", house}}).status, 422);
}

TEST(ReferenceTenancy, the_database_itself_lets_no_row_refer_into_another_organisation) {
  const Service service;
  Client ours = service.client();
  const std::string house = ours.make("buildings", {{"name", "N"}, {"address", "A"}});
  EXPECT_THROW(service.cluster.sql(
                   "INSERT INTO comps (organisation, building, tenant, area_m2, rent_per_m2, "
                   "signed_on) VALUES ('org_theirs', '" +
                   house + "', 't', 1, 1, now())"),
               std::exception);
  // Each foreign key between tables of rows carries the organisation.
  EXPECT_EQ(service.cluster.sql(
                "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND confrelid <> "
                "'organisations'::regclass AND NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid "
                "= conrelid AND attnum = ANY (conkey) AND attname = 'organisation')"),
            "0");
}

}  // namespace
}  // namespace reference::tests
