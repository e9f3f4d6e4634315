"""Works one chunk of a sql, update or check step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sluice.context import Context
from sluice.handler import entry_point, short
from sluice.run import work_chunk


@dataclass(frozen=True)
class Event:
    """job: `pack/job`. run_id, step, chunk: which chunk of which step."""

    job: str
    run_id: int
    step: str
    chunk: int


@entry_point(Event)
def lambda_handler(event: Event, context: Context) -> Mapping[str, object]:
    outcome = work_chunk(context, event.run_id, event.step, event.chunk)
    return {"chunk": event.chunk, "state": outcome.state, "rows": outcome.rows, "reason": short(outcome.reason)}
