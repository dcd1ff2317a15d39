#pragma once

// Works import jobs off, a batch of lines at a time.
//
// A batch is one transaction: its good rows, their audit logs, what was wrong with the others, and
// how far the job has come. So whoever dies, whenever, the next one goes on behind the last batch
// that was committed, and no row is lost or doubled. The job's row is locked for as long: any
// number of processes may do this with one database, and they share the jobs (SKIP LOCKED).
//
// comps name their building, which is found in the organisation by name and address, whatever their
// case, or made. A building that is there already is an error of its line. Rows that PostgreSQL
// refuses though they looked good are refused alone. A job whose staged file is gone, or whose
// first line is not a header of its kind, fails; what it imported before stays.

#include <functional>
#include <string>

#include "database/pool.h"
#include "imports/staging.h"

namespace reference::imports {

/// As many errors are kept of a job; the others are counted.
constexpr std::size_t most_errors = 10000;

class Importer {
 public:
  /// `changed` is told of an organisation after rows of it were committed.
  Importer(database::Pool& pool, const Staging& staging,
           std::function<void(const std::string& organisation)> changed)
      : pool_(pool), staging_(staging), changed_(std::move(changed)) {}

  /// Does one batch of the job that was left alone for longest; false if there is none. Throws
  /// http::Problem or database::Refused if the database does not let it: nothing has been done
  /// then.
  bool step();
  /// Removes staged files that no job needs any more.
  void sweep();

 private:
  database::Pool& pool_;
  const Staging& staging_;
  std::function<void(const std::string&)> changed_;
};

}  // namespace reference::imports
