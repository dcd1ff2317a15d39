// bench/maps_at_scale - the bookkeeping of backups of a cluster that nobody has at hand.
//
//   maps_at_scale [FILES] [TERABYTES] [DIRECTORY]      10,000,000 files, 100 TB, /var/tmp/...
//
// No page is stored: files and packs are made up, but page maps are written to a real repository
// and read again by the code that backups, `list` and `expire` use. Prints what each step takes.

#include <sys/resource.h>

#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "operations/expire.h"
#include "operations/file_comparison.h"
#include "operations/shard_builder.h"
#include "operations/sparse_packs.h"

namespace {

using namespace holdfast;
using namespace holdfast::operations;
using repository::FileEntry;
using repository::PackId;
using repository::page_bytes;
using repository::Run;

constexpr std::uint64_t large_bytes = 1 << 30;
constexpr std::uint64_t pages_per_pack = 13000;  // 32 MiB of pages that compress to 0.3
constexpr std::uint64_t files_per_database = 100000;
constexpr std::uint64_t first_relation = 100000000;  // so that all have as many digits

/// Gives out places in packs as a backup does: one after the other.
class Packs {
 public:
  explicit Packs(std::uint32_t series) { next(series); }
  void place(FileEntry& entry, std::uint64_t pages) {
    while (pages > 0) {
      const std::uint64_t here = std::min(pages, pages_per_pack - used_);
      repository::append_run(entry.runs, {here, pack_, {static_cast<std::uint32_t>(used_)}});
      used_ += here;
      pages -= here;
      if (used_ == pages_per_pack) next(series_);
    }
  }
  Run one() {
    FileEntry entry;
    place(entry, 1);
    return entry.runs.front();
  }
  std::uint64_t count() const { return count_; }

 private:
  void next(std::uint32_t series) {
    series_ = series;
    ++count_;
    used_ = 0;
    // Random as real ones are, so that they compress as badly.
    static_cast<repository::ObjectId&>(pack_) = repository::new_object_id();
  }
  std::uint32_t series_ = 0;
  std::uint64_t count_ = 0;
  std::uint64_t used_ = 0;
  PackId pack_;
};

struct Scale {
  std::uint64_t files;
  std::uint64_t large;  ///< files of 1 GB
};

std::string path_of(const Scale& scale, std::uint64_t number) {
  // Small files in many databases; the large ones come last, in one.
  if (number < scale.files - scale.large) {
    return fmt::format("base/{}/{}", 10000 + number / files_per_database, first_relation + number);
  }
  return fmt::format("base/99999/{}", first_relation + number);
}

FileEntry found(const Scale& scale, std::uint64_t number) {
  const bool large = number >= scale.files - scale.large;
  return {path_of(scale, number),
          large ? large_bytes : (number % 4) * page_bytes,
          0600,
          "postgres:postgres",
          number + 1,
          1'700'000'000'000'000'000,
          {},
          {}};
}

double seconds_since(std::chrono::steady_clock::time_point begun) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
}

std::uint64_t bytes_below(const std::string& directory) {
  std::uint64_t sum = 0;
  for (const auto& each : base::fs::recursive_directory_iterator(directory)) {
    if (each.is_regular_file()) sum += each.file_size();
  }
  return sum;
}

void say(std::string_view step, std::chrono::steady_clock::time_point begun, std::uint64_t bytes,
         std::string_view more = "") {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  std::cout << fmt::format("{:<44} {:8.1f} s  {:6} MB peak  {:>10} of maps  {}\n", step,
                           seconds_since(begun), usage.ru_maxrss / 1024, base::size_text(bytes),
                           more)
            << std::flush;
}

BackupInfo commit(const repository::Backups& backups, const Scale& scale,
                  std::vector<repository::ShardReference> shards, int number) {
  BackupInfo info;
  info.place = backups.place();
  info.started = base::now();
  info.stopped = info.started;
  info.id = repository::new_backup_id(info.started);
  info.start = {0x1000028U + static_cast<unsigned>(number) * 0x1000000U};
  info.stop = {info.start.value + 0x100};
  info.timeline = {1};
  info.server_version = 150000;
  info.files = scale.files;
  repository::BackupMap map;
  map.shards = std::move(shards);
  backups.write_map(info.id, map);
  backups.commit(info.id, to_json(info));
  return info;
}

