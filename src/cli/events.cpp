#include "operations/events.h"

#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/workers.h"
#include "cli/command.h"
#include "operations/repositories.h"

namespace holdfast::cli {

namespace {

using base::Code;
using nlohmann::json;
using operations::Event;

/// What to give to `restore`: the state just before an event, or at a restore point.
std::string target_of(const Event& event) {
  if (event.kind == Event::Kind::restore_point) return "name:" + event.name;
  return "lsn:" + postgres::to_string(event.before);
}

bool is_exclusive(const Event& event) {
  return event.kind != Event::Kind::restore_point;
}

json to_json(const Event& event) {
  json objects = json::array();
  for (const operations::EventObject& object : event.objects) {
    objects.push_back({{"name", object.name}, {"database", object.database}});
  }
  json document = {{"kind", operations::to_string(event.kind)},
                   {"time", base::to_iso(event.time)},
                   {"lsn", postgres::to_string(event.start)},
                   {"restore_to", event.reachable ? json(target_of(event)) : json()},
                   {"exclusive", is_exclusive(event)}};
  if (event.transaction != 0) document["transaction"] = event.transaction;
  if (!objects.empty()) document["objects"] = objects;
  if (event.kind == Event::Kind::bulk_delete) document["rows"] = event.rows;
  if (event.kind == Event::Kind::restore_point) document["name"] = event.name;
  return document;
}

json to_json(const operations::EventReport& report) {
  json minutes = json::array();
  for (const operations::EventMinute& minute : report.minutes) {
    minutes.push_back({{"minute", base::to_iso(minute.start)},
                       {"commits", minute.commits},
                       {"aborts", minute.aborts},
                       {"rows_inserted", minute.rows.inserted},
                       {"rows_updated", minute.rows.updated},
                       {"rows_deleted", minute.rows.deleted}});
  }
  json events = json::array();
  for (const Event& event : report.events) events.push_back(to_json(event));
  return {{"system_id", report.system_id},
          {"timeline", report.timeline.value},
          {"since", base::to_iso(report.since)},
          {"minutes", minutes},
          {"events", events},
          {"warnings", report.warnings}};
}

std::string description(const Event& event) {
  std::string text(operations::to_string(event.kind));
  if (event.kind == Event::Kind::restore_point) return text + fmt::format(" \"{}\"", event.name);
  if (event.kind == Event::Kind::bulk_delete) text += fmt::format(" of {} rows from", event.rows);
  const bool is_database =
      event.kind == Event::Kind::drop_database || event.kind == Event::Kind::create_database;
  std::string separator = " ";
  for (const operations::EventObject& object : event.objects) {
    text += separator + object.name;
    if (!is_database) text += fmt::format(" in {}", object.database);
    separator = ", ";
  }
  return text;
}

void print(const Event& event) {
  std::cout << fmt::format("  {}  {}\n", base::to_string(event.time), description(event));
  if (event.transaction != 0) {
    std::cout << fmt::format("      transaction {}, committed at {}\n", event.transaction,
                             postgres::to_string(event.start));
  }
  if (!event.reachable) {
    std::cout << "      cannot be restored to: no backup and gapless WAL lead there\n";
  } else if (is_exclusive(event)) {
    std::cout << fmt::format("      just before: holdfast restore DIR --to {} --exclusive\n",
                             target_of(event));
  } else {
    std::cout << fmt::format("      to it: holdfast restore DIR --to \"{}\"\n", target_of(event));
  }
}

void print(const operations::EventReport& report) {
  if (report.minutes.empty()) std::cout << "Nothing was committed in this time.\n";
  for (const operations::EventMinute& minute : report.minutes) {
    if (&minute == &report.minutes.front()) {
      std::cout << fmt::format("{:<24} {:>9} {:>7} {:>10} {:>10} {:>10}\n", "MINUTE", "COMMITS",
                               "ABORTS", "INSERTED", "UPDATED", "DELETED");
    }
    std::cout << fmt::format("{:<24} {:>9} {:>7} {:>10} {:>10} {:>10}\n",
                             base::to_string(minute.start), minute.commits, minute.aborts,
                             minute.rows.inserted, minute.rows.updated, minute.rows.deleted);
  }
  std::cout << (report.events.empty() ? "\nNo table or database was dropped or emptied.\n" : "\n");
  for (const Event& event : report.events) print(event);
}

void events(const Invocation& invocation, const operations::EventsRequest& request) {
  const operations::Configuration configuration =
      operations::each_repository(invocation.configuration(), invocation.repositories).front();
  const operations::Site site = operations::open_site(configuration, invocation.cluster);
  base::catch_interrupts();
  const operations::EventReport report = operations::find_events(site, request);
  for (const std::string& warning : report.warnings) print_warning(warning);
  if (invocation.json) return print_json(invocation, to_json(report));
  print(report);
}

}  // namespace

void add_events(CLI::App& app, Invocation& invocation) {
  const auto request = std::make_shared<operations::EventsRequest>();
  CLI::App* command = add_command(
      app, invocation, "events", "Show commits, drops and truncates: find the moment before",
      {Code::corrupt, Code::key, Code::not_found, Code::wal_missing, Code::interrupted},
      [&invocation, request] { events(invocation, *request); });
  command
      ->add_option("--since", request->since,
                   "\"2026-11-23 08:30:00+00\", or how long ago: 90s, 5min, 2h, 7d")
      ->type_name("TIME")
      ->required();
  command->add_option("--until", request->until, "Likewise; the end of WAL by default")
      ->type_name("TIME");
  command
      ->add_option("--system", request->system,
                   "Which system, if the cluster has several; by default the one in use")
      ->type_name("ID");
}

}  // namespace holdfast::cli
