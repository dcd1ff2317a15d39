#pragma once

// A contract: what a service promises while one of its dependencies is broken.
//
// It is a TOML file of its own (docs/gamedays.md shows one), which names
//
//   [service]              where the service is and, if it is to be started here, how
//   [dependency.NAME]      what it depends on: where our proxy listens, where the real one is
//   [value.NAME]           what a command prints: tokens, ids; {NAME} in requests stands for it
//   [request.NAME]         what is asked, and what is answered while nothing is broken
//   [[row]]                a dependency, a fault, and what each request must answer meanwhile
//   [[never]]              answers that must not come at any time at all
//
// ${NAME} in any text is a variable of the environment, ${NAME:-otherwise} one that may lack.

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/environment.h"
#include "base/file.h"
#include "base/time.h"
#include "service/fault_injector.h"

namespace holdfast::operations {

using TextPairs = std::vector<std::pair<std::string, std::string>>;

struct Dependency {
  std::string name;
  std::string listen;    ///< "127.0.0.1:16379": where the service looks for it
  std::string upstream;  ///< "127.0.0.1:6379" or "unix:/path": where it is
};

struct ContractValue {
  std::string command;  ///< run by a shell in the contract's directory
  base::Microseconds fresh{std::chrono::seconds(60)};  ///< how long it may be used
};

/// Statuses of answers: exact ones, or classes ("2xx").
struct StatusSet {
  std::vector<std::string> texts;
  bool contains(long status) const;
  std::string text() const;
};

/// What an answer must, or must never, look like. What is not said does not matter.
struct AnswerPattern {
  StatusSet status;
  bool none = false;     ///< no answer at all: refused, cut, or timed out
  std::string contains;  ///< text in the body
  TextPairs json;        ///< JSON pointer and the value there, as text
  TextPairs headers;     ///< name and value; "*" is any value
  bool same = false;     ///< the body that was there while nothing was broken
};

struct ContractRequest {
  std::string name;
  std::string method = "GET";
  std::string url;
  TextPairs headers;
  std::string body;
  StatusSet status;  ///< while nothing is broken
  base::Microseconds timeout{std::chrono::seconds(10)};
};

struct Expectation {
  std::string request;
  AnswerPattern answer;
  std::optional<base::Microseconds> within;  ///< the slowest
  std::optional<base::Microseconds> p95;
};

struct ContractRow {
  std::string name;
  std::string promise;  ///< what was promised, in words
  std::vector<std::string> dependencies;
  service::Fault fault;
  bool restart = false;  ///< the service is started anew while the dependency is broken
  base::Microseconds settle{};
  base::Microseconds observe{std::chrono::seconds(3)};
  base::Microseconds recover_within{std::chrono::seconds(10)};
  std::vector<Expectation> expectations;  ///< at least one
  std::vector<Expectation> afterwards;    ///< must come true within recover_within
  bool reconnects = false;                ///< the service must ask the dependency again by itself
};

struct Never {
  std::string request;
  AnswerPattern answer;
};

struct Contract {
  base::fs::path path;
  std::string title;
  std::string url;      ///< before each path
  std::string command;  ///< empty: the service runs already
  TextPairs environment;
  std::string ready;  ///< the path that answers 200 once it has started
  std::string alive;  ///< the path that answers however broken its dependencies are
  base::Microseconds ready_within{std::chrono::seconds(30)};
  std::string proxy;  ///< where `holdfast proxy` is spoken to
  std::map<std::string, Dependency> dependencies;
  std::map<std::string, ContractValue> values;
  std::map<std::string, ContractRequest> requests;
  std::vector<ContractRow> rows;  ///< in the order of the file; at least one
  std::vector<Never> nevers;
};

/// Throws Error(configuration) with the line of what is wrong.
Contract read_contract(const base::fs::path& path);
Contract parse_contract(std::string_view text, const base::fs::path& path);

using base::with_environment;

}  // namespace holdfast::operations
