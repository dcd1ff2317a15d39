#pragma once

// The addresses of the database's host, looked up within a deadline.
//
// getaddrinfo() knows no limit: with a resolver that hangs (which is what the name of a container
// that is down comes to, where nobody else knows it) it takes tens of seconds. So a thread asks,
// and whoever needs the answer waits for it as long as he may. For one name one thread asks at a
// time, however many wait.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "database/deadline.h"

namespace reference::database {

class Lookup {
 public:
  /// Gives the numeric addresses of a host in the order in which they are to be tried; none if it
  /// has none.
  using Ask = std::function<std::vector<std::string>(const std::string& host)>;

  explicit Lookup(Ask ask);
  /// Throws Unreachable if there is no address, or no answer in time.
  std::vector<std::string> addresses(const std::string& host, const Deadline& deadline);

  /// What getaddrinfo(3) answers.
  static std::vector<std::string> ask_system(const std::string& host);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

/// The parameters of libpq which say where a server is; each a list with commas.
struct ServerAddress {
  std::string host;
  std::string hostaddr;
  std::string port;
};
/// With an address for each host that is a name: a host with several addresses is there as often.
/// All else (sockets, addresses, what has a hostaddr) stays as it is.
ServerAddress looked_up(const ServerAddress& server, Lookup& lookup, const Deadline& deadline);

}  // namespace reference::database
