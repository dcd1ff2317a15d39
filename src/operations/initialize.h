#pragma once

// `init`: from nothing to a configuration, a repository and a recovery kit.

#include <optional>
#include <string>
#include <vector>

#include "operations/catalog.h"

namespace holdfast::operations {

struct InitRequest {
  base::fs::path configuration;  ///< where to write it; used as it is if it exists
  std::string cluster;           ///< empty: "main"
  std::string connection;        ///< empty: the local server
  std::string data_directory;    ///< empty: asked from the server
  bool agentless = false;        ///< no data directory: everything goes through the connection
  std::string repository;        ///< url; empty: file:///var/lib/holdfast
  repository::KeySource key;     ///< none: a key file beside the configuration
  bool encrypt = true;
  bool recovery_kit = false;  ///< make the recovery kit again, of a repository that is there
  bool new_system = false;    ///< accept that the cluster is another system now (pg_upgrade)
};

struct InitOutcome {
  base::fs::path configuration;
  bool wrote_configuration = false;
  bool made_repository = false;
  bool made_key_file = false;
  std::string key_file;
  bool registered = false;  ///< this system is new in the repository
  std::string system_id;
  /// Empty if repository and configuration were there before, unless asked for.
  std::string recovery_kit;
  std::vector<std::string> notes;
};

/// May be run again: what is there already is used and left as it is.
InitOutcome initialize(const InitRequest& request);

}  // namespace holdfast::operations
