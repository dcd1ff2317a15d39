#include "operations/witness.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "base/error.h"
#include "base/workers.h"

namespace holdfast::operations {

namespace {

using nlohmann::json;
using std::chrono::steady_clock;

// A backup after few changes takes less than a second, and must not take much longer for this. So
// some tables are looked at each time, the largest ones and others at random: those always, more as
// long as it is quick, and more of a large cluster.
constexpr std::size_t large_tables = 16;
constexpr std::size_t least_tables = 32;
constexpr std::chrono::milliseconds quick(50);
constexpr std::chrono::milliseconds quick_for_each_gib(12);
constexpr std::chrono::seconds patience(5);  // for the whole cluster, whatever happens
constexpr std::chrono::milliseconds statement_limit(1000);
constexpr std::size_t most_tables = 20'000;
constexpr std::uint64_t blocks_per_table = 32;
constexpr std::size_t rows_per_table = 16;
constexpr std::size_t digest_digits = 24;
constexpr int version = 1;

postgres::Lsn written_so_far(postgres::Session& session) {
  // What is visible may be ahead of what is on disk, where commits are asynchronous.
  if (session.in_recovery()) return session.current_lsn();
  return postgres::parse_lsn(session.value("SELECT pg_current_wal_insert_lsn()"))
      .value_or(session.current_lsn());
}

class Looking {
 public:
  Looking(const repository::Repository& repository, const std::string& connection, Witness& witness)
      : repository_(repository), connection_(connection), witness_(witness) {}

  void look_at(const std::string& database) {
    postgres::Session session(connection_, database);
    postgres::be_brief(session, statement_limit);
    auto all = postgres::list_tables(session, most_tables - witness_.tables.size());
    std::uint64_t pages = 0;
    for (const postgres::TableFacts& facts : all) pages += facts.pages;
    quick_end_ += quick_for_each_gib * (pages / (std::uint64_t{1} << 17));
    if (all.size() > large_tables) {
      std::shuffle(all.begin() + large_tables, all.end(), std::mt19937(std::random_device()()));
    }
    for (const postgres::TableFacts& facts : all) {
      base::stop_if_interrupted();
      WitnessedTable table;
      table.database = database;
      table.facts = facts;
      const auto now = steady_clock::now();
      if (now > end_ || (looked_at_ >= least_tables && now > quick_end_)) {
        // Another backup will look at it.
      } else if (!facts.readable) {
        ++forbidden_;
      } else {
        try {
          sample(session, table);
          ++looked_at_;
        } catch (const base::Error& error) {
          if (error.code() != base::Code::postgres) throw;
          ++busy_;  // it is locked, or was dropped
        }
      }
      witness_.tables.push_back(std::move(table));
    }
  }

  void sum_up() {
    const auto note = [&](std::size_t count, const char* why) {
      if (count > 0) witness_.notes.push_back(fmt::format("{} tables {}", count, why));
    };
    note(forbidden_, "may not be read by the role that takes backups: GRANT pg_read_all_data");
    note(busy_, "were locked");
  }

 private:
  void sample(postgres::Session& session, WitnessedTable& table) {
    table.facts.pages = postgres::current_pages(session, table.facts);
    const auto first =
        postgres::sample_table(session, table.facts, blocks_per_table, rows_per_table);
    // Looking sets hint bits, which may write to the page: the sample counts from here on.
    table.at = written_so_far(session);
    if (!first.places.empty()) {
      for (auto& [place, row] : postgres::read_rows(session, table.facts, first.places)) {
        table.sample.push_back({place, row.transaction, row_digest(repository_, row)});
      }
    }
    table.rows = first.rows;
    table.exact = first.exact;
    table.sampled = true;
  }

