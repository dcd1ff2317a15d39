#include "repository/ids.h"

#include <algorithm>

#include "base/error.h"
#include "base/seal.h"

namespace holdfast::repository {

ObjectId new_object_id() {
  ObjectId id;
  const auto millis = static_cast<std::uint64_t>(base::now().time_since_epoch().count() / 1000);
  for (std::size_t i = 0; i < 6; ++i) {
    id.bytes[5 - i] = static_cast<std::uint8_t>(millis >> (8 * i));
  }
  const base::Bytes random = base::random_bytes(10);
  std::copy(random.begin(), random.end(), id.bytes.begin() + 6);
  return id;
}

std::string to_string(const ObjectId& id) {
  return base::to_hex(id.bytes);
}

ObjectId parse_object_id(std::string_view text) {
  const base::Bytes bytes = base::from_hex(text);
  ObjectId id;
  if (bytes.size() != id.bytes.size() || base::to_hex(bytes) != text) {
    base::fail(base::Code::corrupt, "\"{}\" is not the id of an object", text);
  }
  std::copy(bytes.begin(), bytes.end(), id.bytes.begin());
  return id;
}

BackupId new_backup_id(base::Timestamp begun) {
  std::string text = base::to_iso(begun);
  text.resize(19);  // without the fraction
  std::erase_if(text, [](char c) { return c == '-' || c == ':'; });
  return {text + "Z-" + base::to_hex(base::random_bytes(2))};
}

bool is_backup_id(std::string_view text) {
  if (text.size() != 21 || text[8] != 'T' || text.substr(15, 2) != "Z-") return false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (i == 8 || i == 15 || i == 16) continue;
    const bool digit = text[i] >= '0' && text[i] <= '9';
    if (!digit && !(i > 16 && text[i] >= 'a' && text[i] <= 'f')) return false;
  }
  return true;
}

}  // namespace holdfast::repository
