-- What a background import needs: how far it has come, in the file and in lines; which request made
-- it, so that a request that is sent again makes no second one; and what was wrong with which line.

ALTER TABLE import_jobs
  ADD COLUMN bytes bigint NOT NULL DEFAULT 0,
  ADD COLUMN bytes_done bigint NOT NULL DEFAULT 0,
  ADD COLUMN lines_done bigint NOT NULL DEFAULT 0,
  ADD COLUMN request_key text,
  ADD UNIQUE (organisation, request_key);
CREATE INDEX ON import_jobs (updated_at) WHERE state IN ('queued', 'running');

CREATE TABLE import_errors (
  organisation text NOT NULL,
  import_job uuid NOT NULL,
  line bigint NOT NULL,
  reason text NOT NULL,
  PRIMARY KEY (organisation, import_job, line),
  FOREIGN KEY (organisation, import_job) REFERENCES import_jobs (organisation, id) ON DELETE CASCADE
);

-- Comps name their building; this finds it, however long the address is.
CREATE INDEX ON buildings USING hash (lower(address));
