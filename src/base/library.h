#pragma once

// A shared library that is loaded when it is first needed, because what it brings along would slow
// down every start of the program, also of those commands that never use it.

#include <string>

namespace holdfast::base {

class Library {
 public:
  /// `file`: "libpq.so.5"; `package`: what has it. Throws Error(not_found) if it is not there. It
  /// stays loaded.
  Library(std::string file, const std::string& package);

  /// Throws Error(unsupported) if the library has no such function.
  template <typename Function>
  void find(const char* name, Function& function) const {
    function = reinterpret_cast<Function>(symbol(name));
  }

 private:
  void* symbol(const char* name) const;

  std::string file_;
  void* handle_;
};

}  // namespace holdfast::base
