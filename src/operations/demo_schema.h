#pragma once

// The data of the demo: a small service that keeps buildings and comparable leases for
// organisations.

namespace holdfast::operations {

constexpr const char* demo_schema = R"sql(
CREATE TABLE public.organisations (
  id bigint PRIMARY KEY, name text NOT NULL, created_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE public.memberships (
  org_id bigint REFERENCES public.organisations, user_id text, role text NOT NULL,
  PRIMARY KEY (org_id, user_id));
CREATE TABLE public.buildings (
  id bigserial PRIMARY KEY, org_id bigint NOT NULL REFERENCES public.organisations,
  address text NOT NULL, area_m2 numeric(12,2));
CREATE TABLE public.comps (
  id bigserial PRIMARY KEY, org_id bigint NOT NULL,
  building_id bigint NOT NULL REFERENCES public.buildings, tenant text NOT NULL,
  rent numeric(12,2), signed_on date);
CREATE TABLE public.tims (
  id bigserial PRIMARY KEY, org_id bigint NOT NULL, title text NOT NULL, body text);
CREATE TABLE public.reports (
  id bigserial PRIMARY KEY, org_id bigint NOT NULL, title text NOT NULL, content jsonb);
CREATE TABLE public.exports (
  id bigserial PRIMARY KEY, org_id bigint NOT NULL, file text NOT NULL, rows bigint);
CREATE TABLE public.audit_logs (
  id bigserial PRIMARY KEY, org_id bigint NOT NULL, actor text NOT NULL, action text NOT NULL,
  writer int, number bigint, at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE INDEX ON public.comps (org_id, building_id);
CREATE INDEX ON public.audit_logs (writer, number);

INSERT INTO public.organisations SELECT g, 'Organisation ' || g FROM generate_series(1, 20) g;
INSERT INTO public.memberships
  SELECT 1 + g % 20, 'user_' || md5(g::text), (ARRAY['viewer', 'editor', 'admin'])[1 + g % 3]
  FROM generate_series(1, 400) g;
INSERT INTO public.buildings (org_id, address, area_m2)
  SELECT 1 + g % 20, g || ' ' || md5(g::text) || ' Street', 100 + g % 9000
  FROM generate_series(1, 5000) g;
INSERT INTO public.comps (org_id, building_id, tenant, rent, signed_on)
  SELECT 1 + g % 20, 1 + g % 5000, 'Tenant ' || md5(g::text), 10 + g % 700,
         date '2020-01-01' + g % 2000
  FROM generate_series(1, 100000) g;
INSERT INTO public.tims (org_id, title, body)
  SELECT 1 + g % 20, 'TIM ' || g, repeat(md5(g::text), 20) FROM generate_series(1, 2000) g;
INSERT INTO public.reports (org_id, title, content)
  SELECT 1 + g % 20, 'Report ' || g, jsonb_build_object('rows', g, 'hash', md5(g::text))
  FROM generate_series(1, 2000) g;
INSERT INTO public.exports (org_id, file, rows)
  SELECT 1 + g % 20, 'export-' || g || '.csv', g FROM generate_series(1, 500) g;
)sql";

/// What a request of the service does: a change and its audit log, in one transaction.
constexpr const char* demo_write = R"sql(
WITH comp AS (
  INSERT INTO public.comps (org_id, building_id, tenant, rent)
  VALUES (1, 1, 'demo tenant', 42) RETURNING org_id)
INSERT INTO public.audit_logs (org_id, actor, action, writer, number)
  SELECT org_id, 'demo', 'comp.create', $1::int, $2::bigint FROM comp
)sql";

/// The numbers of a writer's rows that are there.
constexpr const char* demo_read =
    "SELECT number FROM public.audit_logs WHERE writer = $1::int ORDER BY number";

}  // namespace holdfast::operations
