#include "postgres/timeline_history.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"

namespace holdfast::postgres {

namespace {

constexpr std::string_view blanks = " \t\r\f\v";

std::string_view take_line(std::string_view& text) {
  const std::size_t end = text.find('\n');
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  return line;
}

/// Takes the next word off `line`.
std::string_view take_word(std::string_view& line) {
  line.remove_prefix(std::min(line.find_first_not_of(blanks), line.size()));
  const std::string_view word = line.substr(0, line.find_first_of(blanks));
  line.remove_prefix(word.size());
  return word;
}

/// "PARENT<tab>LSN<tab>REASON" (readTimeLineHistory in timeline.c). The parent is in decimal here,
/// though the name of the file has it in hexadecimal (pitfall B28).
std::optional<TimelineHistory::Switch> parse_line(std::string_view line) {
  const std::string_view number = take_word(line);
  std::uint32_t parent = 0;
  const char* end = number.data() + number.size();
  const auto [stop, error] = std::from_chars(number.data(), end, parent);
  if (error != std::errc() || stop != end || parent == 0) return std::nullopt;
  const std::optional<Lsn> at = parse_lsn(take_word(line));
  if (!at) return std::nullopt;
  return TimelineHistory::Switch{{parent}, *at};
}

}  // namespace

TimelineHistory::TimelineHistory(Timeline timeline, std::string_view text) : timeline_(timeline) {
  const auto corrupt = [&](std::string_view why) {
    base::fail(base::Code::corrupt, "{} is corrupt: {}", history_file_name(timeline), why);
  };
  while (!text.empty()) {
    const std::string_view line = take_line(text);
    const std::size_t begin = line.find_first_not_of(blanks);
    if (begin == std::string_view::npos || line[begin] == '#') continue;
    const std::optional<Switch> next = parse_line(line);
    if (!next) corrupt(fmt::format("\"{}\" names no timeline and position", line));
    if (next->from >= timeline) corrupt("it names an ancestor that is not older");
    if (!switches_.empty() && next->from <= switches_.back().from) {
      corrupt("its timelines are not in order");
    }
    if (!switches_.empty() && next->at < switches_.back().at) {
      corrupt("its positions are not in order");
    }
    switches_.push_back(*next);
  }
  // An emptied file must not pass for a timeline without a past (pitfall B32).
  if (switches_.empty()) corrupt("it names no ancestor");
}

Timeline TimelineHistory::timeline_at(Lsn lsn) const {
  for (const Switch& each : switches_) {
    if (lsn < each.at) return each.from;
  }
  return timeline_;
}

bool TimelineHistory::contains(Timeline timeline) const {
  return timeline == timeline_ || end_of(timeline).has_value();
}

std::optional<Lsn> TimelineHistory::end_of(Timeline timeline) const {
  for (const Switch& each : switches_) {
    if (each.from == timeline) return each.at;
  }
  return std::nullopt;
}

bool TimelineHistory::passes(Timeline timeline, Lsn lsn) const {
  if (timeline == timeline_) return true;
  const std::optional<Lsn> end = end_of(timeline);
  return end && lsn <= *end;
}

Timeline TimelineHistory::timeline_of_segment(std::uint64_t number, SegmentSize size) const {
  Timeline result = switches_.empty() ? timeline_ : switches_.front().from;
  for (std::size_t i = 0; i < switches_.size(); ++i) {
    if (segment_at(timeline_, switches_[i].at, size).number > number) break;
    result = i + 1 < switches_.size() ? switches_[i + 1].from : timeline_;
  }
  return result;
}

}  // namespace holdfast::postgres
