#include "operations/evidence.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/ownership.h"
#include "base/process.h"
#include "base/seal.h"
#include "operations/configuration.h"
#include "operations/evidence_text.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::fs::path;
using json = nlohmann::ordered_json;

constexpr const char* head_name = "head.json";
constexpr const char* key_name = "signing-key.pub";
constexpr const char* log_name = "drill-log.md";
constexpr mode_t readable = 0644;
constexpr std::string_view genesis =
    "0000000000000000000000000000000000000000000000000000000000000000";
constexpr std::string_view signature_begin = ",\n  \"signature\": \"";
constexpr std::string_view signature_end = "\"\n}\n";

std::string digest_of(std::string_view text) {
  return base::to_hex(base::sha256(base::view(text)));
}

/// The signature is the last member, and covers every byte before it.
std::string signed_text(const json& document, const base::SigningKey& key) {
  std::string body = document.dump(2, ' ', false, json::error_handler_t::replace);
  body.resize(body.rfind('}'));
  while (body.back() == '\n' || body.back() == ' ') body.pop_back();
  const std::string signature = base::to_hex(key.sign(base::view(body)));
  return fmt::format("{}{}{}{}", body, signature_begin, signature, signature_end);
}

std::optional<json> checked_document(std::string_view text, const base::VerifyingKey& key) {
  const std::size_t at = text.rfind(signature_begin);
  if (at == std::string_view::npos || !text.ends_with(signature_end)) return std::nullopt;
  std::string_view hex = text.substr(at + signature_begin.size());
  hex.remove_suffix(signature_end.size());
  try {
    if (!key.verifies(base::view(text.substr(0, at)), base::from_hex(hex))) return std::nullopt;
  } catch (const base::Error&) {
    return std::nullopt;
  }
  return json::parse(text, nullptr, false);
}

json milliseconds(const std::optional<base::Microseconds>& duration) {
  return duration ? json(duration->count() / 1000) : json();
}

std::optional<base::Microseconds> duration_of(const json& value) {
  if (value.is_null()) return std::nullopt;
  return std::chrono::milliseconds(value.get<std::int64_t>());
}

json to_json(const Evidence& evidence) {
  json steps = json::array();
  for (const EvidenceStep& step : evidence.steps) {
    steps.push_back({{"name", step.name}, {"took_ms", step.took.count() / 1000}});
  }
  json checks = json::array();
  for (const EvidenceCheck& check : evidence.checks) {
    checks.push_back(
        {{"name", check.name}, {"outcome", name_of(check.outcome)}, {"found", check.found}});
  }
  json facts = json::object();
  for (const auto& [name, value] : evidence.facts) facts[name] = value;
  return {{"kind", evidence.kind},
          {"id", evidence.id},
          {"at", base::to_iso(evidence.at)},
          {"cluster", evidence.cluster},
          {"verdict", name_of(evidence.verdict)},
          {"scenario", evidence.scenario},
          {"backup_point", evidence.backup_point},
          {"environment", evidence.environment},
          {"notes", evidence.notes},
          {"completed_by", evidence.completed_by},
          {"steps", steps},
          {"rpo_ms", milliseconds(evidence.rpo)},
          {"rpo_how", evidence.rpo_how},
          {"rto_ms", milliseconds(evidence.rto)},
          {"rpo_objective_ms", milliseconds(evidence.rpo_objective)},
          {"rto_objective_ms", milliseconds(evidence.rto_objective)},
          {"checks", checks},
          {"facts", facts},
          {"controls", evidence.controls}};
}

template <typename Named>
Named named(const std::string& text, std::initializer_list<Named> all) {
  for (const Named each : all) {
    if (name_of(each) == text) return each;
  }
  base::fail(Code::corrupt, "a record says \"{}\", which means nothing", text);
}

