#include "store/directory_store.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "base/error.h"
#include "base/seal.h"
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

[[noreturn]] void fail_at(std::string_view verb, const path& name) {
  base::fail_errno(fmt::format("{} \"{}\"", verb, name.string()), errno);
}

bool means_absent(int error_number) {
  return error_number == ENOENT || error_number == ENOTDIR;
}

void give_to(const Owner& owner, int directory, const path& name, const path& root) {
  if (owner.uid && ::fchownat(directory, name.c_str(), *owner.uid, owner.gid, 0) != 0) {
    fail_at("change the owner of", root / name);
  }
}

/// mkdir -p below a directory, for an owner; not durable.
void make_directories(const base::Fd& root, const path& directory, const Owner& owner,
                      const path& root_name) {
  path made;
  for (const path& part : directory) {
    made /= part;
    if (::mkdirat(root.get(), made.c_str(), 0700) == 0) {
      give_to(owner, root.get(), made, root_name);
    } else if (errno != EEXIST) {
      fail_at("create directory", root_name / made);
    }
  }
}

base::Fd open_below(const base::Fd& root, const path& name, int flags, const path& root_name) {
  const char* below = name.empty() ? "." : name.c_str();
  base::Fd file(::openat(root.get(), below, flags | O_CLOEXEC));
  if (!file) fail_at("open", root_name / name);
  return file;
}

void sync_below(const base::Fd& root, const path& directory, const path& root_name) {
  base::sync_file(open_below(root, directory, O_RDONLY | O_DIRECTORY, root_name),
                  root_name / directory);
}

}  // namespace

/// Where a store is, and how that place is known again.
class Place {
 public:
  explicit Place(path root, path name = {}) : root_(std::move(root)), name_(std::move(name)) {
    if (!name_.empty()) bytes_ = base::read_existing_file(root_ / name_);
  }

