#include "resources/report_result.h"

#include <fmt/format.h>

#include "http/problem.h"
#include "resources/fields.h"
#include "resources/rest.h"

namespace reference::resources {

namespace {

std::string_view group(std::string_view by) {
  if (by == "building") return "building::text";
  if (by == "tenant") return "tenant";
  if (by == "year") return "to_char(signed_on, 'YYYY')";
  if (by == "month") return "to_char(signed_on, 'YYYY-MM')";
  return "'all'";
}

std::string question(std::string_view by) {
  return fmt::format(
      "SELECT json_build_object('rows', coalesce(json_agg(json_build_object('group', key, "
      "'comps', comps, 'area_m2', area, 'rent_lowest', lowest, 'rent_highest', highest, "
      "'rent_median', median, 'rent_average', average) ORDER BY key), '[]'))::text FROM ("
      "SELECT {} AS key, count(*) AS comps, sum(area_m2) AS area, min(rent_per_m2) AS lowest, "
      "max(rent_per_m2) AS highest, "
      "round(percentile_cont(0.5) WITHIN GROUP (ORDER BY rent_per_m2)::numeric, 2) AS median, "
      "round(sum(rent_per_m2 * area_m2) / sum(area_m2), 2) AS average FROM comps "
      "WHERE organisation = $1 AND ($2::date IS NULL OR signed_on >= $2::date) "
      "AND ($3::date IS NULL OR signed_on <= $3::date) "
      "AND ($4::uuid IS NULL OR building = $4::uuid) GROUP BY 1) AS groups",
      group(by));
}

std::optional<std::string> value(const database::Rows& rows, std::size_t column) {
  const auto found = rows.value(0, column);
  return found ? std::optional<std::string>(*found) : std::nullopt;
}

}  // namespace

void register_report_result(http::Router& router, database::Pool& pool, cache::Cache& cache) {
  router.add("GET", "/reports/{id}/result", auth::Role::viewer,
             [&pool, &cache](http::Request& request, const auth::Principal& principal) {
               const std::string& id = request.named.at("id");
               const http::Problem not_there(404, "not_found", "there is no such row in reports");
               if (!is_uuid(id)) throw not_there;
               // Kept with the comps: it changes when they do. Each question is a name of its own,
               // so what is asked is looked up each time.
               database::Session session = pool.session();
               const database::Rows report = session.run(
                   "SELECT group_by, signed_from, signed_to, building FROM reports "
                   "WHERE organisation = $1 AND id = $2::uuid",
                   {principal.organisation, id});
               if (report.empty()) throw not_there;
               const std::string by(report.text(0, 0));
               const std::string name = fmt::format("result?{}&{}&{}&{}", by, report.text(0, 1),
                                                    report.text(0, 2), report.text(0, 3));
               return respond(cache.through(principal.organisation, "comps", name, [&] {
                 const database::Rows rows =
                     session.run(question(by), {principal.organisation, value(report, 1),
                                                value(report, 2), value(report, 3)});
                 return std::string(rows.text(0, 0));
               }));
             });
}

}  // namespace reference::resources
