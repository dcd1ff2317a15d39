#pragma once

// For tests only: a store in memory that several holders share, that shows what is in it, and that
// lets a test step in between two calls; and repositories in such stores.

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/testing.h"
#include "repository/repository.h"

namespace holdfast::repository::testing {

using base::testing::code_of;

/// Runs `action`; if it throws an Error, that must be `expected`. True if it threw nothing.
bool succeeds_or(base::Code expected, auto&& action) {
  try {
    action();
    return true;
  } catch (const base::Error& error) {
    EXPECT_EQ(error.code(), expected) << error.message();
    return false;
  }
}

/// What MemoryStores have in common. A hook gets the call ("open", "commit", "stat", "names",
/// "list", "remove") and the name; it may change the objects, or throw.
struct Objects {
  using Hook = std::function<void(std::string_view call, const std::string& name)>;
  std::mutex mutex;
  std::map<std::string, base::Bytes> all;
  Hook before = [](std::string_view, const std::string&) {};
  Hook after = [](std::string_view, const std::string&) {};

  /// Sets a hook while other threads may be calling it.
  void set(Hook& hook, Hook wanted) {
    const std::lock_guard lock(mutex);
    hook = std::move(wanted);
  }
  void call(const Hook& hook, std::string_view what, const std::string& name) {
    std::unique_lock lock(mutex);
    const Hook now = hook;
    lock.unlock();
    now(what, name);
  }
  base::Bytes& at(const std::string& name) {
    const std::lock_guard lock(mutex);
    return all.at(name);
  }
  std::vector<std::string> names_with(std::string_view part) {
    const std::lock_guard lock(mutex);
    std::vector<std::string> found;
    for (const auto& [name, bytes] : all) {
      if (name.find(part) != std::string::npos) found.push_back(name);
    }
    return found;
  }
};

class MemoryReader : public store::ObjectReader {
 public:
  explicit MemoryReader(base::Bytes bytes) : bytes_(std::move(bytes)) {}
  std::uint64_t size() const override { return bytes_.size(); }
  void read(std::uint64_t offset, base::MutableView into) override {
    if (offset > bytes_.size() || into.size() > bytes_.size() - offset) {
      base::fail(base::Code::corrupt, "the object ends too early");
    }
    std::copy_n(bytes_.begin() + static_cast<std::ptrdiff_t>(offset), into.size(), into.begin());
  }

 private:
  base::Bytes bytes_;
};

class MemoryWriter : public store::ObjectWriter {
 public:
  MemoryWriter(std::shared_ptr<Objects> objects, std::string name)
      : objects_(std::move(objects)), name_(std::move(name)) {}
  void append(base::View bytes) override {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  }
  bool commit() override {
    objects_->call(objects_->before, "commit", name_);
    bool fresh = false;
    {
      const std::lock_guard lock(objects_->mutex);
      fresh = objects_->all.try_emplace(name_, bytes_).second;
    }
    objects_->call(objects_->after, "commit", name_);
    return fresh;
  }

 private:
  std::shared_ptr<Objects> objects_;
  std::string name_;
  base::Bytes bytes_;
};

class MemoryStore : public store::ObjectStore {
  auto call(std::string_view what, std::string_view name, auto&& work) {
    store::check_name(name);
    objects_->call(objects_->before, what, std::string(name));
    std::unique_lock lock(objects_->mutex);
    auto result = work(objects_->all);
    lock.unlock();
    objects_->call(objects_->after, what, std::string(name));
    return result;
  }

 public:
  explicit MemoryStore(std::shared_ptr<Objects> objects) : objects_(std::move(objects)) {}

  std::unique_ptr<store::ObjectReader> open(std::string_view name) override {
    return call("open", name, [&](auto& all) -> std::unique_ptr<store::ObjectReader> {
      const auto found = all.find(std::string(name));
      if (found == all.end()) return nullptr;
      return std::make_unique<MemoryReader>(found->second);
    });
  }
  std::unique_ptr<store::ObjectWriter> create(std::string_view name) override {
    store::check_name(name);
    return std::make_unique<MemoryWriter>(objects_, std::string(name));
  }
  std::optional<store::ObjectInfo> stat(std::string_view name) override {
    return call("stat", name, [&](auto& all) -> std::optional<store::ObjectInfo> {
      const auto found = all.find(std::string(name));
      if (found == all.end()) return std::nullopt;
      return store::ObjectInfo{std::string(name), found->second.size(), {}};
    });
  }
  std::vector<store::ObjectInfo> list(std::string_view directory) override {
    return call("list", directory, [&](auto& all) {
      std::vector<store::ObjectInfo> found;
      for (const auto& [name, bytes] : all) {
        if (name.starts_with(std::string(directory) + "/"))
          found.push_back({name, bytes.size(), {}});
      }
      return found;
    });
  }
  std::vector<std::string> names(std::string_view directory) override {
    const std::string prefix = std::string(directory) + "/";
    return call("names", directory, [&](auto& all) {
      std::vector<std::string> found;
      for (const auto& [name, bytes] : all) {
        if (!name.starts_with(prefix)) continue;
        std::string part =
            name.substr(prefix.size(), name.find('/', prefix.size()) - prefix.size());
        if (found.empty() || found.back() != part) found.push_back(std::move(part));
      }
      return found;
    });
  }
  bool remove(std::string_view name) override {
    return call("remove", name, [&](auto& all) { return all.erase(std::string(name)) > 0; });
  }
  std::string url() const override { return "memory://test"; }

 private:
  std::shared_ptr<Objects> objects_;
};

inline std::unique_ptr<store::ObjectStore> store_of(std::shared_ptr<Objects> objects) {
  return std::make_unique<MemoryStore>(std::move(objects));
}

/// A key file with a fresh key, in a directory of its own.
class KeyFile {
 public:
  KeyFile() { key_ = make_key_file(path()); }
  std::string path() const { return (directory_.path() / "key").string(); }
  const base::Secret& key() const { return key_; }
  KeySource source() const { return {{}, path(), {}}; }

 private:
  base::TemporaryDirectory directory_{"key"};
  base::Secret key_;
};

inline const ClusterPlace place{"main", "7300000000000000001"};

/// A new repository in memory, encrypted or not, and what is stored of it.
struct TestRepository {
  explicit TestRepository(bool encrypted)
      : made(Repository::create(store_of(objects), encrypted ? key_file.source() : KeySource{})),
        repository(made.repository) {}
  std::shared_ptr<Objects> objects = std::make_shared<Objects>();
  KeyFile key_file;
  Repository::Created made;
  Repository& repository;
};

}  // namespace holdfast::repository::testing
