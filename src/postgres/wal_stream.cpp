#include "postgres/wal_stream.h"

#include <algorithm>

#include "base/error.h"

namespace holdfast::postgres {

namespace {

using base::Code;

constexpr std::size_t data_header = 1 + 8 + 8 + 8;
constexpr std::size_t keepalive_size = 1 + 8 + 8 + 1;
/// 2000-01-01 in seconds since 1970: PostgreSQL counts from there.
constexpr std::int64_t postgres_epoch = 946684800;

/// The protocol's numbers are big-endian.
std::uint64_t big_endian(base::View bytes) {
  std::uint64_t value = 0;
  for (const std::uint8_t byte : bytes.first(8)) value = value << 8 | byte;
  return value;
}

void append_big_endian(base::Bytes& to, std::uint64_t value) {
  for (int shift = 56; shift >= 0; shift -= 8) {
    to.push_back(static_cast<std::uint8_t>(value >> shift));
  }
}

}  // namespace

WalMessage parse_wal_message(base::View message) {
  if (message.size() >= data_header && message[0] == 'w') {
    return WalData{{big_endian(message.subspan(1))},
                   {big_endian(message.subspan(9))},
                   message.subspan(data_header)};
  }
  if (message.size() == keepalive_size && message[0] == 'k') {
    return WalKeepalive{{big_endian(message.subspan(1))}, message[17] != 0};
  }
  base::fail(Code::postgres, "PostgreSQL sent {} bytes that are no WAL message", message.size());
}

base::Bytes wal_status(Lsn durable, base::Timestamp now, bool wants_reply) {
  const std::int64_t time = now.time_since_epoch().count() - postgres_epoch * 1'000'000;
  base::Bytes status{'r'};
  for (int i = 0; i < 3; ++i) append_big_endian(status, durable.value);  // write, flush, apply
  append_big_endian(status, static_cast<std::uint64_t>(time));
  status.push_back(wants_reply ? 1 : 0);
  return status;
}

base::View WalSequence::take(const WalData& data) {
  if (data.start > end_ || (began_ && data.start < end_)) {
    base::fail(Code::postgres, "PostgreSQL sent the WAL at {} where that at {} had to follow",
               to_string(data.start), to_string(end_));
  }
  const std::uint64_t known = end_.value - data.start.value;
  if (known >= data.bytes.size()) return {};
  began_ = true;
  end_.value = data.start.value + data.bytes.size();
  return data.bytes.subspan(known);
}

WalStream::WalStream(Replication& connection, const std::string& slot, Timeline timeline, Lsn start,
                     Lsn durable, Limits limits)
    : connection_(connection),
      limits_(limits),
      sequence_(start),
      durable_(durable),
      confirmed_(durable),
      sent_(Clock::now()),
      heard_(sent_) {
  const std::string through = slot.empty() ? "" : fmt::format("SLOT {} ", quoted_identifier(slot));
  connection_.begin(fmt::format("START_REPLICATION {}PHYSICAL {} TIMELINE {}", through,
                                to_string(start), timeline.value));
  if (connection_.next_answer() != Replication::Answer::copy_both) {
    base::fail(Code::postgres, "PostgreSQL did not begin to stream WAL of timeline {} at {}",
               timeline.value, to_string(start));
  }
  send(true);  // so that a server that has nothing to send says so
}

void WalStream::send(bool wants_reply) {
  connection_.write(wal_status(durable_, base::now(), wants_reply));
  confirmed_ = durable_;
  sent_ = Clock::now();
}

void WalStream::confirm(Lsn durable) {
  durable_ = std::max(durable_, durable);
  if (durable_ > confirmed_) send(false);
}

void WalStream::keep_alive() {
  if (Clock::now() - sent_ >=
      std::min<std::chrono::milliseconds>(limits_.status, std::chrono::seconds(1))) {
    send(false);
  }
  heard_ = Clock::now();  // it is we who do not listen
}

WalStream::Event WalStream::next(std::chrono::milliseconds wait) {
  const auto now = Clock::now();
  if (now - heard_ >= limits_.silence) {
    base::fail(Code::unreachable, "lost the connection to PostgreSQL: it has been silent for {}",
               base::to_string_short(std::chrono::duration_cast<base::Microseconds>(now - heard_)));
  }
  // On a stream that is quiet the server is asked to answer, or its silence would prove nothing.
  const auto status = std::min(limits_.status, limits_.silence / 3);
  if (now - sent_ >= status) send(now - heard_ >= status);
  const Replication::Read read = connection_.read(std::min(wait, status));
  if (read == Replication::Read::end) return Event::end;
  if (read == Replication::Read::nothing) return Event::nothing;
  heard_ = Clock::now();
  const WalMessage message = parse_wal_message(connection_.message());
  if (const auto* data = std::get_if<WalData>(&message)) {
    server_end_ = std::max(server_end_, data->server_end);
    bytes_ = sequence_.take(*data);
    return bytes_.empty() ? Event::nothing : Event::data;
  }
  const auto& keepalive = std::get<WalKeepalive>(message);
  server_end_ = std::max(server_end_, keepalive.server_end);
  if (!keepalive.wants_reply) return Event::nothing;
  send(false);
  return Event::asked;
}

std::optional<WalStream::Next> WalStream::finish() {
  bool answered = false;
  std::optional<Next> next;
  for (;;) {
    switch (connection_.next_answer()) {
      case Replication::Answer::copy_both:
      case Replication::Answer::copy_in:
      case Replication::Answer::copy_out:
        if (!answered) connection_.finish_writing();
        answered = true;
        break;
      case Replication::Answer::rows: {
        const Rows& rows = connection_.answer_rows();
        if (rows.size() == 1 && rows[0].size() == 2 && rows[0][0] && rows[0][1]) {
          const auto start = parse_lsn(*rows[0][1]);
          const auto timeline = std::strtoul(rows[0][0]->c_str(), nullptr, 10);
          if (start && timeline != 0) next = {{static_cast<std::uint32_t>(timeline)}, *start};
        }
        break;
      }
      case Replication::Answer::done:
        // A server that shuts down says no more than that, and closes the connection.
        if (!next) return std::nullopt;
        break;
      case Replication::Answer::end:
        return next;
    }
  }
}

void WalStream::leave() {
  send(false);
  connection_.finish_writing();
}

}  // namespace holdfast::postgres
