#pragma once

// Where a repository lives: named, immutable objects.
//
// This is the whole seam between Holdfast and the world's storage. It promises:
//   * create-if-absent: of several writers of one name exactly one wins, and its bytes stay;
//   * all or nothing: an object is there whole or not at all, whatever dies when;
//   * durability: once `commit` has returned, the object survives a power cut;
//   * honesty: "absent" is said only on proof. Anything else that goes wrong is an Error (TRAPS
//   OS2).
//
// Names are paths with "/", made of letters, digits, "-", "_", "." and never with a leading dot.
// A store may be used by several threads; an ObjectReader or ObjectWriter by one at a time.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/file.h"
#include "base/time.h"

namespace holdfast::store {

struct ObjectInfo {
  std::string name;
  std::uint64_t size = 0;
  base::Timestamp written;  ///< by the store's clock
};

class ObjectReader {
 public:
  virtual ~ObjectReader() = default;
  virtual std::uint64_t size() const = 0;
  /// Fills `into` from `offset`; an object that ends before that is Error(corrupt).
  virtual void read(std::uint64_t offset, base::MutableView into) = 0;
};

/// An object being written. Without commit() nothing of it is ever seen (INV-2).
class ObjectWriter {
 public:
  virtual ~ObjectWriter() = default;
  virtual void append(base::View bytes) = 0;
  /// Makes the object durable under its name. False if that name exists already: then nothing was
  /// changed. May be called once.
  [[nodiscard]] virtual bool commit() = 0;
};

class ObjectStore {
 public:
  virtual ~ObjectStore() = default;

  /// nullptr if there is no such object.
  virtual std::unique_ptr<ObjectReader> open(std::string_view name) = 0;
  virtual std::unique_ptr<ObjectWriter> create(std::string_view name) = 0;
  virtual std::optional<ObjectInfo> stat(std::string_view name) = 0;
  /// All objects whose names begin with `directory` + "/", sorted by name.
  virtual std::vector<ObjectInfo> list(std::string_view directory) = 0;
  /// The names of what is directly below `directory`, objects and directories alike, sorted.
  virtual std::vector<std::string> names(std::string_view directory) = 0;
  /// False if there was no such object. The removal is durable when this returns.
  virtual bool remove(std::string_view name) = 0;
  /// Makes durable what can be seen directly below `directory`: a writer may have died between the
  /// naming of an object and that. Whoever relies on what he did not write himself calls this.
  virtual void settle(std::string_view /*directory*/) {}
  /// Removes what writers that died left unfinished, where that can be told; returns how many.
  virtual std::size_t sweep_unfinished() { return 0; }
  /// For messages: "file:///var/lib/holdfast".
  virtual std::string url() const = 0;

  /// The whole object; nullopt if there is none.
  std::optional<base::Bytes> get(std::string_view name);
  /// create, append, commit. False if the name exists already.
  [[nodiscard]] bool put(std::string_view name, base::View bytes);
};

/// Opens the store at a URL: file:///DIRECTORY, or a plain absolute path.
std::unique_ptr<ObjectStore> open_store(const std::string& url);

/// The directory that a file:// URL means; throws Error(configuration) for another URL.
base::fs::path directory_of(const std::string& url);

/// Throws Error(usage) for a name that a store must not be asked for (empty, "..", a leading dot in
/// a part, characters that some store or shell would treat in its own way).
void check_name(std::string_view name);

}  // namespace holdfast::store