Evidence evidence_of(const json& document) {
  Evidence evidence;
  document.at("kind").get_to(evidence.kind);
  document.at("id").get_to(evidence.id);
  evidence.at = base::from_iso(document.at("at").get<std::string>());
  document.at("cluster").get_to(evidence.cluster);
  evidence.verdict = named(document.at("verdict").get<std::string>(),
                           {Verdict::pass, Verdict::fail, Verdict::inconclusive});
  document.at("scenario").get_to(evidence.scenario);
  document.at("backup_point").get_to(evidence.backup_point);
  document.at("environment").get_to(evidence.environment);
  document.at("notes").get_to(evidence.notes);
  document.at("completed_by").get_to(evidence.completed_by);
  for (const json& step : document.at("steps")) {
    evidence.steps.push_back({step.at("name"), duration_of(step.at("took_ms")).value()});
  }
  for (const json& check : document.at("checks")) {
    evidence.checks.push_back({check.at("name"),
                               named(check.at("outcome").get<std::string>(),
                                     {CheckOutcome::passed, CheckOutcome::failed,
                                      CheckOutcome::not_run, CheckOutcome::switched_off}),
                               check.at("found")});
  }
  evidence.rpo = duration_of(document.at("rpo_ms"));
  document.at("rpo_how").get_to(evidence.rpo_how);
  evidence.rto = duration_of(document.at("rto_ms"));
  evidence.rpo_objective = duration_of(document.at("rpo_objective_ms"));
  evidence.rto_objective = duration_of(document.at("rto_objective_ms"));
  for (const auto& [name, value] : document.at("facts").items()) {
    evidence.facts.emplace_back(name, value.get<std::string>());
  }
  document.at("controls").get_to(evidence.controls);
  return evidence;
}

/// Root's records are those of whoever owns the directory: he goes on with them.
void publish(const path& file, std::string_view content) {
  base::replace_file(file, base::view(content), readable);
  base::give_to_owner_of_directory(file);
}

/// Held while a record is added.
class Lock {
 public:
  explicit Lock(const path& directory)
      : file_(base::open_file(directory / ".lock", O_RDWR | O_CREAT, readable)) {
    base::give_to_owner_of_directory(directory / ".lock");
    while (::flock(file_.get(), LOCK_EX) != 0) {
      if (errno != EINTR) base::fail_errno("lock \"" + directory.string() + "\"", errno);
    }
  }

 private:
  base::Fd file_;
};

struct Head {
  std::uint64_t count = 0;
  std::string last{genesis};
};

std::optional<Head> head_of(const json& document) {
  if (!document.is_object() || !document.contains("count") || !document.contains("last_sha256")) {
    return std::nullopt;
  }
  return Head{document.at("count").get<std::uint64_t>(),
              document.at("last_sha256").get<std::string>()};
}

/// How a witness calls a directory: one key may sign what is in several.
std::string name_of_directory(const path& directory) {
  return base::fs::weakly_canonical(base::fs::absolute(directory)).string();
}

/// The heads of all directories that a witness knows. One that was changed is no witness of less.
json witnesses_of(const path& file, const base::VerifyingKey& key) {
  const auto bytes = base::read_file(file);
  if (!bytes) return json::object();
  auto document = checked_document(base::text(*bytes), key);
  if (!document || !document->is_object() || !document->contains("heads")) {
    throw base::Error(Code::corrupt,
                      fmt::format("\"{}\", which says how many records there are, was changed or "
                                  "was signed by another key",
                                  file.string()),
                      "look at the records first; then remove it: the next record makes it anew");
  }
  return document->at("heads");
}

/// A reading of the directory, which notes what is wrong as it goes.
class Reading {
 public:
  Reading(const EvidencePlace& place, const base::VerifyingKey& key)
      : directory_(place.directory), witness_file_(place.witness), key_(key) {
    read_witness();
  }

  EvidenceReport run() {
    const auto names = base::directory_names(directory_);
    for (const std::string& name : names.value_or(std::vector<std::string>{})) {
      if (name.ends_with(".json") && name != head_name) read(name);
    }
    std::ranges::stable_sort(report_.records, {}, &EvidenceRecord::number);
    look_for_strangers(names.value_or(std::vector<std::string>{}));
    follow_chain();
    look_at_head();
    look_at_witness();
    if (report_.records.empty()) problem("there is no record that can be relied on");
    const auto log = read_part(log_name);
    if (!log || base::text(*log) != log_of(report_.records)) {
      problem("{} is not the table of these records", log_name);
    }
    return std::move(report_);
  }

