#include "operations/configuration.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace holdfast::operations {
namespace {

using namespace std::chrono_literals;

Configuration parsed(const std::string& wal) {
  return parse_configuration(
      "[cluster.main]\nconnection = \"x\"\ndata_directory = \"/data\"\n"
      "[repository.r]\nurl = \"/r\"\nencryption = \"none\"\n" +
          wal,
      "/holdfast.toml");
}

TEST(WalSection, has_defaults_and_can_be_set) {
  EXPECT_EQ(parsed("").wal.slot, "holdfast");
  EXPECT_EQ(parsed("").wal.slice_interval, 1s);
  const auto set = parsed("[wal]\nslot = \"dr_2\"\nslice_interval = \"200ms\"\n").wal;
  EXPECT_EQ(set.slot, "dr_2");
  EXPECT_EQ(set.slice_interval, 200ms);
}

TEST(WalSection, that_cannot_be_meant_is_refused) {
  for (const char* wal :
       {"[wal]\nslot = \"Big\"\n", "[wal]\nslot = \"a b\"\n", "[wal]\nslot = \"\"\n",
        "[wal]\nslice_interval = \"1\"\n", "[wal]\nslice_interval = 1\n",
        "[wal]\ncolour = \"blue\"\n", "[[wal]]\nslot = \"a\"\n"}) {
    try {
      parsed(wal);
      ADD_FAILURE() << wal;
    } catch (const base::Error& error) {
      EXPECT_EQ(error.code(), base::Code::configuration) << wal;
    }
  }
}

}  // namespace
}  // namespace holdfast::operations
