#pragma once

// What is answered when there are more clients than can be served: 503 with Retry-After and
// Connection: close, and 200 to GET /health, for the process is well.
//
// One thread does this for all of them, so that it costs next to nothing; when even it has too
// many, the rest is closed at once.

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace reference::http {

class Refusal {
 public:
  Refusal();
  ~Refusal();
  Refusal(const Refusal&) = delete;
  Refusal& operator=(const Refusal&) = delete;
  /// Takes the socket over.
  void take(int socket);

 private:
  struct Client {
    int socket;
    std::chrono::steady_clock::time_point until;
    std::string head;
    bool answered = false;
  };
  void work();
  /// False when nothing is left to do for this client.
  static bool attend(Client& client);
  std::mutex mutex_;
  std::vector<Client> arrived_;
  std::atomic<std::size_t> count_ = 0;
  int wake_;  ///< an eventfd
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
};

}  // namespace reference::http
