// What is in a backup and what is not, whatever a data directory looks like.

#include <atomic>
#include <thread>

#include "base/error.h"
#include "harness/witness.h"

namespace holdfast::tests {
namespace {

TEST(BackupContent, leaves_out_what_belongs_to_the_running_server_alone) {
  Place place;
  const auto source = place.cluster();
  source->sql("CREATE UNLOGGED TABLE volatile AS SELECT generate_series(1, 1000) AS id");
  source->sql("CREATE INDEX ON volatile (id)");
  const std::string unlogged = source->sql("SELECT pg_relation_filepath('volatile')");
  source->sql("CREATE TABLE kept AS SELECT 1 AS id");
  source->sql("SELECT pg_create_physical_replication_slot('slot', true)");
  postgres::Session busy = source->session();
  busy.query("CREATE TEMP TABLE scratch AS SELECT generate_series(1, 1000)");
  const std::string temporary = busy.value("SELECT pg_relation_filepath('scratch')");
  busy.query("SELECT count(*) FROM scratch");
  const fs::path data = source->data_directory();
  for (const char* name : {"postgresql.auto.conf.tmp", "current_logfiles.tmp", "backup_manifest",
                           "pg_stat_tmp/x", "pg_replslot/y", "base/pgsql_tmp123", "pg_dynshmem/z",
                           "pg_wal/stray", "backup_label.old", "tablespace_map.old"}) {
    overwrite(data / name, "not for a backup");
    place.give_to_server_user(data / name);
  }
  const auto before = tree_of(data);
  ASSERT_TRUE(before.contains(unlogged + "_init") && before.contains(temporary));
  ASSERT_TRUE(before.contains("global/pg_internal.init"));

  place.must({"backup"});
  place.must({"restore", place.path("restored").string(), "--to", "immediate"});
  const auto restored = tree_of(place.path("restored"));
  for (const auto& [name, content] : restored) {
    EXPECT_EQ(content.find("not for a backup"), std::string::npos) << name;
    EXPECT_EQ(name.find("pg_internal.init"), std::string::npos) << name;
    EXPECT_EQ(name.find("pgsql_tmp"), std::string::npos) << name;
    EXPECT_FALSE(name.starts_with("postmaster.")) << name;
  }
  EXPECT_TRUE(restored.contains(unlogged + "_init"));
  EXPECT_FALSE(restored.contains(unlogged));
  EXPECT_FALSE(restored.contains(temporary));
  EXPECT_FALSE(restored.contains("pg_replslot/slot"));
  for (const char* name : {"pg_wal/archive_status", "pg_notify", "pg_subtrans", "pg_stat_tmp",
                           "pg_replslot", "pg_snapshots", "pg_serial", "pg_dynshmem"}) {
    EXPECT_TRUE(restored.contains(name)) << "the directory itself is needed: " << name;
  }

  const auto cluster = adopt(source->installation(), place.path("restored"));
  cluster->start();
  cluster->server().await_recovery_end(std::chrono::seconds(60));
  EXPECT_EQ(cluster->sql("SELECT count(*) FROM volatile"), "0")
      << "unlogged tables come back empty";
  EXPECT_EQ(cluster->sql("SELECT count(*) FROM kept"), "1");
}

TEST(BackupContent, B21_keeps_files_of_any_name_kind_and_order) {
  Place place;
  const auto source = place.cluster();
  const fs::path data = source->data_directory();
  fs::create_directory(data / "log");
  fs::create_directory(data / "an empty directory");
  place.give_to_server_user(data / "log");
  place.give_to_server_user(data / "an empty directory");
  std::map<std::string, std::string> extra;
  for (const char* name : {"a=b", "back\\slash", "[section]", "# comment", "with space", " leading",
                           "new\nline", "quote\"s'", "\xff\xfe not UTF-8", "log/x", "log.1", "log0",
                           "log/empty", "empty", "percent%f%p", "$(touch hacked)", "-rf"}) {
    extra[name] = std::string_view(name).find("empty") != std::string_view::npos
                      ? ""
                      : fmt::format("content of {}", name);
  }
  extra["exactly one page"] = std::string(8192, 'p');
  extra["one page and a byte"] = std::string(8193, 'q');
  extra["larger than a frame"] = std::string(300000, 'r') + "end";
  extra["zeros"] = std::string(100000, '\0');
  for (const auto& [name, content] : extra) {
    overwrite(data / name, content);
    place.give_to_server_user(data / name);
  }
  fs::permissions(data / "log/x", fs::perms(0640));
  place.must({"backup"});
  place.must({"restore", place.path("restored").string()});
  auto restored = tree_of(place.path("restored"));
  for (const auto& [name, content] : extra) {
    ASSERT_TRUE(restored.contains(name)) << name;
    EXPECT_TRUE(restored[name] == content) << name;
  }
  EXPECT_EQ(restored["an empty directory"], "directory");
  EXPECT_EQ(fs::status(place.path("restored/log/x")).permissions(), fs::perms(0640));
  place.must({"verify"});
}

TEST(BackupContent, thousands_of_small_files_come_back) {
  Place place;
  const auto source = place.cluster();
  source->start();
  // In pieces: each table of one transaction needs a lock.
  for (int part = 0; part < 3; ++part) {
    source->sql(
        fmt::format("DO $$ BEGIN FOR i IN {}..{} LOOP EXECUTE format("
                    "'CREATE TABLE t%s AS SELECT %s AS id', i, i); END LOOP; END $$",
                    part * 1000 + 1, part * 1000 + 1000));
  }
  const auto made = place.must({"backup", "--json"}).json();
  EXPECT_GT(made.at("files"), 3900);
  place.archive_all(*source);
  const auto restored = place.restored(*source, "restored");
  std::string all = restored->sql(
      "SELECT count(*) || ' ' || sum((xpath('/row/id/text()', query_to_xml("
      "'SELECT id FROM ' || relname, false, true, '')))[1]::text::int) "
      "FROM pg_class WHERE relname ~ '^t[0-9]+$' AND relkind = 'r'");
  EXPECT_EQ(all, "3000 4501500");
}

TEST(BackupContent, B10_B14_BK3_files_that_grow_shrink_and_vanish_meanwhile) {
  Place place;
  const auto source = place.cluster();
  source->sql(
      "CREATE TABLE steady AS SELECT g AS id, md5(g::text) AS v FROM generate_series(1, 200000) g");
  for (int i = 0; i < 20; ++i) {
    source->sql(fmt::format("CREATE TABLE dropped{} AS SELECT generate_series(1, 1000)", i));
  }
  const std::string connection = source->connection();
  std::atomic<bool> over = false;
  std::jthread churn([&] {
    postgres::Session session(connection);
    session.query("SET search_path = public");
    for (int i = 0; !over; ++i) {
      const int n = i % 20;
      session.query(fmt::format("DROP TABLE dropped{}", n));
      session.query(fmt::format("CREATE TABLE dropped{} AS SELECT generate_series(1, 5000)", n));
      session.query(
          fmt::format("INSERT INTO dropped{} SELECT generate_series(1, 20000)", (n + 7) % 20));
      session.query(fmt::format("TRUNCATE dropped{}", (n + 3) % 20));
      session.query(fmt::format("DELETE FROM dropped{}", (n + 11) % 20));
      session.query(fmt::format("VACUUM dropped{}", (n + 11) % 20));
    }
  });
  for (const char* workers : {"1", "2", "4"}) place.must({"backup", "--workers", workers});
  over = true;
  churn.join();
  source->sql("SELECT pg_create_restore_point('quiet')");
  const std::string before = digest(*source);
  place.archive_all(*source);
  const auto backups = place.must({"list", "--json"}).json().at("backups");
  for (const auto& backup : backups) {
    EXPECT_EQ(backup.at("state"), "good");
    const std::string id = backup.at("id");
    const auto restored = place.restored(*source, id, {"--backup", id, "--to", "quiet"});
    EXPECT_EQ(digest(*restored), before) << id;
    if (id != backups.back().at("id")) continue;
    EXPECT_EQ(amcheck(*restored), "");
    restored->stop();
    EXPECT_EQ(bad_pages(*restored), "");
  }
}

class Tablespaces : public testing::Test {
 protected:
  Tablespaces() : source_(place_.cluster()) {
    for (const char* name : {"space", "space2"}) {  // one path is the beginning of the other's
      fs::create_directory(place_.path(name));
      place_.give_to_server_user(place_.path(name));
      source_->sql(
          fmt::format("CREATE TABLESPACE {} LOCATION '{}'", name, place_.path(name).string()));
      source_->sql(
          fmt::format("CREATE TABLE in_{0} TABLESPACE {0} AS "
                      "SELECT g AS id, md5(g::text) FROM generate_series(1, 3000) g",
                      name));
    }
    source_->sql("CREATE DATABASE whole TABLESPACE space");
    source_->sql("CREATE TABLE t AS SELECT generate_series(1, 10)", "whole");
    place_.must({"backup"});
    source_->sql("INSERT INTO in_space VALUES (0, 'later')");
    before_ = digest(*source_);
    place_.archive_all(*source_);
  }

