#include "operations/stream_backup.h"

#include "base/error.h"

namespace holdfast::operations {

namespace {

template <typename Connect>
auto connected(const Connect& connect) {
  try {
    return connect();
  } catch (const base::Error& error) {
    throw error.with_hint(
        "without data_directory, the user in `connection` needs the REPLICATION attribute, and a "
        "line of pg_hba.conf for the database \"replication\"; `holdfast doctor` looks at it");
  }
}

}  // namespace

StreamBackup::StreamBackup(const std::string& connection, postgres::SystemId system)
    : connection_string_(connection),
      system_(system),
      wal_(connected([&] { return BackupWal(connection); })) {
  connect();
}

void StreamBackup::connect() {
  connection_ = connected(
      [&] { return std::make_unique<postgres::Replication>(connection_string_, "holdfast"); });
  const postgres::SystemId found = connection_->identify().id;
  if (found != system_) {
    base::fail(base::Code::foreign,
               "cannot use this connection: it leads to system {}, for replication to system {}",
               postgres::to_string(system_), postgres::to_string(found));
  }
}

postgres::BackupBegin StreamBackup::begin(const std::string& label,
                                          const postgres::BaseBackup::Manifest& earlier) {
  if (stream_) {
    stream_.reset();
    connect();
  }
  stream_.emplace(*connection_, system_, label, earlier);
  return stream_->begin();
}

CopiedStream StreamBackup::copy(const repository::Repository& repository,
                                const repository::Backups& backups,
                                const CopyStreamRequest& request, base::Progress& progress) {
  return copy_stream(repository, backups, *stream_, request, progress);
}

}  // namespace holdfast::operations
