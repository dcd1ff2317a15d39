#include "postgres/control_file.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "base/error.h"
#include "postgres/crc32c.h"

namespace holdfast::postgres {
namespace {

// The first 296 bytes of pg_control of real clusters. What they hold was asked of the servers
// themselves: pg_control_system(), pg_control_checkpoint(), pg_control_init().
constexpr const char* real_15 =
    "31aedda34bfb036b1405000025770d0c060000000000000024fd036b00000000a0b279010000000068b27901"
    "0000000001000000010000000100000000000000df02000000000000006000000100000000000000cc020000"
    "0100000001000000010000000000000024fd036b000000000000000000000000df02000000000000e8030000"
    "0000000000000000000000000000000000000000000000000000000000000000000000000000000001000000"
    "0000000064000000080000000a000000000000004000000000000000080000000000000087d6324100200000"
    "0000020000200000000000014000000020000000cc0700000008000001000000010000008f73325bca20e45e"
    "bab66714873c701c84df1e198f206c8a8ba7d17ce9abe0a77d5f698800000000";
constexpr const char* real_17 =
    "4cde04654cfb036ba40600008979100c060000000000000024fd036b00000000e81377010000000090137701"
    "0000000001000000010000000100000001000000ed02000000000000006000000100000000000000da020000"
    "0100000001000000010000000000000024fd036b000000000000000000000000ed02000000000000e8030000"
    "0000000000000000000000000000000000000000000000000000000000000000000000000000000001000000"
    "0000000064000000080000000a000000000000004000000000000000080000000000000087d6324100200000"
    "0000020000200000000000014000000020000000cc070000000800000100000001000000f3f4ba522ee61c34"
    "16ee14e5a89ddcd3920a74d9828a3b96633f9f448e2b1cc2e037492c00000000";
constexpr const char* real_18 =
    "673e03404dfb036b080700003300120c060000000000000025fd036b0000000008a8790100000000b0a77901"
    "0000000001000000010000000100000001000000fb02000000000000006000000100000000000000e8020000"
    "0100000001000000010000000000000025fd036b000000000000000000000000fb02000000000000e8030000"
    "0000000000000000000000000000000000000000000000000000000000000000000000000000000001000000"
    "0000000064000000080000000a000000000000004000000000000000080000000000000087d6324100200000"
    "0000020000200000000000014000000020000000cc0700000008000001000000010000000141f3ad5c4b74ee"
    "888066f15a1bcc0e8a95119aa4f6272fa30c30265a2b40d7f600000086adffe3";

constexpr std::size_t state_at = 16;
constexpr std::size_t checkpoint_at = 32;

base::Bytes real_file(const char* hex) {
  base::Bytes bytes = base::from_hex(hex);
  bytes.resize(8192);
  return bytes;
}

base::Code code_of(base::View bytes) {
  try {
    parse_control_file(bytes);
  } catch (const base::Error& error) {
    return error.code();
  }
  return base::Code::internal;
}

void write_control(const base::fs::path& data, base::View bytes) {
  base::make_directories(data / "global");
  base::replace_file(data / "global" / "pg_control", bytes);
}

TEST(ControlFile, says_of_each_version_what_its_server_says) {
  struct Expected {
    const char* hex;
    std::uint64_t system;
    std::uint32_t version, catalog;
    const char *checkpoint, *redo;
  };
  const Expected all[] = {
      {real_15, 7711283289278754353, 1300, 202209061, "0/179B2A0", "0/179B268"},
      {real_17, 7711283292519325260, 1700, 202406281, "0/17713E8", "0/1771390"},
      {real_18, 7711283296193429095, 1800, 202506291, "0/179A808", "0/179A7B0"},
  };
  for (const Expected& expected : all) {
    const ControlFile control = parse_control_file(real_file(expected.hex));
    EXPECT_EQ(control.system_id.value, expected.system);
    EXPECT_EQ(to_string(control.system_id), std::to_string(expected.system));
    EXPECT_EQ(control.control_version, expected.version);
    EXPECT_EQ(control.catalog_version, expected.catalog);
    EXPECT_EQ(to_string(control.checkpoint), expected.checkpoint);
    EXPECT_EQ(to_string(control.redo), expected.redo);
    EXPECT_EQ(control.timeline.value, 1U);
    EXPECT_FALSE(control.min_recovery_point);
    EXPECT_EQ(control.block_size, 8192U);
    EXPECT_EQ(control.relation_segment_blocks, 131072U);
    EXPECT_EQ(control.wal_segment_size.bytes, 16U << 20);
    EXPECT_EQ(control.checksum_version, 1U);
    EXPECT_FALSE(was_shut_down(control));
  }
}

TEST(ControlFile, knows_a_clean_shutdown_by_its_state) {
  ControlFile control;
  for (std::uint32_t state = 0; state < 8; ++state) {
    control.state = state;
    EXPECT_EQ(was_shut_down(control), state == 1 || state == 2) << state;
  }
}

// B13: every byte under the CRC is guarded by it.
TEST(ControlFile, refuses_any_changed_byte_B13) {
  for (const char* hex : {real_15, real_17, real_18}) {
    const base::Bytes good = real_file(hex);
    const std::size_t guarded = hex == real_18 ? 296 : 292;
    for (std::size_t i = 0; i < guarded; ++i) {
      base::Bytes bad = good;
      bad[i] ^= 0x10;
      EXPECT_EQ(code_of(bad), base::Code::corrupt) << i;
    }
  }
}

TEST(ControlFile, refuses_a_short_or_empty_file) {
  const base::Bytes good = real_file(real_15);
  for (const std::size_t size : {0, 1, 8, 200, 288, 291}) {
    EXPECT_EQ(code_of(base::View(good).first(size)), base::Code::corrupt) << size;
  }
}

TEST(ControlFile, calls_a_version_with_a_good_crc_unknown_rather_than_corrupt) {
  base::Bytes next = real_file(real_18);
  base::store<std::uint32_t>(next.data() + 8, 1902);
  EXPECT_EQ(code_of(next), base::Code::corrupt);
  base::store(next.data() + 300, crc32c(base::View(next).first(300)));
  EXPECT_EQ(code_of(next), base::Code::unsupported);
}

TEST(ControlFile, refuses_sizes_that_cannot_be_even_under_a_good_crc) {
  for (const std::size_t at : {216U, 220U, 228U}) {
    base::Bytes bytes = real_file(real_15);
    base::store<std::uint32_t>(bytes.data() + at, 0);
    base::store(bytes.data() + 288, crc32c(base::View(bytes).first(288)));
    EXPECT_EQ(code_of(bytes), base::Code::corrupt) << at;
  }
}

TEST(ControlFile, hands_over_the_very_bytes_that_were_checked) {
  const base::TemporaryDirectory data("control");
  write_control(data.path(), real_file(real_17));
  const ControlFileRead read = read_control_file(data.path());
  EXPECT_EQ(read.bytes, real_file(real_17));
  EXPECT_EQ(read.control.control_version, 1700U);
}

TEST(ControlFile, reads_a_torn_file_again_until_it_is_whole_B13) {
  const base::TemporaryDirectory data("control");
  base::Bytes torn = real_file(real_15);
  torn[state_at] ^= 1;
  write_control(data.path(), torn);
  std::jthread server([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(60));
    write_control(data.path(), real_file(real_15));
  });
  EXPECT_EQ(read_control_file(data.path()).bytes, real_file(real_15));
}

TEST(ControlFile, refuses_a_torn_read_that_stays_torn_B13) {
  const base::TemporaryDirectory data("control");
  base::Bytes torn = real_file(real_15);
  torn[state_at] ^= 1;
  write_control(data.path(), torn);
  try {
    read_control_file(data.path());
    FAIL() << "a torn file was believed";
  } catch (const base::Error& error) {
    EXPECT_EQ(error.code(), base::Code::corrupt);
    EXPECT_NE(error.message().find("pg_control"), std::string::npos);
  }
}

// B19, RS4: the restored pg_control must lead a server without backup_label nowhere, and yet be
// whole.
TEST(ControlFile, without_checkpoint_changes_the_checkpoint_and_nothing_else_B19) {
  for (const char* hex : {real_15, real_17, real_18}) {
    const base::Bytes good = real_file(hex);
    base::Bytes changed = without_checkpoint(good);
    const ControlFile control = parse_control_file(changed);
    EXPECT_EQ(control.checkpoint.value / control.wal_segment_size.bytes, 0U);
    EXPECT_GE(control.checkpoint.value % 8192, 24U);
    const std::size_t crc_at = hex == real_18 ? 292 : 288;
    std::copy_n(good.begin() + checkpoint_at, 8, changed.begin() + checkpoint_at);
    std::copy_n(good.begin() + static_cast<std::ptrdiff_t>(crc_at), 4,
                changed.begin() + static_cast<std::ptrdiff_t>(crc_at));
    EXPECT_EQ(changed, good);
  }
}

TEST(ControlFile, without_checkpoint_makes_no_damage_look_sound) {
  base::Bytes bad = real_file(real_15);
  bad[100] ^= 1;
  EXPECT_THROW(without_checkpoint(bad), base::Error);
}

}  // namespace
}  // namespace holdfast::postgres
