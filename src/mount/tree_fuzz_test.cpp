// Random use of a mounted tree against a model of what POSIX promises, with deaths and power cuts
// in between. After a power cut a page is what it was when it was last synced, or anything that was
// written since; but never a zero page, nor an old one, in the place of what was synced.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "mount/testing.h"

namespace holdfast::mount {
namespace {

using base::Bytes;
using repository::page_bytes;
using testing::TestBackup;
using testing::TestMount;

/// What a file may hold.
struct Model {
  Bytes now;                             ///< as its users see it
  std::set<std::size_t> unsynced;        ///< pages that were written since they were synced,
  std::map<std::size_t, Bytes> durable;  ///< and what they held before
  bool journaled = false;                ///< some page may have been recorded as local

  void synced() {
    unsynced.clear();
    durable.clear();
    journaled = true;
  }
};

class Fuzz {
 public:
  explicit Fuzz(std::uint64_t seed) : random_(seed), backup_(make_files()) {
    for (const auto& [path, content] : backup_.files()) models_[path].now = content;
    mount_ = std::make_unique<TestMount>(backup_, directory_.path());
  }

  void step() {
    const std::size_t kind = random_.below(100);
    if (kind < 45) return write();
    if (kind < 60) return read();
    if (kind < 70) return sync();
    if (kind < 78) return truncate();
    if (kind < 81) return remove();
    if (kind < 84) return rename();
    if (kind < 87) return create();
    if (kind < 90) return mount_->tree().checkpoint(), all_durable();
    if (kind < 92) return hydrate();
    if (kind < 97) return die(false);
    die(true);
  }

  void check_all() {
    for (const auto& [path, model] : models_) {
      const auto found = mount_->content(path);
      ASSERT_TRUE(found) << path;
      ASSERT_TRUE(*found == model.now) << path << " differs";
    }
  }

 private:
  std::map<std::string, Bytes> make_files() {
    std::map<std::string, Bytes> files;
    for (int i = 0; i < 6; ++i) {
      Bytes content = random_.bytes(random_.below(60 * page_bytes));
      if (i == 3 && content.size() > 8 * page_bytes) {
        std::fill_n(content.begin() + page_bytes, 6 * page_bytes, std::uint8_t{0});
      }
      files["base/1/" + std::to_string(i)] = std::move(content);
    }
    return files;
  }

  std::string any_file() {
    if (models_.empty()) create();
    auto each = models_.begin();
    std::advance(each, static_cast<std::ptrdiff_t>(random_.below(models_.size())));
    return each->first;
  }

  Tree::Handle open(const std::string& path) {
    Tree::Handle handle;
    EXPECT_EQ(mount_->tree().open(path, O_RDWR, handle), 0) << path;
    return handle;
  }

  static Bytes page_of(const Bytes& content, std::size_t page) {
    Bytes bytes(page_bytes);
    const std::size_t at = page * page_bytes;
    if (at < content.size()) {
      std::copy_n(content.begin() + static_cast<std::ptrdiff_t>(at),
                  std::min(page_bytes, content.size() - at), bytes.begin());
    }
    return bytes;
  }

  void write() {
    const std::string path = any_file();
    Model& model = models_[path];
    const bool whole_page = random_.chance(70);
    std::size_t offset = random_.below(model.now.size() + 2 * page_bytes);
    std::size_t size = 1 + random_.below(3 * page_bytes);
    if (whole_page) {
      offset = offset / page_bytes * page_bytes;
      size = (1 + random_.below(3)) * page_bytes;
    }
    const Bytes bytes = random_.bytes(size);
    // Pages that the file grows by change, too.
    const std::size_t first = std::min(offset, model.now.size()) / page_bytes;
    for (std::size_t page = first; page * page_bytes < offset + size; ++page) {
      if (model.unsynced.insert(page).second) model.durable[page] = page_of(model.now, page);
    }
    ASSERT_EQ(mount_->tree().write(open(path), bytes, offset), static_cast<int>(size));
    model.now.resize(std::max(model.now.size(), offset + size));
    std::ranges::copy(bytes, model.now.begin() + static_cast<std::ptrdiff_t>(offset));
  }

  void read() {
    const std::string path = any_file();
    const Bytes& now = models_[path].now;
    const std::size_t offset = random_.below(now.size() + 1);
    Bytes got(random_.below(20 * page_bytes));
    const std::size_t expected = std::min(got.size(), now.size() - offset);
    ASSERT_EQ(mount_->tree().read(open(path), got, offset), static_cast<int>(expected));
    ASSERT_TRUE(std::equal(got.begin(), got.begin() + static_cast<std::ptrdiff_t>(expected),
                           now.begin() + static_cast<std::ptrdiff_t>(offset)));
  }

