#pragma once

// The backup manifest: what the server says that it sent (basebackup's backup_manifest.c).
//
// It comes last, and it is the proof that what came before is whole: every file with its size and
// CRC-32C, the WAL that the backup needs, and a SHA-256 of the manifest itself. It is read line by
// line while it arrives, as the server writes it, so that its size does not matter.
//
// The other way round, a server that is to send only what changed (version 17, UPLOAD_MANIFEST) is
// given one: of each file that is in it some blocks may come, any other comes whole.

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/seal.h"
#include "postgres/control_file.h"

namespace holdfast::postgres {

struct ManifestFile {
  std::string path;  ///< as bytes; files in tablespaces as "pg_tblspc/OID/..."
  std::uint64_t size = 0;
  std::uint32_t crc = 0;
};

struct WalRange {
  Timeline timeline;
  Lsn start;
  Lsn end;
};

class ManifestReader {
 public:
  using Visit = std::function<void(const ManifestFile&)>;
  explicit ManifestReader(Visit visit);
  ~ManifestReader();

  /// Calls `visit` for each file. Throws Error(corrupt) for what is no manifest, Error(unsupported)
  /// for a manifest version or a checksum algorithm that we do not know.
  void feed(base::View bytes);

  struct Summary {
    int version = 0;
    std::optional<SystemId> system;  ///< from version 2 (PostgreSQL 17) on
    std::vector<WalRange> wal;
  };
  /// Throws Error(corrupt) if it is not complete or its own checksum fails.
  const Summary& finish();

 private:
  struct State;
  void line(std::string_view text);
  std::unique_ptr<State> state_;
};

/// Writes the manifest of an earlier backup for the server, piece by piece.
class ManifestWriter {
 public:
  using Send = std::function<void(base::View)>;
  ManifestWriter(SystemId system, Send send);

  /// `path` must be plain: digits, letters, "/", "_" and ".", as those of relations are.
  void add(std::string_view path, std::uint64_t size);
  void finish(const WalRange& wal);

 private:
  void put(std::string_view text);
  void flush();

  Send send_;
  base::Sha256 digest_;
  std::string text_;  ///< not sent yet
  bool any_ = false;
};

}  // namespace holdfast::postgres
