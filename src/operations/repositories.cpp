#include "operations/repositories.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/workers.h"
#include "operations/put_wal.h"
#include "postgres/wal_segment.h"
#include "store/silence.h"

namespace holdfast::operations {

namespace {

using base::Code;
using base::Error;
using postgres::WalFileName;

/// So many segments a push brings to a repository that was down. The next one goes on.
constexpr std::uint64_t catch_up_at_once = 64;

/// A repository that is silent for so long is left out, if there are others.
constexpr std::chrono::seconds answer_within{5};

const std::string& name_of(const Configuration& configuration) {
  return configuration.repository().name;
}

/// One of several that hangs must not keep what there is from the others.
std::vector<bool> which_answer(const std::vector<Configuration>& repositories) {
  if (repositories.size() == 1) return {true};
  std::vector<std::string> urls;
  for (const Configuration& each : repositories) urls.push_back(each.repository().url);
  return store::answering(urls, answer_within);
}

/// Opens all that can be opened; says which cannot.
std::vector<Site> open_all(const std::vector<Configuration>& repositories,
                           const std::string& cluster, const SayFailure& say,
                           std::optional<Error>& first_error) {
  std::vector<Site> sites;
  sites.reserve(repositories.size());
  const std::vector<bool> answers = which_answer(repositories);
  for (std::size_t i = 0; i < repositories.size(); ++i) {
    const Configuration& each = repositories[i];
    try {
      if (!answers[i]) {
        throw Error(Code::io, fmt::format("could not reach {}: it has not answered for {} s",
                                          each.repository().url, answer_within.count()));
      }
      sites.push_back(open_site(each, cluster));
    } catch (const Error& error) {
      if (!first_error) first_error = error;
      say(name_of(each), error);
    }
  }
  return sites;
}

std::vector<const Site*> all_but(const std::vector<Site>& sites, const Site& one) {
  std::vector<const Site*> others;
  for (const Site& site : sites) {
    if (&site != &one) others.push_back(&site);
  }
  return others;
}

bool is_segment(const std::string& name) {
  const auto parsed = postgres::parse_wal_file_name(name);
  return parsed &&
         (parsed->kind == WalFileName::Kind::segment || parsed->kind == WalFileName::Kind::partial);
}

/// Copies one WAL file from the first of the others that has it whole. False if none has.
bool copy_file(const repository::WalArchive& to, const std::vector<const Site*>& others,
               const std::string& name) {
  for (const Site* other : others) {
    try {
      const auto bytes = repository::WalArchive(other->repository, to.place()).get(name);
      if (!bytes) continue;
      if (is_segment(name)) {
        const postgres::SystemId system = postgres::parse_segment_header(*bytes).system_id;
        CheckedSegment(name, *bytes, system).put(to, base::default_workers());
      } else {
        to.put(name, *bytes, base::default_workers());
      }
      return true;
    } catch (const Error& error) {
      if (error.code() != Code::corrupt) throw;
    }
  }
  return false;
}

bool any_has(const std::vector<const Site*>& others, const repository::ClusterPlace& place,
             const std::string& name) {
  return std::ranges::any_of(others, [&](const Site* other) {
    return repository::WalArchive(other->repository, place).has(name);
  });
}

/// After a segment was pushed: those right before it that this repository lacks and others have.
void catch_up_before(const Site& site, const std::vector<const Site*>& others,
                     const base::fs::path& path) {
  const auto name = postgres::parse_wal_file_name(path.filename().string());
  if (!name || name->kind != WalFileName::Kind::segment) return;
  const auto header = postgres::parse_segment_header(base::MappedFile(path).bytes());
  const auto pushed = name->segment(header.size);
  if (!pushed) return;
  const repository::ClusterPlace place{site.cluster.name, postgres::to_string(header.system_id)};
  const repository::WalArchive archive(site.repository, place);
  std::vector<std::string> missing;
  postgres::Segment segment = *pushed;
  while (segment.number > 0 && missing.size() < catch_up_at_once) {
    --segment.number;
    const std::string file = postgres::file_name(segment, header.size);
    if (archive.has(file) || !any_has(others, place, file)) break;
    missing.push_back(file);
  }
  // The oldest first: what is there is always without a hole.
  for (auto file = missing.rbegin(); file != missing.rend(); ++file) {
    if (!copy_file(archive, others, *file)) return;
  }
}

}  // namespace

std::vector<Configuration> each_repository(const Configuration& configuration,
                                           const std::vector<std::string>& names) {
  std::vector<Configuration> each;
  const auto add = [&](const RepositoryConfiguration& repository) {
    each.push_back(configuration);
    each.back().repositories = {repository};
  };
  if (names.empty()) {
    for (const RepositoryConfiguration& repository : configuration.repositories) add(repository);
    return each;
  }
  for (const std::string& name : names) {
    const auto found =
        std::ranges::find(configuration.repositories, name, &RepositoryConfiguration::name);
    if (found == configuration.repositories.end()) {
      std::string all;
      for (const RepositoryConfiguration& repository : configuration.repositories) {
        all += (all.empty() ? "" : ", ") + repository.name;
      }
      throw Error(
          Code::not_found,
          fmt::format("cannot find repository \"{}\" in {}", name, configuration.path.string()),
          "it has: " + all);
    }
    add(*found);
  }
  return each;
}

PushOutcome push_wal_everywhere(const std::vector<Configuration>& repositories,
                                const std::string& cluster, const base::fs::path& path,
                                unsigned workers, const SayFailure& say) {
  std::optional<Error> first_error;
  const std::vector<Site> sites = open_all(repositories, cluster, say, first_error);
  std::optional<PushOutcome> outcome;
  std::vector<const Site*> stored;
  for (const Site& site : sites) {
    try {
      const PushOutcome pushed = push_wal(site, path, workers);
      if (!outcome || !pushed.was_there) outcome = pushed;
      stored.push_back(&site);
    } catch (const Error& error) {
      // Other bytes under this name, another system, or a wrong name are no repository's own
      // trouble.
      if (error.code() == Code::conflict || error.code() == Code::foreign ||
          error.code() == Code::usage) {
        throw;
      }
      if (!first_error) first_error = error;
      say(name_of(site.configuration), error);
    }
  }
  const std::size_t wanted =
      std::min<std::size_t>(repositories.front().wal.copies, repositories.size());
  if (stored.size() < wanted || !outcome) throw first_error.value();
  for (const Site* site : stored) {
    const auto others = all_but(sites, *site);
    if (others.empty()) continue;
    try {
      catch_up_before(*site, others, path);
    } catch (const Error& error) {
      say(name_of(site->configuration), error);
    }
  }
  return *outcome;
}

bool fetch_wal_anywhere(const std::vector<Configuration>& repositories, const std::string& cluster,
                        const FetchRequest& request, const SayFailure& say) {
  if (fetch_spooled_wal(request)) return true;
  std::optional<Error> first_error;
  const std::vector<Site> sites = open_all(repositories, cluster, say, first_error);
  // First for what is whole in any of them, then for what slices give.
  for (const bool complete_only : {true, false}) {
    if (complete_only && sites.size() < 2) continue;
    for (const Site& site : sites) {
      FetchRequest each = request;
      each.complete_only = complete_only;
      try {
        if (fetch_wal(site, each)) return true;
      } catch (const Error& error) {
        if (complete_only) continue;  // it will say so again
        if (!first_error) first_error = error;
        if (sites.size() > 1) say(name_of(site.configuration), error);
      }
    }
  }
  if (first_error) throw *first_error;
  return false;
}

RestoreOutcome restore_from_any(std::vector<Configuration> repositories, const std::string& cluster,
                                RestoreOptions options, base::Progress& progress) {
  // Recovery must not wait at the end of WAL for a repository that is gone with the server.
  std::vector<std::string> reachable;
  for (const Configuration& each : repositories) {
    try {
      open_site(each, cluster);
      reachable.push_back(name_of(each));
    } catch (const Error&) {  // it is met again below, and said
    }
  }
  if (!reachable.empty() && reachable.size() < repositories.size()) {
    for (Configuration& each : repositories) each.reachable = reachable;
  }
  std::vector<base::fs::path> remains;
  options.remains = &remains;
  for (std::size_t i = 0;; ++i) {
    const bool last = i + 1 == repositories.size();
    try {
      const Site site = open_site(repositories[i], cluster);
      return restore(site, options, progress);
    } catch (const Error& error) {
      const bool futile = error.code() == Code::usage || error.code() == Code::refused ||
                          error.code() == Code::interrupted || error.code() == Code::no_space ||
                          error.code() == Code::permission;
      if (last || futile) {
        empty_directories(remains);
        throw;
      }
      progress.warn("{} (repository {}); trying {}", error.message(), name_of(repositories[i]),
                    name_of(repositories[i + 1]));
    } catch (...) {
      empty_directories(remains);
      throw;
    }
    // What the failed one has left is named by its marker, and is checked by content.
    const auto there = base::directory_names(options.directory);
    if (there && !there->empty()) options.delta = true;
  }
}

std::size_t catch_up_wal(const Site& behind, const std::vector<const Site*>& others) {
  std::size_t copied = 0;
  const Catalog catalog = read_catalog(behind);
  std::set<std::string> systems;
  for (const BackupInfo& backup : catalog.backups) {
    if (!systems.insert(backup.place.system_id).second) continue;  // the oldest of each system
    const repository::WalArchive archive(behind.repository, backup.place);
    const std::uint64_t first = backup.start.value / backup.segment_size.bytes;
    std::set<std::string> missing;
    for (const Site* other : others) {
      const repository::WalArchive theirs(other->repository, backup.place);
      for (const repository::Gap& gap : theirs.gaps().list().gaps) {
        if (gap.is_break()) archive.gaps().record(gap);  // before anything behind it
      }
      for (const std::string& history : theirs.histories()) {
        if (!archive.has(history)) copied += copy_file(archive, others, history) ? 1U : 0U;
      }
      for (const std::string& timeline : theirs.timelines()) {
        for (const auto& file : theirs.files(timeline)) {
          const auto name = postgres::parse_wal_file_name(file.name);
          const auto segment = name ? name->segment(backup.segment_size) : std::nullopt;
          if (segment && segment->number >= first && !archive.has(file.name)) {
            missing.insert(file.name);
          }
        }
      }
    }
    for (const std::string& name : missing) copied += copy_file(archive, others, name) ? 1U : 0U;
  }
  return copied;
}

std::size_t catch_up_everywhere(const std::vector<Configuration>& repositories,
                                const std::string& cluster, const SayFailure& say) {
  std::optional<Error> first_error;
  const std::vector<Site> sites = open_all(repositories, cluster, say, first_error);
  std::size_t copied = 0;
  for (const Site& site : sites) {
    try {
      copied += catch_up_wal(site, all_but(sites, site));
    } catch (const Error& error) {
      say(name_of(site.configuration), error);
    }
  }
  return copied;
}

}  // namespace holdfast::operations