  /// The furthest that is known of, whatever is left of it.
  Head known() const {
    Head last = furthest();
    if (head_ && head_->count > last.count) last = *head_;
    if (witness_ && witness_->count > last.count) last = *witness_;
    return last;
  }
  /// Of any record that can be read, the highest number and its digest.
  Head furthest() const {
    return report_.records.empty()
               ? Head{}
               : Head{report_.records.back().number, report_.records.back().digest};
  }
  std::vector<EvidenceRecord> read_all() {
    for (const auto& name :
         base::directory_names(directory_).value_or(std::vector<std::string>{})) {
      if (name.ends_with(".json") && name != head_name) read(name);
    }
    std::ranges::stable_sort(report_.records, {}, &EvidenceRecord::number);
    read_head();
    return report_.records;
  }

 private:
  template <typename... Args>
  void problem(fmt::format_string<Args...> format, Args&&... args) {
    report_.problems.push_back(fmt::format(format, std::forward<Args>(args)...));
  }

  /// nullopt if it is not there or cannot be read, which is a problem.
  std::optional<base::Bytes> read_part(std::string_view name) {
    try {
      return base::read_file(directory_ / name);
    } catch (const base::Error& error) {
      problem("{}", error.message());
      return std::nullopt;
    }
  }

  void read(const std::string& name) {
    const auto read = read_part(name);
    if (!read) return;
    const base::Bytes& bytes = *read;
    const auto document = checked_document(base::text(bytes), key_);
    if (!document || !document->is_object()) {
      return problem("{} was changed, or was signed by another key", name);
    }
    try {
      EvidenceRecord record;
      document->at("number").get_to(record.number);
      record.digest = digest_of(base::text(bytes));
      record.evidence = evidence_of(*document);
      if (record.evidence.id + ".json" != name) {
        problem("{} is the record {} under another name", name, record.evidence.id);
      }
      const auto markdown = read_part(record.evidence.id + ".md");
      if (!markdown || digest_of(base::text(*markdown)) != document->at("markdown_sha256")) {
        problem("{}.md is {}", record.evidence.id, markdown ? "not as it was written" : "missing");
      }
      previous_[record.digest] = document->at("previous_sha256").get<std::string>();
      report_.records.push_back(std::move(record));
    } catch (const std::exception& error) {
      problem("{} cannot be understood: {}", name, error.what());
    }
  }

  void look_for_strangers(const std::vector<std::string>& names) {
    for (const std::string& name : names) {
      const bool is_json = base::fs::path(name).extension() == ".json";
      if (name == log_name || name == "README.md" || is_json || !name.ends_with(".md")) continue;
      const path partner = directory_ / (name.substr(0, name.size() - 3) + ".json");
      if (!base::status_of(partner)) problem("{} has no .json beside it", name);
    }
  }

  void follow_chain() {
    Head before;
    for (const EvidenceRecord& record : report_.records) {
      if (record.number == before.count) {
        problem("there are two records {}", record.number);
      } else if (record.number != before.count + 1) {
        problem("{} missing: the chain goes from {} to {}",
                record.number == before.count + 2
                    ? fmt::format("record {} is", before.count + 1)
                    : fmt::format("records {} to {} are", before.count + 1, record.number - 1),
                before.count, record.number);
      } else if (previous_[record.digest] != before.last) {
        problem("record {} ({}) does not follow on the record before it", record.number,
                record.evidence.id);
      }
      before = {record.number, record.digest};
    }
  }

  void read_head() {
    const auto bytes = read_part(head_name);
    if (!bytes) return;
    const auto document = checked_document(base::text(*bytes), key_);
    if (document) head_ = head_of(*document);
    if (!head_) problem("{} was changed, or was signed by another key", head_name);
  }

  void read_witness() {
    if (witness_file_.empty()) return;
    try {
      const json all = witnesses_of(witness_file_, key_);
      const auto found = all.find(name_of_directory(directory_));
      if (found != all.end()) witness_ = head_of(*found);
    } catch (const base::Error& error) {
      problem("{}", error.message());
    }
  }

  void look_at_witness() {
    const Head last = furthest();
    if (!witness_file_.empty() && !witness_ && last.count > 0) {
      report_.notes.push_back(
          fmt::format("{} does not say how many records there are; the next "
                      "record lets it, if it can be written",
                      witness_file_.string()));
    }
    if (!witness_) return;
    if (witness_->count > last.count) {
      return problem(
          "the newest records are missing: {} says that there were {}, and the last "
          "here is {}",
          witness_file_.string(), witness_->count, last.count);
    }
    const bool there = std::ranges::any_of(report_.records, [&](const EvidenceRecord& each) {
      return each.number == witness_->count && each.digest == witness_->last;
    });
    if (!there)
      problem("record {} is not the one that {} names", witness_->count, witness_file_.string());
  }

