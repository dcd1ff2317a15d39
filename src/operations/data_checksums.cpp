#include "operations/data_checksums.h"

#include <fcntl.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <random>

#include "base/workers.h"
#include "operations/read_pages.h"
#include "postgres/page.h"

namespace holdfast::operations {

namespace {

using std::chrono::steady_clock;

constexpr std::uint64_t smallest_piece = 1 << 20;
constexpr std::uint64_t most_pieces = 200'000;

struct Piece {
  std::uint32_t file = 0;
  std::uint64_t offset = 0;
};

struct Work {
  std::vector<SourceFile> files;
  std::vector<Piece> pieces;
  std::uint64_t piece_bytes = smallest_piece;
  std::uint64_t pages = 0;
};

Work divide(const base::fs::path& data_directory, const BackupInfo& backup) {
  Work work;
  std::vector<std::uint64_t> sizes;
  std::uint64_t bytes = 0;
  postgres::walk_data_directory(
      data_directory,
      fmt::format("PG_{}_{}", backup.server_version / 10000, backup.catalog_version),
      [&](const postgres::DirectoryEntry& entry) {
        const auto relation = postgres::relation_file(entry.path);
        if (entry.kind != postgres::DirectoryEntry::Kind::file || !relation) return;
        SourceFile file;
        file.path = data_directory / entry.path;
        file.name = entry.path;
        file.check_pages = true;
        file.first_block = relation->segment * postgres::default_segment_blocks;
        work.files.push_back(std::move(file));
        sizes.push_back(entry.size);
        bytes += entry.size;
      });
  work.pages = bytes / postgres::page_size;
  while (bytes / work.piece_bytes > most_pieces) work.piece_bytes *= 2;
  for (std::uint32_t file = 0; file < sizes.size(); ++file) {
    for (std::uint64_t at = 0; at < sizes[file]; at += work.piece_bytes) {
      work.pieces.push_back({file, at});
    }
  }
  return work;
}

}  // namespace

ChecksumReport check_data_checksums(const base::fs::path& data_directory, const BackupInfo& backup,
                                    std::optional<std::chrono::milliseconds> limit,
                                    unsigned workers, base::Progress& progress) {
  Work work = divide(data_directory, backup);
  std::ranges::shuffle(work.pieces, std::mt19937_64{std::random_device{}()});
  const auto end = steady_clock::now() + limit.value_or(std::chrono::hours(24 * 365));
  ChecksumReport report;
  report.of_pages = work.pages;
  progress.begin("checking page checksums", work.pages * postgres::page_size);
  std::atomic<std::size_t> next = 0;
  std::atomic<std::uint64_t> pages = 0;
  std::mutex mutex;
  base::run_workers(workers, [&](unsigned, const std::stop_token& stop) {
    base::Bytes buffer(smallest_piece);
    for (std::size_t i = next++; i < work.pieces.size() && !stop.stop_requested(); i = next++) {
      const Piece& piece = work.pieces[i];
      const SourceFile& source = work.files[piece.file];
      const auto file = base::open_if_exists(source.path, O_RDONLY);
      if (!file) continue;  // dropped meanwhile
      DamagedFile damage{source.name, 0, {}};
      for (std::uint64_t at = 0; at < work.piece_bytes; at += buffer.size()) {
        const std::size_t size = read_pages(*file, source, piece.offset + at, buffer, damage);
        pages += size / postgres::page_size;
        progress.add(size);
        if (size < buffer.size()) break;
      }
      if (damage.pages > 0) {
        const std::lock_guard lock(mutex);
        report.damaged.push_back(std::move(damage));
      }
      if (steady_clock::now() > end) break;
    }
  });
  report.pages = pages;
  std::ranges::sort(report.damaged, {}, &DamagedFile::path);
  return report;
}

}  // namespace holdfast::operations
