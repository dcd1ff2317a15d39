#include "postgres/shared_names.h"

#include <algorithm>

#include "base/bytes.h"
#include "postgres/page.h"

namespace holdfast::postgres {

namespace {

constexpr std::uint32_t pg_database = 1262;
constexpr std::uint32_t pg_authid = 1260;
constexpr std::size_t name_bytes = 64;

template <typename T>
T at(base::View bytes, std::size_t offset) {
  return offset + sizeof(T) <= bytes.size() ? base::load<T>(bytes.data() + offset) : T{};
}

/// global/pg_filenode.map (relmapper.c): a magic number, how many, and pairs of relation and file.
base::Bytes shared_catalog(const base::fs::path& data_directory, std::uint32_t relation) {
  const base::Bytes map = base::read_existing_file(data_directory / "global" / "pg_filenode.map");
  const auto count = std::min(at<std::uint32_t>(map, 4), 64U);
  for (std::size_t i = 0; i < count; ++i) {
    if (at<std::uint32_t>(map, 8 + i * 8) != relation) continue;
    const auto file = std::to_string(at<std::uint32_t>(map, 12 + i * 8));
    return base::read_existing_file(data_directory / "global" / file);
  }
  return {};
}

/// Calls `visit` with what each row of a heap holds (bufpage.h, htup_details.h).
template <typename Visit>
void for_each_row(base::View heap, const Visit& visit) {
  constexpr std::size_t header = 24;
  for (std::size_t begin = 0; begin + page_size <= heap.size(); begin += page_size) {
    const base::View page = heap.subspan(begin, page_size);
    const std::size_t end = std::min<std::size_t>(at<std::uint16_t>(page, 12), page_size);
    for (std::size_t pointer = header; pointer + 4 <= end; pointer += 4) {
      const auto item = at<std::uint32_t>(page, pointer);
      const std::size_t offset = item & 0x7fffU;
      const std::size_t length = item >> 17U;
      const bool is_normal = (item >> 15U & 3U) == 1;
      if (!is_normal || length < header || offset + length > page_size) continue;
      const base::View tuple = page.subspan(offset, length);
      if (tuple[22] < length) visit(tuple.subspan(tuple[22]));
    }
  }
}

void add(std::vector<std::string>& names, base::View row) {
  constexpr std::size_t after_oid = 4;
  if (row.size() < after_oid + name_bytes) return;
  const std::string_view text = base::text(row.subspan(after_oid, name_bytes));
  std::string name(text.substr(0, text.find('\0')));
  if (std::ranges::find(names, name) == names.end()) names.push_back(std::move(name));
}

}  // namespace

SharedNames read_shared_names(const base::fs::path& data_directory) {
  SharedNames names;
  for_each_row(shared_catalog(data_directory, pg_database),
               [&](base::View row) { add(names.databases, row); });
  // oid, rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, ...
  constexpr std::size_t is_super = 4 + name_bytes;
  constexpr std::size_t can_login = is_super + 4;
  for_each_row(shared_catalog(data_directory, pg_authid), [&](base::View row) {
    if (row.size() > can_login && row[is_super] != 0 && row[can_login] != 0) {
      add(names.superusers, row);
    }
  });
  return names;
}

}  // namespace holdfast::postgres