  void sync() {
    const std::string path = any_file();
    ASSERT_EQ(mount_->tree().sync(open(path)), 0);
    models_[path].synced();
  }

  void truncate() {
    const std::string path = any_file();
    Model& model = models_[path];
    std::size_t size = random_.below(model.now.size() + page_bytes);
    if (random_.chance(70)) size = size / page_bytes * page_bytes;
    ASSERT_EQ(mount_->tree().truncate(path, size), 0);
    ASSERT_EQ(mount_->tree().sync(open(path)), 0);
    model.now.resize(size);
    model.synced();
  }

  void remove() {
    const std::string path = any_file();
    ASSERT_EQ(mount_->tree().remove(path), 0);
    models_.erase(path);
  }

  void rename() {
    const std::string from = any_file();
    const std::string to = "base/1/" + std::to_string(random_.below(12));
    if (from == to) return;
    ASSERT_EQ(mount_->tree().sync(open(from)), 0);
    ASSERT_EQ(mount_->tree().rename(from, to, 0), 0);
    models_[to] = {models_[from].now, {}, {}, true};
    models_.erase(from);
  }

  void create() {
    const std::string path = "base/1/" + std::to_string(random_.below(12));
    if (models_.contains(path)) return;
    Tree::Handle handle;
    ASSERT_EQ(mount_->tree().create(path, O_RDWR | O_EXCL, 0600, {::getuid(), ::getgid()}, handle),
              0);
    models_[path] = {};
  }

  void all_durable() {
    for (auto& [path, model] : models_) model.synced();
  }

  void hydrate() {
    mount_->hydrate();
    all_durable();
  }

  /// The process dies; with `cut`, so does the machine: of pages that were never synced the disk
  /// may hold anything.
  void die(bool cut) {
    mount_.reset();
    if (cut) {
      for (const auto& [path, model] : models_) scribble(path, model);
    }
    mount_ = std::make_unique<TestMount>(backup_, directory_.path());
    for (auto& [path, model] : models_) {
      const auto found = mount_->content(path);
      ASSERT_TRUE(found) << path;
      ASSERT_EQ(found->size(), model.now.size()) << path;
      for (std::size_t page = 0; page * page_bytes < found->size(); ++page) {
        const Bytes got = page_of(*found, page);
        if (got == page_of(model.now, page)) continue;
        ASSERT_TRUE(model.unsynced.contains(page)) << path << " page " << page << " is not there";
        if (!backup_.files().contains(path)) continue;  // a file of its user's alone
        // Of the last page of a file that grew, a part is the backup's and a part its user's.
        const Bytes now = page_of(model.now, page);
        const Bytes& before = model.durable[page];
        for (std::size_t i = 0; i < page_bytes; ++i) {
          ASSERT_TRUE(got[i] == now[i] || got[i] == before[i]) << path << " page " << page;
        }
      }
      model.now = *found;
    }
    if (cut) {
      for (const auto& [path, model] : models_) ASSERT_EQ(mount_->tree().sync(open(path)), 0);
    }
    all_durable();
  }

  /// Of a file of which nothing was ever synced the journal can claim nothing: whatever stands in
  /// the local file must not be believed.
  void scribble(const std::string& path, const Model& model) {
    const auto local = directory_.path() / "data" / path;
    const auto status = base::status_of(local);
    if (model.journaled || !status || (status->st_mode & unfinished_bit) == 0) return;
    const base::Fd file = base::open_file(local, O_RDWR);
    const Bytes garbage(std::min<std::size_t>(model.now.size(), backup_.files().at(path).size()),
                        0xdb);
    base::write_at(file, garbage, 0, local);
  }

  base::testing::Random random_;
  TestBackup backup_;
  base::TemporaryDirectory directory_{"fuzz"};
  std::unique_ptr<TestMount> mount_;
  std::map<std::string, Model> models_;
};

TEST(MountedTreeFuzz, INV_9_holds_what_posix_promises_through_deaths_and_power_cuts) {
  const std::size_t rounds = base::testing::fuzz_iterations(10);
  for (std::uint64_t seed = 1; seed <= rounds; ++seed) {
    SCOPED_TRACE(seed);
    Fuzz fuzz(seed);
    for (int i = 0; i < 80 && !::testing::Test::HasFatalFailure(); ++i) fuzz.step();
    if (::testing::Test::HasFatalFailure()) return;
    fuzz.check_all();
    if (::testing::Test::HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace holdfast::mount
