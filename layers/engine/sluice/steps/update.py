"""The `update` step: claim the chunk's rows, apply the pack's SELECT to them, look whether any is left.

Every row is protected by its own stamp, every chunk by its ledger row, which is locked first and written in the same
transaction as the data. The flag shows what is claimed; nothing rests on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from sluice.attempts import Attempt, Outcome
from sluice.chunks import Cut, Cutter, as_records
from sluice.context import Context, run_values
from sluice.databases.postgres import Transaction
from sluice.errors import BadInputError, NotConvergingError, RowCountError
from sluice.job import UpdateStep
from sluice.ledger import ChunkRow, Ledger, Run, StepRow, as_json
from sluice.steps.entry import applied, enter
from sluice.steps.update_sql import Bounds, UpdateSql
from sluice.steps.update_target import rehearse, update_sql, warnings

INSERT_BATCH = 5_000


class UpdateKind:
    """The UpdateFlag protocol over one target."""

    def validate(self, context: Context, ledger: Ledger, run: Run, step: StepRow) -> list[str]:
        spec = update_step(context, step)
        statements = update_sql(context, ledger.transaction, spec, run)
        rehearse(context, ledger.transaction, statements, run)
        return warnings(ledger, statements)

    def plan(self, context: Context, ledger: Ledger, run: Run, step: StepRow) -> int:
        spec = update_step(context, step)
        if not sweeps(spec, step):
            return 0
        statements = update_sql(context, ledger.transaction, spec, run)
        place = {"run_id": step.run_id, "step_no": step.step_no}
        number = ledger.row("last_chunk_no", **place).chunk_no
        wave, count, rows = step.wave + 1, 0, 0
        cuts = self._cuts(ledger.transaction, statements, run, skipped_bounds(ledger, step))
        while batch := list(islice(cuts, INSERT_BATCH)):
            records = as_json(as_records(batch, first_no=number + count + 1))
            ledger.execute("insert_chunks", **place, wave=wave, parent_no=None, state="planned", chunks=records)
            count, rows = count + len(batch), rows + sum(cut.rows for cut in batch)
        phase = "mark" if spec.mark == "run" and count else "work"
        ledger.execute("planned", **place, wave=wave, phase=phase, rows=rows)
        return count

    def work(self, context: Context, attempt: Attempt) -> Outcome:
        spec = update_step(context, attempt.step)
        with context.transaction(attempt.name) as transaction:
            statements = update_sql(context, transaction, spec, attempt.run)
        for _ in range(2 * spec.max_rounds):
            with context.transaction(attempt.name) as transaction:
                outcome = self._advance(Ledger(transaction), attempt, statements)
            if outcome is not None:
                return outcome
        raise NotConvergingError(rounds=spec.max_rounds)

    def split(self, context: Context, ledger: Ledger, run: Run, step: StepRow, chunk_no: int) -> int:
        spec = update_step(context, step)
        statements = update_sql(context, ledger.transaction, spec, run)
        chunk = ledger.lock_chunk(step.run_id, step.step_no, chunk_no)
        if chunk.is_null or spec.chunk.whole:
            return 0
        values = {**run_values(run), **bounds_of(chunk).values()}
        median = ledger.transaction.row(statements.statement("median_group", bounds_of(chunk)), values)
        if median is None:
            return 0
        *middle, below, total = median
        halves = [Cut(chunk.lo, middle, 0, int(below)), Cut(middle, chunk.hi, 0, int(total - below))]
        place = {"run_id": step.run_id, "step_no": step.step_no}
        # Numbers are given by one at a time: a planner holds the step, another operator may split another chunk.
        ledger.row("lock_step", **place)
        number = ledger.row("last_chunk_no", **place).chunk_no
        records = as_json(as_records(halves, first_no=number + 1))
        ledger.execute("insert_chunks", **place, wave=chunk.wave, parent_no=chunk_no, state="planned", chunks=records)
        reason = f"into {number + 1} and {number + 2}"
        ledger.execute("set_chunk_state", **place, chunk_no=chunk_no, state="split", reason=reason)
        return len(halves)

    def drift(self, context: Context, ledger: Ledger, run: Run, step: StepRow) -> int:
        spec = update_step(context, step)
        if sweeps(spec, step) and not skipped_bounds(ledger, step):
            return 0
        statements = update_sql(context, ledger.transaction, spec, run)
        return int(ledger.transaction.row(statements.statement("count_todo"), run_values(run)).n)

    @staticmethod
    def _cuts(transaction: Transaction, statements: UpdateSql, run: Run, skipped: Sequence[Bounds]) -> Iterator[Cut]:
        """The chunks of one pass over the rows that are still to do, but for those an operator skipped."""
        spec = statements.spec
        if spec.chunk.whole:
            todo = transaction.row(statements.statement("count_todo"), run_values(run)).n
            yield from [Cut(None, None, 0, todo)] if todo else []
            return
        nullable = any(not statements.columns[name].not_null for name in spec.key)
        values = {**run_values(run), **{name: text for skip in skipped for name, text in skip.values().items()}}
        groups = transaction.stream(statements.statement("histogram", skipped=skipped), values)
        width = len(spec.key)
        yield from Cutter(spec.chunk, nullable=nullable).cut(
            (group[:width], group[width], group[width + 1]) for group in groups
        )

    def _advance(self, ledger: Ledger, attempt: Attempt, statements: UpdateSql) -> Outcome | None:
        """One transaction: mark a planned chunk or apply a marked one; None while there is more to do."""
        chunk = enter(ledger, attempt)
        if isinstance(chunk, Outcome):
            return chunk
        spec = statements.spec
        values = {**run_values(attempt.run), **bounds_of(chunk).values()}
        if spec.chunk.whole:
            return self._apply_whole(ledger, attempt, statements)
        if spec.mark == "fused":
            return self._apply(ledger, attempt, statements, chunk, values)
        if chunk.state == "marked":
            if chunk.phase == "mark":
                return Outcome("marked", chunk.rows_updated)
            return self._apply(ledger, attempt, statements, chunk, values)
        marked = ledger.transaction.execute(statements.statement("mark", bounds_of(chunk)), values)
        ledger.execute("chunk_marked", **attempt.chunk, attempt_id=attempt.attempt_id, n=marked)
        return Outcome("marked", chunk.rows_updated) if chunk.phase == "mark" else None

    @staticmethod
    def _apply(
        ledger: Ledger, attempt: Attempt, statements: UpdateSql, chunk: ChunkRow, values: dict[str, object]
    ) -> Outcome | None:
        """Lock the rows, apply the SELECT by their addresses, count what is left."""
        bounds, transaction = bounds_of(chunk), ledger.transaction
        claimed_only = statements.spec.mark != "fused"
        locked = transaction.row(statements.statement("lock_rows", bounds, claimed_only=claimed_only), values)
        if locked.n:
            apply_to(transaction, statements, locked.addresses, locked.n, values)
        left = transaction.row(statements.statement("count_todo", bounds), values).n
        applied(ledger, attempt, locked.n, left)
        return None if left else Outcome("done", chunk.rows_updated + locked.n)

    @staticmethod
    def _apply_whole(ledger: Ledger, attempt: Attempt, statements: UpdateSql) -> Outcome:
        """Everything in one statement."""
        rows = ledger.transaction.execute(statements.statement("apply_whole"), run_values(attempt.run))
        applied(ledger, attempt, rows)
        return Outcome("done", rows)


def update_step(context: Context, step: StepRow) -> UpdateStep:
    """The job file's update step of that row."""
    spec = context.job.step(step.name)
    if not isinstance(spec, UpdateStep):
        raise BadInputError(f"step '{step.name}' is no update step any more", file=context.job.path)
    return spec


