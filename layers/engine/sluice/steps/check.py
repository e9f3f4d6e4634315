"""The `check` step: named queries that must return no rows, each a chunk of its own."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg2 import sql

from sluice.attempts import Attempt, Outcome
from sluice.context import Context, run_values
from sluice.databases.postgres import Transaction
from sluice.job import CheckStep, UpdateStep
from sluice.ledger import Ledger, Run, StepRow, template
from sluice.sqltext import to_driver
from sluice.steps.entry import applied, enter
from sluice.steps.sql import plan_units
from sluice.steps.update_target import update_sql


@dataclass(frozen=True)
class Check:
    """One question: its query returns the rows that offend."""

    name: str
    description: str
    severity: str
    query: sql.Composable
    before: sql.Composable | None = None


class CheckKind:
    """Asks each query once and keeps the answer in the ledger."""

    def validate(self, context: Context, ledger: Ledger, run: Run, step: StepRow) -> list[str]:
        return []

    def plan(self, context: Context, ledger: Ledger, run: Run, step: StepRow) -> int:
        return plan_units(ledger, step, len(self._checks(context, ledger.transaction, run, step)))

    def work(self, context: Context, attempt: Attempt) -> Outcome:
        with context.transaction(attempt.name) as transaction:
            ledger = Ledger(transaction)
            chunk = enter(ledger, attempt)
            if isinstance(chunk, Outcome):
                return chunk
            checks = self._checks(context, transaction, attempt.run, attempt.step)
            if attempt.chunk_no > len(checks):
                applied(ledger, attempt, 0)
                return Outcome("done", reason="the job has no such check any more")
            check = checks[attempt.chunk_no - 1]
            values = {
                **run_values(attempt.run),
                "step_no": attempt.step.step_no,
                "check_name": check.name,
                "check_description": check.description,
                "check_severity": check.severity,
            }
            if check.before is not None:
                transaction.execute(check.before)
            found = transaction.row(template("record_finding", check=check.query), values).row_count
            applied(ledger, attempt, 0)
        return Outcome("done", found)

    def split(self, context: Context, ledger: Ledger, run: Run, step: StepRow, chunk_no: int) -> int:
        return 0

    def drift(self, context: Context, ledger: Ledger, run: Run, step: StepRow) -> int:
        return 0

    @staticmethod
    def _checks(context: Context, transaction: Transaction, run: Run, step: StepRow) -> list[Check]:
        """The step's questions in the file's order; the comparison with an update's definition comes last."""
        spec = context.job.step(step.name)
        assert isinstance(spec, CheckStep)
        checks = [
            Check(
                query.name,
                query.description,
                query.attributes.get("severity", "error"),
                sql.SQL(to_driver(query.sql)),
            )
            for query in (context.job.queries(spec.file).values() if spec.file else ())
        ]
        if spec.definition_of is not None:
            update = context.job.step(spec.definition_of)
            assert isinstance(update, UpdateStep)
            statements = update_sql(context, transaction, update, run)
            checks.append(
                Check(
                    f"{update.name}_agrees",
                    f"no row stamped by this run disagrees with the SELECT of step {update.name}",
                    "error",
                    statements.statement("disagreeing_rows"),
                    before=statements.statement("analyze_stamp"),
                )
            )
        return checks
