#include "postgres/replication.h"

#include <poll.h>

#include "base/error.h"
#include "base/workers.h"
#include "postgres/connection.h"

namespace holdfast::postgres {

namespace {

/// A command may wait for a checkpoint; a write that nobody takes for this long is not taken.
constexpr std::chrono::seconds write_limit(60);
constexpr int poll_interval = 200;

std::string doubled(std::string_view text, char quote) {
  std::string out(1, quote);
  for (const char c : text) {
    out += c;
    if (c == quote) out += c;
  }
  return out + quote;
}

}  // namespace

struct Replication::Connection {
  Handle handle;
  Rows rows;
  std::unique_ptr<char, void (*)(void*)> message{nullptr, libpq().PQfreemem};
  std::size_t message_size = 0;
  std::string error_state;

  PGconn* get() const { return handle.get(); }
  [[noreturn]] void lost() const {
    base::fail(base::Code::unreachable, "lost the connection to PostgreSQL: {}",
               one_line(libpq().PQerrorMessage(get())));
  }
};

Replication::Replication(const std::string& connection, const std::string& name)
    : connection_(std::make_unique<Connection>()) {
  connection_->handle = connect(connection,
                                {{"application_name", name.c_str()},
                                 {"keepalives", "1"},
                                 {"keepalives_idle", "10"},
                                 {"keepalives_interval", "5"},
                                 {"keepalives_count", "3"},
                                 {"tcp_user_timeout", "30000"}},
                                {{"replication", "true"}});
  // So that a peer that takes nothing cannot hold us longer than we want (TRAPS WR17).
  libpq().PQsetnonblocking(connection_->get(), 1);
}

Replication::~Replication() = default;
Replication::Replication(Replication&&) noexcept = default;
Replication& Replication::operator=(Replication&&) noexcept = default;

int Replication::version_number() {
  return libpq().PQserverVersion(connection_->get());
}

Rows Replication::command(const std::string& text) {
  begin(text);
  Rows rows;
  for (;;) {
    switch (next_answer()) {
      case Answer::rows:
        rows = connection_->rows;
        break;
      case Answer::done:
        break;
      case Answer::end:
        return rows;
      default:
        base::fail(base::Code::postgres, "PostgreSQL began a stream where none was asked for");
    }
  }
}

std::optional<std::string> Replication::setting(const std::string& name) {
  try {
    return command("SHOW " + quoted_identifier(name)).at(0).at(0);
  } catch (const base::Error& error) {
    if (error.code() != base::Code::postgres) throw;
    return std::nullopt;
  }
}

Replication::System Replication::identify() {
  const Rows rows = command("IDENTIFY_SYSTEM");
  if (rows.size() != 1 || rows[0].size() < 3 || !rows[0][0] || !rows[0][1] || !rows[0][2]) {
    base::fail(base::Code::postgres, "PostgreSQL does not say which system it is");
  }
  return {SystemId{number<std::uint64_t>(*rows[0][0])},
          Timeline{number<std::uint32_t>(*rows[0][1])}, lsn_of(*rows[0][2])};
}

SegmentSize Replication::segment_size() {
  // "16MB": a power of two, in the largest unit that fits.
  const std::string text = setting("wal_segment_size").value_or("");
  const std::size_t unit = text.find_first_not_of("0123456789");
  if (unit != std::string::npos && unit > 0) {
    const bool gigabyte = text.substr(unit) == "GB";
    const SegmentSize size{number<std::uint64_t>(text.substr(0, unit)) << (gigabyte ? 30 : 20)};
    if ((gigabyte || text.substr(unit) == "MB") && is_valid(size)) return size;
  }
  base::fail(base::Code::postgres, "PostgreSQL has WAL segments of an unknown size: \"{}\"", text);
}

std::string Replication::timeline_history(Timeline timeline) {
  const Rows rows = command(fmt::format("TIMELINE_HISTORY {}", timeline.value));
  if (rows.size() != 1 || rows[0].size() != 2 || !rows[0][1]) {
    base::fail(base::Code::postgres, "PostgreSQL has no history of timeline {}", timeline.value);
  }
  return *rows[0][1];
}

void Replication::begin(const std::string& text) {
  connection_->error_state.clear();
  if (libpq().PQsendQuery(connection_->get(), text.c_str()) != 1) connection_->lost();
  flush();
}

const std::string& Replication::error_state() const {
  return connection_->error_state;
}

Replication::Answer Replication::next_answer() {
  await_answer(connection_->get());
  const Result result(libpq().PQgetResult(connection_->get()));
  if (!result) return Answer::end;
  switch (libpq().PQresultStatus(result.get())) {
    case PGRES_TUPLES_OK:
      connection_->rows = rows_of(result.get());
      return Answer::rows;
    case PGRES_COPY_OUT:
      return Answer::copy_out;
    case PGRES_COPY_IN:
      return Answer::copy_in;
    case PGRES_COPY_BOTH:
      return Answer::copy_both;
    case PGRES_COMMAND_OK:
    case PGRES_EMPTY_QUERY:
      return Answer::done;
    default:
      if (const char* state = libpq().PQresultErrorField(result.get(), PG_DIAG_SQLSTATE)) {
        connection_->error_state = state;
      }
      // What is left of the failed command must not be taken for the answer to the next one.
      while (Result(libpq().PQgetResult(connection_->get()))) {
      }
      fail_query(connection_->get(), result.get());
  }
}

const Rows& Replication::answer_rows() const {
  return connection_->rows;
}

Replication::Read Replication::read(std::chrono::milliseconds wait) {
  const auto give_up = std::chrono::steady_clock::now() + wait;
  for (;;) {
    char* bytes = nullptr;
    const int size = libpq().PQgetCopyData(connection_->get(), &bytes, 1);
    if (size > 0) {
      connection_->message.reset(bytes);
      connection_->message_size = static_cast<std::size_t>(size);
      return Read::data;
    }
    if (size == -1) return Read::end;
    if (size == -2) connection_->lost();
    base::stop_if_interrupted();
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        give_up - std::chrono::steady_clock::now());
    const bool last = left.count() <= 0;  // even then what has come already is taken
    pollfd socket{this->socket(), POLLIN, 0};
    const int ready = ::poll(
        &socket, 1,
        last ? 0 : static_cast<int>(std::min<std::int64_t>(left.count() + 1, poll_interval)));
    if (libpq().PQconsumeInput(connection_->get()) != 1) connection_->lost();
    if (last && ready <= 0) return Read::nothing;
  }
}

base::View Replication::message() const {
  return base::view({connection_->message.get(), connection_->message_size});
}

int Replication::socket() const {
  return libpq().PQsocket(connection_->get());
}

void Replication::write(base::View bytes) {
  if (libpq().PQputCopyData(connection_->get(), base::text(bytes).data(),
                            static_cast<int>(bytes.size())) != 1) {
    connection_->lost();
  }
  flush();
}

void Replication::flush() {
  PGconn* handle = connection_->get();
  const auto give_up = std::chrono::steady_clock::now() + write_limit;
  for (;;) {
    const int left = libpq().PQflush(handle);
    if (left == 0) return;
    if (left < 0 || std::chrono::steady_clock::now() > give_up) connection_->lost();
    pollfd socket{this->socket(), POLLOUT, 0};
    ::poll(&socket, 1, poll_interval);
  }
}

void Replication::finish_writing() {
  if (libpq().PQputCopyEnd(connection_->get(), nullptr) != 1) connection_->lost();
  flush();
}

std::string quoted_identifier(std::string_view name) {
  return doubled(name, '"');
}

std::string quoted_literal(std::string_view text) {
  return doubled(text, '\'');
}

}  // namespace holdfast::postgres
