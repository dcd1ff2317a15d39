#pragma once

// Evidence: records of drills, recoveries and game days that an auditor can rely on without relying
// on us.
//
// A record is a pair of files in one directory, DATE-ID.json and DATE-ID.md, which say the same to
// programs and to people. Records are numbered; each names the SHA-256 of the one before it, and of
// its own .md, and is signed (Ed25519). head.json, signed as well, says how many there are and what
// the last one is. drill-log.md is a table of them all, made anew with each record.
//
// Who holds the public key alone finds out that a record was changed, added, removed, or put
// elsewhere in the order; also that the newest ones were removed, as long as head.json was left.
// Where the records are made there is a witness besides: a file beside the signing key that says
// the same as head.json. So whatever is removed from the directory, head.json too, or put back as
// it was before, is found there; and the next record's number shows it to everybody.
// What cannot be found: what was done to the directory and to the witness at once, and anything
// that the holder of the signing key did. Against these keep the directory in a version control
// system that others hold, or note the number of records.
//
// No value from a database and no secret is ever in a record. Failures are records too.

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/signature.h"
#include "base/time.h"

namespace holdfast::operations {

/// There are no others (TRAPS VE1). What could not be done is never a pass.
enum class Verdict {
  pass,
  fail,
  inconclusive,  ///< the surroundings did not let it run: nothing is proven either way
};
std::string_view name_of(Verdict verdict);

enum class CheckOutcome {
  passed,
  failed,
  not_run,       ///< wanted, but it could not be done: no pass
  switched_off,  ///< by the configuration
};
std::string_view name_of(CheckOutcome outcome);

struct EvidenceCheck {
  std::string name;
  CheckOutcome outcome = CheckOutcome::not_run;
  std::string found;  ///< what was looked at, how much of it, and what was wrong
};

struct EvidenceStep {
  std::string name;
  base::Microseconds took{};  ///< by a monotonic clock
};

struct Evidence {
  std::string kind = "drill";
  std::string id;  ///< "2026-11-23-150137Z-1a2b": the name of its files
  base::Timestamp at;
  std::string cluster;
  Verdict verdict = Verdict::inconclusive;
  std::string scenario;      ///< what was meant to be shown
  std::string backup_point;  ///< which backup, and to where it was brought
  std::string environment;
  std::string notes;  ///< in one line; of a failure the reason
  std::string completed_by;
  std::vector<EvidenceStep> steps;
  std::vector<EvidenceCheck> checks;
  std::optional<base::Microseconds> rpo;  ///< nullopt: not measured
  std::string rpo_how;
  std::optional<base::Microseconds> rto;
  std::optional<base::Microseconds> rpo_objective;
  std::optional<base::Microseconds> rto_objective;
  std::vector<std::pair<std::string, std::string>> facts;  ///< versions, positions, digests
  std::vector<std::string> controls;                       ///< "SOC 2 A1.3"
};

/// Where records are, and what else knows how many there are.
struct EvidencePlace {
  // NOLINTNEXTLINE(google-explicit-constructor): a directory alone is a place, to an auditor
  EvidencePlace(base::fs::path records, base::fs::path witness_file = {})
      : directory(std::move(records)), witness(std::move(witness_file)) {}
  base::fs::path directory;
  base::fs::path witness;  ///< empty: there is none
};
struct DrillConfiguration;
EvidencePlace evidence_place(const DrillConfiguration& drill);

/// What a drill, a game day and a recovery evidence.
const std::vector<std::string>& controls_of_drills();
const std::vector<std::string>& controls_of_gamedays();
const std::vector<std::string>& controls_of_recoveries();

/// Who did it: what was given, else the user of this process and its host.
std::string operator_name(const std::string& given);
std::string host_name();

/// Sets the verdict by the checks, and if it is no pass the notes. Nothing checked is no pass.
void judge(Evidence& evidence);

std::string new_evidence_id(base::Timestamp at);

/// Throws Error(key) if the records in the directory were signed by another key: what was shown
/// with that one must not end unseen.
void check_signer(const base::fs::path& directory, const base::SigningKey& key);

struct EvidenceFiles {
  std::uint64_t number = 0;
  base::fs::path json;
  base::fs::path markdown;
};
/// Adds a record. Two at once take turns. Made in an order that a crash leaves whole: the next
/// record links to what is there (TRAPS VE4).
EvidenceFiles add_evidence(const EvidencePlace& place, const base::SigningKey& key,
                           const Evidence& evidence);

/// A record of this id that is there already, made by somebody who died right behind it: what is
/// missing beside it is made. nullopt if there is none.
std::optional<EvidenceFiles> finish_evidence(const EvidencePlace& place,
                                             const base::SigningKey& key, const std::string& id);

/// A record as it was read.
struct EvidenceRecord {
  std::uint64_t number = 0;
  std::string digest;  ///< SHA-256 of the .json
  Evidence evidence;
};

struct EvidenceReport {
  std::vector<EvidenceRecord> records;  ///< those with a good signature, by number
  std::vector<std::string> problems;    ///< empty: the chain is whole
  std::vector<std::string> notes;
  bool ok() const { return problems.empty(); }
};
/// Checks the whole directory. Nothing there at all is a problem, not a clean report (TRAPS VE5).
EvidenceReport verify_evidence(const EvidencePlace& place, const base::VerifyingKey& key);

/// The public key that lies with the records: good against accidents, but not against somebody who
/// replaces both. Throws Error(not_found) if there is none.
base::VerifyingKey key_beside(const base::fs::path& directory);

}  // namespace holdfast::operations
