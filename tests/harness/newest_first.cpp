// Preloaded into PostgreSQL (LD_PRELOAD): the directory of WAL summaries is read with the newest
// name first. File systems promise no order; this is one that some of them have.

#include <dirent.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <string_view>
#include <vector>

namespace {

using Open = DIR* (*)(const char*);
using Read = dirent* (*)(DIR*);
using Close = int (*)(DIR*);

template <typename Call>
Call original(const char* name) {
  return reinterpret_cast<Call>(::dlsym(RTLD_NEXT, name));
}

struct Listing {
  std::vector<dirent> entries;
  std::size_t next = 0;
};
std::map<DIR*, Listing>& listings() {
  static std::map<DIR*, Listing> all;  // a server process has one thread
  return all;
}

dirent* next_of(DIR* directory) {
  const auto found = listings().find(directory);
  if (found == listings().end()) return original<Read>("readdir")(directory);
  Listing& listing = found->second;
  return listing.next < listing.entries.size() ? &listing.entries[listing.next++] : nullptr;
}

}  // namespace

extern "C" DIR* opendir(const char* name) {
  DIR* directory = original<Open>("opendir")(name);
  if (directory == nullptr || !std::string_view(name).ends_with("summaries")) return directory;
  Listing listing;
  while (const dirent* entry = original<Read>("readdir")(directory)) {
    listing.entries.push_back(*entry);
  }
  std::ranges::sort(listing.entries, [](const dirent& a, const dirent& b) {
    return std::strcmp(a.d_name, b.d_name) > 0;
  });
  listings()[directory] = std::move(listing);
  return directory;
}

extern "C" dirent* readdir(DIR* directory) {
  return next_of(directory);
}

// The same structure where this is compiled (64 bits).
extern "C" dirent64* readdir64(DIR* directory) {
  return reinterpret_cast<dirent64*>(next_of(directory));
}

extern "C" int closedir(DIR* directory) {
  listings().erase(directory);
  return original<Close>("closedir")(directory);
}