def sweeps(spec: UpdateStep, step: StepRow) -> bool:
    """Whether another wave may be planned: the first one always, later ones for rows that came late."""
    return step.wave < 0 or (spec.late_rows == "sweep" and step.wave < spec.max_rounds)


def skipped_bounds(ledger: Ledger, step: StepRow) -> list[Bounds]:
    """The parts of the key space that an operator decided to leave undone."""
    rows = ledger.rows("skipped_chunks", run_id=step.run_id, step_no=step.step_no)
    return [Bounds(row.lo, row.hi, row.is_null, name=f"skip{index}") for index, row in enumerate(rows)]


def bounds_of(chunk: ChunkRow) -> Bounds:
    """The part of the key space that the chunk covers."""
    return Bounds(chunk.lo, chunk.hi, chunk.is_null)


def apply_to(
    transaction: Transaction, statements: UpdateSql, addresses: str, locked: int, values: dict[str, object]
) -> None:
    """Apply the SELECT to the locked rows; raises RowCountError unless it gave each of them exactly once."""
    counts = transaction.row(statements.statement("apply"), {**values, "addresses": addresses})
    if not locked == counts.given == counts.updated:
        raise RowCountError(
            f"the SELECT gave {counts.given} rows and {counts.updated} of the chunk's {locked} were updated: it must "
            "return each row of chunk exactly once",
            given=counts.given,
            updated=counts.updated,
            locked=locked,
        )
    if counts.settled != locked:
        raise RowCountError(
            f"{locked - counts.settled} of {locked} rows lost the run's stamp or kept the flag: a trigger on "
            f"{statements.spec.target} overwrites them; use a stamp column that nothing else writes",
            locked=locked,
            settled=counts.settled,
        )
