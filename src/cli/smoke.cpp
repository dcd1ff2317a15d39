#include <cstdlib>
#include <iostream>
#include <memory>

#include "base/process.h"
#include "base/workers.h"
#include "cli/command.h"
#include "service/smoke_gate.h"

namespace holdfast::cli {

namespace {

using base::Code;
using base::Error;

/// As k6 ends when a threshold was crossed; all else that it or we end with is no verdict.
constexpr int crossed = 99;

struct Options {
  std::string file;
  std::string summary;
};

/// A script for k6 is k6's own business, if it is there.
[[noreturn]] void run_k6(const Options& options) {
  const char* off = std::getenv("K6_NO_THRESHOLDS");
  if (off != nullptr && std::string_view(off) != "false" && *off != '\0') {
    throw Error(Code::refused,
                "refused to run k6 while K6_NO_THRESHOLDS is set: nothing could fail", "unset it");
  }
  base::Command command;
  command.argv = {"k6", "run"};
  if (!options.summary.empty()) command.argv.push_back("--summary-export=" + options.summary);
  command.argv.push_back(options.file);
  try {
    base::become(command);
  } catch (const Error& error) {
    throw Error(Code::not_found, fmt::format("could not run {}: k6 is not installed", options.file),
                "install k6 (https://k6.io), or write the requests in TOML: see docs/smoke.md");
  }
}

void print(const service::SmokeResult& result) {
  for (const auto& [name, tally] : result.checks) {
    std::cout << fmt::format("{:<8} {} ({} of {})\n", tally.fails == 0 ? "ok" : "FAILED", name,
                             tally.passes, tally.passes + tally.fails);
  }
  if (!result.first_failure.empty()) {
    std::cout << fmt::format("         the first that failed: {}\n", result.first_failure);
  }
  const auto ms = [&](double share) {
    return static_cast<double>(result.percentile(share).count()) / 1000;
  };
  std::cout << fmt::format(
      "\n{} requests in {} iterations, {} dropped, in {}\n"
      "p50 {:.1f} ms, p95 {:.1f} ms, p99 {:.1f} ms\n\n",
      result.durations.size(), result.iterations, result.dropped,
      base::to_string_short(result.took), ms(0.5), ms(0.95), ms(0.99));
  for (const service::SmokeThreshold& each : result.thresholds) {
    std::cout << fmt::format("{:<8} {} {}: {}\n", each.holds ? "ok" : "FAILED", each.metric,
                             each.expression, each.found);
  }
  std::cout << (result.passed() ? "\nThe gate is open.\n" : "\nThe gate is SHUT.\n");
}

void run(Invocation& invocation, const Options& options) {
  if (options.file.ends_with(".js")) run_k6(options);
  const service::SmokeScript script = service::read_smoke(options.file);
  base::catch_interrupts();
  const service::SmokeResult result = service::run_smoke(script);
  const nlohmann::json summary = service::k6_summary(result);
  if (!options.summary.empty()) {
    base::replace_file(options.summary, base::view(summary.dump(2) + "\n"), 0644);
  }
  if (!result.passed()) invocation.exit_status = crossed;
  if (!invocation.json) return print(result);
  nlohmann::json document = summary;
  document["passed"] = result.passed();
  print_json(invocation, document);
}

}  // namespace

void add_smoke(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<Options>();
  CLI::App* command =
      add_command(app, invocation, "smoke",
                  "Ask a service at a fixed rate, and end with 99 unless its thresholds hold",
                  {Code::configuration, Code::not_found, Code::interrupted},
                  [&invocation, options] { run(invocation, *options); });
  command->add_option("FILE", options->file, "Requests and thresholds; a .js is run by k6")
      ->required();
  command->add_option("--summary-export", options->summary, "Write a summary as k6 does, as JSON")
      ->type_name("FILE");
}

}  // namespace holdfast::cli
