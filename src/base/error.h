#pragma once

// Failure, as Holdfast speaks of it: one exception type, one table of codes.
//
// An Error says what could not (may work later) or cannot (never) be done, why, and the way out.
// What is absent is a std::optional and what a user asked to find out is a value in a report;
// neither is an Error. Each layer that knows something the user needs adds it with `with_context`.

#include <fmt/format.h>

#include <exception>
#include <span>
#include <string>
#include <string_view>

namespace holdfast::base {

/// What kind of failure. Every code has its own exit status; the table is in error.cpp and in
/// docs/exit-status.md, and a test holds the two together.
enum class Code {
  internal,        ///< a bug in Holdfast
  usage,           ///< the command line is wrong
  configuration,   ///< holdfast.toml is wrong or missing
  not_found,       ///< what the user named does not exist
  permission,      ///< the operating system or the server refused us
  no_space,        ///< a file system is full
  io,              ///< reading or writing failed
  unreachable,     ///< a server or a store does not answer
  key,             ///< no key, or the wrong one
  corrupt,         ///< stored bytes are not what was stored
  foreign,         ///< belongs to another PostgreSQL system
  conflict,        ///< other bytes exist under this name
  busy,            ///< somebody else is doing this now
  outside_window,  ///< the target is not in the recovery window
  postgres,        ///< PostgreSQL reported an error
  unsupported,     ///< a version or feature that we do not know
  damaged,         ///< done, but what was backed up is itself damaged
  check_failed,    ///< verify, doctor or status found something wrong
  refused,         ///< doing it could destroy something; we did not
  wal_missing,     ///< WAL that is needed is not there
  interrupted,     ///< a signal asked us to stop
  inconclusive,    ///< a drill could not be done, or not wholly: nothing is proven
};

struct CodeInfo {
  Code code;
  std::string_view name;  ///< as `--json` prints it
  int exit_status;        ///< 1 to 125 (see POSTGRES pgarch.c: above that the archiver restarts)
  bool transient;         ///< the same command may work later
  std::string_view meaning;
};

const CodeInfo& info(Code code);
std::span<const CodeInfo> all_codes();

class Error : public std::exception {
 public:
  Error(Code code, std::string message, std::string hint = {})
      : code_(code), message_(std::move(message)), hint_(std::move(hint)) {}

  Code code() const { return code_; }
  const std::string& message() const { return message_; }
  const std::string& hint() const { return hint_; }
  const char* what() const noexcept override { return message_.c_str(); }

  /// The same failure, seen from further up: "CONTEXT: message".
  Error with_context(std::string_view context) const {
    return {code_, fmt::format("{}: {}", context, message_), hint_};
  }
  /// The same failure with a way out, unless it has one already.
  Error with_hint(std::string hint) const {
    return {code_, message_, hint_.empty() ? std::move(hint) : hint_};
  }

 private:
  Code code_;
  std::string message_;
  std::string hint_;
};

template <typename... Args>
[[noreturn]] void fail(Code code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

/// A failed system call as an Error: errno picks the code (ENOSPC and EDQUOT are no_space, EACCES
/// and EPERM are permission, the rest io). `what` reads on from "could not", as in "write \"x\"".
[[noreturn]] void fail_errno(std::string_view what, int error_number);

}  // namespace holdfast::base
