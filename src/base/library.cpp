#include "base/library.h"

#include <dlfcn.h>

#include "base/error.h"

namespace holdfast::base {

Library::Library(std::string file, const std::string& package)
    : file_(std::move(file)), handle_(::dlopen(file_.c_str(), RTLD_NOW | RTLD_GLOBAL)) {
  if (handle_ != nullptr) return;
  throw Error(Code::not_found, fmt::format("could not load {}: {}", file_, ::dlerror()),
              fmt::format("install it (apt-get install {})", package));
}

void* Library::symbol(const char* name) const {
  void* found = ::dlsym(handle_, name);
  if (found == nullptr) fail(Code::unsupported, "cannot use {}: it has no {}", file_, name);
  return found;
}

}  // namespace holdfast::base
