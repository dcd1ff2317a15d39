#include "operations/events.h"

#include <algorithm>

#include "base/error.h"
#include "base/workers.h"
#include "operations/systems.h"
#include "repository/backups.h"

namespace holdfast::operations {

using base::Code;
using base::Error;
using base::Timestamp;
using postgres::Lsn;

namespace {

/// A time, or how long ago.
Timestamp moment_of(const std::string& text, const std::string& zone,
                    std::vector<std::string>& notes) {
  const bool is_time = text.size() >= 5 && text[4] == '-';
  if (!is_time) return base::now() - base::parse_duration(text);
  const base::ParsedTime parsed = base::parse_time(text, zone);
  if (parsed.zone_was_assumed) {
    notes.push_back(fmt::format("\"{}\" was read in the server's zone {}: {}", text, zone,
                                base::to_string(parsed.time)));
  }
  return parsed.time;
}

/// The segments of one history, one after the other.
class Archive {
 public:
  Archive(const SystemView& system, const postgres::TimelineHistory& history,
          std::vector<std::string>& warnings)
      : system_(system), history_(history), warnings_(warnings) {
    for (const auto& [timeline, spans] : system.coverage.spans()) {
      if (!history.contains(timeline)) continue;
      for (const WalCoverage::Span& span : spans) {
        for (std::uint64_t number = span.first; number <= span.last; ++number) {
          if (system.coverage.segment_for(history, number)) numbers_.push_back(number);
        }
      }
    }
    std::sort(numbers_.begin(), numbers_.end());
    numbers_.erase(std::unique(numbers_.begin(), numbers_.end()), numbers_.end());
  }

  bool empty() const { return numbers_.empty(); }

  /// The place in the list where reading must begin to see all that ended at or after `since`, as
  /// far as possible: transactions begin before they end, so some segments earlier.
  std::size_t place_of(Timestamp since) const {
    constexpr std::size_t lead = 4;
    std::size_t low = 0;
    std::size_t high = numbers_.size();
    while (low + 1 < high) {
      const std::size_t middle = low + (high - low) / 2;
      const auto time = first_time(middle, high);
      if (time && *time < since) {
        low = middle;
      } else {
        high = middle;
      }
    }
    return low > lead ? low - lead : 0;
  }

  /// All records from there on, until `visit` returns false.
  void read(std::size_t place, const std::function<bool(const postgres::WalRecord&)>& visit) {
    const auto size = system_.coverage.segment_size();
    std::optional<postgres::WalReader> reader;
    std::optional<Lsn> end_of_last;
    bool stopped = false;
    const auto on_record = [&](const postgres::WalRecord& record) {
      stopped = !visit(record);
      return !stopped;
    };
    for (std::size_t at = place; at < numbers_.size() && !stopped; ++at) {
      base::stop_if_interrupted();
      const std::uint64_t number = numbers_[at];
      const auto bytes = bytes_of(number);
      const Lsn start{number * size.bytes};
      const bool breaks = system_.coverage.breaks_at(history_, start);
      const bool follows = reader && bytes && number == numbers_[at - 1] + 1 && !breaks;
      if (reader && !follows) {
        end_of_last = reader->end();
        reader.reset();
      }
      if (!bytes) continue;
      if (!reader) {
        reader.emplace(start, size);
        if (breaks) {
          warnings_.push_back(fmt::format(
              "the server was set back: WAL from {} on does not continue what is before",
              to_string(start)));
        } else if (end_of_last) {
          warnings_.push_back(fmt::format("there is no readable WAL from {} to {}",
                                          to_string(*end_of_last), to_string(start)));
        }
      }
      if (!reader->feed(*bytes, on_record)) {
        end_of_last = reader->end();
        reader.reset();
      }
    }
  }

 private:
  std::optional<base::Bytes> bytes_of(std::uint64_t number) const {
    const auto segment = system_.coverage.segment_for(history_, number);
    try {
      return system_.archive.get(postgres::file_name(*segment, system_.coverage.segment_size()));
    } catch (const Error& error) {
      if (error.code() != Code::corrupt) throw;
      warnings_.push_back(error.message());
      return std::nullopt;
    }
  }

  /// When the first transaction ended in the segments from `place` on, before `limit`.
  std::optional<Timestamp> first_time(std::size_t place, std::size_t limit) const {
    std::optional<Timestamp> found;
    for (; place < limit && !found; ++place) {
      const std::uint64_t number = numbers_[place];
      try {
        read_events(
            system_.archive, system_.coverage, history_,
            Lsn{number * system_.coverage.segment_size().bytes},
            [&](const postgres::WalEvent& event) {
              if (event.kind == postgres::WalEvent::Kind::restore_point) return true;
              found = event.time;
              return false;
            },
            number);
      } catch (const Error& error) {
        if (error.code() != Code::corrupt) throw;  // said when it is its turn
      }
    }
    return found;
  }

  const SystemView& system_;
  const postgres::TimelineHistory& history_;
  std::vector<std::string>& warnings_;
  std::vector<std::uint64_t> numbers_;
};

/// Counts by the minute, and finds what only many transactions together did.
class Minutes {
 public:
  explicit Minutes(EventReport& report) : report_(report) {}

