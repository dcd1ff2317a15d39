// The REST interface: rows, lists, roles, and what is written down of changes.

#include "harness/reference.h"

#include <set>
#include <thread>

namespace reference::tests {
namespace {

const json building = {{"name", "Tower"}, {"address", "1 Main Street"}, {"area_m2", 1200.5}};

/// What a row of each table may be made of; the building is filled in.
std::map<std::string, json> samples(const std::string& building_id) {
  return {
      {"buildings", building},
      {"comps",
       {{"building", building_id},
        {"tenant", "Acme"},
        {"area_m2", 100},
        {"rent_per_m2", 12.25},
        {"signed_on", "2026-02-28"}}},
      {"tims", {{"company", "Looking Ltd"}, {"area_min_m2", 50}, {"move_in", "2027-01-01"}}},
      {"reports", {{"title", "Rents"}, {"group_by", "year"}}},
      {"exports", {{"kind", "comps"}, {"title", "All comps"}}},
      {"memberships", {{"user_id", "user_7"}, {"role", "viewer"}}},
  };
}

TEST(ReferenceRest, rows_are_created_read_changed_and_deleted_and_each_change_is_audited) {
  const Service service;
  Client admin = service.client("admin");
  const std::string house = admin.make("buildings", building);
  const std::map<std::string, json> changes = {
      {"buildings", {{"city", "Springfield"}}}, {"comps", {{"note", "quoted \"so\""}}},
      {"tims", {{"status", "signed"}}},         {"reports", {{"group_by", "tenant"}}},
      {"exports", {{"title", "Other"}}},        {"memberships", {{"role", "admin"}}}};
  for (const auto& [table, sample] : samples(house)) {
    SCOPED_TRACE(table);
    const Answer made = admin.post("/" + table, sample);
    ASSERT_EQ(made.status, 201) << made.body;
    const std::string id = made.data().at("id");
    const std::string path = "/" + table + "/" + id;
    EXPECT_EQ(made.header("Location"), path);
    for (const auto& [name, value] : sample.items()) EXPECT_EQ(made.data().at(name), value);
    EXPECT_EQ(admin.get(path).data(), made.data());

    const Answer changed = admin.patch(path, changes.at(table));
    ASSERT_EQ(changed.status, 200) << changed.body;
    json expected = made.data();
    expected.update(changes.at(table));
    expected["updated_at"] = changed.data().at("updated_at");
    EXPECT_EQ(changed.data(), expected);
    EXPECT_NE(changed.data().at("updated_at"), made.data().at("updated_at"));
    EXPECT_EQ(admin.get(path).data(), expected);
    EXPECT_EQ(admin.get("/" + table).data().at("data").at(0), expected);

    EXPECT_EQ(admin.remove(path).status, 204);
    EXPECT_EQ(admin.get(path).status, 404);
    EXPECT_EQ(admin.patch(path, changes.at(table)).status, 404);
    EXPECT_EQ(admin.remove(path).status, 404);

    const json logs = admin.get("/audit_logs?row_id=" + id).data().at("data");
    ASSERT_EQ(logs.size(), 3U) << logs;
    EXPECT_EQ(logs[2].at("action"), "create");
    EXPECT_EQ(logs[2].at("before"), nullptr);
    EXPECT_EQ(logs[2].at("after"), made.data());
    EXPECT_EQ(logs[1].at("action"), "change");
    EXPECT_EQ(logs[1].at("before"), made.data());
    EXPECT_EQ(logs[1].at("after"), expected);
    EXPECT_EQ(logs[0].at("action"), "delete");
    EXPECT_EQ(logs[0].at("before"), expected);
    for (const json& log : logs) {
      EXPECT_EQ(log.at("actor"), "user_1");
      EXPECT_EQ(log.at("table_name"), table);
    }
  }
}

TEST(ReferenceRest, a_change_without_its_audit_log_does_not_happen) {
  const Service service;
  Client editor = service.client();
  const std::string id = editor.make("buildings", building);
  service.cluster.sql("ALTER TABLE audit_logs ADD CHECK (action = 'never') NOT VALID");
  EXPECT_GE(editor.post("/buildings", building).status, 400);
  EXPECT_GE(editor.patch("/buildings/" + id, {{"name", "Other"}}).status, 400);
  EXPECT_GE(editor.remove("/buildings/" + id).status, 400);
  EXPECT_EQ(service.cluster.sql("SELECT string_agg(name, ',') FROM buildings"), "Tower");
}

TEST(ReferenceRest, what_is_written_down_cannot_be_changed) {
  const Service service;
  Client admin = service.client("admin");
  const std::string id = admin.get("/audit_logs").data().at("data").at(0).at("id");
  EXPECT_EQ(admin.post("/audit_logs", {{"actor", "me"}}).status, 405);
  EXPECT_EQ(admin.patch("/audit_logs/" + id, {{"actor", "me"}}).status, 405);
  EXPECT_EQ(admin.remove("/audit_logs/" + id).status, 405);
  EXPECT_THROW(service.cluster.sql("UPDATE audit_logs SET actor = 'me'"), std::exception);
  EXPECT_THROW(service.cluster.sql("DELETE FROM audit_logs"), std::exception);
}

TEST(ReferenceRest, roles_may_do_what_they_may_and_no_more) {
  const Service service;
  Client viewer = service.client("viewer");
  Client editor = service.client("editor");
  Client admin = service.client("admin");
  Client nobody = service.api->client();
  const std::string house = editor.make("buildings", building);

  EXPECT_EQ(nobody.get("/buildings").status, 401);
  EXPECT_EQ(nobody.get("/buildings").header("WWW-Authenticate"), "Bearer");
  EXPECT_EQ(viewer.get("/buildings/" + house).status, 200);
  EXPECT_EQ(viewer.post("/buildings", building).status, 403);
  EXPECT_EQ(viewer.patch("/buildings/" + house, {{"name", "X"}}).status, 403);
  EXPECT_EQ(viewer.remove("/buildings/" + house).status, 403);
  EXPECT_EQ(viewer.get("/audit_logs").status, 403);
  EXPECT_EQ(editor.get("/audit_logs").status, 403);
  const json member = {{"user_id", "user_9"}, {"role", "admin"}};
  EXPECT_EQ(editor.post("/memberships", member).status, 403);
  EXPECT_EQ(admin.post("/memberships", member).status, 201);
  EXPECT_EQ(admin.post("/memberships", member).status, 409);
  const json organisation = editor.get("/organisations").data().at("data").at(0);
  EXPECT_EQ(organisation.at("clerk_id"), Service::ours);
  const std::string path = "/organisations/" + organisation.at("id").get<std::string>();
  EXPECT_EQ(editor.patch(path, {{"name", "Mine"}}).status, 403);
  EXPECT_EQ(admin.patch(path, {{"name", "Mine"}}).status, 200);
  EXPECT_EQ(admin.remove(path).code(), "in_use");
}

TEST(ReferenceRest, wrong_input_is_refused_with_the_name_of_the_field) {
  const Service service;
  Client editor = service.client();
  const std::string house = editor.make("buildings", building);
  const json comp = samples(house).at("comps");
  const auto wrong = [&](const std::string& field, const json& value) {
    json body = comp;
    body[field] = value;
    const Answer answer = editor.post("/comps", body);
    EXPECT_EQ(answer.status, 422) << field << " " << value << " " << answer.body;
    if (answer.status == 422) {
      EXPECT_TRUE(answer.data().at("error").contains("fields")) << answer.body;
      EXPECT_TRUE(answer.data().at("error").value("fields", json()).contains(field)) << answer.body;
    }
  };
  wrong("rent_per_m2", "12");
  wrong("rent_per_m2", 1e12);
  wrong("rent_per_m2", nullptr);
  wrong("signed_on", "2026-02-29");
  wrong("signed_on", "yesterday");
  wrong("tenant", "");
  wrong("tenant", 7);
  wrong("tenant", std::string("a\0b", 3));
  wrong("tenant", std::string(5000, 'x'));
  wrong("term_months", 1.5);
  wrong("building", "somewhere");
  wrong("building", "00000000-0000-4000-8000-000000000000");
  wrong("id", house);
  wrong("organisation", Service::theirs);
  wrong("created_at", "2020-01-01");
  wrong("colour", "red");
  EXPECT_EQ(editor.post("/comps", {{"tenant", "X"}}).data().at("error").at("fields").size(), 4U);
  EXPECT_EQ(editor.post("/tims", {{"company", "X"}, {"status", "maybe"}}).status, 422);
  EXPECT_EQ(editor.post("/tims", {{"company", "X"}, {"area_min_m2", 9}, {"area_max_m2", 1}}).status,
            422);
  EXPECT_EQ(editor.patch("/buildings/" + house, json::object()).status, 422);
  EXPECT_EQ(editor.patch("/buildings/" + house, {{"name", nullptr}}).status, 422);
  EXPECT_EQ(editor.post("/comps", json::array()).status, 400);
  EXPECT_EQ(editor.send("POST", "/comps", "{\"tenant\":").code(), "bad_json");
  EXPECT_EQ(editor.send("POST", "/comps", "\xff\xfe").code(), "bad_json");
  EXPECT_EQ(editor.send("POST", "/comps", comp.dump(), "text/plain").status, 415);
  EXPECT_EQ(editor.send("POST", "/comps", std::string(100000, ' ')).status, 413);
  EXPECT_EQ(editor.send("PUT", "/comps", comp.dump()).status, 405);
  EXPECT_EQ(editor.send("DELETE", "/comps", "").header("Allow"), "GET, POST");
  EXPECT_EQ(editor.get("/nowhere").status, 404);
  EXPECT_EQ(editor.get("/comps/not-an-id").status, 404);
  EXPECT_EQ(editor.get("/comps?colour=red").code(), "bad_parameter");
  EXPECT_EQ(editor.get("/comps?signed_on=red").code(), "bad_parameter");
  EXPECT_EQ(editor.get("/comps?tenant=%ff").code(), "bad_parameter");
  EXPECT_EQ(editor.get("/comps?tenant=a&tenant=b").code(), "bad_parameter");
  EXPECT_EQ(editor.get("/comps?limit=0").code(), "bad_parameter");
  EXPECT_EQ(editor.get("/comps?cursor=nonsense").code(), "bad_cursor");
  EXPECT_EQ(editor.remove("/buildings/" + house).status, 204);
  EXPECT_EQ(service.cluster.sql("SELECT count(*) FROM comps"), "0");
}

TEST(ReferenceRest, lists_are_filtered) {
  const Service service;
  Client editor = service.client();
  const std::string house = editor.make("buildings", building);
  json comp = samples(house).at("comps");
  for (int month = 1; month <= 9; ++month) {
    comp["signed_on"] = "2026-0" + std::to_string(month) + "-15";
    comp["tenant"] = month % 3 == 0 ? "Third & Co" : "Acme";
    comp["rent_per_m2"] = month;
    editor.make("comps", comp);
  }
  const auto count = [&](const std::string& query) {
    const Answer answer = editor.get("/comps?" + query);
    EXPECT_EQ(answer.status, 200) << answer.body;
    return answer.data().at("data").size();
  };
  EXPECT_EQ(count(""), 9U);
  EXPECT_EQ(count("tenant=Third%20%26%20Co"), 3U);
  EXPECT_EQ(count("signed_on=2026-05-15"), 1U);
  EXPECT_EQ(count("signed_on_from=2026-03-15&signed_on_to=2026-05-15"), 3U);
  EXPECT_EQ(count("rent_per_m2_from=6.5"), 3U);
  EXPECT_EQ(count("tenant=Acme&rent_per_m2_to=4&building=" + house), 3U);
  EXPECT_EQ(count("building=00000000-0000-4000-8000-000000000000"), 0U);
}

TEST(ReferenceRest, a_cursor_sees_everything_once_while_rows_are_added_and_removed) {
  const Service service;
  service.cluster.sql(
      "INSERT INTO buildings (organisation, name, address, created_at) SELECT 'org_ours', "
      "'old ' || n, 'x', now() - interval '1 minute' * (n / 7) FROM generate_series(1, 300) n");
  Client editor = service.client();
  Client walker = service.client("viewer");
  std::set<std::string> seen;
  std::string path = "/buildings?limit=17";
  for (std::string next = path; !next.empty();) {
    editor.make("buildings", building);  // meanwhile
    editor.remove("/buildings/" + editor.make("buildings", building));
    const json page = walker.get(next).data();
    EXPECT_LE(page.at("data").size(), 17U);
    for (const json& row : page.at("data")) {
      const std::string name = row.at("name");
      EXPECT_TRUE(name == "Tower" || seen.insert(name).second) << name << " twice";
    }
    next = page.at("next").is_null() ? "" : path + "&cursor=" + page.at("next").get<std::string>();
  }
  EXPECT_EQ(seen.size(), 300U);
}

TEST(ReferenceRest, reports_are_aggregates_over_comps) {
  const Service service;
  Client editor = service.client();
  const std::string one = editor.make("buildings", building);
  const std::string other = editor.make("buildings", building);
  const auto comp = [&](const std::string& where, const char* day, double area, double rent) {
    editor.make("comps", {{"building", where},
                          {"tenant", "T"},
                          {"area_m2", area},
                          {"rent_per_m2", rent},
                          {"signed_on", day}});
  };
  comp(one, "2025-03-01", 100, 10);
  comp(one, "2025-04-01", 300, 20);
  comp(one, "2026-04-01", 50, 40);
  comp(other, "2025-05-01", 1000, 99);
  const std::string report =
      editor.make("reports", {{"title", "By year"}, {"group_by", "year"}, {"building", one}});
  const std::string path = "/reports/" + report + "/result";
  const json rows = editor.get(path).data().at("rows");
  EXPECT_EQ(rows, json::parse(R"([
    {"group":"2025","comps":2,"area_m2":400.00,"rent_lowest":10.00,"rent_highest":20.00,
     "rent_median":15.00,"rent_average":17.50},
    {"group":"2026","comps":1,"area_m2":50.00,"rent_lowest":40.00,"rent_highest":40.00,
     "rent_median":40.00,"rent_average":40.00}])"));
  // New comps and a changed question show at once, cached or not.
  comp(one, "2026-05-01", 50, 20);
  EXPECT_EQ(editor.get(path).data().at("rows").at(1).at("comps"), 2);
  editor.patch("/reports/" + report, {{"group_by", "all"}, {"signed_to", "2025-12-31"}});
  EXPECT_EQ(editor.get(path).data().at("rows").at(0).at("comps"), 2);
}

}  // namespace
}  // namespace reference::tests
