#include "postgres/scratch_server.h"

#include <gtest/gtest.h>

namespace holdfast::postgres {
namespace {

TEST(ScratchServer, understands_lists_of_libraries) {
  using Names = std::vector<std::string>;
  EXPECT_EQ(preload_list(""), Names{});
  EXPECT_EQ(preload_list("pg_cron"), Names{"pg_cron"});
  EXPECT_EQ(preload_list("a, b ,c"), (Names{"a", "b", "c"}));
  EXPECT_EQ(preload_list("\"$libdir/a b\", c"), (Names{"$libdir/a b", "c"}));
  EXPECT_EQ(preload_list("\"a,b\""), Names{"a,b"});
}

}  // namespace
}  // namespace holdfast::postgres
