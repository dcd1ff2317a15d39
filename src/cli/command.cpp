#include "cli/command.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>
#include <span>
#include <thread>

#include "base/workers.h"
#include "operations/repositories.h"
#include "postgres/lsn.h"
#include "store/silence.h"

namespace holdfast::cli {

namespace {

using base::Code;
using base::Error;

std::string bar_text(const base::Progress::Snapshot& now,
                     std::chrono::steady_clock::duration since) {
  const double seconds = std::chrono::duration<double>(since).count();
  const auto done = static_cast<double>(now.done);
  if (now.total == 0) return now.phase;
  const double share = std::min(1.0, done / static_cast<double>(now.total));
  constexpr int width = 24;
  const auto filled = static_cast<std::size_t>(share * width);
  std::string text =
      fmt::format("{} [{}{}] {:3.0f}%  {} of {}", now.phase, std::string(filled, '='),
                  std::string(width - filled, ' '), share * 100, base::size_text(now.done),
                  base::size_text(now.total));
  if (seconds > 0.5 && now.done > 0) {
    const double rate = done / seconds;
    const double left = (static_cast<double>(now.total) - done) / rate;
    text += fmt::format("  {}/s", base::size_text(static_cast<std::uint64_t>(rate)));
    if (share < 1) {
      text += fmt::format("  {} left", base::to_string_short(base::Microseconds(
                                           static_cast<base::Microseconds::rep>(left * 1e6))));
    }
  }
  return text;
}

/// Draws the bar until it is destroyed, and prints warnings above it.
class ProgressDisplay {
 public:
  ProgressDisplay(base::Progress& progress, bool draw) : progress_(progress), draw_(draw) {
    thread_ = std::jthread([this](const std::stop_token& stop) {
      std::mutex mutex;
      std::condition_variable_any woken;
      std::unique_lock lock(mutex);
      while (!woken.wait_for(lock, stop, std::chrono::milliseconds(200), [] { return false; }) &&
             !stop.stop_requested()) {
        show();
      }
    });
  }
  ~ProgressDisplay() {
    thread_.request_stop();
    thread_.join();
    if (drawn_) std::fputs("\r\033[K", stderr);
    drawn_ = false;
    for (const std::string& warning : progress_.take_warnings()) print_warning(warning);
  }
  ProgressDisplay(const ProgressDisplay&) = delete;
  ProgressDisplay& operator=(const ProgressDisplay&) = delete;

 private:
  void show() {
    const auto now = progress_.snapshot();
    if (now.phase != phase_) {
      phase_ = now.phase;
      begun_ = std::chrono::steady_clock::now();
    }
    for (const std::string& warning : progress_.take_warnings()) {
      if (drawn_) std::fputs("\r\033[K", stderr);
      print_warning(warning);
    }
    if (!draw_) return;
    std::fputs(
        fmt::format("\r\033[K{}", bar_text(now, std::chrono::steady_clock::now() - begun_)).c_str(),
        stderr);
    std::fflush(stderr);
    drawn_ = true;
  }

