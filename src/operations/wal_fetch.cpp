#include "operations/wal_fetch.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <charconv>

#include "base/error.h"
#include "base/process.h"
#include "base/workers.h"
#include "operations/systems.h"
#include "operations/wal_coverage.h"
#include "postgres/control_file.h"
#include "postgres/segment_content.h"
#include "postgres/tablespaces_in_place.h"
#include "postgres/wal_page.h"
#include "postgres/wal_segment.h"
#include "repository/backups.h"
#include "repository/wal_archive.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using base::fs::path;
using postgres::Segment;
using postgres::SegmentSize;
using postgres::WalFileName;

constexpr std::string_view spool_name = "holdfast.fetch";
constexpr std::uint64_t segments_ahead = 16;
/// More are fetched once so few are left.
constexpr std::uint64_t enough_ahead = 8;

postgres::SystemId parse_system(const std::string& text) {
  postgres::SystemId id;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), id.value);
  if (failed != std::errc() || end != text.data() + text.size() || text.empty()) {
    base::fail(Code::usage, "cannot use \"{}\" as a system identifier", text);
  }
  return id;
}

/// Writes beside the destination and renames: nobody sees a part. PostgreSQL syncs what it keeps.
void publish(base::View bytes, const path& destination) {
  const path temporary = destination.string() + fmt::format(".holdfast.{}", ::getpid());
  try {
    base::write_all(base::open_file(temporary, O_WRONLY | O_CREAT | O_TRUNC), bytes, temporary);
    base::fs::rename(temporary, destination);
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
}

/// Moves a segment out of the spool if it is there. It was checked as a whole before it came there;
/// its header is looked at again because the spool may have been left by another restore (TRAPS
/// WF9). Returns the segment size.
std::optional<SegmentSize> take_spooled(const path& spool, const std::string& name,
                                        const WalFileName& parsed, postgres::SystemId system,
                                        const path& destination) {
  const path spooled = spool / name;
  const auto file = base::open_if_exists(spooled, O_RDONLY);
  if (!file) return std::nullopt;
  base::Bytes first(postgres::wal_page_size);
  try {
    first.resize(base::read_at(*file, first, 0, spooled));
    const postgres::SegmentHeader header = postgres::parse_segment_header(first);
    const auto segment = parsed.segment(header.size);
    const auto status = base::status_of(spooled);
    if (header.system_id == system && segment && header.timeline <= parsed.timeline &&
        header.address == postgres::start_of(*segment, header.size) && status &&
        static_cast<std::uint64_t>(status->st_size) == header.size.bytes) {
      if (::rename(spooled.c_str(), destination.c_str()) != 0) return std::nullopt;
      return header.size;
    }
  } catch (const Error&) {  // it is no segment at all
  }
  ::unlink(spooled.c_str());
  return std::nullopt;
}

bool has_enough_ahead(const path& spool, const WalFileName& name, SegmentSize size) {
  const auto segment = name.segment(size);
  if (!segment) return false;
  const Segment last{segment->timeline, segment->number + enough_ahead};
  return base::status_of(spool / postgres::file_name(last, size)).has_value();
}

/// One system's WAL, and the place beside pg_wal where segments wait.
class Fetcher {
 public:
  Fetcher(const Site& site, const FetchRequest& request)
      : request_(request),
        repository_(site.repository),
        system_(parse_system(request.system_id)),
        archive_(site.repository, {site.cluster.name, request.system_id}),
        store_(site.repository.store()),
        name_(request.name),
        spool_(request.destination.parent_path() / spool_name) {
    const auto parsed = postgres::parse_wal_file_name(request.name);
    if (!parsed) {
      throw Error(Code::usage,
                  fmt::format("cannot fetch \"{}\": this is no name of a WAL file", request.name),
                  "restore_command should end in: wal fetch %f %p");
    }
    parsed_ = *parsed;
  }

  bool fetch() {
    const bool segment = parsed_.kind == WalFileName::Kind::segment;
    if (segment && take_from_spool()) {
      fetch_ahead();
      return true;
    }
    const auto bytes =
        segment && !request_.complete_only ? whole_or_partial() : archive_.get(name_);
    if (!bytes && request_.complete_only) return false;
    if (!bytes) {
      check_absence();
      if (segment && archive_.has(name_)) return fetch();  // it came while we looked
      std::error_code ignored;
      if (segment) base::fs::remove_all(spool_, ignored);
      return false;
    }
    if (segment) {
      size_ = publish_segment(name_, *bytes, request_.destination);
      fetch_ahead();
    } else {
      publish(*bytes, request_.destination);
    }
    return true;
  }

 private:
  std::optional<base::Bytes> whole_or_partial() {
    if (auto bytes = archive_.get(name_)) return bytes;
    auto partial = from_slices();
    // Its slices go when it becomes complete: what was read of them then may be anything.
    if (auto bytes = archive_.get(name_)) return bytes;
    return partial;
  }

  /// The last segment of a history, as far as slices hold it, filled up with zeros. Only if nothing
  /// is behind that: recovery ends where it does.
  std::optional<base::Bytes> from_slices() {
    const repository::WalSlices slices = archive_.slices();
    const auto first = slices.first(name_);
    if (!first) return std::nullopt;
    auto [bytes, hole] = slices.assemble(name_, *first);
    try {
      const postgres::SegmentHeader header = postgres::parse_segment_header(bytes);
      if (header.address.value != *first) base::fail(Code::corrupt, "its first slice is missing");
      // A page whose header is not whole is none.
      const std::size_t page = bytes.size() % postgres::wal_page_size;
      if (page < postgres::wal_short_header_size) bytes.resize(bytes.size() - page);
      bytes.resize(header.size.bytes);
    } catch (const Error& error) {
      throw error.with_context(
          fmt::format("cannot use the slices of WAL file {} in the repository", name_));
    }
    if (hole && !request_.to_target) {
      base::fail(Code::wal_missing,
                 "cannot put WAL file {} together: a slice is missing between others", name_);
    }
    check_absence();
    return std::move(bytes);
  }

  /// What is no WAL in a file is not handed on, whoever stored it.
  SegmentSize publish_segment(const std::string& name, base::View file, const path& to) const {
    const postgres::SegmentContent content(file);
    try {
      const auto header = postgres::check_segment(
          content.bytes(), postgres::parse_wal_file_name(name).value(), system_);
      if (!request_.tablespaces_in_place) {
        publish(content.bytes(), to);
      } else {
        base::Bytes bytes = base::copy(content.bytes());
        redirect(name, header.size, bytes);
        publish(bytes, to);
      }
      return header.size;
    } catch (const Error& error) {
      if (error.code() != Code::corrupt && error.code() != Code::foreign) throw;
      throw error.with_context(fmt::format("cannot use WAL file {} of the repository", name));
    }
  }

  void redirect(const std::string& name, SegmentSize size, base::Bytes& bytes) const {
    const Segment segment = postgres::parse_wal_file_name(name)->segment(size).value();
    postgres::Neighbours neighbours;
    neighbours.previous = [&] { return segment_before(segment, size); };
    neighbours.next = [&] { return segment_behind(segment, size); };
    postgres::put_tablespaces_in_place(bytes, neighbours);
  }

  std::optional<base::Bytes> segment_before(Segment segment, SegmentSize size) const {
    if (segment.number == 0) return std::nullopt;
    const WalCoverage coverage(archive_, size);
    const auto history = coverage.history(segment.timeline);
    const auto before = history ? coverage.segment_for(*history, segment.number - 1) : std::nullopt;
    return before ? archive_.get(postgres::file_name(*before, size)) : std::nullopt;
  }

  /// On its own timeline, or on one that goes on from there: a record that began on one ends with
  /// the same bytes on all that have it.
  std::optional<base::Bytes> segment_behind(Segment segment, SegmentSize size) const {
    const std::string next = postgres::file_name({segment.timeline, segment.number + 1}, size);
    if (auto bytes = archive_.get(next)) return bytes;
    const repository::WalSlices slices = archive_.slices();
    if (const auto first = slices.first(next)) {
      base::Bytes bytes = slices.assemble(next, *first).bytes;
      bytes.resize(size.bytes);
      return bytes;
    }
    const WalCoverage coverage(archive_, size);
    for (const postgres::Timeline timeline : coverage.timelines()) {
      const auto history = coverage.history(timeline);
      if (!history || !history->contains(segment.timeline)) continue;
      if (auto bytes = archive_.get(postgres::file_name({timeline, segment.number + 1}, size))) {
        return bytes;
      }
    }
    return std::nullopt;
  }

  bool take_from_spool() {
    const auto size = take_spooled(spool_, name_, parsed_, system_, request_.destination);
    if (size) size_ = *size;
    return size.has_value();
  }

  /// Throws unless the absence of the file is proof that recovery may end here.
  void check_absence() const {
    if (!repository::Repository::exists(store_)) {
      base::fail(Code::unreachable, "could not look for WAL file {}: the repository at {} is gone",
                 name_, store_.url());
    }
    if (parsed_.kind == WalFileName::Kind::history) return check_history_absence();
    if (parsed_.kind != WalFileName::Kind::segment) return;
    const auto size = segment_size();
    const auto segment = size ? parsed_.segment(*size) : std::nullopt;
    if (!segment) {
      // No segment at all: a backup never stands without the WAL that it needs (INV-1).
      if (repository::Backups(repository_, archive_.place()).all().empty()) return;
      base::fail(Code::wal_missing,
                 "cannot find WAL file {}: the repository has backups, but no WAL", name_);
    }
    if (request_.to_target) return;
    const WalCoverage coverage(archive_, *size);
    check_histories(coverage);
    for (const postgres::Timeline timeline : coverage.timelines()) {
      const auto history = coverage.history(timeline);
      // Only where replay on this history would read this very file.
      if (!history || !history->contains(segment->timeline) ||
          history->timeline_of_segment(segment->number, *size) != segment->timeline) {
        continue;
      }
      if (!coverage.has_segment_behind(*history, postgres::end_of(*segment, *size))) continue;
      throw Error(
          Code::wal_missing,
          fmt::format("cannot find WAL file {} in the repository, though there is WAL behind "
                      "it: recovery must not end here",
                      name_),
          "restore with a --to before the missing segment, or from a newer backup");
    }
  }

  /// What cannot be read may be what shows that there must be more.
  void check_histories(const WalCoverage& coverage) const {
    for (const postgres::Timeline timeline : coverage.corrupt_histories()) {
      base::fail(Code::corrupt, "cannot tell whether WAL file {} should be there: {} is corrupt",
                 name_, postgres::history_file_name(timeline));
    }
  }

  void check_history_absence() const {
    const WalCoverage coverage(archive_, segment_size().value_or(SegmentSize{}));
    check_histories(coverage);
    for (const postgres::Timeline missing : coverage.missing_histories()) {
      if (missing != parsed_.timeline) continue;
      base::fail(Code::wal_missing,
                 "cannot find {} in the repository, though there is WAL of its timeline or of one "
                 "that came from it",
                 name_);
    }
  }

  /// From the first segment that can be read.
  std::optional<SegmentSize> segment_size() const {
    for (const std::string& timeline : archive_.timelines()) {
      for (const auto& file : archive_.files(timeline)) {
        if (file.name.size() != 24) continue;
        const auto bytes = archive_.get(file.name);
        if (bytes) return postgres::parse_segment_header(*bytes).size;
      }
    }
    return std::nullopt;
  }

  void fetch_ahead() {
    if (!request_.ahead || has_enough_ahead(spool_, parsed_, size_)) return;
    base::run_detached([](void* self) { static_cast<Fetcher*>(self)->fill_spool(); }, this);
  }

  /// Runs in a process of its own; whatever goes wrong here is found again by who needs the
  /// segment.
  void fill_spool() {
    // Not its parents: the data directory may have been removed meanwhile.
    if (::mkdir(spool_.c_str(), 0700) != 0 && errno != EEXIST) return;
    const base::Fd lock = base::open_file(spool_ / "lock", O_RDWR | O_CREAT);
    if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) return;
    Segment segment = parsed_.segment(size_).value();
    for (const std::string& old :
         base::directory_names(spool_).value_or(std::vector<std::string>{})) {
      if (old <= name_ && old != "lock") ::unlink((spool_ / old).c_str());
    }
    std::atomic<std::uint64_t> taken{0};
    std::atomic<bool> ended{false};
    base::run_workers(std::min(2U, base::default_workers()), [&](unsigned, const std::stop_token&) {
      for (std::uint64_t i = 0; !ended && (i = ++taken) <= segments_ahead;) {
        ended = !spool({segment.timeline, segment.number + i});
      }
    });
  }

  /// False if there is no such segment.
  bool spool(Segment segment) const {
    const std::string next = postgres::file_name(segment, size_);
    if (base::status_of(spool_ / next)) return true;
    const auto bytes = archive_.get(next);
    if (!bytes) return false;
    publish_segment(next, *bytes, spool_ / next);
    return true;
  }

  const FetchRequest& request_;
  const repository::Repository& repository_;
  postgres::SystemId system_;
  repository::WalArchive archive_;
  store::ObjectStore& store_;
  std::string name_;
  WalFileName parsed_;
  SegmentSize size_;  ///< of the segment that was fetched
  path spool_;
};

}  // namespace

