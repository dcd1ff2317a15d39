#include "http/server.h"

#include <httplib.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>

#include "http/body.h"
#include "http/head.h"
#include "http/problem.h"
#include "http/refusal.h"
#include "http/stream.h"
#include "log.h"

namespace reference::http {

namespace {

constexpr std::chrono::milliseconds glance(100);  ///< how often an idle connection looks around

/// The connection that this thread serves; httplib does not hand it to handlers.
thread_local Stream* current = nullptr;
/// Whether connections that httplib accepts in this thread are to be refused.
thread_local bool refusing = false;

/// Throws Problem 400 if it is not clear where the request ends: whoever read on would read it
/// differently than a proxy before us.
std::optional<std::uint64_t> content_length(const httplib::Request& request) {
  const Problem unclear(400, "bad_request", "cannot tell how long the body is");
  const bool sized = request.has_header("Content-Length");
  if (request.has_header("Transfer-Encoding")) {
    if (sized || request.get_header_value("Transfer-Encoding") != "chunked") throw unclear;
    return std::nullopt;
  }
  if (!sized) return 0;
  const std::string value = request.get_header_value("Content-Length");
  if (value.empty() || value.size() > 18 ||
      value.find_first_not_of("0123456789") != std::string::npos) {
    throw unclear;
  }
  return std::stoull(value);
}

/// Whether the body is compressed; throws Problem 415 if it is in a way that nobody here knows.
bool is_gzip(const httplib::Request& request) {
  const std::string encoding = request.get_header_value("Content-Encoding");
  if (encoding.empty() || encoding == "gzip") return !encoding.empty();
  throw Problem(415, "unsupported_media_type", "cannot read this Content-Encoding, only gzip");
}

void send(const Response& from, httplib::Response& to) {
  to.status = from.status;
  for (const auto& [name, value] : from.headers) to.set_header(name, value);
  if (!from.stream) {
    if (from.status == 204) return;
    to.set_header("Content-Type", from.content_type);
    to.body = from.body;
    return;
  }
  to.set_chunked_content_provider(from.content_type,
                                  [stream = from.stream](std::size_t, httplib::DataSink& sink) {
                                    try {
                                      stream([&](std::string_view piece) {
                                        if (piece.empty()) return;
                                        if (!sink.write(piece.data(), piece.size())) {
                                          throw std::runtime_error("the client has gone");
                                        }
                                      });
                                      sink.done();
                                      return true;
                                    } catch (const std::exception& error) {
                                      log("a download was cut off: {}", error.what());
                                      return false;
                                    }
                                  });
}

}  // namespace

class Server::Implementation : public httplib::Server {
 public:
  Implementation(const Router& router, const ServerOptions& options)
      : router_(router), options_(options) {
    new_task_queue = [this] { return new Queue(*this); };
    set_tcp_nodelay(true);
    set_keep_alive_timeout(options.idle.count());
    set_keep_alive_max_count(1000000);
    set_payload_max_length(std::numeric_limits<std::size_t>::max());  // each handler has its own
    set_pre_routing_handler([this](const auto& request, auto& response) {
      return without_body(request, response) ? HandlerResponse::Handled
                                             : HandlerResponse::Unhandled;
    });
    const auto with_reader = [this](const auto& request, auto& response, const auto&) {
      with_body(request, response);
    };
    // httplib would listen on a port where another process listens, too (SO_REUSEPORT).
    set_socket_options([](socket_t socket) {
      const int yes = 1;
      ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    });
    for (const auto method : {&Implementation::posts, &Implementation::puts,
                              &Implementation::patches, &Implementation::deletes}) {
      (this->*method)(with_reader);
    }
    set_post_routing_handler([this](const httplib::Request&, httplib::Response& response) {
      // HTTP/1.1 keeps connections anyway; the limits of ours are nobody's business.
      response.headers.erase("Keep-Alive");
      if (stopping_ || !routed) close_after(response);
    });
    set_error_handler(HandlerWithResponse([](const httplib::Request&, httplib::Response& response) {
      if (response.body.empty()) {
        send(to_response(Problem(response.status, "bad_request", "cannot read this request")),
             response);
      }
      return HandlerResponse::Handled;
    }));
    port_ = options.port == 0 ? bind_to_any_port(options.host)
                              : (bind_to_port(options.host, options.port) ? options.port : -1);
    if (port_ <= 0) {
      throw std::runtime_error(
          fmt::format("could not listen on {}:{}", options.host, options.port));
    }
    // httplib asks for five, which a burst fills at once.
    ::listen(svr_sock_, 1024);
  }

