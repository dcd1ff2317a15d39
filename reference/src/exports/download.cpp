#include "exports/download.h"

#include <stdexcept>

#include "exports/csv_text.h"

namespace reference::exports {
namespace {

constexpr std::chrono::seconds longest_step{10};
constexpr const char* fetch = "FETCH 300 FROM exported";

database::Rows first_rows(database::Transaction& transaction, const std::string& select,
                          const std::string& organisation) {
  transaction.run("DECLARE exported NO SCROLL CURSOR FOR " + select, {organisation});
  return transaction.run(fetch);
}

}  // namespace

struct Download::Query {
  std::string header;
  std::string fields;  // t for a text, p for anything else
  std::string select;
};

const Download::Query& Download::query_of(std::string_view kind) {
  static const Query buildings = {
      "id,name,address,city,area_m2,created_at,updated_at", "ptttppp",
      "SELECT id, name, address, city, area_m2, created_at, updated_at"
      " FROM buildings WHERE organisation = $1 ORDER BY created_at, id"};
  static const Query comps = {
      "id,building_name,building_address,building_city,tenant,area_m2,rent_per_m2,signed_on,"
      "term_months,note,created_at,updated_at",
      "pttttpppptpp",
      "SELECT c.id, b.name, b.address, b.city, c.tenant, c.area_m2, c.rent_per_m2, c.signed_on,"
      " c.term_months, c.note, c.created_at, c.updated_at FROM comps AS c"
      " JOIN buildings AS b ON b.organisation = c.organisation AND b.id = c.building"
      " WHERE c.organisation = $1 ORDER BY c.created_at, c.id"};
  static const Query tims = {
      "id,company,contact,area_min_m2,area_max_m2,move_in,status,note,created_at,updated_at",
      "pttpppttpp",
      "SELECT id, company, contact, area_min_m2, area_max_m2, move_in, status, note, created_at,"
      " updated_at FROM tims WHERE organisation = $1 ORDER BY created_at, id"};
  return kind == "buildings" ? buildings : kind == "comps" ? comps : tims;
}

Download::Download(database::Pool& pool, std::string_view kind, const std::string& organisation)
    : query_(query_of(kind)),
      until_(std::chrono::steady_clock::now() + longest),
      session_(pool.session()),
      transaction_(session_),
      rows_(first_rows(transaction_, query_.select, organisation)) {}

std::string Download::lines() const {
  std::string text;
  for (std::size_t row = 0; row < rows_.size(); ++row) {
    for (std::size_t column = 0; column < query_.fields.size(); ++column) {
      if (column > 0) text += ',';
      append_field(text, rows_.text(row, column),
                   query_.fields[column] == 't' ? Field::text : Field::plain);
    }
    text += "\r\n";
  }
  return text;
}

void Download::write_to(const http::Write& write) {
  write(query_.header + "\r\n");
  while (!rows_.empty()) {
    write(lines());
    if (std::chrono::steady_clock::now() > until_) {
      throw std::runtime_error("the client took too long to download");
    }
    session_.renew(longest_step);
    rows_ = transaction_.run(fetch);
  }
  transaction_.commit();
}

}  // namespace reference::exports
