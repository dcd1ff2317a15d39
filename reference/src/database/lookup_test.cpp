#include "database/lookup.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <future>

#include "database/connection.h"

namespace reference::database {
namespace {

using std::chrono::milliseconds;
using Addresses = std::vector<std::string>;

TEST(DatabaseLookup, waits_for_a_resolver_that_hangs_no_longer_than_it_may_and_asks_it_once) {
  const auto release = std::make_shared<std::promise<void>>();
  const auto asked = std::make_shared<std::atomic<int>>(0);
  Lookup lookup([asked, released = release->get_future().share()](const std::string&) {
    ++*asked;
    released.wait();
    return Addresses{"192.0.2.1"};
  });
  for (int i = 0; i < 5; ++i) {
    const auto begun = Deadline::Clock::now();
    EXPECT_THROW(lookup.addresses("db", Deadline::in(milliseconds(20))), Unreachable);
    EXPECT_LT(Deadline::Clock::now() - begun, std::chrono::seconds(5));
  }
  EXPECT_EQ(*asked, 1);
  release->set_value();
  EXPECT_EQ(lookup.addresses("db", Deadline::never()), Addresses{"192.0.2.1"});
  // An answer is for those who wait: the next one may be another.
  const int before = *asked;
  EXPECT_EQ(lookup.addresses("db", Deadline::never()), Addresses{"192.0.2.1"});
  EXPECT_EQ(*asked, before + 1);
}

TEST(DatabaseLookup, says_that_there_is_no_such_host) {
  Lookup lookup([](const std::string&) { return Addresses{}; });
  EXPECT_THROW(lookup.addresses("db", Deadline::never()), Unreachable);
  EXPECT_THROW(looked_up({"a,b", "", "1"}, lookup, Deadline::never()), Unreachable);
  Lookup knows_one(
      [](const std::string& host) { return host == "b" ? Addresses{"192.0.2.1"} : Addresses{}; });
  for (const char* hosts : {"a,b", "b,a"}) {
    EXPECT_EQ(looked_up({hosts, "", "1"}, knows_one, Deadline::never()).host, "b") << hosts;
  }
}

TEST(DatabaseLookup, asks_for_names_alone_and_tries_each_address) {
  Addresses asked;
  Lookup lookup([&asked](const std::string& host) {
    asked.push_back(host);
    return Addresses{"192.0.2.1", "2001:db8::1"};
  });
  const auto deadline = Deadline::never();
  const ServerAddress one = looked_up({"db", "", "5433"}, lookup, deadline);
  EXPECT_EQ(one.host, "db,db");
  EXPECT_EQ(one.hostaddr, "192.0.2.1,2001:db8::1");
  EXPECT_EQ(one.port, "5433,5433");
  const ServerAddress two = looked_up({"10.0.0.1,db", "", "1,2"}, lookup, deadline);
  EXPECT_EQ(two.host, "10.0.0.1,db,db");
  EXPECT_EQ(two.hostaddr, ",192.0.2.1,2001:db8::1");
  EXPECT_EQ(two.port, "1,2,2");
  EXPECT_EQ(asked, (Addresses{"db", "db"}));
  for (const char* host : {"", "/run/postgresql", "@abstract", "127.0.0.1", "::1"}) {
    const ServerAddress same = looked_up({host, "", "5432"}, lookup, deadline);
    EXPECT_EQ(same.host, host);
    EXPECT_EQ(same.hostaddr, "");
  }
  EXPECT_EQ(looked_up({"db", "192.0.2.9", ""}, lookup, deadline).hostaddr, "192.0.2.9");
  EXPECT_EQ(looked_up({"a,b,c", "", "1,2"}, lookup, deadline).host, "a,b,c");
  EXPECT_EQ(asked.size(), 2U);
}

TEST(DatabaseLookup, knows_this_machine) {
  const Addresses found = Lookup::ask_system("localhost");
  EXPECT_TRUE(std::ranges::find(found, "127.0.0.1") != found.end() ||
              std::ranges::find(found, "::1") != found.end());
}

}  // namespace
}  // namespace reference::database