  /// The directory, in which everything is to be done; it stays the same wherever the way to it
  /// leads.
  base::Fd open() const {
    base::Fd root(::open(root_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (name_.empty()) {
      if (!root) fail_at("open", root_);
      return root;
    }
    if (!root && !means_absent(errno)) fail_at("open", root_);
    const base::Fd file(
        root ? ::openat(root.get(), name_.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC) : -1);
    if (root && !file && !means_absent(errno)) fail_at("open", root_ / name_);
    if (!file) refuse(fmt::format("its {} is not there any more", name_.string()));
    base::Bytes now(bytes_.size() + 1);
    now.resize(base::read_at(file, now, 0, root_ / name_));
    if (now != bytes_) refuse("another one is there now");
    return root;
  }
  bool is_known() const { return !name_.empty(); }
  void check() const {
    if (is_known()) open();
  }

  /// Does what concerns one object or directory. If that fails it is the matter of that one alone
  /// (corrupt), but only if the store answers.
  template <typename Work>
  std::invoke_result_t<Work> of_one(const Work& work) const {
    try {
      return work();
    } catch (const base::Error& error) {
      check();
      const bool is_its_own =
          is_known() && (error.code() == base::Code::io || error.code() == base::Code::permission);
      if (!is_its_own) throw;
      throw base::Error(base::Code::corrupt, error.message(), error.hint());
    }
  }

 private:
  [[noreturn]] void refuse(std::string_view why) const {
    throw base::Error(
        base::Code::unreachable,
        fmt::format("could not reach the repository at file://{}: {}", root_.string(), why),
        "is the disk mounted that it is on? Nothing was made there");
  }

  path root_;
  path name_;  ///< empty: any directory is right
  base::Bytes bytes_;
};

namespace {

class FileReader : public ObjectReader {
 public:
  FileReader(base::Fd file, path name, path root, std::shared_ptr<const Place> place)
      : file_(std::move(file)),
        name_(std::move(name)),
        root_(std::move(root)),
        place_(std::move(place)),
        size_(base::file_size(file_, name_)) {}

  std::uint64_t size() const override { return size_; }

  void read(std::uint64_t offset, base::MutableView into) override {
    const Asking asking(root_);
    const std::size_t count =
        place_->of_one([&] { return base::read_at(file_, into, offset, name_); });
    if (count != into.size()) {
      base::fail(base::Code::corrupt, "\"{}\" ends too early: {} bytes were expected at {}",
                 name_.string(), into.size(), offset);
    }
  }

 private:
  base::Fd file_;
  path name_;
  path root_;
  std::shared_ptr<const Place> place_;
  std::uint64_t size_;
};

/// What is there, seen through links; of a link that leads nowhere, the link: it is not absent.
std::optional<struct stat> status_of_entry(const path& name) {
  struct stat status {};
  if (::stat(name.c_str(), &status) == 0) return status;
  return base::status_of(name, false);
}

void check_plain(const struct stat& status, const path& name) {
  if (S_ISREG(status.st_mode)) return;
  base::fail(base::Code::corrupt, "cannot read \"{}\": it is no plain file", name.string());
}

std::optional<base::Fd> open_plain_file(const path& name) {
  const auto status = status_of_entry(name);
  if (!status) return std::nullopt;
  check_plain(*status, name);
  // Whatever takes its place meanwhile: this does not wait for it.
  std::optional<base::Fd> file = base::open_if_exists(name, O_RDONLY | O_NONBLOCK);
  struct stat opened {};
  if (file && ::fstat(file->get(), &opened) != 0) fail_at("stat", name);
  if (file) check_plain(opened, name);
  return file;
}

void list_below(const path& directory, const std::string& prefix, std::vector<ObjectInfo>& found) {
  const auto names = base::directory_names(directory);
  if (!names) return;
  for (const std::string& name : *names) {
    if (name.starts_with(".")) continue;
    const auto status = status_of_entry(directory / name);
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
    root_ = store.place_->open();
    make_directories(root_, temporary_directory, store.owner_, store.root_);
    do {
      temporary_ = path(temporary_directory) / random_name();
      file_ = base::Fd(
          ::openat(root_.get(), temporary_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    } while (!file_ && errno == EEXIST);
    if (!file_) fail_at("create", store.root_ / std::exchange(temporary_, path()));
    ::flock(file_.get(), LOCK_EX | LOCK_NB);
    if (store.owner_.uid && ::fchown(file_.get(), *store.owner_.uid, store.owner_.gid) != 0) {
      ::unlinkat(root_.get(), temporary_.c_str(), 0);
      fail_at("change the owner of", store.root_ / temporary_);
    }
  }

  ~FileWriter() override {
    if (!temporary_.empty()) ::unlinkat(root_.get(), temporary_.c_str(), 0);
  }
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;

  void append(base::View bytes) override {
    const Asking asking(store_.root_);
    base::write_all(file_, bytes, full_name());
    written_ += bytes.size();
    start_writeback();
  }

  bool commit() override {
    const Asking asking(store_.root_);
    base::sync_file(file_, full_name());
    store_.place_->check();
    const path directory = name_.parent_path();
    store_.prepare_directory(root_, directory);
    int result = ::linkat(root_.get(), temporary_.c_str(), root_.get(), name_.c_str(), 0);
    if (result != 0 && errno == ENOENT) {
      // The directory went when its last object was removed.
      store_.forget_directory(directory);
      store_.prepare_directory(root_, directory);
      result = ::linkat(root_.get(), temporary_.c_str(), root_.get(), name_.c_str(), 0);
    }
    const int reason = errno;
    ::unlinkat(root_.get(), temporary_.c_str(), 0);
    temporary_.clear();
    if (result != 0 && reason != EEXIST) {
      base::fail_errno(fmt::format("create \"{}\"", full_name().string()), reason);
    }
    // Also when somebody else's object is there: he may not have got to this yet.
    sync_below(root_, directory, store_.root_);
    return result == 0;
  }

 private:
  static std::string random_name() { return base::to_hex(base::random_bytes(8)); }
  path full_name() const { return store_.root_ / name_; }

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
  path name_;  ///< relative, as is the next one
  path temporary_;
  base::Fd root_;
  base::Fd file_;
  std::uint64_t written_ = 0;
  std::uint64_t started_ = 0;
};

DirectoryStore::DirectoryStore(path root)
    : root_(std::move(root)), owner_(owner_of(root_)), place_(std::make_shared<Place>(root_)) {}

path DirectoryStore::path_of(std::string_view name) const {
  check_name(name);
  return root_ / name;
}

void DirectoryStore::hold_to(std::string_view name) {
  const Asking asking(root_);
  check_name(name);
  place_ = std::make_shared<Place>(root_, name);
}

void hold_to(ObjectStore& store, std::string_view name) {
  // Other kinds are in memory, or stand before one of these; they cannot go away by themselves.
  if (auto* directory = dynamic_cast<DirectoryStore*>(&store)) directory->hold_to(name);
}

std::unique_ptr<ObjectReader> DirectoryStore::open(std::string_view name) {
  const Asking asking(root_);
  const path file_name = path_of(name);
  std::optional<base::Fd> file = place_->of_one([&] { return open_plain_file(file_name); });
  if (file) return std::make_unique<FileReader>(*std::move(file), file_name, root_, place_);
  place_->check();
  return nullptr;
}

std::unique_ptr<ObjectWriter> DirectoryStore::create(std::string_view name) {
  check_name(name);
  // Before there is a repository anybody may make the place for it.
  if (!place_->is_known()) base::make_directories(root_);
  return std::make_unique<FileWriter>(*this, name);
}

/// Does a directory hold an object? Whoever put it there made the way to it durable before.
bool holds_object(const base::Fd& root, const path& directory) {
  const int fd = ::openat(root.get(), directory.empty() ? "." : directory.c_str(),
                          O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return false;
  const std::unique_ptr<DIR, int (*)(DIR*)> open(::fdopendir(fd), ::closedir);
  if (!open) {
    ::close(fd);
    return false;
  }
  while (const dirent* entry = ::readdir(open.get())) {
    if (entry->d_type == DT_REG) return true;
  }
  return false;
}

/// Makes a directory and the way to it durable. One that exists but is empty is synced as well: who
/// made it may have died before he did that.
void DirectoryStore::prepare_directory(const base::Fd& root, const path& directory) {
  {
    const std::lock_guard lock(mutex_);
    if (durable_.contains(directory)) return;
  }
  const bool proven = holds_object(root, directory);
  if (!proven) make_directories(root, directory, owner_, root_);
  for (path up = directory; !proven && !up.empty(); up = up.parent_path()) {
    sync_below(root, up.parent_path(), root_);
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
  const auto status = place_->of_one([&] { return status_of_entry(path_of(name)); });
  if (!status) place_->check();
  if (!status) return std::nullopt;
  return ObjectInfo{std::string(name), static_cast<std::uint64_t>(status->st_size),
                    time_of(*status)};
}

std::vector<ObjectInfo> DirectoryStore::list(std::string_view directory) {
  const Asking asking(root_);
  std::vector<ObjectInfo> found;
  const std::string prefix = directory.empty() ? "" : std::string(directory) + "/";
  place_->of_one([&] {
    list_below(directory.empty() ? root_ : path_of(directory), prefix, found);
    return true;
  });
  place_->check();
  std::sort(found.begin(), found.end(),
            [](const ObjectInfo& a, const ObjectInfo& b) { return a.name < b.name; });
  return found;
}

std::vector<std::string> DirectoryStore::names(std::string_view directory) {
  const Asking asking(root_);
  auto names = place_->of_one(
      [&] { return base::directory_names(directory.empty() ? root_ : path_of(directory)); });
  place_->check();
  if (!names) return {};
  std::erase_if(*names, [](const std::string& name) { return name.starts_with("."); });
  return *std::move(names);
}

bool DirectoryStore::remove(std::string_view name) {
  const Asking asking(root_);
  const path file_name = path_of(name);
  if (::unlink(file_name.c_str()) != 0) {
    if (!means_absent(errno)) fail_at("remove", file_name);
    place_->check();
    return false;
  }
  base::sync_directory(file_name.parent_path());
  // One of these comes with each WAL segment that is received; others stay.
  const path directory = path(name).parent_path();
  if (directory.extension() == ".d" && ::rmdir((root_ / directory).c_str()) == 0) {
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
    const base::Fd file(::open(temporary.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    if (file && ::flock(file.get(), LOCK_EX | LOCK_NB) == 0 && ::unlink(temporary.c_str()) == 0) {
      ++removed;
    }
  }
  return removed;
}

}  // namespace holdfast::store
