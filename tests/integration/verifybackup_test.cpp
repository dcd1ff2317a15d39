// PostgreSQL's own pg_basebackup and pg_verifybackup as witnesses: of one and the same state, what
// we restore is byte for byte what they say it must be.

#include "harness/witness.h"
#include "postgres/data_directory.h"

namespace holdfast::tests {
namespace {

class Witness : public testing::Test {
 protected:
  Witness() : source_(place_.cluster()) {
    source_->sql("ALTER SYSTEM SET autovacuum = off");
    source_->sql("ALTER SYSTEM SET checkpoint_timeout = '1h'");
    source_->sql("SELECT pg_reload_conf()");
    source_->sql(
        "CREATE TABLE t AS SELECT g AS id, md5(g::text) AS v FROM generate_series(1, 50000) g");
    source_->sql("CREATE INDEX ON t (v)");
    source_->sql("CREATE DATABASE other");
    source_->sql("VACUUM FREEZE");  // hint bits are set now; nobody has reason to write pages later
    source_->sql("VACUUM FREEZE", "other");
    source_->sql("CHECKPOINT");
    place_.must({"backup"});
    place_.must({"restore", ours().string(), "--to", "immediate"});
  }
  fs::path ours() const { return place_.path("ours"); }

  Place place_;
  std::unique_ptr<Cluster> source_;
};

TEST_F(Witness, pg_verifybackup_accepts_our_restore_by_the_manifest_of_pg_basebackup) {
  const Result taken = run_tool(source_->installation(), "pg_basebackup",
                                {"-d", source_->connection(), "-D", place_.path("theirs").string(),
                                 "--checkpoint=fast", "--wal-method=none", "--no-sync"});
  ASSERT_EQ(taken.status, 0) << taken.errors;
  fs::copy_file(place_.path("theirs/backup_manifest"), ours() / "backup_manifest");
  place_.give_to_server_user(ours() / "backup_manifest");
  const auto verify = [&] {
    return run_tool(
        source_->installation(), "pg_verifybackup",
        {"-n", "-i", "backup_label", "-i", "tablespace_map", "-i", "postgresql.auto.conf", "-i",
         "recovery.signal", "-i", "global/pg_control", ours().string()});
  };
  const Result result = verify();
  EXPECT_EQ(result.status, 0) << result.errors;
  // The witness is awake: it notices a single byte, and a file too many.
  const fs::path file = ours() / source_->sql("SELECT pg_relation_filepath('t')");
  flip_byte(file, 20000);
  EXPECT_NE(verify().status, 0);
  flip_byte(file, 20000);
  overwrite(ours() / "base/1/999999", "stray");
  EXPECT_NE(verify().status, 0);
}

TEST_F(Witness, every_relation_file_equals_that_of_the_stopped_source) {
  source_->stop();
  std::size_t compared = 0;
  for (const auto& [name, content] : tree_of(source_->data_directory())) {
    if (!postgres::relation_file(name) && !name.starts_with("pg_xact/")) continue;
    EXPECT_TRUE(text_of(ours() / name) == content) << name;
    ++compared;
  }
  EXPECT_GT(compared, 800U);
}

}  // namespace
}  // namespace holdfast::tests
