#include "worlds/picture.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <fstream>
#include <sstream>

namespace holdfast::tests::worlds {

namespace {

std::string facts_of(const fs::path& path, const struct stat& status) {
  std::string facts = fmt::format("{:o} {}:{}", status.st_mode, status.st_uid, status.st_gid);
  std::error_code failed;
  if (S_ISLNK(status.st_mode)) facts += " -> " + fs::read_symlink(path, failed).string();
  if (S_ISREG(status.st_mode)) {
    std::ostringstream content;
    content << std::ifstream(path, std::ios::binary).rdbuf();
    facts += fmt::format(" {} bytes {:x}", status.st_size, std::hash<std::string>()(content.str()));
  }
  return facts;
}

void look(const fs::path& path, const std::function<bool(const fs::path&)>& leave_out,
          Picture& picture) {
  struct stat status {};
  if (leave_out(path)) return;
  if (::lstat(path.c_str(), &status) != 0) {
    picture[path] = "absent";
    return;
  }
  picture[path] = facts_of(path, status);
  if (!S_ISDIR(status.st_mode)) return;
  std::error_code failed;
  for (const auto& entry : fs::directory_iterator(path, failed)) {
    look(entry.path(), leave_out, picture);
  }
}

}  // namespace

bool is_below(const fs::path& path, const fs::path& directory) {
  const std::string& of = path.native();
  const std::string& above = directory.native();
  return of == above || (of.starts_with(above) && of[above.size()] == '/');
}

Picture picture_of(const std::vector<fs::path>& places,
                   const std::function<bool(const fs::path&)>& leave_out) {
  Picture picture;
  for (const fs::path& place : places) look(place, leave_out, picture);
  return picture;
}

std::string differences(const Picture& before, const Picture& after,
                        const std::function<bool(const fs::path&)>& leave_out) {
  std::string text;
  int count = 0;
  const auto note = [&](const std::string& path, const std::string& one, const std::string& two) {
    if (leave_out(path)) return;
    if (++count <= 20) text += fmt::format("  {}: {} became {}\n", path, one, two);
  };
  for (const auto& [path, facts] : before) {
    const auto now = after.find(path);
    const std::string other = now == after.end() ? "absent" : now->second;
    if (facts != other) note(path, facts, other);
  }
  for (const auto& [path, facts] : after) {
    if (!before.contains(path) && facts != "absent") note(path, "absent", facts);
  }
  return text;
}

}  // namespace holdfast::tests::worlds
