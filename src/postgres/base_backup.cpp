#include "postgres/base_backup.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "base/hash.h"
#include "postgres/connection.h"
#include "postgres/crc32c.h"

namespace holdfast::postgres {

namespace {

constexpr std::string_view data_corrupted = "XX001";
constexpr int first_with_one_stream = 15;

[[noreturn]] void corrupt(std::string_view why) {
  base::fail(base::Code::corrupt, "the base backup did not arrive as the server sent it: {}", why);
}

std::uint64_t hash_of(std::string_view path) {
  return base::hash128(base::view(path)).low;
}

/// Takes a text that ends in a zero byte off the front of a message.
std::string_view take_text(base::View& bytes) {
  const std::string_view all = base::text(bytes);
  const std::size_t end = all.find('\0');
  if (end == std::string_view::npos) corrupt("a text has no end");
  bytes = bytes.subspan(end + 1);
  return all.substr(0, end);
}

std::string command_text(const std::string& label, int major, bool incremental) {
  const std::string quoted = quoted_literal(label);
  if (major < first_with_one_stream) {
    return fmt::format(
        "BASE_BACKUP LABEL {} PROGRESS FAST NOWAIT TABLESPACE_MAP MANIFEST 'yes' "
        "MANIFEST_CHECKSUMS 'CRC32C'",
        quoted);
  }
  return fmt::format(
      "BASE_BACKUP ( LABEL {}, PROGRESS, CHECKPOINT 'fast', WAIT 0, TABLESPACE_MAP, "
      "MANIFEST 'yes', MANIFEST_CHECKSUMS 'CRC32C'{} )",
      quoted, incremental ? ", INCREMENTAL" : "");
}

const std::string& cell(const Rows& rows, std::size_t row, std::size_t column) {
  if (row >= rows.size() || column >= rows[row].size() || !rows[row][column]) {
    base::fail(base::Code::postgres, "PostgreSQL did not say where the base backup begins or ends");
  }
  return *rows[row][column];
}

Rows expect_rows(Replication& connection) {
  if (connection.next_answer() != Replication::Answer::rows) {
    base::fail(base::Code::postgres, "PostgreSQL did not begin a base backup");
  }
  return connection.answer_rows();
}

}  // namespace

BackupParser::BackupParser(BackupBegin begin, SystemId system, TarVisitor& files)
    : begin_(std::move(begin)),
      system_(system),
      files_(files),
      archives_(begin_.tablespaces.size() + 1),
      tar_(*this),
      manifest_([this](const ManifestFile& file) { compare(file); }) {}

void BackupParser::message(base::View bytes) {
  if (bytes.empty()) corrupt("a message is empty");
  const auto kind = static_cast<char>(bytes.front());
  bytes = bytes.subspan(1);
  switch (kind) {
    case 'n': {
      const std::string_view name = take_text(bytes);
      take_text(bytes);  // the tablespace's location, which is known
      return begin_archive(name);
    }
    case 'd':
      return copy(bytes);
    case 'p':  // progress
      return;
    case 'm':
      return begin_manifest();
    default:
      corrupt(fmt::format("a message is of the unknown kind {:#x}", static_cast<unsigned>(kind)));
  }
}

void BackupParser::begin_copy() {
  const auto next = std::ranges::find(archives_, false);
  if (next == archives_.end()) return begin_manifest();
  begin_archive_of(static_cast<std::size_t>(next - archives_.begin()));
}

void BackupParser::copy(base::View bytes) {
  switch (part_) {
    case Part::archive:
      return tar_.feed(bytes);
    case Part::manifest:
      return manifest_.feed(bytes);
    case Part::nothing:
      corrupt("data comes before any archive");
  }
}

void BackupParser::begin_archive(std::string_view name) {
  if (name == "base.tar") return begin_archive_of(begin_.tablespaces.size());
  std::uint32_t oid = 0;
  const auto [end, failed] = std::from_chars(name.data(), name.data() + name.size(), oid);
  const auto found = std::ranges::find(begin_.tablespaces, oid, &Tablespace::oid);
  if (failed != std::errc() || std::string_view(end, name.data() + name.size()) != ".tar" ||
      found == begin_.tablespaces.end()) {
    corrupt(fmt::format("nobody knows the archive \"{}\"", name));
  }
  begin_archive_of(static_cast<std::size_t>(found - begin_.tablespaces.begin()));
}

void BackupParser::begin_archive_of(std::size_t tablespace) {
  if (part_ == Part::manifest) corrupt("an archive follows the manifest");
  if (part_ == Part::archive) tar_.finish();
  if (archives_[tablespace]) corrupt("an archive comes twice");
  archives_[tablespace] = true;
  part_ = Part::archive;
  tar_ = TarReader(*this);
  prefix_.clear();
  if (tablespace == begin_.tablespaces.size()) return;
  prefix_ = fmt::format("pg_tblspc/{}", begin_.tablespaces[tablespace].oid);
}

void BackupParser::begin_manifest() {
  if (part_ == Part::manifest) corrupt("the manifest comes twice");
  if (std::ranges::find(archives_, false) != archives_.end()) corrupt("an archive did not come");
  tar_.finish();
  part_ = Part::manifest;
  std::ranges::sort(proofs_, {}, &Proof::path);
}

TarMember BackupParser::renamed(const TarMember& member) const {
  TarMember whole = member;
  if (!prefix_.empty()) whole.path = prefix_ + "/" + member.path;
  return whole;
}

void BackupParser::directory(const TarMember& member) {
  files_.directory(renamed(member));
}

void BackupParser::begin_file(const TarMember& member) {
  const TarMember whole = renamed(member);
  file_ = {hash_of(whole.path), whole.size, 0, false};
  files_.begin_file(whole);
}

void BackupParser::content(base::View bytes) {
  file_.crc = crc32c(bytes, file_.crc);
  files_.content(bytes);
}

void BackupParser::end_file() {
  proofs_.push_back(file_);
  files_.end_file();
}

void BackupParser::compare(const ManifestFile& file) {
  const auto found = std::ranges::lower_bound(proofs_, hash_of(file.path), {}, &Proof::path);
  if (found == proofs_.end() || found->path != hash_of(file.path) || found->confirmed) {
    corrupt(fmt::format("\"{}\" is missing", file.path));
  }
  if (found->size != file.size) {
    corrupt(
        fmt::format("\"{}\" came with {} bytes instead of {}", file.path, found->size, file.size));
  }
  if (found->crc != file.crc) corrupt(fmt::format("\"{}\" has other bytes", file.path));
  found->confirmed = true;
}

void BackupParser::finish(const BackupEnd& end) {
  if (part_ != Part::manifest) corrupt("the manifest did not come");
  const ManifestReader::Summary& summary = manifest_.finish();
  if (!std::ranges::all_of(proofs_, &Proof::confirmed)) {
    corrupt("the manifest does not know some of its files");
  }
  if (summary.system && *summary.system != system_) {
    base::fail(base::Code::foreign, "the base backup is of system {} instead of {}",
               to_string(*summary.system), to_string(system_));
  }
  if (end.timeline != begin_.timeline || summary.wal.size() != 1) {
    throw base::Error(base::Code::postgres,
                      fmt::format("could not finish the backup: the server went from timeline {} "
                                  "to {} meanwhile",
                                  begin_.timeline.value, end.timeline.value),
                      "run it again");
  }
  const WalRange& wal = summary.wal.front();
  if (wal.timeline != begin_.timeline || wal.start != begin_.start || wal.end != end.stop) {
    corrupt("the manifest names other WAL");
  }
}

BaseBackup::BaseBackup(Replication& connection, SystemId system, const std::string& label,
                       const Manifest& earlier)
    : connection_(connection), system_(system) {
  if (earlier) upload(earlier);
  connection_.begin(command_text(label, connection_.major_version(), earlier != nullptr));
  const Rows start = expect_rows(connection_);
  begin_.start = lsn_of(cell(start, 0, 0));
  begin_.timeline = {number<std::uint32_t>(cell(start, 0, 1))};
  for (const Row& row : expect_rows(connection_)) {
    if (row.size() != 3) base::fail(base::Code::postgres, "PostgreSQL names no tablespaces");
    if (row[2]) begin_.bytes += number<std::uint64_t>(*row[2]) << 10;
    if (!row[0]) continue;  // the data directory itself
    begin_.tablespaces.push_back({number<std::uint32_t>(*row[0]), row[1].value_or("")});
  }
}

void BaseBackup::upload(const Manifest& earlier) {
  connection_.begin("UPLOAD_MANIFEST");
  if (connection_.next_answer() != Replication::Answer::copy_in) {
    base::fail(base::Code::postgres, "PostgreSQL does not take a backup manifest");
  }
  ManifestWriter writer(system_, [this](base::View bytes) { connection_.write(bytes); });
  earlier(writer);
  connection_.finish_writing();
  while (connection_.next_answer() != Replication::Answer::end) {
  }
}

void BaseBackup::receive_stream(BackupParser& parser, const std::function<void()>& meanwhile) {
  const bool one_stream = connection_.major_version() >= first_with_one_stream;
  if (!one_stream) parser.begin_copy();
  for (;;) {
    meanwhile();
    switch (connection_.read(std::chrono::milliseconds(500))) {
      case Replication::Read::nothing:
        break;
      case Replication::Read::end:
        return;
      case Replication::Read::data:
        if (one_stream) {
          parser.message(connection_.message());
        } else {
          parser.copy(connection_.message());
        }
    }
  }
}

BackupEnd BaseBackup::receive(TarVisitor& files, const std::function<void()>& meanwhile) {
  BackupParser parser(begin_, system_, files);
  std::optional<BackupEnd> end;
  try {
    for (auto answer = connection_.next_answer(); answer != Replication::Answer::end;
         answer = connection_.next_answer()) {
      if (answer == Replication::Answer::copy_out) {
        receive_stream(parser, meanwhile);
      } else if (answer == Replication::Answer::rows) {
        const Rows& rows = connection_.answer_rows();
        end = BackupEnd{lsn_of(cell(rows, 0, 0)), {number<std::uint32_t>(cell(rows, 0, 1))}, false};
      }
    }
  } catch (const base::Error&) {
    // Damaged pages are reported behind the end of a backup that is whole otherwise.
    if (!end || connection_.error_state() != data_corrupted) throw;
    end->found_damage = true;
  }
  if (!end) base::fail(base::Code::postgres, "PostgreSQL did not end the base backup");
  parser.finish(*end);
  return *end;
}

}  // namespace holdfast::postgres