  base::Progress& progress_;
  bool draw_;
  bool drawn_ = false;
  std::string phase_;
  std::chrono::steady_clock::time_point begun_;
  std::jthread thread_;
};

}  // namespace

operations::Configuration Invocation::configuration() const {
  return operations::read_configuration(operations::find_configuration(config));
}

void add_repositories(CLI::App& command, Invocation& invocation) {
  command
      .add_option("--repository", invocation.repositories,
                  "Only this repository of several; may be repeated")
      ->type_name("NAME");
}

void for_each_repository(Invocation& invocation,
                         const std::function<void(const operations::Configuration&)>& work) {
  const auto each =
      operations::each_repository(invocation.configuration(), invocation.repositories);
  if (each.size() == 1) return work(each.front());
  int first_status = 0;
  for (const operations::Configuration& one : each) {
    invocation.repository = one.repository().name;
    invocation.exit_status = 0;
    if (!invocation.json) {
      std::cout << fmt::format("{}Repository {} ({})\n", &one == &each.front() ? "" : "\n",
                               one.repository().name, one.repository().url);
    }
    try {
      work(one);
    } catch (const Error& error) {
      std::cout.flush();
      print_error(invocation, error);
      invocation.exit_status = base::info(error.code()).exit_status;
      if (error.code() == Code::interrupted) throw;
    }
    if (first_status == 0) first_status = invocation.exit_status;
  }
  invocation.exit_status = first_status;
}

void print_failure(const std::string& repository, const Error& error) {
  print_warning(fmt::format("repository {}: {}", repository, error.message()));
}

std::string exit_status_help(std::initializer_list<Code> codes) {
  std::string text = "EXIT STATUS\n    0  done\n";
  for (const Code code : codes) {
    text += fmt::format("  {:3}  {}\n", base::info(code).exit_status, base::info(code).meaning);
  }
  return text + "  others: see docs/exit-status.md";
}

CLI::App* add_command(CLI::App& parent, Invocation& invocation, const std::string& name,
                      const std::string& description, std::initializer_list<Code> codes,
                      std::function<void()> run, SilenceIs silence) {
  CLI::App* command = parent.add_subcommand(name, description);
  command->add_flag("--json", invocation.json, "Print the result as JSON");
  command->add_option("--cluster", invocation.cluster, "Which cluster, if there are several")
      ->type_name("NAME");
  command->footer(exit_status_help(codes));
  command->callback([silence, run = std::move(run)] {
    std::optional<store::SilenceWatch> watch;
    if (silence == SilenceIs::said) watch.emplace(std::chrono::seconds(10), print_warning);
    run();
  });
  return command;
}

void add_workers(CLI::App& command, unsigned& workers) {
  workers = base::default_workers();
  command.add_option("--workers", workers, "Threads to use; one per processor by default")
      ->type_name("N")
      ->check(CLI::Range(1, 256));
}

void print_error(const Invocation& invocation, const Error& error) {
  const base::CodeInfo& code = base::info(error.code());
  if (invocation.json) {
    nlohmann::json document = {{"error", code.name},
                               {"message", error.message()},
                               {"transient", code.transient},
                               {"exit_status", code.exit_status}};
    if (!error.hint().empty()) document["hint"] = error.hint();
    std::fputs(
        (document.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n").c_str(),
        stdout);
  }
  std::fputs(fmt::format("holdfast: {}\n", error.message()).c_str(), stderr);
  if (!error.hint().empty()) std::fputs(fmt::format("hint: {}\n", error.hint()).c_str(), stderr);
}

void print_warning(const std::string& message) {
  std::fputs(fmt::format("warning: {}\n", message).c_str(), stderr);
}

void print_json(const Invocation& invocation, nlohmann::json document) {
  if (!invocation.repository.empty()) document["repository"] = invocation.repository;
  std::fputs(
      (document.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n").c_str(),
      stdout);
}

void with_progress(const Invocation& invocation, const std::function<void(base::Progress&)>& work) {
  base::Progress progress;
  const ProgressDisplay display(progress, ::isatty(STDERR_FILENO) == 1 && !invocation.json);
  work(progress);
}

bool confirmed(const std::string& question) {
  if (::isatty(STDIN_FILENO) != 1) return false;
  std::fputs(fmt::format("{} [y/N] ", question).c_str(), stderr);
  std::string answer;
  std::getline(std::cin, answer);
  return answer == "y" || answer == "yes";
}

namespace {

/// For PostgreSQL a restore_command that ends with 1 to 125 has not found the file, and recovery is
/// over (pitfall B31). So a `wal fetch` that could not even be understood, however it is misspelt,
/// must not end like that: it is known by its name, or by the bare name of a WAL file, which
/// nothing else takes.
int failure(int argc, char** argv, Code code) {
  const std::span<char*> words(argv, static_cast<std::size_t>(argc));
  const auto is_about_fetching = [](std::string_view word) {
    return word == "fetch" || postgres::parse_wal_file_name(word).has_value();
  };
  if (std::ranges::any_of(words.subspan(1), is_about_fetching)) return 200;
  return base::info(code).exit_status;
}

/// std::filesystem throws what it likes; to a user it is as any other failed call.
Error of_file_system(const std::filesystem::filesystem_error& error) {
  try {
    base::fail_errno(fmt::format("work on \"{}\"", error.path1().string()), error.code().value());
  } catch (const Error& said) {
    return said;
  }
}

/// What is printed must not go into a file that happens to get the number of a closed stream; and a
/// limit on the size of files is an error of the write, not a reason to die in the middle.
void prepare_process() {
  for (int stream = STDIN_FILENO; stream <= STDERR_FILENO; ++stream) {
    if (::fcntl(stream, F_GETFD) < 0) static_cast<void>(::open("/dev/null", O_RDWR));
  }
  ::signal(SIGXFSZ, SIG_IGN);
}

/// Output that did not get to where it should is not to be taken for all of it.
void check_output() {
  std::cout.flush();
  if (std::cout.good() && std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return;
  throw Error(Code::io, "could not write the output: the command itself is done",
              "see whether the file system that it goes to is full");
}

}  // namespace

int run(int argc, char** argv) {
  prepare_process();
  Invocation invocation;
  CLI::App app{"Holdfast: disaster recovery for PostgreSQL that proves itself.", "holdfast"};
  app.set_version_flag("--version", "holdfast " HOLDFAST_VERSION);
  app.add_option("--config", invocation.config,
                 "Configuration file; else $HOLDFAST_CONFIG, ./holdfast.toml or "
                 "/etc/holdfast/holdfast.toml")
      ->type_name("FILE");
  app.require_subcommand(1);
  app.fallthrough();
  for (const auto add :
       {add_init,   add_backup,  add_snapshot, add_list,    add_events, add_restore, add_extract,
        add_mount,  add_unmount, add_settle,   add_verify,  add_wal,    add_doctor,  add_status,
        add_pin,    add_expire,  add_drill,    add_gameday, add_proxy,  add_smoke,   add_probe,
        add_uptime, add_migrate, add_recover,  add_secrets, add_files,  add_serve,   add_demo}) {
    add(app, invocation);
  }
  app.footer("Each command has its own --help.");
  try {
    app.parse(argc, argv);
    check_output();
    return invocation.exit_status;
  } catch (const CLI::Success& done) {
    return app.exit(done);  // --help, --version
  } catch (const CLI::ParseError& wrong) {
    const std::vector<std::string> unknown = app.remaining();
    std::string what = wrong.what();
    constexpr std::string_view no_such_value = "Could not convert: ";
    if (what.starts_with(no_such_value)) {
      what = "cannot understand " + what.substr(no_such_value.size());
    }
    if (!unknown.empty()) what = fmt::format("cannot understand \"{}\"", unknown.front());
    print_error(invocation, Error(Code::usage, what, "see `holdfast --help`"));
    return failure(argc, argv, Code::usage);
  } catch (const Error& error) {
    print_error(invocation, error);
    return failure(argc, argv, error.code());
  } catch (const std::filesystem::filesystem_error& error) {
    const Error said = of_file_system(error);
    print_error(invocation, said);
    return failure(argc, argv, said.code());
  } catch (const std::exception& error) {
    print_error(invocation, Error(Code::internal, fmt::format("internal error: {}", error.what()),
                                  "please report this"));
    return failure(argc, argv, Code::internal);
  }
}

}  // namespace holdfast::cli