int run(const Scale& scale, const std::string& directory) {
  base::fs::remove_all(directory);
  base::make_directories(directory);
  auto created = repository::Repository::create(store::open_store(directory), {});
  const repository::ClusterPlace place{"main", "7300000000000000001"};
  created.repository.register_system(place, "made up");
  const repository::Backups backups(created.repository, place);
  const std::string maps = directory + "/" + place.directory();

  auto begun = std::chrono::steady_clock::now();
  Packs packs(0);
  ShardBuilder first(backups, {});
  for (std::uint64_t i = 0; i < scale.files; ++i) {
    FileEntry entry = found(scale, i);
    packs.place(entry, repository::page_count(entry.size));
    first.add(std::move(entry), 0, false);
  }
  first.finish();
  Baseline baseline;
  baseline.map.shards = first.shards();
  baseline.backup = commit(backups, scale, first.shards(), 0);
  const std::uint64_t full = bytes_below(maps);
  say("first backup", begun, full,
      fmt::format("{} shards, {} packs", first.shards().size(), packs.count()));

  // One page in 10,000 changes, in a twentieth of the large files.
  begun = std::chrono::steady_clock::now();
  ChangedBlocks changed;
  for (std::uint64_t i = scale.files - scale.large; i < scale.files; i += 20) {
    for (std::uint32_t block = 0; block < 131072; block += 500) {
      changed.add({1663, 99999, static_cast<std::uint32_t>(first_relation + i)}, block);
    }
  }
  ComparisonBase comparison{&baseline, &changed, true, nullptr};
  Packs fresh(1);
  PreviousFiles previous(backups, baseline.map.shards);
  ShardBuilder second(backups, baseline.map.shards);
  for (std::uint64_t i = 0; i < scale.files; ++i) {
    FileEntry entry = found(scale, i);
    const FileComparison file(comparison, 131072, entry, previous.find(entry.path));
    const std::uint64_t pages = repository::page_count(entry.size);
    std::uint64_t next = 0;
    const auto keep = [&](std::uint64_t until) {
      for (const Run& run : repository::part_of(file.previous()->runs, next, until - next)) {
        repository::append_run(entry.runs, run);
      }
      next = until;
    };
    for (const auto& range : file.to_read(0, pages)) {
      keep(range.first);
      for (; next < range.end; ++next) repository::append_run(entry.runs, fresh.one());
    }
    keep(pages);
    const bool unchanged = entry == *file.previous();
    second.add(std::move(entry), previous.shard(), unchanged);
  }
  second.finish();
  commit(backups, scale, second.shards(), 1);
  say("second backup, one page in 10,000 changed", begun, bytes_below(maps) - full,
      fmt::format("{} of {} shards kept", second.kept(), second.shards().size()));

  begun = std::chrono::steady_clock::now();
  find_sparse_packs(backups, baseline, {});
  say("looking for packs to empty", begun, 0);

  Configuration configuration;
  configuration.clusters = {{"main", "", ""}};
  configuration.keep.count = 1;
  const Site site{configuration, configuration.clusters.front(), std::move(created.repository)};
  begun = std::chrono::steady_clock::now();
  const Catalog catalog = read_catalog(site);
  say("list", begun, 0, fmt::format("{} backups", catalog.backups.size()));

  begun = std::chrono::steady_clock::now();
  const ExpirePlan plan = plan_expire(site, {});
  say("expire: the plan, which reads all maps", begun, 0);
  base::fs::remove_all(directory);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::uint64_t files = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 10'000'000;
  const std::uint64_t terabytes = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 100;
  try {
    return run({files, terabytes * 1000}, argc > 3 ? argv[3] : "/var/tmp/holdfast-maps");
  } catch (const base::Error& error) {
    std::cerr << error.message() << "\n";
    return 1;
  }
}
