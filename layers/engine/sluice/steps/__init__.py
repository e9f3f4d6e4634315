"""One module a kind of step: plan cuts it, work does one chunk, finish says what is left."""

from __future__ import annotations

from typing import Protocol

from sluice.attempts import Attempt, Outcome
from sluice.context import Context
from sluice.ledger import Ledger, Run, StepRow


class Kind(Protocol):
    """What the run asks of a kind of step."""

    def validate(self, context: Context, ledger: Ledger, run: Run, step: StepRow) -> list[str]:
        """Refuse what cannot work, before anything is changed; gives warnings. Raises BadInputError."""

    def plan(self, context: Context, ledger: Ledger, run: Run, step: StepRow) -> int:
        """Add the chunks of the next wave in this transaction; gives their number, 0 where nothing is left to do."""

    def work(self, context: Context, attempt: Attempt) -> Outcome:
        """Do one chunk, in transactions that write the ledger with the data."""

    def split(self, context: Context, ledger: Ledger, run: Run, step: StepRow, chunk_no: int) -> int:
        """Cut a chunk in two in this transaction; gives the number of children, 0 where it cannot be cut."""

    def drift(self, context: Context, ledger: Ledger, run: Run, step: StepRow) -> int:
        """Rows that the finished step left undone on purpose."""


def kind_of(step: StepRow) -> Kind:
    """The module that does this kind of step."""
    from sluice.steps.check import CheckKind
    from sluice.steps.sql import SqlKind
    from sluice.steps.update import UpdateKind

    kinds: dict[str, type[Kind]] = {"sql": SqlKind, "update": UpdateKind, "check": CheckKind}
    return kinds[step.kind]()
