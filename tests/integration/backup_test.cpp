#include "harness/harness.h"

namespace holdfast::tests {
namespace {

TEST(Backup, restores_to_the_moment_before_a_drop) {
  Place place;
  const auto source = place.cluster();
  source->sql(
      "CREATE TABLE precious AS SELECT g AS id, md5(g::text) AS v FROM generate_series(1, 5000) g");
  place.must({"backup"});
  source->sql("INSERT INTO precious SELECT g, md5(g::text) FROM generate_series(5001, 6000) g");
  source->sql("SELECT pg_create_restore_point('before_drop')");
  const std::string before = digest(*source);
  source->sql("DROP TABLE precious");
  place.archive_all(*source);

  const auto restored = place.restored(*source, "restored", {"--to", "before_drop"});
  EXPECT_EQ(digest(*restored), before);
  EXPECT_EQ(restored->sql("SELECT count(*) FROM precious"), "6000");
}

}  // namespace
}  // namespace holdfast::tests
