"""A second account of what happens to rows and chunks, kept by triggers, and the invariants asked of both accounts."""

from __future__ import annotations

AUDIT = """
CREATE SCHEMA audit;
CREATE TABLE audit.change (
    change_id bigint GENERATED ALWAYS AS IDENTITY, pid integer DEFAULT pg_backend_pid(),
    row_id bigint, what text, was_flagged boolean);
CREATE TABLE audit.transition (
    pid integer DEFAULT pg_backend_pid(), step_no integer, chunk_no integer, old_state text, new_state text,
    old_generation integer, new_generation integer);
CREATE FUNCTION audit.note_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF OLD."UpdateFlag" = 1 THEN
            INSERT INTO audit.change (row_id, what, was_flagged) VALUES (OLD."ID", 'deleted', true);
        END IF;
        RETURN NULL;
    END IF;
    INSERT INTO audit.change (row_id, what, was_flagged)
    SELECT NEW."ID", what, OLD."UpdateFlag" IS NOT DISTINCT FROM 1
    FROM (SELECT CASE
              WHEN NEW."applied" <> OLD."applied" THEN 'applied'
              WHEN NEW."UpdateFlag" = 1 AND OLD."UpdateFlag" IS DISTINCT FROM 1 THEN 'marked'
              WHEN OLD."UpdateFlag" = 1 AND NEW."UpdateFlag" IS DISTINCT FROM 1 THEN 'cleared'
          END AS what) AS seen
    WHERE what IS NOT NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER note_change AFTER UPDATE OR DELETE ON public.visits
    FOR EACH ROW EXECUTE FUNCTION audit.note_change();
CREATE FUNCTION audit.note_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit.transition (step_no, chunk_no, old_state, new_state, old_generation, new_generation)
    VALUES (NEW.step_no, NEW.chunk_no, OLD.state, NEW.state, OLD.generation, NEW.generation);
    RETURN NULL;
END $$;
"""
WATCH_CHUNKS = """
CREATE OR REPLACE TRIGGER note_transition AFTER UPDATE OF state, generation ON sluice.chunk
    FOR EACH ROW EXECUTE FUNCTION audit.note_transition()
"""
# Each line: the invariant's number, what it says, and the number of exceptions that are committed now.
INVARIANTS = """
WITH run AS (SELECT * FROM sluice.run),
leaf AS (SELECT * FROM sluice.chunk WHERE state <> 'split' AND NOT is_null),
chain AS (
    SELECT wave, count(*) AS chunks, count(DISTINCT lo) AS los, count(DISTINCT hi) AS his,
           count(*) FILTER (WHERE lo IS NULL) AS firsts, count(*) FILTER (WHERE hi IS NULL) AS lasts,
           count(*) FILTER (WHERE lo IS NOT NULL AND NOT EXISTS (
               SELECT FROM leaf AS other WHERE other.wave = leaf.wave AND other.hi = leaf.lo)) AS loose
    FROM leaf GROUP BY wave),
change AS (
    SELECT count(*) FILTER (WHERE what = 'applied') AS applied, count(*) FILTER (WHERE what = 'marked') AS marked,
           count(*) FILTER (WHERE what = 'cleared') AS cleared, count(*) FILTER (WHERE what = 'deleted') AS deleted,
           count(*) FILTER (WHERE what = 'applied' AND was_flagged) AS applied_flagged
    FROM audit.change),
target AS (SELECT count(*) FILTER (WHERE "UpdateFlag" = 1) AS flagged FROM public.visits),
chunk AS (SELECT coalesce(sum(rows_updated), 0) AS updated, coalesce(sum(rows_marked), 0) AS marked FROM sluice.chunk)
SELECT * FROM (
    SELECT 'I1: each wave''s ranges partition the key space' AS invariant, count(*) AS n
    FROM chain WHERE NOT (firsts = 1 AND lasts = 1 AND los = chunks - 1 AND his = chunks - 1 AND loose = 0)
    UNION ALL SELECT 'I1: at most one chunk of NULL keys a wave', count(*)
    FROM (SELECT FROM sluice.chunk WHERE is_null GROUP BY wave HAVING count(*) > 1) AS twice
    UNION ALL SELECT 'I3: no row is applied twice', count(*)
    FROM (SELECT FROM audit.change WHERE what = 'applied' GROUP BY row_id HAVING count(*) > 1) AS twice
    UNION ALL SELECT 'I5: no row has both flag and stamp', count(*)
    FROM public.visits JOIN run ON "UpdatedDate" = run_ts WHERE "UpdateFlag" = 1
    UNION ALL SELECT 'I6: a flag means an active run', flagged
    FROM target WHERE NOT EXISTS (SELECT FROM sluice.active_target) OR EXISTS (SELECT FROM run WHERE state <> 'running')
    UNION ALL SELECT 'I7: events, chunks and rows say the same', count(*) FROM chunk, change
    WHERE chunk.updated <> change.applied OR chunk.updated <> (
        SELECT coalesce(sum(n), 0) FROM sluice.event WHERE event IN ('done', 'partial'))
    UNION ALL SELECT 'I8: what was marked was applied, cleared, deleted or is flagged', count(*)
    FROM chunk, change, target
    WHERE chunk.marked <> change.marked OR change.marked <> applied_flagged + cleared + deleted + flagged
    UNION ALL SELECT 'I8: the engine applies what it marked', applied - applied_flagged FROM change WHERE %(marks)s
    UNION ALL SELECT 'I9: only the listed transitions', count(*) FROM audit.transition
    WHERE old_generation > new_generation OR NOT (
        (old_state = 'planned' AND new_state IN ('planned', 'marked', 'split', 'skipped', 'quarantined'))
        OR (old_state = 'planned' AND new_state = 'done' AND NOT %(marks)s)
        OR (old_state = 'marked' AND new_state IN ('planned', 'done', 'split', 'skipped', 'quarantined'))
        OR (old_state = 'quarantined' AND new_state IN ('planned', 'split', 'skipped')))
    UNION ALL SELECT 'I10: one done event a chunk and generation', count(*)
    FROM (SELECT FROM sluice.event WHERE event = 'done' GROUP BY chunk_no, generation HAVING count(*) > 1) AS twice
    UNION ALL SELECT 'I12: at most one active run on the target', greatest(count(*) - 1, 0)
    FROM run WHERE state = 'running'
    UNION ALL SELECT 'I13: a key names one run', count(*) - 1 FROM run
    UNION ALL SELECT 'I18: no deadlock among ourselves', count(*) FROM sluice.attempt WHERE code = '40P01'
    UNION ALL SELECT 'I24: two children cover their parent', count(*)
    FROM sluice.chunk AS parent WHERE state = 'split' AND NOT EXISTS (
        SELECT FROM sluice.chunk AS one JOIN sluice.chunk AS two ON two.parent_no = one.parent_no AND one.hi = two.lo
        WHERE one.parent_no = parent.chunk_no AND one.lo IS NOT DISTINCT FROM parent.lo
          AND two.hi IS NOT DISTINCT FROM parent.hi)
    UNION ALL SELECT 'I26: progress is at most 100', count(*) FROM sluice.step_status WHERE progress > 100
) AS asked WHERE n <> 0
"""