  void look_at_head() {
    read_head();
    const Head last = furthest();
    if (!base::status_of(directory_ / head_name) && last.count > 0) {
      problem("{} is missing", head_name);
    }
    if (!head_) return;
    if (head_->count > last.count) {
      problem("the newest records are missing: there were {}, and the last here is {}",
              head_->count, last.count);
    } else if (head_->count < last.count) {
      report_.notes.push_back(
          fmt::format("{} is older than the newest record: its writer was stopped; the next record "
                      "mends it",
                      head_name));
    } else if (head_->last != last.last) {
      problem("the newest record is not the one that {} names", head_name);
    }
  }

  path directory_;
  path witness_file_;
  const base::VerifyingKey& key_;
  EvidenceReport report_;
  std::map<std::string, std::string> previous_;
  std::optional<Head> head_;
  std::optional<Head> witness_;
};

}  // namespace

std::string_view name_of(Verdict verdict) {
  switch (verdict) {
    case Verdict::pass:
      return "pass";
    case Verdict::fail:
      return "fail";
    case Verdict::inconclusive:
      return "inconclusive";
  }
  return "";
}

std::string_view name_of(CheckOutcome outcome) {
  switch (outcome) {
    case CheckOutcome::passed:
      return "passed";
    case CheckOutcome::failed:
      return "failed";
    case CheckOutcome::not_run:
      return "not run";
    case CheckOutcome::switched_off:
      return "switched off";
  }
  return "";
}

const std::vector<std::string>& controls_of_drills() {
  static const std::vector<std::string> controls = {
      "SOC 2 A1.2",       "SOC 2 A1.3",       "ISO/IEC 27001:2022 A.8.13",
      "NIST 800-53 CP-4", "NIST 800-53 CP-9", "NIST 800-53 CP-10"};
  return controls;
}

const std::vector<std::string>& controls_of_gamedays() {
  static const std::vector<std::string> controls = {
      "SOC 2 A1.2", "SOC 2 A1.3", "ISO/IEC 27001:2022 A.5.30", "NIST 800-53 CP-4"};
  return controls;
}

const std::vector<std::string>& controls_of_recoveries() {
  static const std::vector<std::string> controls = {
      "SOC 2 A1.2", "SOC 2 CC7.5", "ISO/IEC 27001:2022 A.5.29", "NIST 800-53 CP-10"};
  return controls;
}

std::string host_name() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0) return "unknown host";
  return name.data();
}

std::string operator_name(const std::string& given) {
  if (!given.empty()) return given;
  const auto user = base::find_user(::geteuid());
  return fmt::format("{}@{}", user ? user->name : std::to_string(::geteuid()), host_name());
}

void judge(Evidence& evidence) {
  std::string failures;
  std::string not_run;
  bool any = false;
  for (const EvidenceCheck& check : evidence.checks) {
    const auto append = [&](std::string& to) {
      to += fmt::format("{}{}: {}", to.empty() ? "" : "; ", check.name, check.found);
    };
    if (check.outcome == CheckOutcome::failed) append(failures);
    if (check.outcome == CheckOutcome::not_run) append(not_run);
    if (check.outcome == CheckOutcome::passed) any = true;
  }
  if (!failures.empty()) {
    evidence.verdict = Verdict::fail;
    evidence.notes = failures;
  } else if (!not_run.empty() || !any) {
    evidence.verdict = Verdict::inconclusive;
    evidence.notes = not_run.empty() ? "nothing was checked" : "not run: " + not_run;
  } else {
    evidence.verdict = Verdict::pass;
  }
}

std::string new_evidence_id(base::Timestamp at) {
  std::string time = base::to_iso(at);  // 2026-11-23T15:01:37.000000Z
  std::string clock = time.substr(11, 8);
  std::erase(clock, ':');
  return fmt::format("{}-{}Z-{}", time.substr(0, 10), clock, base::to_hex(base::random_bytes(2)));
}

