#include "service/toxic.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/error.h"

namespace holdfast::service {

namespace {

using base::Code;
using base::Error;
using nlohmann::json;

struct KindInfo {
  ToxicKind kind;
  std::string_view name;
  std::vector<std::string_view> attributes;
};

const std::array<KindInfo, 7>& kinds() {
  static const std::array<KindInfo, 7> all{{
      {ToxicKind::latency, "latency", {"latency", "jitter"}},
      {ToxicKind::bandwidth, "bandwidth", {"rate"}},
      {ToxicKind::slow_close, "slow_close", {"delay"}},
      {ToxicKind::timeout, "timeout", {"timeout"}},
      {ToxicKind::reset_peer, "reset_peer", {"timeout"}},
      {ToxicKind::slicer, "slicer", {"average_size", "size_variation", "delay"}},
      {ToxicKind::limit_data, "limit_data", {"bytes"}},
  }};
  return all;
}

const KindInfo& info(ToxicKind kind) {
  return *std::ranges::find(kinds(), kind, &KindInfo::kind);
}

std::string text_of(const json& document, const char* key, std::string_view otherwise) {
  const auto found = document.find(key);
  if (found == document.end() || found->is_null()) return std::string(otherwise);
  if (!found->is_string()) throw Error(Code::usage, fmt::format("\"{}\" must be text", key));
  return found->get<std::string>();
}

void read_toxicity(Toxic& toxic, const json& document) {
  const auto found = document.find("toxicity");
  if (found == document.end() || found->is_null()) return;
  const double value = found->is_number() ? found->get<double>() : -1;
  if (!(value >= 0 && value <= 1)) {
    throw Error(Code::usage, "\"toxicity\" must be a number from 0 to 1");
  }
  toxic.toxicity = value;
}

void read_attributes(Toxic& toxic, const json& document) {
  const auto found = document.find("attributes");
  if (found == document.end() || found->is_null()) return;
  if (!found->is_object()) throw Error(Code::usage, "\"attributes\" must be an object");
  for (const auto& [name, value] : found->items()) {
    if (!toxic.attributes.contains(name)) {
      throw Error(Code::usage,
                  fmt::format("a {} has no attribute \"{}\"", name_of(toxic.kind), name));
    }
    // Milliseconds of a day, and the bytes of a large disk.
    constexpr std::int64_t most = 1'000'000'000'000;
    const bool whole = value.is_number_integer() || value.is_number_unsigned();
    if (!whole || value.get<double>() < 0 || value.get<double>() > most) {
      throw Error(Code::usage,
                  fmt::format("attribute \"{}\" must be a whole number from 0 on", name));
    }
    toxic.attributes[name] = value.get<std::int64_t>();
  }
}

}  // namespace

std::string_view name_of(ToxicKind kind) {
  return info(kind).name;
}

std::string_view name_of(Stream stream) {
  return stream == Stream::upstream ? "upstream" : "downstream";
}

std::int64_t Toxic::attribute(std::string_view which) const {
  const auto found = attributes.find(which);
  return found == attributes.end() ? 0 : found->second;
}

Toxic toxic_from(const json& document) {
  if (!document.is_object()) throw Error(Code::usage, "a toxic must be an object");
  Toxic toxic;
  const std::string stream = text_of(document, "stream", "downstream");
  if (stream != "upstream" && stream != "downstream") {
    throw Error(Code::usage, "stream was invalid, can be either upstream or downstream");
  }
  toxic.stream = stream == "upstream" ? Stream::upstream : Stream::downstream;
  const std::string type = text_of(document, "type", "");
  const auto* const kind = std::ranges::find(kinds(), type, &KindInfo::name);
  if (kind == kinds().end()) throw Error(Code::usage, "invalid toxic type");
  toxic.kind = kind->kind;
  toxic.name = text_of(document, "name", "");
  if (toxic.name.empty()) toxic.name = fmt::format("{}_{}", type, stream);
  for (const std::string_view name : kind->attributes) toxic.attributes.emplace(name, 0);
  read_toxicity(toxic, document);
  read_attributes(toxic, document);
  return toxic;
}

Toxic changed_toxic(const Toxic& toxic, const json& document) {
  if (!document.is_object()) throw Error(Code::usage, "a toxic must be an object");
  Toxic changed = toxic;
  read_toxicity(changed, document);
  read_attributes(changed, document);
  return changed;
}

json to_json(const Toxic& toxic) {
  json attributes = json::object();
  for (const auto& [name, value] : toxic.attributes) attributes[name] = value;
  return {{"name", toxic.name},
          {"type", name_of(toxic.kind)},
          {"stream", name_of(toxic.stream)},
          {"toxicity", toxic.toxicity},
          {"attributes", attributes}};
}

}  // namespace holdfast::service
