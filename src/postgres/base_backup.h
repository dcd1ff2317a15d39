#pragma once

// BASE_BACKUP: a whole cluster through a replication connection (basebackup.c,
// protocol-replication.html).
//
// The server sends one tar archive for each tablespace, the data directory's last, and then the
// backup manifest. What arrives is taken apart at once and handed on file by file; nothing is kept
// but 16 bytes or so for each file, which are compared with the manifest at the end. So receive()
// returns only if every file that the server sent arrived whole, byte for byte, and the server
// itself ended the backup (TRAPS BK4). Up to version 14 each archive is a COPY of its own; later
// there is one COPY whose messages say what they are.

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "postgres/backup_manifest.h"
#include "postgres/data_directory.h"
#include "postgres/replication.h"
#include "postgres/tar_reader.h"

namespace holdfast::postgres {

struct BackupBegin {
  Lsn start;
  Timeline timeline;
  std::vector<Tablespace> tablespaces;  ///< in the order in which their archives may come
  std::uint64_t bytes = 0;              ///< about how much will come
};

struct BackupEnd {
  Lsn stop;
  Timeline timeline;
  /// The server found pages with wrong checksums in what it sent.
  bool found_damage = false;
};

/// Understands the parts of a base backup. It talks to nobody, so that it can be tested with
/// messages made by hand.
class BackupParser : private TarVisitor {
 public:
  /// `files` gets what the archives hold: paths are relative to the data directory, those of
  /// tablespaces begin with "pg_tblspc/OID".
  BackupParser(BackupBegin begin, SystemId system, TarVisitor& files);

  /// One message of the single COPY of version 15 and later.
  void message(base::View bytes);
  /// The next COPY of version 13 or 14 begins: an archive for each tablespace, in the order in
  /// which they were announced, then the data directory's, then the manifest.
  void begin_copy();
  void copy(base::View bytes);

  /// Throws Error(corrupt) unless everything that was announced came, and is as the manifest says.
  void finish(const BackupEnd& end);

 private:
  enum class Part { nothing, archive, manifest };
  void begin_archive(std::string_view name);
  void begin_archive_of(std::size_t tablespace);
  void begin_manifest();
  void compare(const ManifestFile& file);
  TarMember renamed(const TarMember& member) const;
  void directory(const TarMember& member) override;
  void begin_file(const TarMember& member) override;
  void content(base::View bytes) override;
  void end_file() override;

  /// What came of a file; its path only as a hash.
  struct Proof {
    std::uint64_t path = 0;
    std::uint64_t size = 0;
    std::uint32_t crc = 0;
    bool confirmed = false;
  };

  BackupBegin begin_;
  SystemId system_;
  TarVisitor& files_;
  Part part_ = Part::nothing;
  std::vector<bool> archives_;  ///< which came: by tablespace, the data directory's last
  std::string prefix_;          ///< of the paths in this archive
  TarReader tar_;
  ManifestReader manifest_;
  Proof file_;
  std::vector<Proof> proofs_;
};

/// A base backup on a connection of its own. Begins with a fast checkpoint.
class BaseBackup {
 public:
  /// Writes the manifest of an earlier backup.
  using Manifest = std::function<void(ManifestWriter&)>;

  /// Returns when the backup has begun. Neither waits for archiving nor sends WAL. With `earlier`
  /// the server is to send of the files in that manifest only what has changed since (version 17):
  /// see incremental_file.h. Error(postgres) if it cannot; then the connection is as before.
  BaseBackup(Replication& connection, SystemId system, const std::string& label,
             const Manifest& earlier = {});

  const BackupBegin& begin() const { return begin_; }

  /// Receives it all. `meanwhile` is called often and may throw, which gives up.
  BackupEnd receive(TarVisitor& files, const std::function<void()>& meanwhile);

 private:
  void upload(const Manifest& earlier);
  void receive_stream(BackupParser& parser, const std::function<void()>& meanwhile);

  Replication& connection_;
  SystemId system_;
  BackupBegin begin_;
};

}  // namespace holdfast::postgres
