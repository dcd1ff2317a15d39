#include "operations/store_pages.h"

#include "postgres/page.h"

namespace holdfast::operations {

namespace {

using repository::page_bytes;

/// So many small files are remembered by their content.
constexpr std::size_t remembered_files = 200000;

}  // namespace

void StoredPages::add_to(repository::FileEntry& entry) const {
  for (const repository::Run& run : runs) repository::append_run(entry.runs, run);
  entry.hashes.insert(entry.hashes.end(), hashes.begin(), hashes.end());
}

PageStore::PageStore(const repository::Repository& repository,
                     const repository::ClusterPlace& place, const ComparisonBase& base)
    : repository_(repository), base_(base), hashes_(repository, place.directory()) {}

PageJudge PageStore::judge(const FileComparison& file, std::uint64_t first) {
  return {file, base_, hashes_, first};
}

void PageStore::store(base::View bytes, std::uint64_t number, const FileComparison& file,
                      PageJudge& judge, repository::PackWriter& writer, StoredPages& to) const {
  const bool needs_hash = file.keeps_hashes() || judge.needs_hash();
  for (std::size_t at = 0; at < bytes.size(); at += page_bytes, ++number) {
    const base::View page = bytes.subspan(at, std::min(page_bytes, bytes.size() - at));
    const std::uint64_t hash = needs_hash ? hash_of(page) : 0;
    if (file.keeps_hashes()) to.hashes.push_back(hash);
    if (page.size() == page_bytes && postgres::is_zero_page(page)) {
      repository::append_run(to.runs, {1, {}, {}});
    } else if (const auto same = judge.same(number, page, hash)) {
      repository::append_run(to.runs, *same);
    } else {
      const auto place = writer.add(page, number);
      repository::append_run(to.runs, {1, place.pack, place.slot});
      to.any_new = true;
    }
  }
}

bool PageStore::may_be_known(std::uint64_t size, const FileComparison& file) {
  return size <= repository::frame_bytes && file.previous() == nullptr;
}

StoredPages PageStore::store_file(base::View bytes, const FileComparison& file,
                                  repository::PackWriter& writer) {
  StoredPages stored;
  const bool is_small = may_be_known(bytes.size(), file);
  const base::Hash128 hash = is_small ? repository_.page_hash().hash128(bytes) : base::Hash128();
  if (auto known = is_small ? find_known(hash) : std::nullopt) {
    stored.runs = *std::move(known);
    for (std::size_t at = 0; file.keeps_hashes() && at < bytes.size(); at += page_bytes) {
      stored.hashes.push_back(hash_of(bytes.subspan(at, std::min(page_bytes, bytes.size() - at))));
    }
    return stored;
  }
  PageJudge judged = judge(file, 0);
  store(bytes, 0, file, judged, writer, stored);
  if (is_small) remember(hash, stored.runs);
  return stored;
}

std::optional<PageStore::Runs> PageStore::find_known(const base::Hash128& hash) {
  const std::lock_guard lock(mutex_);
  const auto found = known_.find(hash);
  return found == known_.end() ? std::nullopt : std::optional(found->second);
}

void PageStore::remember(const base::Hash128& hash, const Runs& runs) {
  const std::lock_guard lock(mutex_);
  if (known_.size() < remembered_files) known_.try_emplace(hash, runs);
}

/// Of the whole slot: a short page is filled up with zeros there.
std::uint64_t PageStore::hash_of(base::View page) const {
  if (page.size() == page_bytes) return repository_.page_hash().hash64(page);
  base::Bytes whole = base::copy(page);
  whole.resize(page_bytes);
  return repository_.page_hash().hash64(whole);
}

}  // namespace holdfast::operations
