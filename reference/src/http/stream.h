#pragma once

// One client's connection, as httplib reads and writes it.
//
// Reads are buffered, and what is written is sent in one piece when the answer is complete or
// large. Everything has a limit: bytes of a request's head, time until the head is there, time for
// each piece of a body, time until the client takes what is sent.

#include <httplib.h>

#include <chrono>
#include <span>
#include <string>

namespace reference::http {

class Stream : public httplib::Stream {
 public:
  struct Limits {
    std::size_t head_bytes = 32UL << 10;
    std::chrono::milliseconds head{10000};   ///< from its first byte to its last
    std::chrono::milliseconds piece{5000};   ///< until more of a body arrives, or is taken
    std::chrono::milliseconds body{600000};  ///< for a body as a whole
  };

  /// Takes the socket over and closes it at the end.
  Stream(int socket, const Limits& limits);
  ~Stream() override;
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  /// Waits until there is something to read; false if there is nothing within `limit`.
  bool await_input(std::chrono::milliseconds limit) const;
  /// Waits for the head of the next request, which read() gives afterwards, as it is then; empty if
  /// the client has closed instead. Throws Problem: 408, 431, and 400 if it broke off or has a line
  /// without CR.
  std::span<char> read_head();
  /// What is read from now on is the body.
  void begin_body();

  /// Sends what is buffered; false if the client does not take it.
  bool flush();
  /// Tells the client that nothing more comes, and waits a moment until it has read that: closing
  /// with unread input would take the answer away from it.
  void finish();

  bool is_readable() const override;
  bool is_writable() const override;
  ssize_t read(char* into, std::size_t size) override;
  ssize_t write(const char* data, std::size_t size) override;
  void get_remote_ip_and_port(std::string& ip, int& port) const override;
  void get_local_ip_and_port(std::string& ip, int& port) const override;
  socket_t socket() const override { return socket_; }

 private:
  /// Adds what has arrived to what is buffered: how much, 0 at the end, -1 with errno.
  ssize_t fill();
  int socket_;
  Limits limits_;
  std::string input_;
  std::size_t position_ = 0;
  std::string output_;
  std::chrono::steady_clock::time_point until_;
};

}  // namespace reference::http