void check_signer(const path& directory, const base::SigningKey& key) {
  const auto there = base::read_file(directory / key_name);
  if (!there || base::VerifyingKey(base::text(*there), (directory / key_name).string()) ==
                    base::VerifyingKey(key.public_pem(), "the signing key")) {
    return;
  }
  throw base::Error(Code::key,
                    fmt::format("cannot add to the records in \"{}\": they were signed by another "
                                "key",
                                directory.string()),
                    "set [drill] signing_key to that key's file; if it is lost, begin another "
                    "directory ([drill] evidence) and keep this one");
}

namespace {

/// The head, the table and the witness: all follow from the records.
void write_ends(const EvidencePlace& place, const base::SigningKey& key, const Head& last,
                const std::vector<EvidenceRecord>& records) {
  const json head = {{"count", last.count}, {"last_sha256", last.last}};
  publish(place.directory / head_name, signed_text(head, key));
  publish(place.directory / log_name, log_of(records));
  if (place.witness.empty()) return;
  const base::VerifyingKey check(key.public_pem(), "the signing key");
  try {
    json all = witnesses_of(place.witness, check);
    all[name_of_directory(place.directory)] = head;
    publish(place.witness, signed_text({{"heads", all}}, key));
  } catch (const base::Error& error) {
    // The record stands. That it has no witness, or one that was changed, is said when the records
    // are verified.
    if (error.code() != Code::permission && error.code() != Code::corrupt) throw;
  }
}

}  // namespace

EvidencePlace evidence_place(const DrillConfiguration& drill) {
  return {drill.evidence, drill.signing_key.string() + ".head"};
}

EvidenceFiles add_evidence(const EvidencePlace& place, const base::SigningKey& key,
                           const Evidence& evidence) {
  const path& directory = place.directory;
  base::make_directories_for_owner(directory, 0755);
  const Lock lock(directory);
  check_signer(directory, key);
  const std::string pem = key.public_pem();
  if (!base::status_of(directory / key_name)) {
    publish(directory / key_name, pem);
  }
  const base::VerifyingKey check(pem, "the signing key");
  Reading reading(place, check);
  std::vector<EvidenceRecord> records = reading.read_all();
  // What the head or the witness knows and the directory lacks was removed: the chain must go on to
  // show that.
  const Head last = reading.known();

  EvidenceFiles files;
  files.number = last.count + 1;
  files.json = directory / (evidence.id + ".json");
  files.markdown = directory / (evidence.id + ".md");
  const std::string markdown = markdown_of(evidence, files.number, last.last);
  json document = {{"number", files.number},
                   {"previous_sha256", last.last},
                   {"markdown_sha256", digest_of(markdown)}};
  document.update(to_json(evidence));
  const std::string text = signed_text(document, key);
  publish(files.markdown, markdown);
  publish(files.json, text);
  records.push_back({files.number, digest_of(text), evidence});
  write_ends(place, key, {files.number, digest_of(text)}, records);
  return files;
}

std::optional<EvidenceFiles> finish_evidence(const EvidencePlace& place,
                                             const base::SigningKey& key, const std::string& id) {
  const path& directory = place.directory;
  if (!base::status_of(directory / (id + ".json"))) return std::nullopt;
  const Lock lock(directory);
  const base::VerifyingKey check(key.public_pem(), "the signing key");
  Reading reading(place, check);
  const std::vector<EvidenceRecord> records = reading.read_all();
  const auto found =
      std::ranges::find(records, id, [](const EvidenceRecord& each) { return each.evidence.id; });
  if (found == records.end()) return std::nullopt;
  const Head last = reading.furthest();
  // What knows of more must go on to show that something was removed.
  if (reading.known().count <= last.count) write_ends(place, key, last, records);
  return EvidenceFiles{found->number, directory / (id + ".json"), directory / (id + ".md")};
}

EvidenceReport verify_evidence(const EvidencePlace& place, const base::VerifyingKey& key) {
  return Reading(place, key).run();
}

base::VerifyingKey key_beside(const path& directory) {
  const auto pem = base::read_file(directory / key_name);
  if (!pem) {
    throw base::Error(Code::not_found,
                      fmt::format("there is no {} in \"{}\"", key_name, directory.string()),
                      "name the public key with --key; `holdfast drill` makes records");
  }
  return {base::text(*pem), (directory / key_name).string()};
}

}  // namespace holdfast::operations