bool fetch_spooled_wal(const FetchRequest& request) {
  const auto parsed = postgres::parse_wal_file_name(request.name);
  if (request.system_id.empty() || !parsed || parsed->kind != WalFileName::Kind::segment) {
    return false;
  }
  const path spool = request.destination.parent_path() / spool_name;
  // Only while more is there: who takes the last ones sees to what follows.
  const auto ahead = base::directory_names(spool);
  if (!ahead || ahead->size() <= enough_ahead + 1) return false;
  return take_spooled(spool, request.name, *parsed, parse_system(request.system_id),
                      request.destination)
      .has_value();
}

namespace {

/// "Not found" about another system's WAL would promote a server that lacks its own (INV-6).
std::string system_to_fetch(const Site& site, const std::string& named) {
  if (!named.empty() || !base::status_of("global/pg_control")) return choose_system(site, named);
  const std::string here = postgres::to_string(postgres::read_control_file(".").control.system_id);
  if (site.repository.is_registered({site.cluster.name, here})) return here;
  throw Error(Code::foreign,
              fmt::format("cannot fetch WAL of system {}, which this data directory is of: the "
                          "repository does not know it as cluster {}",
                          here, site.cluster.name),
              "it has: " + list_systems(site));
}

}  // namespace

bool fetch_wal(const Site& site, const FetchRequest& request) {
  FetchRequest resolved = request;
  try {
    resolved.system_id = system_to_fetch(site, request.system_id);
  } catch (const Error& error) {
    throw error.with_context("cannot fetch WAL");
  }
  return Fetcher(site, resolved).fetch();
}

}  // namespace holdfast::operations
