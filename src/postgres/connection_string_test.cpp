#include "postgres/connection_string.h"

#include <gtest/gtest.h>

namespace holdfast::postgres {
namespace {

TEST(ConnectionString, tells_whether_it_holds_what_libpq_would_use_as_a_password) {
  for (const char* each :
       {"postgresql://u:pw@host/db", "postgres://u:p%77@[::1]:5432/", "host=a password=x",
        "host=a password = 'x y'", "postgresql://u@host/db?password=x", "host=a sslpassword=x",
        "postgresql://host/?sslpassword=x", "what is 'malformed"}) {
    EXPECT_TRUE(holds_secret(each)) << each;
  }
  for (const char* each : {"", "host=/run/postgresql dbname=postgres", "postgresql://u@host/db",
                           "postgresql:///db", "host=a passfile=/home/u/.pgpass", "service=main",
                           "host=password user=password", "host=a password=''"}) {
    EXPECT_FALSE(holds_secret(each)) << each;
  }
}

}  // namespace
}  // namespace holdfast::postgres
