#include "resources/table.h"

#include <algorithm>

namespace reference::resources {

namespace {

using auth::Role;
using Access = Column::Access;

Table organisations() {
  Table table{"organisations"};
  table.writes = Role::admin;
  table.tenant = "clerk_id";
  table.columns = {
      {"clerk_id", Kind::text, Access::read},
      {"name", Kind::text, Access::write, true},
      {"updated_at", Kind::time, Access::read},
  };
  return table;
}

Table memberships() {
  Table table{"memberships"};
  table.writes = Role::admin;
  table.columns = {
      {"user_id", Kind::text, Access::write, true, true},
      {"role", Kind::text, Access::write, true, true, {"viewer", "editor", "admin"}},
      {"updated_at", Kind::time, Access::read},
  };
  return table;
}

Table buildings() {
  Table table{"buildings"};
  table.columns = {
      {"name", Kind::text, Access::write, true, true},
      {"address", Kind::text, Access::write, true, true},
      {"city", Kind::text, Access::write, false, true},
      {"area_m2", Kind::number, Access::write, false, true},
      {"import_job", Kind::uuid, Access::read, false, true},
      {"updated_at", Kind::time, Access::read},
  };
  return table;
}

Table comps() {
  Table table{"comps"};
  table.columns = {
      {"building", Kind::uuid, Access::write, true, true},
      {"tenant", Kind::text, Access::write, true, true},
      {"area_m2", Kind::number, Access::write, true, true},
      {"rent_per_m2", Kind::number, Access::write, true, true},
      {"signed_on", Kind::date, Access::write, true, true},
      {"term_months", Kind::integer, Access::write, false, true},
      {"note", Kind::text, Access::write},
      {"import_job", Kind::uuid, Access::read, false, true},
      {"updated_at", Kind::time, Access::read},
  };
  return table;
}

Table tims() {
  Table table{"tims"};
  table.columns = {
      {"company", Kind::text, Access::write, true, true},
      {"contact", Kind::text, Access::write},
      {"area_min_m2", Kind::number, Access::write, false, true},
      {"area_max_m2", Kind::number, Access::write, false, true},
      {"move_in", Kind::date, Access::write, false, true},
      {"status", Kind::text, Access::write, false, true, {"active", "signed", "lost"}},
      {"note", Kind::text, Access::write},
      {"updated_at", Kind::time, Access::read},
  };
  return table;
}

Table reports() {
  Table table{"reports"};
  table.columns = {
      {"title", Kind::text, Access::write, true, true},
      {"group_by",
       Kind::text,
       Access::write,
       true,
       true,
       {"all", "building", "tenant", "year", "month"}},
      {"signed_from", Kind::date, Access::write},
      {"signed_to", Kind::date, Access::write},
      {"building", Kind::uuid, Access::write, false, true},
      {"updated_at", Kind::time, Access::read},
  };
  return table;
}

Table import_jobs() {
  Table table{"import_jobs"};
  table.creates = false;  // imports makes them, with the file
  table.cached = false;
  table.referring = {"buildings", "comps"};
  table.columns = {
      {"created_by", Kind::text, Access::read, false, true},
      {"kind", Kind::text, Access::read, false, true, {"buildings", "comps"}},
      {"file_name", Kind::text, Access::read, false, true},
      {"note", Kind::text, Access::write},
      {"state",
       Kind::text,
       Access::read,
       false,
       true,
       {"queued", "running", "done", "failed"}},
      {"bytes", Kind::integer, Access::read},
      {"bytes_done", Kind::integer, Access::read},
      {"lines_done", Kind::integer, Access::read},
      {"rows_done", Kind::integer, Access::read},
      {"rows_failed", Kind::integer, Access::read},
      {"error", Kind::text, Access::read},
      {"updated_at", Kind::time, Access::read},
      {"finished_at", Kind::time, Access::read},
  };
  return table;
}

Table exports() {
  Table table{"exports"};
  table.creates = false;  // exports makes them
  table.columns = {
      {"created_by", Kind::text, Access::read, false, true},
      {"kind", Kind::text, Access::read, false, true, {"buildings", "comps", "tims"}},
      {"title", Kind::text, Access::write, true, true},
      {"updated_at", Kind::time, Access::read},
  };
  return table;
}

Table audit_logs() {
  Table table{"audit_logs"};
  table.reads = Role::admin;
  table.creates = false;
  table.changes = false;
  table.deletes = false;
  table.cached = false;
  table.columns = {
      {"actor", Kind::text, Access::read, false, true},
      {"action", Kind::text, Access::read, false, true},
      {"table_name", Kind::text, Access::read, false, true},
      {"row_id", Kind::uuid, Access::read, false, true},
      {"before", Kind::json, Access::read},
      {"after", Kind::json, Access::read},
  };
  return table;
}

}  // namespace

std::string_view sql_type(Kind kind) {
  switch (kind) {
    case Kind::text:
      return "text";
    case Kind::number:
      return "numeric";
    case Kind::integer:
      return "integer";
    case Kind::date:
      return "date";
    case Kind::time:
      return "timestamptz";
    case Kind::uuid:
      return "uuid";
    case Kind::json:
      return "jsonb";
  }
  return "";
}

std::string Table::json() const {
  std::string fields = "json_build_object('id', id, 'created_at', created_at";
  for (const Column& column : columns) {
    fields.append(", '").append(column.name).append("', ").append(column.name);
  }
  return fields + ")::text";
}

const Column* Table::find(std::string_view column) const {
  for (const Column& each : columns) {
    if (each.name == column) return &each;
  }
  return nullptr;
}

const Table& table_of(std::string_view name) {
  const std::vector<Table>& all = tables();
  return *std::find_if(all.begin(), all.end(),
                       [name](const Table& table) { return table.name == name; });
}

const std::vector<Table>& tables() {
  static const std::vector<Table> all = {organisations(), memberships(), buildings(),
                                         comps(),         tims(),        reports(),
                                         import_jobs(),   exports(),     audit_logs()};
  return all;
}

}  // namespace reference::resources
