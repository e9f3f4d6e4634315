-- Visits whose caregiver's number must never leave the database, and what makes the database quote it in its errors.
CREATE SCHEMA canary;

CREATE TABLE canary.visits (
    "ID"          bigint PRIMARY KEY,
    "VisitDate"   date,
    "SSN"         text,
    "Minutes"     integer NOT NULL DEFAULT 60,
    "Doubled"     integer,
    "Copy"        text UNIQUE,
    "Trap"        text,
    "UpdateFlag"  smallint,
    "UpdatedDate" timestamptz
);
CREATE INDEX ON canary.visits ("VisitDate", "SSN");

CREATE TABLE canary.visits_copy (LIKE canary.visits);
CREATE TABLE canary.unique_copy ("SSN" text PRIMARY KEY);

-- A trigger of the application that quotes the key, under whatever SQLSTATE its author liked, or in SQL of its own.
CREATE FUNCTION canary.spring() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    number integer;
BEGIN
    CASE NEW."Trap"
        WHEN 'dynamic' THEN EXECUTE 'SELECT 1 FROM "' || NEW."SSN" || '"';
        WHEN 'cast' THEN number := NEW."SSN";
        WHEN 'assert' THEN ASSERT false, NEW."SSN";
        ELSE RAISE EXCEPTION USING ERRCODE = NEW."Trap", MESSAGE = 'refused: ' || NEW."SSN",
                                   DETAIL = NEW."SSN", HINT = NEW."SSN", COLUMN = NEW."SSN", CONSTRAINT = NEW."SSN";
    END CASE;
    RETURN NEW;
END $$;

CREATE TRIGGER spring BEFORE UPDATE ON canary.visits
    FOR EACH ROW WHEN (NEW."Trap" IS DISTINCT FROM OLD."Trap" AND NEW."Trap" IS NOT NULL) EXECUTE FUNCTION canary.spring();
