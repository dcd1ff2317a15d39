#include "postgres/backup_manifest.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"
#include "base/seal.h"

namespace holdfast::postgres {

namespace {

using nlohmann::json;

/// A path has at most 1024 bytes, twelve characters each in the worst escape.
constexpr std::size_t longest_line = 64 << 10;
/// What is sent to a server at a time, about.
constexpr std::size_t message_bytes = 32 << 10;

[[noreturn]] void corrupt(std::string_view why) {
  base::fail(base::Code::corrupt, "the server sent a backup manifest that cannot be read: {}", why);
}

std::string text_from_hex(const std::string& hex) {
  return std::string(base::text(base::from_hex(hex)));
}

ManifestFile file_of(const json& entry) {
  ManifestFile file;
  file.path = entry.contains("Path") ? entry.at("Path").get<std::string>()
                                     : text_from_hex(entry.at("Encoded-Path").get<std::string>());
  file.size = entry.at("Size").get<std::uint64_t>();
  if (entry.at("Checksum-Algorithm") != "CRC32C") {
    base::fail(base::Code::unsupported, "cannot check \"{}\": its checksum is of kind {}",
               file.path, entry.at("Checksum-Algorithm").dump());
  }
  // The bytes of the number as they stand in the server's memory.
  const base::Bytes crc = base::from_hex(entry.at("Checksum").get<std::string>());
  if (crc.size() != sizeof file.crc) corrupt("a CRC has not four bytes");
  file.crc = base::load<std::uint32_t>(crc.data());
  return file;
}

Lsn lsn_member(const json& entry, const char* name) {
  const auto lsn = parse_lsn(entry.at(name).get<std::string>());
  if (!lsn) corrupt(fmt::format("\"{}\" is no LSN", name));
  return *lsn;
}

WalRange range_of(const json& entry) {
  return {{entry.at("Timeline").get<std::uint32_t>()},
          lsn_member(entry, "Start-LSN"),
          lsn_member(entry, "End-LSN")};
}

/// An object that spans lines, with what it lacks for one of them put on.
json part(std::string_view before, std::string_view text, std::string_view behind) {
  return json::parse(fmt::format("{}{}{}", before, text, behind));
}

std::string_view without_comma(std::string_view text) {
  if (text.ends_with(',')) text.remove_suffix(1);
  return text;
}

}  // namespace

struct ManifestReader::State {
  enum class Place { version, header, files, between, ranges, checksum, end };

  Visit visit;
  Place place = Place::version;
  std::string rest;  ///< the line that has not ended yet
  base::Sha256 digest;
  Summary summary;
};

ManifestReader::ManifestReader(Visit visit) : state_(std::make_unique<State>()) {
  state_->visit = std::move(visit);
}

ManifestReader::~ManifestReader() = default;

void ManifestReader::feed(base::View bytes) {
  std::string_view text = base::text(bytes);
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    state_->rest += text.substr(0, end);
    if (state_->rest.size() > longest_line) corrupt("a line is too long");
    if (end == std::string_view::npos) return;
    text.remove_prefix(end + 1);
    try {
      line(state_->rest);
    } catch (const json::exception& error) {
      corrupt(error.what());
    }
    state_->rest.clear();
  }
}

void ManifestReader::line(std::string_view text) {
  using Place = State::Place;
  State& state = *state_;
  // All but the last line is under the checksum, and that is the line of the checksum itself.
  if (state.place == Place::checksum) {
    const json document = part("{", text, "");
    if (base::to_hex(state.digest.finish()) != document.at("Manifest-Checksum")) {
      corrupt("its own checksum is wrong");
    }
    state.place = Place::end;
    return;
  }
  state.digest.add(base::view(text));
  state.digest.add(base::view("\n"));
  switch (state.place) {
    case Place::version:
      state.summary.version =
          part("", without_comma(text), "}").at("PostgreSQL-Backup-Manifest-Version").get<int>();
      if (state.summary.version != 1 && state.summary.version != 2) {
        base::fail(base::Code::unsupported, "cannot read a backup manifest of version {}",
                   state.summary.version);
      }
      state.place = Place::header;
      return;
    case Place::header:
      if (text == "\"Files\": [") {
        state.place = Place::files;
      } else {
        state.summary.system = SystemId{
            part("{", without_comma(text), "}").at("System-Identifier").get<std::uint64_t>()};
      }
      return;
    case Place::files:
      if (text == "],") {
        state.place = Place::between;
      } else if (!text.empty()) {
        state.visit(file_of(json::parse(without_comma(text))));
      }
      return;
    case Place::between:
      if (text != "\"WAL-Ranges\": [") corrupt("it has no WAL ranges");
      state.place = Place::ranges;
      return;
    case Place::ranges:
      if (text == "],") {
        state.place = Place::checksum;
      } else {
        state.summary.wal.push_back(range_of(json::parse(without_comma(text))));
      }
      return;
    default:
      corrupt("there is something behind its end");
  }
}

const ManifestReader::Summary& ManifestReader::finish() {
  if (state_->place != State::Place::end || !state_->rest.empty()) corrupt("it is cut off");
  return state_->summary;
}

ManifestWriter::ManifestWriter(SystemId system, Send send) : send_(std::move(send)) {
  put(fmt::format(
      "{{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": {},\n\"Files\": [",
      system.value));
}

void ManifestWriter::add(std::string_view path, std::uint64_t size) {
  put(fmt::format(
      "{}\n{{ \"Path\": \"{}\", \"Size\": {}, \"Last-Modified\": \"1970-01-01 00:00:00 GMT\" }}",
      std::exchange(any_, true) ? "," : "", path, size));
}

void ManifestWriter::finish(const WalRange& wal) {
  put(
      fmt::format("\n],\n\"WAL-Ranges\": [\n{{ \"Timeline\": {}, \"Start-LSN\": \"{}\", "
                  "\"End-LSN\": \"{}\" }}\n],\n",
                  wal.timeline.value, to_string(wal.start), to_string(wal.end)));
  // Of all but its own line, which the server looks for in the last kilobyte.
  text_ += fmt::format("\"Manifest-Checksum\": \"{}\"}}\n", base::to_hex(digest_.finish()));
  flush();
}

void ManifestWriter::put(std::string_view text) {
  digest_.add(base::view(text));
  text_ += text;
  if (text_.size() >= message_bytes) flush();
}

void ManifestWriter::flush() {
  send_(base::view(text_));
  text_.clear();
}

}  // namespace holdfast::postgres
