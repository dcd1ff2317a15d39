#include "store/object_store.h"

#include "base/error.h"
#include "store/directory_store.h"

namespace holdfast::store {

std::optional<base::Bytes> ObjectStore::get(std::string_view name) {
  const std::unique_ptr<ObjectReader> reader = open(name);
  if (!reader) return std::nullopt;
  base::Bytes bytes(reader->size());
  reader->read(0, bytes);
  return bytes;
}

bool ObjectStore::put(std::string_view name, base::View bytes) {
  const std::unique_ptr<ObjectWriter> writer = create(name);
  writer->append(bytes);
  return writer->commit();
}

base::fs::path directory_of(const std::string& url) {
  std::string_view path = url;
  if (path.starts_with("file://")) path.remove_prefix(7);
  if (!path.starts_with("/")) {
    throw base::Error(base::Code::configuration,
                      fmt::format("cannot use \"{}\" as a repository", url),
                      "write it as file:///an/absolute/directory");
  }
  while (path.size() > 1 && path.ends_with("/")) path.remove_suffix(1);
  return path;
}

std::unique_ptr<ObjectStore> open_store(const std::string& url) {
  return std::make_unique<DirectoryStore>(directory_of(url));
}

void check_name(std::string_view name) {
  bool part_begins = true;
  for (const char c : name) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '_' || c == '.';
    if ((part_begins && !plain) || (part_begins && c == '.') || (!plain && c != '/')) {
      base::fail(base::Code::usage, "cannot use \"{}\" as the name of an object", name);
    }
    part_begins = c == '/';
  }
  if (part_begins)
    base::fail(base::Code::usage, "cannot use \"{}\" as the name of an object", name);
}

}  // namespace holdfast::store
