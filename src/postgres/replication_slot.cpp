#include "postgres/replication_slot.h"

#include "base/error.h"

namespace holdfast::postgres {

namespace {

using base::Code;

/// From here on the replication protocol has READ_REPLICATION_SLOT.
constexpr int reads_slots = 150000;

}  // namespace

ReplicationSlot::ReplicationSlot(Replication& server, std::string connection, std::string name)
    : server_(server), connection_(std::move(connection)), name_(std::move(name)) {}

std::optional<ReplicationSlot::State> ReplicationSlot::read() {
  const Rows rows = server_.version_number() >= reads_slots
                        ? server_.command("READ_REPLICATION_SLOT " + quoted_identifier(name_))
                        : Session(connection_)
                              .query(
                                  "SELECT slot_type, restart_lsn FROM pg_replication_slots WHERE "
                                  "slot_name = $1",
                                  {name_});
  if (rows.empty() || rows[0].size() < 2 || !rows[0][0]) return std::nullopt;
  if (*rows[0][0] != "physical") {
    base::fail(Code::configuration, "cannot receive WAL through slot \"{}\": it is a {} slot",
               name_, *rows[0][0]);
  }
  if (!rows[0][1]) return State{};
  return State{parse_lsn(*rows[0][1])};
}

Lsn ReplicationSlot::ensure(const std::function<void(const std::string&)>& say) {
  auto state = read();
  if (state && !state->start) {
    say("slot \"" + name_ + "\" does not keep WAL any more: making it anew");
    drop();
    state.reset();
  } else if (!state) {
    say("making slot \"" + name_ + "\"");
  }
  if (!state) {
    server_.command("CREATE_REPLICATION_SLOT " + quoted_identifier(name_) +
                    " PHYSICAL RESERVE_WAL");
    state = read();
  }
  if (!state || !state->start) {
    base::fail(Code::postgres, "PostgreSQL made slot \"{}\", but it keeps no WAL", name_);
  }
  return *state->start;
}

void ReplicationSlot::drop() {
  server_.command("DROP_REPLICATION_SLOT " + quoted_identifier(name_));
}

}  // namespace holdfast::postgres
