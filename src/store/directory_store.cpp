#include "store/directory_store.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "base/error.h"
#include "store/silence.h"

namespace holdfast::store {

namespace {

using base::fs::path;

constexpr std::string_view temporary_directory = ".tmp";

base::Timestamp time_of(const struct stat& status) {
  return base::Timestamp(std::chrono::seconds(status.st_mtim.tv_sec) +
                         base::Microseconds(status.st_mtim.tv_nsec / 1000));
}

Owner owner_of(const path& root) {
  const Asking asking(root);
  const auto status = base::status_of(root);
  if (::geteuid() != 0 || !status || status->st_uid == 0) return {};
  return {status->st_uid, status->st_gid};
}

/// mkdir -p, durably, for an owner.
void make_directories(const path& directory, const Owner& owner) {
  if (!owner.uid) return base::make_directories(directory);
  if (base::status_of(directory)) return;
  make_directories(directory.parent_path(), owner);
  base::make_directories(directory);
  if (::chown(directory.c_str(), *owner.uid, owner.gid) != 0) {
    base::fail_errno(fmt::format("change the owner of \"{}\"", directory.string()), errno);
  }
}

class FileReader : public ObjectReader {
 public:
  FileReader(base::Fd file, path name, path root)
      : file_(std::move(file)),
        name_(std::move(name)),
        root_(std::move(root)),
        size_(base::file_size(file_, name_)) {}

  std::uint64_t size() const override { return size_; }

  void read(std::uint64_t offset, base::MutableView into) override {
    const Asking asking(root_);
    if (base::read_at(file_, into, offset, name_) != into.size()) {
      base::fail(base::Code::corrupt, "\"{}\" ends too early: {} bytes were expected at {}",
                 name_.string(), into.size(), offset);
    }
  }

 private:
  base::Fd file_;
  path name_;
  path root_;
  std::uint64_t size_;
};

void list_below(const path& directory, const std::string& prefix, std::vector<ObjectInfo>& found) {
  const auto names = base::directory_names(directory);
  if (!names) return;
  for (const std::string& name : *names) {
    if (name.starts_with(".")) continue;
    const auto status = base::status_of(directory / name);
    if (!status) continue;  // removed since the directory was read
    if (S_ISDIR(status->st_mode)) {
      list_below(directory / name, prefix + name + "/", found);
    } else {
      found.push_back(
          {prefix + name, static_cast<std::uint64_t>(status->st_size), time_of(*status)});
    }
  }
}

}  // namespace

class FileWriter : public ObjectWriter {
 public:
  FileWriter(DirectoryStore& store, path name) : store_(store), name_(std::move(name)) {
    const Asking asking(store_.root_);
    const path directory = store.root_ / temporary_directory;
    make_directories(directory, store.owner_);
    std::string temporary = (directory / "XXXXXX").string();
    file_ = base::Fd(::mkostemp(temporary.data(), O_CLOEXEC));
    if (!file_) base::fail_errno(fmt::format("create \"{}\"", temporary), errno);
    temporary_ = temporary;
    ::flock(file_.get(), LOCK_EX | LOCK_NB);
    if (store.owner_.uid && ::fchown(file_.get(), *store.owner_.uid, store.owner_.gid) != 0) {
      base::fail_errno(fmt::format("change the owner of \"{}\"", temporary), errno);
    }
  }

  ~FileWriter() override {
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
  }
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;

  void append(base::View bytes) override {
    const Asking asking(store_.root_);
    base::write_all(file_, bytes, name_);
    written_ += bytes.size();
    start_writeback();
  }

  bool commit() override {
    const Asking asking(store_.root_);
    base::sync_file(file_, name_);
    store_.prepare_directory(name_.parent_path());
    int result = ::link(temporary_.c_str(), name_.c_str());
    if (result != 0 && errno == ENOENT) {
      // The directory went when its last object was removed.
      store_.forget_directory(name_.parent_path());
      store_.prepare_directory(name_.parent_path());
      result = ::link(temporary_.c_str(), name_.c_str());
    }
    const int reason = errno;
    ::unlink(temporary_.c_str());
    temporary_.clear();
    if (result != 0 && reason != EEXIST) {
      base::fail_errno(fmt::format("create \"{}\"", name_.string()), reason);
    }
    // Also when somebody else's object is there: he may not have got to this yet.
    base::sync_directory(name_.parent_path());
    return result == 0;
  }

 private:
  /// Lets the kernel write while more is being made, so that the sync at the end finds little to
  /// do.
  void start_writeback() {
    constexpr std::uint64_t step = 4 << 20;
    if (written_ - started_ < step) return;
    ::sync_file_range(file_.get(), static_cast<off_t>(started_),
                      static_cast<off_t>(written_ - started_), SYNC_FILE_RANGE_WRITE);
    started_ = written_;
  }

