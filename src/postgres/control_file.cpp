#include "postgres/control_file.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "base/error.h"
#include "postgres/crc32c.h"

namespace holdfast::postgres {

namespace {

using base::load;

// Where ControlFileData (catalog/pg_control.h) has its fields on 64-bit machines: the same from 13
// to 18, except that 18 put default_char_signedness before the nonce and so moved the CRC.
namespace field {
constexpr std::size_t system_id = 0;
constexpr std::size_t control_version = 8;
constexpr std::size_t catalog_version = 12;
constexpr std::size_t state = 16;
constexpr std::size_t checkpoint = 32;
constexpr std::size_t redo = 40;
constexpr std::size_t timeline = 48;
constexpr std::size_t min_recovery_point = 136;
constexpr std::size_t min_recovery_timeline = 144;
constexpr std::size_t block_size = 216;
constexpr std::size_t relation_segment_blocks = 220;
constexpr std::size_t wal_segment_size = 228;
constexpr std::size_t checksum_version = 252;
}  // namespace field

struct Layout {
  std::uint32_t control_version;
  std::size_t crc;
};
constexpr Layout layouts[] = {{1300, 288}, {1700, 288}, {1800, 292}};
constexpr std::size_t smallest_file = 296;

/// The first position that can hold a record in segment 0. No cluster has that segment: initdb and
/// pg_resetwal begin with 1. It must look like a possible position, or the server would refuse it
/// even with a backup_label (StartupXLOG in xlog.c, XRecOffIsValid).
constexpr std::uint64_t impossible_checkpoint = 40;

bool crc_matches(base::View bytes, std::size_t crc) {
  return crc32c(bytes.first(crc)) == load<std::uint32_t>(bytes.data() + crc);
}

/// A version that we know and a CRC in the place that it has there.
std::size_t crc_position(base::View bytes) {
  if (bytes.size() < smallest_file) {
    base::fail(base::Code::corrupt, "pg_control is corrupt: it has only {} bytes", bytes.size());
  }
  const auto version = load<std::uint32_t>(bytes.data() + field::control_version);
  for (const Layout& layout : layouts) {
    if (layout.control_version != version) continue;
    if (crc_matches(bytes, layout.crc)) return layout.crc;
    base::fail(base::Code::corrupt, "pg_control is corrupt: its CRC does not match its content");
  }
  // A version beyond ours is only believed where a CRC vouches for it; else the number is damage.
  for (std::size_t crc = 256; crc + 4 <= std::min<std::size_t>(bytes.size(), 512); crc += 4) {
    if (crc_matches(bytes, crc)) {
      throw base::Error(base::Code::unsupported,
                        fmt::format("pg_control has version {}, which is not known here", version),
                        "Holdfast knows PostgreSQL 13 to 18");
    }
  }
  base::fail(base::Code::corrupt,
             "pg_control is corrupt: neither its version nor its CRC is right");
}

/// A CRC only proves that PostgreSQL wrote it; these numbers are divided by and multiplied with.
void check_sizes(const ControlFile& control) {
  if (!is_valid(control.wal_segment_size) || control.block_size == 0 ||
      control.relation_segment_blocks == 0) {
    base::fail(base::Code::corrupt, "pg_control is corrupt: it names impossible sizes");
  }
}

}  // namespace

std::string to_string(SystemId id) {
  return fmt::format("{}", id.value);
}

bool was_shut_down(const ControlFile& control) {
  return control.state == 1 || control.state == 2;
}

ControlFile parse_control_file(base::View bytes) {
  crc_position(bytes);
  const auto u32 = [&](std::size_t at) { return load<std::uint32_t>(bytes.data() + at); };
  const auto u64 = [&](std::size_t at) { return load<std::uint64_t>(bytes.data() + at); };
  ControlFile control;
  control.system_id = {u64(field::system_id)};
  control.control_version = u32(field::control_version);
  control.catalog_version = u32(field::catalog_version);
  control.state = u32(field::state);
  control.checkpoint = {u64(field::checkpoint)};
  control.redo = {u64(field::redo)};
  control.timeline = {u32(field::timeline)};
  control.min_recovery_point = {u64(field::min_recovery_point)};
  control.min_recovery_timeline = {u32(field::min_recovery_timeline)};
  control.block_size = u32(field::block_size);
  control.relation_segment_blocks = u32(field::relation_segment_blocks);
  control.wal_segment_size = {u32(field::wal_segment_size)};
  control.checksum_version = u32(field::checksum_version);
  check_sizes(control);
  return control;
}

ControlFileRead read_control_file(const base::fs::path& data_directory) {
  const base::fs::path path = data_directory / "global" / "pg_control";
  constexpr int attempts = 50;
  for (int attempt = 1;; ++attempt) {
    base::Bytes bytes = base::read_existing_file(path);
    try {
      const ControlFile control = parse_control_file(bytes);
      return {control, std::move(bytes)};
    } catch (const base::Error& error) {
      if (error.code() != base::Code::corrupt || attempt == attempts) {
        throw error.with_context(fmt::format("\"{}\"", path.string()));
      }
    }
    // The server rewrites the file in place, and nothing makes our read wait for it (pitfall B13).
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

base::Bytes without_checkpoint(base::View bytes) {
  const std::size_t crc = crc_position(bytes);
  base::Bytes changed = base::copy(bytes);
  base::store(changed.data() + field::checkpoint, impossible_checkpoint);
  base::store(changed.data() + crc, crc32c(base::View(changed).first(crc)));
  return changed;
}

}  // namespace holdfast::postgres
