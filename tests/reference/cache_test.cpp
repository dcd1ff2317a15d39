// Redis down, slow, hanging, lost, or back with old data: every endpoint works, nothing old is
// read, and the cache warms again by itself.

#include "harness/reference.h"

namespace reference::tests {
namespace {

const json building = {{"name", "first"}, {"address", "A"}};

/// A building that is read from the cache, and everything that is done with it.
struct Warm {
  Service service;
  Client editor;
  std::string path;

  explicit Warm(const Environment& more = {}) : service(more), editor(service.client()) {
    service.await_cache();
    path = "/buildings/" + editor.make("buildings", building);
    await_hit();
  }
  void await_hit() {
    eventually("it is read from the cache",
               [&] { return editor.get(path).header("X-Cache") == "hit"; });
  }
  void rename(const std::string& name) {
    const Answer answer = editor.patch(path, {{"name", name}});
    EXPECT_EQ(answer.status, 200) << answer.body;
    EXPECT_EQ(name_now(), name);
  }
  std::string name_now() {
    const Answer answer = editor.get(path);
    EXPECT_EQ(answer.status, 200) << answer.body;
    EXPECT_LT(answer.took.count(), 1000);
    return answer.status == 200 ? answer.data().at("name") : json(answer.body);
  }
  /// Every kind of request works; the name is `name` afterwards.
  void everything_works(const std::string& name) {
    for (const char* table : {"organisations", "memberships", "buildings", "comps", "tims",
                              "reports", "import_jobs", "exports"}) {
      const Answer list = editor.get(std::string("/") + table);
      EXPECT_EQ(list.status, 200) << list.body;
      EXPECT_LT(list.took.count(), 1000);
    }
    const std::string other = "/buildings/" + editor.make("buildings", building);
    EXPECT_EQ(editor.get(other).status, 200);
    EXPECT_EQ(editor.remove(other).status, 204);
    EXPECT_EQ(editor.get(other).status, 404);
    rename(name);
  }
  /// From now on until the cache is used again, every answer says `name`.
  void is_never_old(const std::string& name) {
    eventually("it is read from the cache", [&] {
      const Answer answer = editor.get(path);
      EXPECT_EQ(answer.data().at("name"), name);
      return answer.header("X-Cache") == "hit";
    });
    rename(name + " again");
    await_hit();
  }
};

TEST(ReferenceCache, answers_are_kept_until_a_row_changes) {
  Warm warm;
  const std::string list = "/buildings?limit=10";
  EXPECT_EQ(warm.editor.get(list).header("X-Cache"), "miss");
  const Answer hit = warm.editor.get(list);
  EXPECT_EQ(hit.header("X-Cache"), "hit");
  EXPECT_EQ(hit.body, warm.editor.get(list).body);
  // What another organisation does changes nothing here.
  warm.service.client("editor", Service::theirs).make("buildings", building);
  EXPECT_EQ(warm.editor.get(list).header("X-Cache"), "hit");
  warm.rename("second");
  EXPECT_EQ(warm.editor.get(list).header("X-Cache"), "miss");
  EXPECT_EQ(warm.editor.get(list).data().at("data").at(0).at("name"), "second");
  // An import changes them too.
  warm.editor.send("POST", "/import_jobs?kind=buildings", "name,address\nthird,B\n", "text/csv");
  eventually("the import shows",
             [&] { return warm.editor.get(list).data().at("data").size() == 2U; });
}

TEST(ReferenceCache, everything_works_while_redis_is_down_and_the_cache_warms_again) {
  Warm warm;
  warm.service.redis.kill();
  warm.everything_works("second");
  EXPECT_EQ(warm.service.api->client().get("/ready").status, 200);
  warm.service.redis.start();
  warm.is_never_old("second");
}

TEST(ReferenceCache, everything_works_while_redis_hangs_and_nothing_old_is_read_afterwards) {
  Warm warm;
  {
    const Hang hang(warm.service.redis.pid());
    warm.everything_works("second");
  }
  warm.is_never_old("second");
}

TEST(ReferenceCache, a_slow_redis_does_not_make_the_service_slow) {
  Warm warm;
  warm.service.redis.say("CLIENT PAUSE 3000 ALL");
  warm.everything_works("second");
  warm.is_never_old("second");
}

TEST(ReferenceCache, nothing_old_is_read_when_redis_comes_back_with_an_old_snapshot) {
  Warm warm;
  ASSERT_EQ(warm.service.redis.say("SAVE"), "OK");
  warm.rename("second");
  warm.service.redis.kill();
  warm.service.redis.start();
  ASSERT_NE(warm.service.redis.say("DBSIZE"), "0");
  warm.is_never_old("second");
}

TEST(ReferenceCache, what_redis_loses_is_made_again) {
  Warm warm;
  EXPECT_EQ(warm.service.redis.say("FLUSHALL"), "OK");
  EXPECT_EQ(warm.editor.get(warm.path).header("X-Cache"), "miss");
  warm.is_never_old("first");
}

TEST(ReferenceCache, works_without_redis_from_the_start) {
  const Service service(Environment{{"REDIS_URL", "redis://127.0.0.1:1"}});
  Client editor = service.client();
  const std::string path = "/buildings/" + editor.make("buildings", building);
  EXPECT_EQ(editor.get(path).status, 200);
  EXPECT_EQ(service.api->client().get("/ready").data().at("cache"), false);
}

TEST(ReferenceCache, the_promise_can_be_broken_on_purpose) {
  Warm warm(Environment{{"REFERENCE_BREAK", "cache-errors"}});
  EXPECT_NE(warm.service.api->log().find("warning: REFERENCE_BREAK=cache-errors"),
            std::string::npos);
  warm.service.redis.kill();
  EXPECT_EQ(warm.editor.get(warm.path).status, 502);
}

}  // namespace
}  // namespace reference::tests