  void add(const TransactionStory& story) {
    Minute& minute = minutes_[std::chrono::floor<std::chrono::minutes>(story.time)];
    (story.committed ? minute.total.commits : minute.total.aborts) += 1;
    for (const auto& [id, counts] : story.rows) {
      minute.total.rows.inserted += counts.inserted;
      minute.total.rows.updated += counts.updated;
      minute.total.rows.deleted += counts.deleted;
      if (counts.deleted == 0 || counts.deleted > WalStory::many_rows) continue;
      auto [found, is_new] = minute.deleted.try_emplace(id, Deleted{0, story.time, story.start});
      found->second.rows += counts.deleted;
    }
  }

  void finish(const WalStory& story) {
    for (auto& [start, minute] : minutes_) {
      minute.total.start = start;
      report_.minutes.push_back(minute.total);
      for (const auto& [id, deleted] : minute.deleted) {
        if (deleted.rows <= WalStory::many_rows) continue;
        report_.events.push_back({Event::Kind::bulk_delete,
                                  deleted.time,
                                  0,
                                  deleted.start,
                                  deleted.start,
                                  {story.describe(id, deleted.start)},
                                  deleted.rows,
                                  {}});
      }
    }
  }

 private:
  /// By transactions that deleted few rows each: the first of them.
  struct Deleted {
    std::uint64_t rows;
    Timestamp time;
    Lsn start;
  };
  struct Minute {
    EventMinute total;
    std::map<postgres::RelationId, Deleted> deleted;
  };
  EventReport& report_;
  std::map<Timestamp, Minute> minutes_;
};

NameBook names_of(const Site& site, const SystemView& system, std::vector<std::string>& warnings) {
  NameBook book;
  const repository::Backups backups(site.repository, system.place);
  for (const BackupInfo& backup : system.backups) {
    try {
      const repository::BackupMap map = backups.read_map(backup.id);
      const repository::Attachment* names = map.attachment("catalog");
      if (names != nullptr) {
        book.add(backup.stop, CatalogNames::parse(base::text(names->content)));
      }
    } catch (const Error& error) {
      if (error.code() != Code::corrupt) throw;
      warnings.push_back(
          fmt::format("cannot use the names in backup {}: {}", backup.id.text, error.message()));
    }
  }
  return book;
}

/// Which moments a good backup and the WAL behind it lead to.
void note_reachable(const SystemView& system, const postgres::TimelineHistory& history,
                    std::vector<Event>& events) {
  for (const BackupInfo& backup : system.backups) {
    if (backup.is_damaged() || !system.can_use(backup, history)) continue;
    const Lsn end = system.coverage.contiguous_end(history, backup.start);
    for (Event& event : events) {
      if (backup.stop <= event.before && event.before < end) event.reachable = true;
    }
  }
}

}  // namespace

EventReport find_events(const Site& site, const EventsRequest& request) {
  const Catalog catalog = read_catalog(site);
  const std::vector<SystemView> systems = view_systems(site, catalog);
  if (systems.empty()) {
    throw Error(Code::not_found,
                fmt::format("cannot tell what happened: there is no backup of cluster {}",
                            site.cluster.name),
                "take one with `holdfast backup`");
  }
  const std::string meant = choose_system(site, request.system);
  const auto found = std::ranges::find(systems, meant,
                                       [](const SystemView& each) { return each.place.system_id; });
  if (found == systems.end()) {
    throw Error(Code::not_found,
                fmt::format("cannot tell what happened: there is no backup of system {}", meant),
                "--system ID names another one: " + list_systems(site, meant));
  }
  const SystemView& system = *found;
  const postgres::TimelineHistory history = system.history({});
  EventReport report;
  report.system_id = system.place.system_id;
  report.timeline = history.timeline();
  const std::string zone = system.backups.back().time_zone;
  report.since = moment_of(request.since, zone, report.warnings);
  report.until =
      request.until.empty() ? Timestamp::max() : moment_of(request.until, zone, report.warnings);
  if (report.until < report.since) {
    throw Error(Code::usage,
                fmt::format("cannot look back in time: {} is before {}",
                            base::to_string(report.until), base::to_string(report.since)),
                "--until must be later than --since; a duration counts back from now");
  }
  Archive archive(system, history, report.warnings);
  if (archive.empty()) base::fail(Code::not_found, "cannot tell what happened: there is no WAL");
  const NameBook names = names_of(site, system, report.warnings);
  WalStory story(names);
  Minutes minutes(report);
  // Clocks of several backends are not in step to the microsecond.
  constexpr auto slack = std::chrono::seconds(5);
  bool is_over = false;
  const auto is_asked_for = [&](Timestamp time) {
    if (report.until < Timestamp::max() - slack && time > report.until + slack) is_over = true;
    return time >= report.since && time <= report.until;
  };
  archive.read(archive.place_of(report.since), [&](const postgres::WalRecord& record) {
    story.add(
        record,
        [&](const TransactionStory& ended) {
          if (is_asked_for(ended.time)) minutes.add(ended);
        },
        [&](const Event& event) {
          if (is_asked_for(event.time)) report.events.push_back(event);
        });
    return !is_over;
  });
  minutes.finish(story);
  std::ranges::stable_sort(report.events, {}, &Event::start);
  note_reachable(system, history, report.events);
  return report;
}

}  // namespace holdfast::operations
