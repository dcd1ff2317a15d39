#include "imports/rows.h"

#include <gtest/gtest.h>

#include <stdexcept>

#include "exports/csv_text.h"
#include "imports/csv.h"

namespace reference::imports {
namespace {

using nlohmann::json;
using Fields = std::vector<std::string>;

const Fields comps = {"building_name", "building_address", "tenant",      "area_m2",
                      "rent_per_m2",   "signed_on",        "term_months", "note"};
const Fields good = {"Tower", "1 Main St", "Acme", "100.5", "0", "2024-02-29", "60", ""};

/// What is wrong with the good row once a field is another; "" if nothing is.
std::string fault_with(std::size_t at, const std::string& value) {
  Fields fields = good;
  fields[at] = value;
  const auto row = RowReader("comps", comps).read(fields);
  const auto* reason = std::get_if<std::string>(&row);
  return reason == nullptr ? "" : *reason;
}

std::string header_fault(const std::string& kind, const Fields& header) {
  try {
    RowReader(kind, header);
    return "";
  } catch (const std::invalid_argument& wrong) {
    return wrong.what();
  }
}

TEST(Rows, are_read_by_the_names_of_their_columns) {
  const RowReader reader("buildings", {"City", "id", "ADDRESS", "name"});
  EXPECT_EQ(std::get<json>(reader.read({"", "7", "1 Main St", "Tower"})),
            (json{{"address", "1 Main St"}, {"name", "Tower"}}));
  EXPECT_TRUE(std::holds_alternative<std::string>(reader.read({"a", "b", "c"})));
}

TEST(Rows, need_a_header_of_their_kind) {
  EXPECT_EQ(header_fault("comps", comps), "");
  EXPECT_NE(header_fault("buildings", comps), "");
  EXPECT_NE(header_fault("buildings", {"name"}).find("address is missing"), std::string::npos);
  EXPECT_NE(header_fault("buildings", {"name", "name", "address"}).find("twice"),
            std::string::npos);
  EXPECT_NE(header_fault("buildings", {"name", "address", "organisation"}).find("no column"),
            std::string::npos);
  EXPECT_NE(header_fault("buildings", {}), "");
}

TEST(Rows, hold_only_what_the_tables_take) {
  EXPECT_EQ(fault_with(0, "Tower"), "");
  for (const char* amount : {"1", "0.01", "9999999999.99", "007.5"}) {
    EXPECT_EQ(fault_with(3, amount), "") << amount;
  }
  for (const char* amount : {"", "0", "0.00", "-1", "+1", "1.", ".5", "1.234", "1e3", "NaN", "1,5",
                             "12345678901", "0x10", "1 000", "\xd9\xa1"}) {
    EXPECT_NE(fault_with(3, amount), "") << amount;
  }
  EXPECT_EQ(fault_with(4, "0"), "") << "rent may be nothing";
  for (const char* date : {"", "2023-02-29", "2024-13-01", "2024-00-10", "0000-01-01", "24-01-01",
                           "2024/01/01", "2024-1-01", "infinity", "today", "2024-01-01 "}) {
    EXPECT_NE(fault_with(5, date), "") << date;
  }
  EXPECT_EQ(fault_with(6, ""), "");
  for (const char* months : {"0", "-3", "1.5", "1234567"}) EXPECT_NE(fault_with(6, months), "");
  EXPECT_EQ(fault_with(2, std::string(200, 'x')), "");
  EXPECT_NE(fault_with(2, std::string(201, 'x')), "");
  std::string umlauts;
  for (int each = 0; each < 200; ++each) umlauts += "ü";
  EXPECT_EQ(fault_with(2, umlauts), "") << "characters, not bytes";
  EXPECT_NE(fault_with(2, "bell\a"), "");
  EXPECT_EQ(fault_with(7, "tab\there"), "");
}

TEST(Rows, get_back_every_text_that_an_export_guarded) {
  const RowReader reader("buildings", {"name", "address"});
  for (const char* text : {"=1+1", "+1", "-1", "@x", "\tx", "'", "'x", "''x", "'=x", "x", "=",
                           "a,b", "a\"b", "\"", "=\"a,b\"", " a", "größe"}) {
    std::string line;
    exports::append_field(line, text, exports::Field::text);
    // Spreadsheets look at a field without its quotes.
    const std::size_t first = line.find_first_not_of('"');
    if (first != line.npos) {
      EXPECT_EQ(line.find_first_of("=+-@\t", first) == first, false) << line;
    }
    line += ",1 Main St";
    const Record record = parse_record(line);
    ASSERT_EQ(record.fault, "") << line;
    EXPECT_EQ(std::get<json>(reader.read(record.fields))["name"], text) << line;
  }
}

TEST(CsvText, leaves_numbers_alone) {
  std::string line;
  exports::append_field(line, "-5", exports::Field::plain);
  EXPECT_EQ(line, "-5");
}

}  // namespace
}  // namespace reference::imports
