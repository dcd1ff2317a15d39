#include "repository/gaps.h"

#include <charconv>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace holdfast::repository {

namespace {

using nlohmann::json;

constexpr std::string_view mac_purpose = "gap";
constexpr std::string_view check_begin = ",\n  \"check\": \"";

std::string name_of(const Gap& gap) {
  return fmt::format("{:08X}-{:016X}-{:016X}", gap.timeline, gap.from, gap.to);
}

std::string lsn_text(std::uint64_t lsn) {
  return fmt::format("{:X}/{:X}", lsn >> 32, lsn & 0xFFFFFFFF);
}

std::string body_of(const Gap& gap) {
  const json document = {{"timeline", gap.timeline},
                         {"from", gap.from},
                         {"to", gap.to},
                         {"from_lsn", lsn_text(gap.from)},
                         {"to_lsn", lsn_text(gap.to)},
                         {"found", base::to_iso(gap.found)},
                         {"why", gap.why}};
  std::string text = document.dump(2, ' ', false, json::error_handler_t::replace);
  text.resize(text.rfind('\n'));
  return text;
}

std::optional<Break> break_of(std::string_view name) {
  constexpr std::size_t timeline_digits = 8;
  constexpr std::size_t lsn_digits = 16;
  if (name.size() != timeline_digits + 2 * (1 + lsn_digits)) return std::nullopt;
  const std::string_view from = name.substr(timeline_digits + 1, lsn_digits);
  Break found;
  std::from_chars(name.data(), name.data() + timeline_digits, found.timeline, 16);
  std::from_chars(from.data(), from.data() + from.size(), found.at, 16);
  const Gap same{found.timeline, found.at, found.at, {}, {}};
  return name == name_of(same) ? std::optional(found) : std::nullopt;
}

/// What follows the body. The object's name takes part: a record under another name is not one.
std::string end_of(const Repository& repository, const std::string& object, std::string_view body) {
  return fmt::format("{}{}\"\n}}\n", check_begin,
                     repository.mac(mac_purpose, fmt::format("{}\n{}", object, body)));
}

std::optional<Gap> parse(const Repository& repository, const std::string& object,
                         std::string_view text) {
  const std::size_t at = text.rfind(check_begin);
  if (at == std::string_view::npos ||
      text.substr(at) != end_of(repository, object, text.substr(0, at))) {
    return std::nullopt;
  }
  try {
    const json document = json::parse(text);
    return Gap{document.at("timeline"), document.at("from"), document.at("to"),
               base::from_iso(document.at("found").get<std::string>()), document.at("why")};
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

}  // namespace

Gaps::Gaps(const Repository& repository, ClusterPlace place)
    : repository_(repository), place_(std::move(place)) {}

bool Gaps::record(const Gap& gap) const {
  const std::string object = place_.directory() + "/gaps/" + name_of(gap);
  const std::string body = body_of(gap);
  return repository_.store().put(object, base::view(body + end_of(repository_, object, body)));
}

Gaps::Listed Gaps::list() const {
  Listed listed;
  const std::string directory = place_.directory() + "/gaps";
  for (const std::string& name : repository_.store().names(directory)) {
    const std::string object = directory + "/" + name;
    std::optional<Gap> gap;
    try {
      const auto bytes = repository_.store().get(object);
      if (!bytes) continue;
      gap = parse(repository_, object, base::text(*bytes));
    } catch (const base::Error& error) {
      if (error.code() != base::Code::corrupt) throw;
    }
    if (gap) {
      listed.gaps.push_back(*std::move(gap));
    } else {
      listed.unreadable.push_back(object);
    }
  }
  return listed;
}

std::vector<Break> Gaps::breaks() const {
  std::vector<Break> found;
  for (const std::string& name : repository_.store().names(place_.directory() + "/gaps")) {
    if (const auto each = break_of(name)) found.push_back(*each);
  }
  return found;
}

}  // namespace holdfast::repository
