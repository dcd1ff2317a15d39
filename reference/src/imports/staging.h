#pragma once

// Uploads that wait to be imported, as files in IMPORT_UPLOAD_DIR: <job id>.csv.
//
// A file is there completely and durably or not at all: it is written under another name, synced
// and renamed. All processes that share a database must share the directory. What no unfinished job
// needs is removed when its job ends, and what a crash left over by sweep().

#include <filesystem>
#include <functional>
#include <string>

#include "http/message.h"

namespace reference::imports {

constexpr std::size_t largest_upload = 64UL << 20;

class Staging {
 public:
  explicit Staging(std::filesystem::path directory) : directory_(std::move(directory)) {}

  /// Stores the body and gives its size. Throws http::Problem: 413 if it is larger than
  /// largest_upload, 507 if the disk is full, 503 if the directory cannot be written for another
  /// reason; nothing is left then.
  std::size_t receive(const std::string& id, http::Body& body) const;
  std::filesystem::path path(const std::string& id) const { return directory_ / (id + ".csv"); }
  void remove(const std::string& id) const noexcept;
  /// Removes what was staged more than an hour ago and is not needed, as `is_needed` says of an id.
  void sweep(const std::function<bool(const std::string& id)>& is_needed) const;

 private:
  std::filesystem::path directory_;
};

}  // namespace reference::imports
