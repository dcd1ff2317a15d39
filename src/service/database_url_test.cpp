#include "service/database_url.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace holdfast::service {
namespace {

using Texts = std::vector<std::string>;

TEST(DatabaseUrl, leads_elsewhere_and_is_the_same_in_all_else) {
  EXPECT_EQ(with_database_host("postgres://app:p%40%24w@old:6543/main?sslmode=require", "db2", {}),
            "postgres://app:p%40%24w@db2:5432/main?sslmode=require");
  EXPECT_EQ(with_database_host("postgresql://old", "10.0.0.7", 7000), "postgresql://10.0.0.7:7000");
  EXPECT_EQ(with_database_host("postgresql://a@h1:1,h2:2/d", "new", 3), "postgresql://a@new:3/d");
}

TEST(DatabaseUrl, of_sockets_loses_hosts_and_ports_among_its_parameters) {
  EXPECT_EQ(with_database_host(
                "postgresql:///app?host=/tmp/a&user=x&port=7&hostaddr=1.2.3.4&connect_timeout=3",
                "127.0.0.1", 5433),
            "postgresql://127.0.0.1:5433/app?user=x&connect_timeout=3");
  EXPECT_EQ(with_database_host("postgres://app@old/d", "/run/pg sock", 6000),
            "postgres://app@%2Frun%2Fpg%20sock:6000/d");
}

TEST(DatabaseUrl, takes_an_address_with_colons) {
  EXPECT_EQ(with_database_host("postgres://u:p@old:1/d", "::1", 2), "postgres://u:p@[::1]:2/d");
  EXPECT_EQ(with_database_host("postgres://u@[fe80::1]:1/d", "new", 2), "postgres://u@new:2/d");
}

TEST(DatabaseUrl, with_a_password_full_of_signs_keeps_it) {
  EXPECT_EQ(with_database_host("postgres://u:a@b:c@old:1/d", "new", 2),
            "postgres://u:a@b:c@new:2/d");
}

TEST(DatabaseUrl, tells_its_passwords_in_both_spellings) {
  EXPECT_EQ(database_passwords("postgres://u:p%24w@h/d"), (Texts{"p%24w", "p$w"}));
  EXPECT_EQ(database_passwords("postgres://u@h/d?password=q&x=1"), Texts{"q"});
  EXPECT_TRUE(database_passwords("postgres://u@h/d").empty());
}

TEST(DatabaseUrl, that_is_none_is_refused_without_being_shown) {
  try {
    with_database_host("host=old password=geheim", "new", {});
    FAIL();
  } catch (const base::Error& error) {
    EXPECT_EQ(error.code(), base::Code::configuration);
    EXPECT_EQ(error.message().find("geheim"), std::string::npos);
  }
}

}  // namespace
}  // namespace holdfast::service
