#pragma once

// What a backup takes along of the source's configuration: the files outside of its data directory
// (Debian keeps them in /etc), found by reading those that name them; and what it cannot take.
//
// As attachments of the backup's map: "config/ABSOLUTE/PATH", which of them is which as
// "config_file", "hba_file" and "ident_file", where the source was as "data_directory",
// what is lacking as "configuration_lacks", and what was set on the server's command line, in the
// form of a configuration file, as "command_line": `restore` says both.

#include "operations/configuration.h"
#include "postgres/session.h"
#include "repository/page_map.h"

namespace holdfast::operations {

struct SourceConfiguration {
  std::vector<repository::Attachment> attachments;
  std::vector<std::string> lacks;  ///< for people: what is not in the backup, and why
  std::string command_line;        ///< for people: what is set there; empty: nothing is
};

SourceConfiguration read_source_configuration(const ClusterConfiguration& cluster,
                                              postgres::Session& session);

}  // namespace holdfast::operations
