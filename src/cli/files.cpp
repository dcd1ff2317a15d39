#include "operations/files.h"

#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/workers.h"
#include "cli/command.h"
#include "operations/repositories.h"

namespace holdfast::cli {

namespace {

using base::Code;
using base::Error;
using nlohmann::json;

struct Options {
  std::string name;
  std::string backup;
  std::string to;
};

json to_json(const operations::FilesSet& set) {
  json document = {{"name", set.name}, {"backup", set.backup.text}, {"readable", set.readable}};
  if (!set.readable) return document;
  document.update({{"path", set.path},
                   {"taken", base::to_iso(set.taken)},
                   {"until", base::to_iso(set.until)},
                   {"entries", set.entries},
                   {"bytes", set.bytes},
                   {"left_out", set.left_out},
                   {"changed_meanwhile", set.changed}});
  return document;
}

std::string moment(base::Timestamp time) {
  return base::to_string(std::chrono::floor<std::chrono::seconds>(time));
}

void list(Invocation& invocation, const operations::Configuration& configuration) {
  const operations::Site site = operations::open_site(configuration, invocation.cluster);
  const auto all = operations::list_files(site);
  if (invocation.json) {
    json documents = json::array();
    for (const operations::FilesSet& each : all) documents.push_back(to_json(each));
    return print_json(invocation, {{"files", documents}});
  }
  if (all.empty()) std::cout << "No files went along with a backup ([files.NAME]).\n";
  for (const operations::FilesSet& each : all) {
    if (!each.readable) {
      std::cout << fmt::format("{}  {}  CANNOT BE READ\n", each.backup.text, each.name);
      continue;
    }
    std::cout << fmt::format("{}  {}  {} in {} entries of {}, kept until {}\n", each.backup.text,
                             each.name, base::size_text(each.bytes), each.entries, each.path,
                             moment(each.until));
    if (each.left_out > 0) std::cout << fmt::format("  {} entries left out\n", each.left_out);
    if (each.changed > 0) {
      std::cout << fmt::format("  {} files were written to while they were read\n", each.changed);
    }
  }
}

/// From the first repository that has it.
void restore(Invocation& invocation, const Options& options) {
  base::catch_interrupts();
  std::optional<repository::BackupId> backup;
  if (!options.backup.empty()) backup = repository::BackupId{options.backup};
  const auto each_one =
      operations::each_repository(invocation.configuration(), invocation.repositories);
  for (const operations::Configuration& each : each_one) {
    try {
      const operations::Site site = operations::open_site(each, invocation.cluster);
      const operations::FilesSet restored =
          operations::restore_files_set(site, options.name, backup, options.to);
      if (invocation.json) {
        json document = to_json(restored);
        document["restored_to"] = options.to;
        return print_json(invocation, document);
      }
      std::cout << fmt::format("Restored {} ({} in {} entries), as it was at {}, to {}\n",
                               restored.name, base::size_text(restored.bytes), restored.entries,
                               moment(restored.taken), options.to);
      return;
    } catch (const Error& error) {
      const bool ours = error.code() == Code::refused || error.code() == Code::interrupted;
      if (ours || &each == &each_one.back()) throw;
      print_failure(each.repository().name, error);
    }
  }
}

}  // namespace

void add_files(CLI::App& app, Invocation& invocation) {
  CLI::App* files = app.add_subcommand("files", "Files that went along with backups");
  files->require_subcommand(1);
  CLI::App* list_command = add_command(
      *files, invocation, "list", "Show them, and until when they are kept", {Code::not_found},
      [&invocation] {
        for_each_repository(invocation,
                            [&](const operations::Configuration& each) { list(invocation, each); });
      });
  add_repositories(*list_command, invocation);
  const auto options = std::make_shared<Options>();
  CLI::App* command =
      add_command(*files, invocation, "restore", "Bring a set back: the newest, or a backup's",
                  {Code::not_found, Code::refused, Code::corrupt, Code::no_space, Code::key},
                  [&invocation, options] { restore(invocation, *options); });
  command->add_option("name", options->name, "Of [files.NAME]")->required()->type_name("NAME");
  command
      ->add_option("path", options->to,
                   "What the file or directory becomes; nothing may be there yet")
      ->required()
      ->type_name("PATH");
  command->add_option("--backup", options->backup, "That it went along with")->type_name("ID");
  add_repositories(*command, invocation);
}

}  // namespace holdfast::cli
