#include "base/error.h"

#include <array>
#include <cerrno>
#include <system_error>

namespace holdfast::base {

namespace {

constexpr std::array codes{
    CodeInfo{Code::internal, "internal", 1, false, "a bug in Holdfast; please report it"},
    CodeInfo{Code::usage, "usage", 2, false, "the command line is wrong"},
    CodeInfo{Code::configuration, "configuration", 3, false, "holdfast.toml is wrong or missing"},
    CodeInfo{Code::not_found, "not_found", 4, false, "what was named does not exist"},
    CodeInfo{Code::permission, "permission", 5, false, "access was refused"},
    CodeInfo{Code::no_space, "no_space", 6, true, "a file system is full"},
    CodeInfo{Code::io, "io", 7, true, "reading or writing failed"},
    CodeInfo{Code::unreachable, "unreachable", 8, true, "a server or store does not answer"},
    CodeInfo{Code::key, "key", 9, false, "no key, or the wrong one"},
    CodeInfo{Code::corrupt, "corrupt", 10, false, "stored bytes are not what was stored"},
    CodeInfo{Code::foreign, "foreign", 11, false, "it belongs to another PostgreSQL system"},
    CodeInfo{Code::conflict, "conflict", 12, false, "other bytes exist under this name"},
    CodeInfo{Code::busy, "busy", 13, true, "somebody else is doing this now"},
    CodeInfo{Code::outside_window, "outside_window", 14, false,
             "the target is not in the recovery window"},
    CodeInfo{Code::postgres, "postgres", 15, true, "PostgreSQL reported an error"},
    CodeInfo{Code::unsupported, "unsupported", 16, false, "a version or feature unknown to us"},
    CodeInfo{Code::damaged, "damaged", 17, false,
             "the backup is complete, but pages of the cluster fail their checksums"},
    CodeInfo{Code::check_failed, "check_failed", 18, false, "a check found something wrong"},
    CodeInfo{Code::refused, "refused", 19, false, "refused, as it could destroy something"},
    CodeInfo{Code::wal_missing, "wal_missing", 20, false, "WAL that is needed is not there"},
    CodeInfo{Code::interrupted, "interrupted", 21, true, "a signal asked to stop"},
    CodeInfo{Code::inconclusive, "inconclusive", 23, true,
             "a drill could not be done, or not wholly: nothing is proven"},
};

}  // namespace

std::span<const CodeInfo> all_codes() {
  return codes;
}

const CodeInfo& info(Code code) {
  for (const CodeInfo& entry : codes) {
    if (entry.code == code) return entry;
  }
  return codes.front();
}

void fail_errno(std::string_view what, int error_number) {
  const std::string reason = std::generic_category().message(error_number);
  const std::string message = fmt::format("could not {}: {}", what, reason);
  switch (error_number) {
    case ENOSPC:
    case EDQUOT:
      throw Error(Code::no_space, message, "make room on that file system and run it again");
    case EACCES:
    case EPERM:
    case EROFS:
      throw Error(Code::permission, message,
                  "run it as the user who owns the files (usually postgres) or as root");
    default:
      throw Error(Code::io, message);
  }
}

}  // namespace holdfast::base
