#include "operations/catalog_names.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace holdfast::operations {
namespace {

CatalogNames sample() {
  CatalogNames names;
  names.add_database(5, "a\tb\\n\nc");
  names.add({{1663, 5, 20001}, 16384, 'r', "public", "t"});
  names.add({{1663, 5, 16390}, 16390, 'i', "my \"schema\"", "tab\there"});
  names.add({{1664, 0, 1262}, 1262, 'r', "pg_catalog", "pg_database"});
  return names;
}

bool is_corrupt(std::string_view text) {
  try {
    CatalogNames::parse(text);
  } catch (const base::Error& error) {
    return error.code() == base::Code::corrupt;
  }
  return false;
}

TEST(CatalogNames, come_back_whatever_they_are) {
  const CatalogNames names = CatalogNames::parse(sample().text());
  EXPECT_EQ(names.text(), sample().text());
  EXPECT_EQ(*names.database(5), "a\tb\\n\nc");
  EXPECT_EQ(names.database(6), nullptr);
  EXPECT_EQ(names.relation({1663, 5, 16390})->name, "tab\there");
  EXPECT_EQ(names.relation({1663, 5, 16390})->schema, "my \"schema\"");
  EXPECT_EQ(names.relation({1663, 5, 16384}), nullptr) << "that is its oid";
}

TEST(CatalogNames, find_a_relation_by_its_files_and_by_its_oid) {
  const CatalogNames names = sample();
  EXPECT_EQ(names.relation({1663, 5, 20001})->name, "t");
  EXPECT_EQ(names.relation(5, 16384)->name, "t");
  EXPECT_EQ(names.relation(6, 16384), nullptr);
  EXPECT_FALSE(names.relation(5, 16384)->is_internal());
  EXPECT_TRUE(names.relation(5, 16390)->is_internal());
  EXPECT_TRUE(names.relation(0, 1262)->is_internal());
}

TEST(CatalogNames, are_refused_when_cut_or_changed) {
  const std::string text = sample().text();
  EXPECT_TRUE(is_corrupt(""));
  EXPECT_TRUE(is_corrupt("holdfast catalog 2\n"));
  EXPECT_TRUE(is_corrupt(text.substr(0, text.size() - 1)));
  EXPECT_TRUE(is_corrupt(text + "relation\t1\n"));
  EXPECT_TRUE(is_corrupt(text + "relation\t1\t2\t3\tx\tr\ts\tn\n"));
  EXPECT_TRUE(is_corrupt(text + "database\t1\tname\\\n"));
  EXPECT_FALSE(is_corrupt(text));
}

}  // namespace
}  // namespace holdfast::operations
