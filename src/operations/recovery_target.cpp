#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "operations/restore_plan.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using Kind = RecoveryTarget::Kind;

bool all_digits(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

RecoveryTarget lsn_target(std::string_view text) {
  const auto lsn = postgres::parse_lsn(text);
  if (!lsn) {
    throw Error(Code::usage, fmt::format("cannot use \"{}\" as an LSN", text),
                "write it as PostgreSQL does: 16/B374D848");
  }
  RecoveryTarget target;
  target.kind = Kind::lsn;
  target.lsn = *lsn;
  return target;
}

RecoveryTarget transaction_target(std::string_view text) {
  RecoveryTarget target;
  target.kind = Kind::transaction;
  const auto [end, failed] =
      std::from_chars(text.data(), text.data() + text.size(), target.transaction);
  if (failed != std::errc() || end != text.data() + text.size() || target.transaction < 3) {
    base::fail(Code::usage, "cannot use \"{}\" as a transaction number", text);
  }
  return target;
}

RecoveryTarget time_target(std::string_view text, std::string_view default_zone) {
  const base::ParsedTime parsed = base::parse_time(text, default_zone);
  RecoveryTarget target;
  target.kind = Kind::time;
  target.time = parsed.time;
  if (parsed.zone_was_assumed) target.assumed_zone = default_zone;
  return target;
}

RecoveryTarget name_target(std::string_view text) {
  // MAXFNAMELEN in xlog_internal.h is 64 with the final zero.
  if (text.empty() || text.size() > 63) {
    throw Error(Code::usage, fmt::format("cannot use \"{}\" as the name of a restore point", text),
                "a name has 1 to 63 bytes; without --to everything is recovered");
  }
  RecoveryTarget target;
  target.kind = Kind::name;
  target.name = text;
  return target;
}

bool looks_like_a_time(std::string_view text) {
  return text.size() >= 10 && all_digits(text.substr(0, 4)) && text[4] == '-' &&
         all_digits(text.substr(5, 2)) && text[7] == '-';
}

}  // namespace

RecoveryTarget parse_target(std::string_view text, std::string_view default_zone) {
  const auto after = [&](std::string_view prefix) -> std::optional<std::string_view> {
    if (!text.starts_with(prefix)) return std::nullopt;
    return text.substr(prefix.size());
  };
  if (text == "latest") return {};
  if (text == "immediate") {
    RecoveryTarget target;
    target.kind = Kind::immediate;
    return target;
  }
  if (const auto rest = after("time:")) return time_target(*rest, default_zone);
  if (const auto rest = after("lsn:")) return lsn_target(*rest);
  if (const auto rest = after("xid:")) return transaction_target(*rest);
  if (const auto rest = after("name:")) return name_target(*rest);
  if (looks_like_a_time(text)) return time_target(text, default_zone);
  if (postgres::parse_lsn(text)) return lsn_target(text);
  if (all_digits(text)) return transaction_target(text);
  return name_target(text);
}

std::string to_string(const RecoveryTarget& target) {
  switch (target.kind) {
    case Kind::latest:
      return "the end of WAL";
    case Kind::immediate:
      return "the end of the backup";
    case Kind::time:
      return base::to_string(target.time);
    case Kind::lsn:
      return "LSN " + postgres::to_string(target.lsn);
    case Kind::transaction:
      return fmt::format("transaction {}", target.transaction);
    case Kind::name:
      return fmt::format("restore point \"{}\"", target.name);
  }
  return {};
}

}  // namespace holdfast::operations
