"""What a verb works with: the job, its database, the time that is left."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from sluice.databases.postgres import Limits, Postgres, Transaction
from sluice.deadline import Deadline
from sluice.job import Job
from sluice.ledger import Run

# A condition that statistics cannot know makes the planner prefer scans of the whole table; these hold it to the chunk.
PLANNER_SETTINGS = {"jit": "off", "random_page_cost": "1.1"}


@dataclass(frozen=True)
class Context:
    """One invocation's view of the world.

    database: the connection of this thread to the job's ledger and target. request_id: Lambda's, for the ledger.
    """

    job: Job
    database: Postgres
    deadline: Deadline = field(default_factory=Deadline)
    request_id: str = ""

    def transaction(self, name: str = "sluice", *, durable: bool = True) -> AbstractContextManager[Transaction]:
        """A transaction with the job's limits, cut to the time that is left."""
        spec = self.job.spec
        limits = Limits(
            budget=lambda: self.deadline.budget(spec.statement_timeout_seconds),
            name=name[:63],
            durable=durable,
            settings={**PLANNER_SETTINGS, "work_mem": spec.work_mem},
        )
        return self.database.transaction(limits)


def run_values(run: Run) -> dict[str, object]:
    """The parameters that a run's SQL may read, by name."""
    return {**run.params, "run_ts": run.run_ts, "run_id": run.run_id}