  std::string oid(const std::string& name) const {
    return source_->sql("SELECT oid FROM pg_tablespace WHERE spcname = '" + name + "'");
  }

  Place place_;
  std::unique_ptr<Cluster> source_;
  std::string before_;
};

TEST_F(Tablespaces, B16_RS8_go_where_they_are_told_with_links_before_the_start) {
  // One by its number, one by its old place, and that into the data directory itself.
  const fs::path first = place_.path("moved");
  const fs::path second = place_.path("moved, too");
  place_.must({"restore", place_.path("restored").string(), "--tablespace",
               oid("space") + "=" + first.string(), "--tablespace",
               place_.path("space2").string() + "=" + second.string()});
  EXPECT_EQ(fs::read_symlink(place_.path("restored/pg_tblspc") / oid("space")), first);
  EXPECT_EQ(fs::read_symlink(place_.path("restored/pg_tblspc") / oid("space2")), second);
  const auto original = tree_of(place_.path("space"));
  const auto restored = adopt(source_->installation(), place_.path("restored"));
  restored->start();
  restored->server().await_recovery_end(std::chrono::seconds(60));
  EXPECT_EQ(digest(*restored), before_);
  EXPECT_EQ(restored->sql("SELECT pg_tablespace_location(" + oid("space") + ")"), first);
  restored->sql("DELETE FROM in_space");
  restored->sql("CHECKPOINT");
  EXPECT_TRUE(tree_of(place_.path("space")) == original) << "the source's own files";
}

TEST_F(Tablespaces, are_not_written_over_where_they_were) {
  const auto original = tree_of(place_.path("space"));
  const Result result = place_.holdfast({"restore", place_.path("restored").string()});
  EXPECT_EQ(result.status, 19) << result.errors;
  EXPECT_NE(result.errors.find("--tablespace"), std::string::npos) << result.errors;
  EXPECT_TRUE(tree_of(place_.path("space")) == original);
  const Result unknown = place_.holdfast(
      {"restore", place_.path("restored").string(), "--tablespace", "4711=/var/tmp/x"});
  EXPECT_NE(unknown.status, 0);
  EXPECT_FALSE(fs::exists(place_.path("restored/PG_VERSION")));
}

TEST_F(Tablespaces, go_back_where_they_were_once_that_is_empty) {
  source_->stop();
  fs::rename(place_.path("space"), place_.path("old"));
  fs::rename(place_.path("space2"), place_.path("old2"));
  const auto restored = place_.restored(*source_, "restored");
  EXPECT_EQ(digest(*restored), before_);
}

TEST(BackupContent, B16_pg_wal_may_be_a_link) {
  Place place;
  const auto source = place.cluster();
  source->stop();
  fs::rename(source->data_directory() / "pg_wal", place.path("wal elsewhere"));
  fs::create_directory_symlink(place.path("wal elsewhere"), source->data_directory() / "pg_wal");
  source->start();
  point_configuration_at(place, *source);
  source->sql("CREATE TABLE t AS SELECT generate_series(1, 100) AS id");
  place.must({"backup"});
  place.archive_all(*source);
  const auto restored = place.restored(*source, "restored");
  EXPECT_EQ(restored->sql("SELECT count(*) FROM t"), "100");
  EXPECT_FALSE(fs::is_symlink(place.path("restored/pg_wal")));
}

TEST(BackupContent, RS11_configuration_outside_of_the_data_directory_comes_along) {
  Place place;
  const auto source = place.cluster();
  source->stop();
  // As Debian does it.
  const fs::path outside = place.path("etc");
  fs::create_directory(outside);
  for (const char* name : {"postgresql.conf", "pg_hba.conf", "pg_ident.conf"}) {
    fs::rename(source->data_directory() / name, outside / name);
  }
  overwrite(outside / "postgresql.conf",
            text_of(outside / "postgresql.conf") +
                fmt::format("data_directory = '{0}'\nhba_file = '{1}/pg_hba.conf'\n"
                            "ident_file = '{1}/pg_ident.conf'\ncluster_name = 'from outside'\n",
                            source->data_directory().string(), outside.string()));
  source->start({{"config_file", (outside / "postgresql.conf").string()}});
  point_configuration_at(place, *source);
  source->sql("CREATE TABLE t AS SELECT 1 AS id");
  place.must({"backup"});
  place.archive_all(*source);
  source->stop();
  fs::remove_all(outside);
  const auto restored = place.restored(*source, "restored");
  EXPECT_EQ(restored->sql("SELECT count(*) FROM t"), "1");
  EXPECT_EQ(restored->sql("SHOW cluster_name"), "from outside");
}

}  // namespace
}  // namespace holdfast::tests
