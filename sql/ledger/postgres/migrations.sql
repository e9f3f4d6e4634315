-- create_schema
-- Makes the ledger's schema and the table of its migrations; one at a time, for CREATE … IF NOT EXISTS races with itself.
SELECT pg_advisory_xact_lock(hashtextextended('sluice.migration', 0));
CREATE SCHEMA IF NOT EXISTS sluice;
CREATE TABLE IF NOT EXISTS sluice.migration (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    sha256     text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- has_migrations
-- Tells whether the table of migrations is there, without a privilege on it.
SELECT to_regclass('sluice.migration') IS NOT NULL AS there;

-- applied_migrations
-- Versions that this database has, in order.
SELECT version, name, sha256 FROM sluice.migration ORDER BY version;

-- record_migration
-- Writes down a migration in the transaction that applied it.
INSERT INTO sluice.migration (version, name, sha256) VALUES (:version, :name, :sha256);
