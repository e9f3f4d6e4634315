"""One attempt at a chunk: written down before it starts, ended with what became of it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isinf

from sluice.context import Context
from sluice.errors import (
    BadInputError,
    ChunkBusyError,
    DeadlineNearError,
    SluiceError,
    StaleGenerationError,
    StatementTimeoutError,
    TerminalError,
    TransientError,
)
from sluice.ledger import Ledger, Run, StepRow

LOST = "the worker was gone before it could say how it ended"
LONGEST_LEASE_SECONDS = 900.0


@dataclass(frozen=True)
class Attempt:
    """Who works which chunk of which step."""

    run: Run
    step: StepRow
    chunk_no: int
    attempt_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def name(self) -> str:
        """The session's application_name while the attempt works."""
        return f"sluice:{self.run.run_id}:{self.step.step_no}:{self.chunk_no}:{self.attempt_id[:8]}"

    @property
    def chunk(self) -> dict[str, int]:
        """The chunk as the ledger's statements name it."""
        return {"run_id": self.run.run_id, "step_no": self.step.step_no, "chunk_no": self.chunk_no}


@dataclass(frozen=True)
class Outcome:
    """What became of an attempt: the chunk's state or why it was left alone, and the chunk's rows so far."""

    state: str
    rows: int = 0
    reason: str = ""


@contextmanager
def attempted(context: Context, attempt: Attempt) -> Iterator[None]:
    """Write the attempt down, run the block, and note on the ledger how it failed if it did.

    The record of a success belongs to the transaction that did the work.
    """
    start(context, attempt)
    try:
        yield
    except SluiceError as error:
        end(context, attempt, outcome_of(error), error)
        raise
    except Exception as error:
        end(context, attempt, "failed", SluiceError(type(error).__name__))
        raise


def start(context: Context, attempt: Attempt) -> None:
    """Register the attempt; see after earlier ones of the same chunk that have not ended."""
    lease = context.deadline.seconds_left()
    lease = LONGEST_LEASE_SECONDS if isinf(lease) else lease
    with context.transaction(attempt.name, durable=False) as transaction:
        ledger = Ledger(transaction)
        started = ledger.row(
            "start_attempt",
            **attempt.chunk,
            attempt_id=attempt.attempt_id,
            request_id=context.request_id,
            lease_seconds=lease,
        )
        if started.open_before:
            ledger.execute("stop_overdue_attempts", **attempt.chunk)
            ledger.execute("lose_attempts", **attempt.chunk, error=LOST)


def end(context: Context, attempt: Attempt, outcome: str, error: SluiceError | None = None) -> None:
    """Note how the attempt ended, in a transaction of its own.

    Where the ledger cannot be reached the attempt stays open; the next one finds its session gone and counts it lost.
    """
    try:
        with context.transaction(attempt.name, durable=False) as transaction:
            Ledger(transaction).execute(
                "end_attempt",
                attempt_id=attempt.attempt_id,
                outcome=outcome,
                code=error.code if error else None,
                error=str(error) if error else None,
            )
    except (TransientError, DeadlineNearError) as unreachable:
        if error is None:
            raise
        error.add_note(f"the ledger could not be told: {unreachable}")


def outcome_of(error: SluiceError) -> str:
    """How the ledger counts an error.

    A chunk that another attempt holds, a near deadline and a reset say nothing against the chunk; a row that an
    application holds for ever must not keep the run for ever; what the database or the job's SQL refused would be
    refused again.
    """
    match error:
        case ChunkBusyError() if error.facts.get("held") == "chunk":
            return "stopped"
        case DeadlineNearError() | StaleGenerationError():
            return "stopped"
        case TransientError():
            return "transient"
        case StatementTimeoutError():
            return "timeout"
        case TerminalError() | BadInputError():
            return "fatal"
        case _:
            return "failed"
