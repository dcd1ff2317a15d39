#include "operations/expired_wal.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "repository/signed_document.h"

namespace holdfast::operations {

namespace {

using base::Code;
using nlohmann::json;
using postgres::Segment;

constexpr std::string_view purpose = "expired wal";

/// The segment that a record names; the size of segments is the record's own.
Segment parse_segment(const json& name, postgres::SegmentSize size) {
  const auto parsed = postgres::parse_wal_file_name(name.get<std::string>());
  const auto segment = parsed ? parsed->segment(size) : std::optional<Segment>();
  if (!segment) base::fail(Code::corrupt, "{} is no segment", name.dump());
  return *segment;
}

}  // namespace

ExpiredWal::ExpiredWal(const repository::Repository& repository, repository::ClusterPlace place)
    : repository_(&repository), place_(std::move(place)) {
  // A record that was listed and is gone has been replaced by a newer one.
  for (int tries = 0; tries < 5 && !read(); ++tries) {
  }
}

bool ExpiredWal::read() {
  const std::string directory = place_.directory() + "/expired-wal";
  records_.clear();
  for (const std::string& name : repository_->store().names(directory)) {
    const auto bytes = repository_->store().get(directory + "/" + name);
    if (!bytes) return false;
    try {
      const auto record = repository::read_signed(*repository_, purpose, base::text(*bytes));
      if (!record) continue;
      read_record(*record);
      records_.push_back(directory + "/" + name);
    } catch (const json::exception&) {
    } catch (const base::Error& error) {
      if (error.code() != Code::corrupt) throw;
    }
  }
  return true;
}

void ExpiredWal::read_record(const json& record) {
  if (record.at("cluster") != place_.cluster || record.at("system_id") != place_.system_id) {
    base::fail(Code::corrupt, "the record belongs to another system");
  }
  const postgres::SegmentSize size{record.at("wal_segment_bytes").get<std::uint64_t>()};
  if (!postgres::is_valid(size)) base::fail(Code::corrupt, "segments cannot have that size");
  for (const json& span : record.at("segments")) {
    const Segment first = parse_segment(span.at("first"), size);
    const Segment last = parse_segment(span.at("last"), size);
    if (first.timeline != last.timeline || last < first) {
      base::fail(Code::corrupt, "{} is no span", span.dump());
    }
    add(first.timeline, first.number, last.number);
  }
}

bool ExpiredWal::contains(Segment segment) const {
  const auto spans = spans_.find(segment.timeline);
  if (spans == spans_.end()) return false;
  const auto after = spans->second.upper_bound(segment.number);
  return after != spans->second.begin() && segment.number <= std::prev(after)->second;
}

bool ExpiredWal::explains(const postgres::TimelineHistory& history, postgres::Lsn lsn,
                          postgres::SegmentSize size) const {
  const std::uint64_t number = lsn.value / size.bytes;
  return contains({history.timeline_of_segment(number, size), number}) ||
         contains({history.timeline_at({number * size.bytes}), number});
}

void ExpiredWal::add(postgres::Timeline timeline, std::uint64_t first, std::uint64_t last) {
  auto& spans = spans_[timeline];
  // From the last span that begins before us on: all that touch us become part of us.
  auto each = spans.upper_bound(first);
  if (each != spans.begin()) --each;
  while (each != spans.end() && each->first <= last + 1) {
    if (each->second + 1 < first) {
      ++each;
      continue;
    }
    first = std::min(first, each->first);
    last = std::max(last, each->second);
    each = spans.erase(each);
  }
  spans[first] = last;
}

void ExpiredWal::write(postgres::SegmentSize size) const {
  json segments = json::array();
  for (const auto& [timeline, spans] : spans_) {
    for (const auto& [first, last] : spans) {
      segments.push_back({{"first", postgres::file_name({timeline, first}, size)},
                          {"last", postgres::file_name({timeline, last}, size)}});
    }
  }
  const json record = {{"cluster", place_.cluster},
                       {"system_id", place_.system_id},
                       {"written", base::to_iso(base::now())},
                       {"wal_segment_bytes", size.bytes},
                       {"segments", segments}};
  const std::string name = fmt::format("{}/expired-wal/{}", place_.directory(),
                                       repository::to_string(repository::new_object_id()));
  if (!repository_->store().put(name,
                                base::view(repository::sign(*repository_, purpose, record)))) {
    base::fail(Code::internal, "\"{}\" exists already", name);
  }
  for (const std::string& before : records_) repository_->store().remove(before);
}

}  // namespace holdfast::operations
