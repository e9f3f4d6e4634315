"""The `sql` step: one file, one transaction, the ledger row in it."""

from __future__ import annotations

from sluice.attempts import Attempt, Outcome
from sluice.chunks import Cut, as_records
from sluice.context import Context, run_values
from sluice.databases.postgres import Transaction
from sluice.errors import StatementError
from sluice.job import SqlStep
from sluice.ledger import Ledger, Run, StepRow, as_json
from sluice.sqltext import statements
from sluice.steps.entry import applied, enter


class SqlKind:
    """Runs the file once: its only chunk is done in the transaction that ran it."""

    def validate(self, context: Context, ledger: Ledger, run: Run, step: StepRow) -> list[str]:
        return []

    def plan(self, context: Context, ledger: Ledger, run: Run, step: StepRow) -> int:
        return plan_units(ledger, step, 1)

    def work(self, context: Context, attempt: Attempt) -> Outcome:
        spec = context.job.step(attempt.step.name)
        assert isinstance(spec, SqlStep)
        with context.transaction(attempt.name) as transaction:
            ledger = Ledger(transaction)
            chunk = enter(ledger, attempt)
            if isinstance(chunk, Outcome):
                return chunk
            rows = run_file(context, transaction, spec, attempt.run)
            applied(ledger, attempt, rows)
        return Outcome("done", rows)

    def split(self, context: Context, ledger: Ledger, run: Run, step: StepRow, chunk_no: int) -> int:
        return 0

    def drift(self, context: Context, ledger: Ledger, run: Run, step: StepRow) -> int:
        return 0


def run_file(context: Context, transaction: Transaction, spec: SqlStep, run: Run) -> int:
    """Run the statements of the step's file one after the other; gives the rows that they touched.

    Raises StatementError with file and line of the statement that failed.
    """
    rows = 0
    for statement, line in statements(context.job.texts[spec.file]):
        try:
            rows += max(transaction.execute(statement, run_values(run)), 0)
        except StatementError as error:
            raise StatementError(f"{spec.file}:{line}: {error}", **error.facts) from None
    return rows


def plan_units(ledger: Ledger, step: StepRow, number: int) -> int:
    """Let the step have that many chunks without bounds; gives the number of new ones."""
    place = {"run_id": step.run_id, "step_no": step.step_no}
    there = ledger.row("last_chunk_no", **place).chunk_no
    if there >= number:
        return 0
    records = as_records([Cut(None, None, 0, 0)] * (number - there), first_no=there + 1)
    ledger.execute("insert_chunks", **place, wave=0, parent_no=None, state="planned", chunks=as_json(records))
    ledger.execute("planned", **place, wave=0, phase="work", rows=0)
    return number - int(there)
