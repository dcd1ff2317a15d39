#include "imports/staging.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>

#include "http/problem.h"
#include "log.h"

namespace reference::imports {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view unfinished = ".part";

[[noreturn]] void fail(int error) {
  log("imports: could not stage an upload: {}", std::strerror(error));
  if (error == ENOSPC || error == EDQUOT || error == EFBIG) {
    throw http::Problem{507, "staging_full",
                        "could not store the upload: the staging disk is full"};
  }
  throw http::Problem{503, "staging_unavailable",
                      "could not store the upload: the staging directory cannot be written",
                      std::chrono::seconds(30)};
}

class File {
 public:
  File(const fs::path& path, int flags) : file_(::open(path.c_str(), flags | O_CLOEXEC, 0600)) {
    if (file_ < 0) fail(errno);
  }
  ~File() { ::close(file_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  void write(std::string_view text) const {
    while (!text.empty()) {
      const ssize_t count = ::write(file_, text.data(), text.size());
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) fail(errno);
      text.remove_prefix(static_cast<std::size_t>(count));
    }
  }
  void sync() const {
    if (::fsync(file_) != 0) fail(errno);
  }

 private:
  int file_;
};

}  // namespace

std::size_t Staging::receive(const std::string& id, http::Body& body) const {
  const fs::path part = directory_ / (id + std::string(unfinished));
  std::size_t size = 0;
  try {
    const File file(part, O_WRONLY | O_CREAT | O_EXCL);
    body.read(largest_upload, [&](std::string_view piece) {
      file.write(piece);
      size += piece.size();
    });
    file.sync();
    if (::rename(part.c_str(), path(id).c_str()) != 0) fail(errno);
    File(directory_, O_RDONLY | O_DIRECTORY).sync();
  } catch (...) {
    ::unlink(part.c_str());
    ::unlink(path(id).c_str());
    throw;
  }
  return size;
}

void Staging::remove(const std::string& id) const noexcept {
  ::unlink(path(id).c_str());
}

void Staging::sweep(const std::function<bool(const std::string& id)>& is_needed) const {
  // An upload that is being received, or whose job is not committed yet, is younger than this.
  const auto before = fs::file_time_type::clock::now() - std::chrono::hours(1);
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory_, ignored)) {
    const fs::path& file = entry.path();
    const bool is_ours = file.extension() == ".csv" || file.extension() == unfinished;
    if (!is_ours || entry.last_write_time(ignored) > before || ignored) continue;
    if (file.extension() == unfinished || !is_needed(file.stem())) fs::remove(file, ignored);
  }
}

}  // namespace reference::imports
