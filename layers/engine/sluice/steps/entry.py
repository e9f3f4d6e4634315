"""How every transaction on a chunk starts: lock, look, and leave where there is nothing to do."""

from __future__ import annotations

from sluice.attempts import Attempt, Outcome
from sluice.errors import StaleGenerationError
from sluice.ledger import ChunkRow, Ledger

STOPPED = {
    "pause": "an operator paused the run",
    "cancel": "an operator cancelled the run",
    "finish": "the run is being ended",
}
SETTLED = ("done", "split", "quarantined", "skipped")


def enter(ledger: Ledger, attempt: Attempt) -> ChunkRow | Outcome:
    """Lock the run (shared) and the chunk; the chunk where it wants work, else what to answer.

    Raises StaleGenerationError where the run was reset since the attempt began.
    """
    chunk = ledger.lock_chunk(**attempt.chunk)
    if chunk.generation != attempt.run.generation:
        raise StaleGenerationError(
            generation=attempt.run.generation, current=chunk.generation, chunk_no=attempt.chunk_no
        )
    if chunk.state in SETTLED:
        ledger.execute("end_attempt", attempt_id=attempt.attempt_id, outcome="settled", code=None, error=None)
        return Outcome(chunk.state, chunk.rows_updated)
    if chunk.run_state != "running":
        return Outcome("stopped", chunk.rows_updated, f"the run is {chunk.run_state}")
    if chunk.desired != "run":
        return Outcome("stopped", chunk.rows_updated, STOPPED[chunk.desired])
    return chunk


def applied(ledger: Ledger, attempt: Attempt, rows: int, rows_left: int = 0) -> None:
    """Write down that rows were applied; with none left the chunk and the attempt are done."""
    ledger.execute("chunk_applied", **attempt.chunk, attempt_id=attempt.attempt_id, n=rows, rows_left=rows_left)
