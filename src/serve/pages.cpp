#include "serve/pages.h"

#include "base/error.h"

namespace holdfast::serve {

namespace {

using base::Timestamp;
using nlohmann::json;

/// A look that takes as long as it may, twice.
constexpr std::chrono::minutes looks_take{4};

std::string html(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string row(const std::vector<std::string>& cells, std::string_view style = {}) {
  std::string text = style.empty() ? "<tr>" : fmt::format("<tr class=\"{}\">", style);
  for (const std::string& cell : cells) text += "<td>" + html(cell) + "</td>";
  return text + "</tr>\n";
}

std::string head(std::string_view title, const std::vector<std::string>& cells) {
  std::string text = fmt::format("<h2>{}</h2>\n<table>\n<tr>", html(title));
  for (const std::string& cell : cells) text += "<th>" + html(cell) + "</th>";
  return text + "</tr>\n";
}

std::string when(const std::optional<Timestamp>& time) {
  return time ? base::to_string(std::chrono::floor<std::chrono::seconds>(*time)) : "-";
}

std::string value(const json& objective, const char* member) {
  const json& number = objective.at(member);
  if (number.is_null()) return std::string(member) == "target" ? "none" : "not measured";
  if (objective.at("unit") == "share") return fmt::format("{:.3f} %", number.get<double>() * 100);
  return base::to_string_short(
      base::Microseconds(static_cast<std::int64_t>(number.get<double>() * 1e6)));
}

std::string alarms_table(const Picture& picture) {
  if (picture.content.alarms.empty()) return "<p class=\"ok\">No alarm is raised.</p>\n";
  std::string text = head("Alarms", {"since", "alarm", "what", "way out"});
  for (const auto& [id, alarm] : picture.content.alarms) {
    text += row({when(alarm.since), id, alarm.what, alarm.remedy}, alarm.bad ? "bad" : "warning");
  }
  return text + "</table>\n";
}

std::string cluster_tables(const Picture& picture) {
  std::string text;
  for (const auto& [cluster, look] : picture.looks) {
    for (const json& report : look ? look->reports : std::vector<json>()) {
      const std::string repository = report.value("repository", "");
      text +=
          head(cluster + (repository.empty() ? "" : " in " + repository) + ", " + when(look->at),
               {"objective", "target", "measured", "held", ""});
      for (const json& each : report.value("objectives", json::array())) {
        const json& held = each.at("held");
        const bool no = held.is_boolean() && !held.get<bool>();
        text += row({each.at("name"), value(each, "target"), value(each, "measured"),
                     held.is_null() ? "-"
                     : no           ? "NO"
                                    : "yes",
                     each.at("how")},
                    no ? "bad" : "");
      }
      text += "</table>\n";
    }
  }
  return text;
}

std::string jobs_table(const Picture& picture) {
  std::string text = head("Jobs", {"job", "now", "last ended", "status", "last success", "next"});
  for (const Worker::View& job : picture.jobs) {
    const auto found = picture.content.jobs.find(job.name);
    const JobRecord record = found == picture.content.jobs.end() ? JobRecord{} : found->second;
    const bool bad = record.status.value_or(0) != 0 && !job.running;
    text += row({job.name, job.running ? "runs" : "waits", when(record.ended),
                 record.status ? std::to_string(*record.status) : "-", when(record.succeeded),
                 when(job.next)},
                bad ? "bad" : "");
  }
  return text + "</table>\n";
}

constexpr std::string_view style =
    "body{font:15px/1.4 sans-serif;margin:2em;max-width:75em}table{border-collapse:collapse}"
    "td,th{text-align:left;padding:.2em .9em .2em 0;vertical-align:top}th{font-weight:normal;"
    "color:#777}.bad td{color:#b00020;font-weight:bold}.warning "
    "td{color:#8a5a00}.ok{color:#20702a}";

}  // namespace

std::vector<std::string> unready(const Picture& picture) {
  std::vector<std::string> reasons;
  for (const auto& [cluster, look] : picture.looks) {
    if (!look) {
      reasons.push_back("nobody has found out yet how cluster " + cluster + " is");
    } else if (picture.at - look->at > picture.look_every + looks_take) {
      reasons.push_back(
          fmt::format("nobody has found out since {} how cluster {} is", when(look->at), cluster));
    }
  }
  return reasons;
}

std::string page(const Picture& picture) {
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
      "<meta http-equiv=\"refresh\" content=\"10\"><title>Holdfast</title><style>{}</style>"
      "</head><body>\n<h1>Holdfast</h1>\n{}{}{}<p>{}; since {}; version {}. "
      "<a href=\"/metrics\">metrics</a></p>\n</body></html>\n",
      style, alarms_table(picture), cluster_tables(picture), jobs_table(picture), when(picture.at),
      when(picture.started), HOLDFAST_VERSION);
}

service::HttpResponse answer(const service::HttpRequest& request, const Picture& picture,
                             bool alive) {
  const char* plain = "text/plain; charset=utf-8";
  if (request.method != "GET") return {405, "only GET\n", plain};
  try {
    if (request.path == "/health") {
      return alive ? service::HttpResponse{200, "ok\n", plain}
                   : service::HttpResponse{503, "the daemon hangs\n", plain};
    }
    if (request.path == "/ready") {
      std::string text;
      for (const std::string& each : unready(picture)) text += each + "\n";
      if (!alive) text += "the daemon hangs\n";
      return text.empty() ? service::HttpResponse{200, "ok\n", plain}
                          : service::HttpResponse{503, text, plain};
    }
    if (request.path == "/metrics") {
      return {200, metrics(picture), "application/openmetrics-text; version=1.0.0; charset=utf-8"};
    }
    if (request.path == "/") return {200, page(picture), "text/html; charset=utf-8"};
  } catch (const std::exception&) {
    return {500, "what `holdfast status` printed could not be understood\n", plain};
  }
  return {404, "there are /, /metrics, /health and /ready\n", plain};
}

}  // namespace holdfast::serve