  int port() const { return port_; }

  void serve() { listen_after_bind(); }

  void stop_gracefully() {
    stopping_ = true;
    // Ends accept(), also when it has not begun yet; httplib's own stop() would cut off downloads.
    ::shutdown(svr_sock_, SHUT_RDWR);
  }

 private:
  /// Connections wait here for a thread.
  class Queue : public httplib::TaskQueue {
   public:
    explicit Queue(Implementation& server) : server_(server) {
      for (std::size_t at = 0; at < server.options_.threads; ++at) {
        threads_.emplace_back([this] { work(); });
      }
    }
    void enqueue(std::function<void()> task) override {
      {
        const std::lock_guard lock(mutex_);
        if (tasks_.size() < server_.options_.waiting + idle_threads_) {
          tasks_.push_back(std::move(task));
          server_.pressure_ = tasks_.size() > idle_threads_;
          arrived_.notify_one();
          return;
        }
      }
      refusing = true;
      task();
      refusing = false;
    }
    void shutdown() override {
      {
        const std::lock_guard lock(mutex_);
        ended_ = true;
      }
      arrived_.notify_all();
      server_.cut_off_after_drain(*this);
      for (std::thread& thread : threads_) thread.join();
    }
    bool busy() {
      const std::lock_guard lock(mutex_);
      return idle_threads_ < threads_.size() || !tasks_.empty();
    }

   private:
    void work() {
      std::unique_lock lock(mutex_);
      for (;;) {
        ++idle_threads_;
        arrived_.wait(lock, [this] { return ended_ || !tasks_.empty(); });
        if (tasks_.empty()) return;
        --idle_threads_;
        const std::function<void()> task = std::move(tasks_.front());
        tasks_.pop_front();
        server_.pressure_ = tasks_.size() > idle_threads_;
        lock.unlock();
        task();
        lock.lock();
      }
    }
    Implementation& server_;
    std::mutex mutex_;
    std::condition_variable arrived_;
    std::deque<std::function<void()>> tasks_;
    std::size_t idle_threads_ = 0;
    bool ended_ = false;
    std::vector<std::thread> threads_;
  };

  /// Waits until nobody is served any more, or the time is over; then ends the remaining
  /// connections.
  void cut_off_after_drain(Queue& queue) {
    const auto until = std::chrono::steady_clock::now() + options_.drain;
    std::unique_lock lock(mutex_);
    while (queue.busy() && std::chrono::steady_clock::now() < until) {
      changed_.wait_for(lock, std::chrono::milliseconds(20));
    }
    for (const int socket : open_) ::shutdown(socket, SHUT_RDWR);
  }

  void posts(HandlerWithContentReader handler) { Post("[^]*", std::move(handler)); }
  void puts(HandlerWithContentReader handler) { Put("[^]*", std::move(handler)); }
  void patches(HandlerWithContentReader handler) { Patch("[^]*", std::move(handler)); }
  void deletes(HandlerWithContentReader handler) { Delete("[^]*", std::move(handler)); }

  Response answer(const httplib::Request& from, Body* body) const {
    Request request;
    request.method = from.method;
    request.path = from.path;
    request.query = from.params;
    request.header = [&from](const std::string& name) { return from.get_header_value(name); };
    request.body = body;
    return router_.answer(request);
  }

