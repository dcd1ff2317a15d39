-- The tables of the service. Everything belongs to an organisation, which each row names by Clerk's id,
-- and foreign keys carry it: no row can refer into another organisation, whatever the program does.

CREATE TABLE organisations (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  clerk_id text NOT NULL UNIQUE,
  name text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE memberships (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  organisation text NOT NULL REFERENCES organisations (clerk_id),
  user_id text NOT NULL,
  role text NOT NULL CHECK (role IN ('viewer', 'editor', 'admin')),
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  UNIQUE (organisation, id),
  UNIQUE (organisation, user_id)
);

-- The work of a background import: see reference/src/imports.
CREATE TABLE import_jobs (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  organisation text NOT NULL REFERENCES organisations (clerk_id),
  created_by text NOT NULL,
  kind text NOT NULL CHECK (kind IN ('buildings', 'comps')),
  file_name text NOT NULL DEFAULT '',
  note text,
  state text NOT NULL DEFAULT 'queued'
    CHECK (state IN ('queued', 'running', 'done', 'failed')),
  rows_done bigint NOT NULL DEFAULT 0,
  rows_failed bigint NOT NULL DEFAULT 0,
  error text,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  finished_at timestamptz,
  UNIQUE (organisation, id)
);
CREATE INDEX ON import_jobs (organisation, created_at, id);

CREATE TABLE buildings (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  organisation text NOT NULL REFERENCES organisations (clerk_id),
  name text NOT NULL,
  address text NOT NULL,
  city text,
  area_m2 numeric(12,2) CHECK (area_m2 >= 0),
  -- Which line of which import made the row: a line is never taken twice.
  import_job uuid,
  import_line bigint,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  UNIQUE (organisation, id),
  UNIQUE (organisation, import_job, import_line),
  FOREIGN KEY (organisation, import_job) REFERENCES import_jobs (organisation, id)
    ON DELETE SET NULL (import_job)
);
CREATE INDEX ON buildings (organisation, created_at, id);

CREATE TABLE comps (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  organisation text NOT NULL REFERENCES organisations (clerk_id),
  building uuid NOT NULL,
  tenant text NOT NULL,
  area_m2 numeric(12,2) NOT NULL CHECK (area_m2 > 0),
  rent_per_m2 numeric(12,2) NOT NULL CHECK (rent_per_m2 >= 0),
  signed_on date NOT NULL,
  term_months integer CHECK (term_months > 0),
  note text,
  import_job uuid,
  import_line bigint,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  UNIQUE (organisation, id),
  UNIQUE (organisation, import_job, import_line),
  FOREIGN KEY (organisation, building) REFERENCES buildings (organisation, id),
  FOREIGN KEY (organisation, import_job) REFERENCES import_jobs (organisation, id)
    ON DELETE SET NULL (import_job)
);
CREATE INDEX ON comps (organisation, created_at, id);
CREATE INDEX ON comps (organisation, building, created_at, id);

-- Tenants in the market: who looks for space.
CREATE TABLE tims (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  organisation text NOT NULL REFERENCES organisations (clerk_id),
  company text NOT NULL,
  contact text,
  area_min_m2 numeric(12,2) CHECK (area_min_m2 >= 0),
  area_max_m2 numeric(12,2) CHECK (area_max_m2 >= area_min_m2),
  move_in date,
  status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'signed', 'lost')),
  note text,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  UNIQUE (organisation, id)
);
CREATE INDEX ON tims (organisation, created_at, id);

-- A report is a question to the comps; its figures are computed when they are asked for.
CREATE TABLE reports (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  organisation text NOT NULL REFERENCES organisations (clerk_id),
  title text NOT NULL,
  group_by text NOT NULL CHECK (group_by IN ('all', 'building', 'tenant', 'year', 'month')),
  signed_from date,
  signed_to date,
  building uuid,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  UNIQUE (organisation, id),
  FOREIGN KEY (organisation, building) REFERENCES buildings (organisation, id)
);
CREATE INDEX ON reports (organisation, created_at, id);

-- What somebody wants to download: the rows are read when they are downloaded.
CREATE TABLE exports (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  organisation text NOT NULL REFERENCES organisations (clerk_id),
  created_by text NOT NULL,
  kind text NOT NULL CHECK (kind IN ('buildings', 'comps', 'tims')),
  title text NOT NULL DEFAULT '',
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  UNIQUE (organisation, id)
);
CREATE INDEX ON exports (organisation, created_at, id);

-- Who changed what. Outlives what it speaks of, so it refers to nothing; nothing is changed in it.
CREATE TABLE audit_logs (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  organisation text NOT NULL,
  actor text NOT NULL,
  action text NOT NULL,
  table_name text NOT NULL,
  row_id uuid NOT NULL,
  before jsonb,
  after jsonb,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX ON audit_logs (organisation, created_at, id);
CREATE INDEX ON audit_logs (organisation, table_name, row_id, created_at, id);

CREATE FUNCTION audit_logs_are_kept() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN RAISE EXCEPTION 'audit logs are never changed'; END $$;
CREATE TRIGGER audit_logs_are_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_logs
  EXECUTE FUNCTION audit_logs_are_kept();
