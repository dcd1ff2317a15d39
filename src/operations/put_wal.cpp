#include "operations/put_wal.h"

#include "postgres/wal_segment.h"

namespace holdfast::operations {

CheckedSegment::CheckedSegment(const std::string& name, base::View file, postgres::SystemId system)
    : name_(name), content_(file) {
  const auto parsed = postgres::parse_wal_file_name(name).value();
  partial_ = parsed.kind == postgres::WalFileName::Kind::partial;
  postgres::check_segment(content_.bytes(), parsed, system);
}

repository::WalArchive::Put CheckedSegment::put(const repository::WalArchive& archive,
                                                unsigned workers) const {
  return archive.put(name_, content_.bytes(), workers,
                     partial_ ? postgres::is_same_partial : postgres::is_same_segment);
}

}  // namespace holdfast::operations
