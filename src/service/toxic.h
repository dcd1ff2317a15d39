#pragma once

// A toxic: one way in which a connection misbehaves. Names, attributes and units are Toxiproxy's.
//
//   latency     latency, jitter (ms)        data comes so much later, and in order
//   bandwidth   rate (KB/s of 1000 bytes)   0: nothing passes
//   slow_close  delay (ms)                  the end of the stream comes so much later
//   timeout     timeout (ms)                all data is swallowed; the connection is cut after that
//                                           time, never if it is 0 (a black hole)
//   reset_peer  timeout (ms)                the connection is reset (RST) after that time
//   slicer      average_size, size_variation (bytes), delay (microseconds)
//   limit_data  bytes                       the connection is cut after so many bytes
//
// An attribute that is left out is 0. One that a toxic does not have is refused: a misspelt fault
// would be none.

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace holdfast::service {

enum class ToxicKind { latency, bandwidth, slow_close, timeout, reset_peer, slicer, limit_data };

/// Which way data goes that a toxic is applied to.
enum class Stream {
  upstream,    ///< from the client to the dependency
  downstream,  ///< from the dependency to the client
};
std::string_view name_of(ToxicKind kind);
std::string_view name_of(Stream stream);

struct Toxic {
  std::string name;
  ToxicKind kind = ToxicKind::latency;
  Stream stream = Stream::downstream;
  double toxicity = 1;  ///< how probably a connection is affected
  std::map<std::string, std::int64_t, std::less<>> attributes;

  std::int64_t attribute(std::string_view which) const;
};

/// A new toxic. Throws Error(usage) for what is none.
Toxic toxic_from(const nlohmann::json& document);
/// `toxic` with the attributes and the toxicity that `document` has.
Toxic changed_toxic(const Toxic& toxic, const nlohmann::json& document);
nlohmann::json to_json(const Toxic& toxic);

}  // namespace holdfast::service