  DirectoryStore& store_;
  path name_;
  path temporary_;
  base::Fd file_;
  std::uint64_t written_ = 0;
  std::uint64_t started_ = 0;
};

DirectoryStore::DirectoryStore(path root) : root_(std::move(root)), owner_(owner_of(root_)) {}

path DirectoryStore::path_of(std::string_view name) const {
  check_name(name);
  return root_ / name;
}

std::unique_ptr<ObjectReader> DirectoryStore::open(std::string_view name) {
  const Asking asking(root_);
  const path file_name = path_of(name);
  std::optional<base::Fd> file = base::open_if_exists(file_name, O_RDONLY);
  if (!file) return nullptr;
  return std::make_unique<FileReader>(*std::move(file), file_name, root_);
}

std::unique_ptr<ObjectWriter> DirectoryStore::create(std::string_view name) {
  return std::make_unique<FileWriter>(*this, path_of(name));
}

/// Does a directory hold an object? Whoever put it there made the way to it durable before.
bool holds_object(const path& directory) {
  const std::unique_ptr<DIR, int (*)(DIR*)> open(::opendir(directory.c_str()), ::closedir);
  if (!open) return false;
  while (const dirent* entry = ::readdir(open.get())) {
    if (entry->d_type == DT_REG) return true;
  }
  return false;
}

/// Makes a directory and the way to it durable. One that exists but is empty is synced as well: who
/// made it may have died before he did that.
void DirectoryStore::prepare_directory(const path& directory) {
  {
    const std::lock_guard lock(mutex_);
    if (durable_.contains(directory)) return;
  }
  const bool proven = holds_object(directory);
  if (!proven) make_directories(directory, owner_);
  for (path up = directory; !proven && up != root_ && up.has_relative_path();
       up = up.parent_path()) {
    base::sync_directory(up.parent_path());
  }
  const std::lock_guard lock(mutex_);
  durable_.insert(directory);
}

void DirectoryStore::forget_directory(const path& directory) {
  const std::lock_guard lock(mutex_);
  durable_.erase(directory);
}

std::optional<ObjectInfo> DirectoryStore::stat(std::string_view name) {
  const Asking asking(root_);
  const auto status = base::status_of(path_of(name));
  if (!status || S_ISDIR(status->st_mode)) return std::nullopt;
  return ObjectInfo{std::string(name), static_cast<std::uint64_t>(status->st_size),
                    time_of(*status)};
}

std::vector<ObjectInfo> DirectoryStore::list(std::string_view directory) {
  const Asking asking(root_);
  std::vector<ObjectInfo> found;
  const std::string prefix = directory.empty() ? "" : std::string(directory) + "/";
  list_below(directory.empty() ? root_ : path_of(directory), prefix, found);
  std::sort(found.begin(), found.end(),
            [](const ObjectInfo& a, const ObjectInfo& b) { return a.name < b.name; });
  return found;
}

std::vector<std::string> DirectoryStore::names(std::string_view directory) {
  const Asking asking(root_);
  auto names = base::directory_names(directory.empty() ? root_ : path_of(directory));
  if (!names) return {};
  std::erase_if(*names, [](const std::string& name) { return name.starts_with("."); });
  return *std::move(names);
}

bool DirectoryStore::remove(std::string_view name) {
  const Asking asking(root_);
  const path file_name = path_of(name);
  if (::unlink(file_name.c_str()) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) return false;
    base::fail_errno(fmt::format("remove \"{}\"", file_name.string()), errno);
  }
  const path directory = file_name.parent_path();
  base::sync_directory(directory);
  // One of these comes with each WAL segment that is received; others stay.
  if (directory.extension() == ".d" && ::rmdir(directory.c_str()) == 0) {
    forget_directory(directory);
  }
  return true;
}

void DirectoryStore::settle(std::string_view directory) {
  const Asking asking(root_);
  // The way to it was durable before the first name in it was made.
  const path there = directory.empty() ? root_ : path_of(directory);
  const auto open = base::open_if_exists(there, O_RDONLY | O_DIRECTORY);
  if (open) base::sync_file(*open, there);
}

std::string DirectoryStore::url() const {
  return "file://" + root_.string();
}

std::size_t DirectoryStore::sweep_unfinished() {
  const Asking asking(root_);
  const path directory = root_ / temporary_directory;
  const auto names = base::directory_names(directory);
  if (!names) return 0;
  std::size_t removed = 0;
  for (const std::string& name : *names) {
    const path temporary = directory / name;
    const auto file = base::open_if_exists(temporary, O_RDONLY);
    if (file && ::flock(file->get(), LOCK_EX | LOCK_NB) == 0 && ::unlink(temporary.c_str()) == 0) {
      ++removed;
    }
  }
  return removed;
}

}  // namespace holdfast::store