  const repository::Repository& repository_;
  const std::string& connection_;
  Witness& witness_;
  steady_clock::time_point end_ = steady_clock::now() + patience;
  steady_clock::time_point quick_end_ = steady_clock::now() + quick;
  std::size_t forbidden_ = 0;
  std::size_t looked_at_ = 0;
  std::size_t busy_ = 0;
};

json to_json(const WitnessedTable& table) {
  json document = {{"database", table.database},      {"schema", table.facts.schema},
                   {"name", table.facts.name},        {"file", table.facts.file},
                   {"pages", table.facts.pages},      {"columns", table.facts.columns},
                   {"readable", table.facts.readable}};
  if (!table.sampled) return document;
  json sample = json::array();
  for (const WitnessedRow& row : table.sample) {
    sample.push_back({row.place, row.transaction, row.digest});
  }
  document["rows"] = table.rows;
  document["exact"] = table.exact;
  document["at"] = postgres::to_string(table.at);
  document["sample"] = std::move(sample);
  return document;
}

WitnessedTable table_of(const json& document) {
  WitnessedTable table;
  document.at("database").get_to(table.database);
  document.at("schema").get_to(table.facts.schema);
  document.at("name").get_to(table.facts.name);
  document.at("file").get_to(table.facts.file);
  document.at("pages").get_to(table.facts.pages);
  document.at("columns").get_to(table.facts.columns);
  document.at("readable").get_to(table.facts.readable);
  table.sampled = document.contains("sample");
  if (!table.sampled) return table;
  document.at("rows").get_to(table.rows);
  document.at("exact").get_to(table.exact);
  table.at = postgres::parse_lsn(document.at("at").get<std::string>()).value();
  for (const json& row : document.at("sample")) {
    table.sample.push_back({row.at(0), row.at(1), row.at(2)});
  }
  return table;
}

}  // namespace

std::string WitnessedTable::name() const {
  return fmt::format("{}.{}.{}", database, facts.schema, facts.name);
}

std::string row_digest(const repository::Repository& repository, const postgres::SampledRow& row) {
  return repository.mac("witnessed row", row.digest).substr(0, digest_digits);
}

Witness take_witness(const repository::Repository& repository, postgres::Session& session,
                     const std::string& connection) {
  Witness witness;
  const auto excuse = [&](const std::string& what, const base::Error& error) {
    if (error.code() == base::Code::interrupted) throw error;
    witness.notes.push_back(fmt::format("{}: {}", what, error.message()));
  };
  try {
    witness.taken = session.clock();
    witness.superuser = session.value("SELECT rolname FROM pg_roles WHERE oid = 10");
    Looking looking(repository, connection, witness);
    for (const postgres::Row& row :
         session.query("SELECT datname FROM pg_database WHERE datallowconn AND datconnlimit <> -2 "
                       "AND datname <> 'template1' "
                       "AND has_database_privilege(oid, 'CONNECT') "
                       "ORDER BY datname")) {
      try {
        looking.look_at(row.at(0).value_or(""));
      } catch (const base::Error& error) {
        excuse(fmt::format("database {} could not be looked at", row.at(0).value_or("")), error);
      }
    }
    looking.sum_up();
    witness.holds_from = written_so_far(session);
  } catch (const base::Error& error) {
    // Without the position that it holds from it is worth nothing.
    witness.tables.clear();
    excuse("the server could not be asked", error);
  }
  return witness;
}

std::string to_text(const Witness& witness) {
  json tables = json::array();
  for (const WitnessedTable& table : witness.tables) tables.push_back(to_json(table));
  return json{{"version", version},
              {"taken", base::to_iso(witness.taken)},
              {"holds_from", postgres::to_string(witness.holds_from)},
              {"superuser", witness.superuser},
              {"notes", witness.notes},
              {"tables", std::move(tables)}}
      .dump(-1, ' ', false, json::error_handler_t::replace);
}

Witness parse_witness(std::string_view text) {
  try {
    const json document = json::parse(text);
    if (document.at("version") != version) {
      base::fail(base::Code::unsupported, "the backup's witness has a form that is unknown here");
    }
    Witness witness;
    witness.taken = base::from_iso(document.at("taken").get<std::string>());
    witness.holds_from = postgres::parse_lsn(document.at("holds_from").get<std::string>()).value();
    document.at("superuser").get_to(witness.superuser);
    document.at("notes").get_to(witness.notes);
    for (const json& table : document.at("tables")) witness.tables.push_back(table_of(table));
    return witness;
  } catch (const json::exception& error) {
    base::fail(base::Code::corrupt, "the backup's witness cannot be read: {}", error.what());
  } catch (const std::bad_optional_access&) {
    base::fail(base::Code::corrupt, "the backup's witness names no WAL position");
  }
}

std::optional<Witness> witness_of(const repository::BackupMap& map) {
  const repository::Attachment* attachment = map.attachment("witness");
  if (attachment == nullptr) return std::nullopt;
  return parse_witness(base::text(attachment->content));
}

}  // namespace holdfast::operations
