#include "cache/cache.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

namespace reference::cache {
namespace {

namespace fs = std::filesystem;

/// A Redis of its own on a socket; loads the snapshot that it left, if any.
class Redis {
 public:
  Redis() {
    std::string name = "/var/tmp/reference-redis.XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("could not make " + name);
    directory_ = name;
    start();
  }
  ~Redis() {
    kill();
    fs::remove_all(directory_);
  }
  Redis(const Redis&) = delete;
  Redis& operator=(const Redis&) = delete;

  std::string url() const { return "unix:" + socket(); }
  void start() {
    ::signal(SIGPIPE, SIG_IGN);  // as the program does
    pid_ = ::fork();
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      ::close(1);
      ::execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", socket().c_str(),
               "--save", "", "--dir", directory_.c_str(), "--logfile", "redis.log", nullptr);
      ::_exit(127);
    }
    for (int tries = 0; tries < 1000; ++tries) {
      try {
        RedisConnection(parse_redis_url(url()), std::chrono::seconds(1)).run({"PING"});
        return;
      } catch (const RedisError&) {
        ::usleep(10000);
      }
    }
    throw std::runtime_error("Redis does not answer");
  }
  void kill() const {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }

 private:
  std::string socket() const { return (directory_ / "redis.sock").string(); }
  fs::path directory_;
  pid_t pid_ = -1;
};

void await_working(Cache& cache) {
  for (int tries = 0; tries < 1000 && !cache.working(); ++tries) ::usleep(10000);
  ASSERT_TRUE(cache.working());
}

CacheOptions options(const Redis& redis) {
  CacheOptions options;
  options.url = redis.url();
  options.limit = std::chrono::seconds(1);
  return options;
}

std::string read(Cache& cache, const std::string& from_database) {
  return cache.through("org_1", "comps", "a", [&] { return from_database; }).value;
}

TEST(Cache, gives_what_it_was_given_until_that_is_forgotten) {
  const Redis redis;
  Cache cache(options(redis));
  await_working(cache);
  EXPECT_EQ(read(cache, "one"), "one");
  EXPECT_EQ(read(cache, "two"), "one");
  EXPECT_EQ(cache.through("org_2", "comps", "a", [] { return "theirs"; }).value, "theirs");
  cache.forget("org_2", "comps");
  cache.forget("org_1", "tims");
  EXPECT_EQ(read(cache, "two"), "one");
  cache.forget("org_1", "comps");
  EXPECT_EQ(read(cache, "two"), "two");
}

TEST(Cache, does_not_keep_what_was_seen_before_a_change) {
  const Redis redis;
  Cache cache(options(redis));
  Cache other(options(redis));  // another process
  await_working(cache);
  await_working(other);
  // While one reader has looked into the database, but has not said so yet, somebody changes it.
  const auto slow = cache.through("org_1", "comps", "a", [&] {
    other.forget("org_1", "comps");
    return "old";
  });
  EXPECT_EQ(slow.value, "old");
  EXPECT_EQ(read(cache, "new"), "new");
  EXPECT_EQ(read(other, "none"), "new");
  // The same when a third has begun to read in between.
  cache.forget("org_1", "comps");
  cache.through("org_1", "comps", "a", [&] {
    other.forget("org_1", "comps");
    other.through("org_1", "comps", "b", [] { return "b"; });
    return "old";
  });
  EXPECT_EQ(read(cache, "newest"), "newest");
}

TEST(Cache, does_not_keep_what_could_not_be_made) {
  const Redis redis;
  Cache cache(options(redis));
  await_working(cache);
  EXPECT_THROW(cache.through("org_1", "comps", "a",
                             []() -> std::string { throw std::runtime_error("not there"); }),
               std::runtime_error);
  EXPECT_EQ(read(cache, "made"), "made");
}

TEST(Cache, does_not_read_a_snapshot_that_another_process_left) {
  Redis redis;
  Cache first(options(redis));
  await_working(first);
  EXPECT_EQ(read(first, "old"), "old");
  RedisConnection(parse_redis_url(redis.url()), std::chrono::seconds(1)).run({"SAVE"});
  // It has no connection of before: nothing but Redis's own word says that it is another one.
  redis.kill();
  redis.start();
  Cache second(options(redis));
  await_working(second);
  EXPECT_EQ(read(second, "new"), "new");
  EXPECT_EQ(read(first, "new"), "new");
}

TEST(Cache, understands_where_redis_is) {
  const RedisAddress address = parse_redis_url("redis://user:pass:word@host.example:7000/3");
  EXPECT_EQ(address.host, "host.example");
  EXPECT_EQ(address.port, 7000);
  EXPECT_EQ(address.password, "pass:word");
  EXPECT_EQ(address.database, 3);
  EXPECT_EQ(parse_redis_url("redis://localhost").port, 6379);
  EXPECT_EQ(parse_redis_url("unix:/run/redis.sock").path, "/run/redis.sock");
  for (const char* wrong : {"localhost:6379", "redis://", "redis://h:port", "redis://h:99999",
                            "redis://h/x", "unix:", "http://h"}) {
    EXPECT_THROW(parse_redis_url(wrong), std::runtime_error) << wrong;
  }
}

}  // namespace
}  // namespace reference::cache