  /// False if there is a body to be read first.
  bool without_body(const httplib::Request& request, httplib::Response& response) {
    routed = true;
    try {
      const std::optional<std::uint64_t> length = content_length(request);
      const bool reads = request.method == "POST" || request.method == "PUT" ||
                         request.method == "PATCH" || request.method == "DELETE";
      if (length != 0 && reads) {
        is_gzip(request);
        return false;
      }
      // Nobody reads the body of a GET, so nobody knows where the next request would begin.
      if (length != 0) close_after(response);
      send(answer(request, nullptr), response);
    } catch (const Problem& problem) {
      close_after(response);
      send(to_response(problem), response);
    }
    return true;
  }

  void with_body(const httplib::Request& request, httplib::Response& response) {
    StreamBody body(*current, content_length(request), is_gzip(request));
    Response answered;
    if (request.is_multipart_form_data()) {
      answered =
          to_response(Problem(415, "unsupported_media_type", "cannot read multipart bodies"));
    } else {
      answered = answer(request, &body);
    }
    if (!body.was_read()) close_after(response);
    send(answered, response);
  }

  static void close_after(httplib::Response& response) {
    close_connection = true;
    response.set_header("Connection", "close");
  }

  /// Waits for the next request of a connection; false if it is to be closed instead.
  bool await_request(const Stream& stream) const {
    const auto until = std::chrono::steady_clock::now() + options_.idle;
    while (!stream.await_input(glance)) {
      if (stopping_ || pressure_ || std::chrono::steady_clock::now() > until) return false;
    }
    return true;
  }

  /// Answers what httplib is not to see.
  static void answer(Stream& stream, const Problem& problem) {
    const std::string body = problem.json();
    const std::string answer = fmt::format(
        "HTTP/1.1 {} {}\r\nContent-Type: application/json\r\nConnection: close\r\n"
        "Content-Length: {}\r\n\r\n{}",
        problem.status(), problem.code(), body.size(), body);
    stream.write(answer.data(), answer.size());
  }

  /// False if there is none that could be served.
  static bool read_head(Stream& stream) {
    try {
      const std::span<char> head = stream.read_head();
      if (!head.empty()) check_head(head);
      return !head.empty();
    } catch (const Problem& problem) {
      answer(stream, problem);
      return false;
    }
  }

  bool process_and_close_socket(socket_t socket) override {
    if (refusing) {
      refusal_.take(socket);
      return true;
    }
    Stream stream(socket, {});
    remember(socket, true);
    current = &stream;
    bool more = true;
    while (more && await_request(stream)) {
      close_connection = false;
      routed = false;
      bool closed = false;
      more = read_head(stream) && process_request(stream, stopping_, closed, nullptr);
      more = stream.flush() && more && routed && !closed && !close_connection && !stopping_;
      if (!more) stream.finish();
    }
    current = nullptr;
    remember(socket, false);
    return true;
  }

  void remember(int socket, bool open) {
    const std::lock_guard lock(mutex_);
    if (open) {
      open_.insert(socket);
    } else {
      open_.erase(socket);
      changed_.notify_all();
    }
  }

  static thread_local bool close_connection;
  static thread_local bool routed;  ///< the request could be read so far

  const Router& router_;
  ServerOptions options_;
  int port_ = -1;
  Refusal refusal_;
  std::atomic<bool> stopping_ = false;
  std::atomic<bool> pressure_ = false;  ///< somebody waits for a thread
  std::mutex mutex_;
  std::condition_variable changed_;
  std::set<int> open_;
};

thread_local bool Server::Implementation::close_connection = false;
thread_local bool Server::Implementation::routed = false;

Server::Server(const Router& router, const ServerOptions& options)
    : implementation_(std::make_unique<Implementation>(router, options)) {}
Server::~Server() = default;
int Server::port() const {
  return implementation_->port();
}
void Server::serve() {
  implementation_->serve();
}
void Server::stop() {
  implementation_->stop_gracefully();
}

}  // namespace reference::http
