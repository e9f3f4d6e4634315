"""Gives a run its final state, writes its report, and tells about it once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sluice.context import Context
from sluice.finish import finish_run, problem_of
from sluice.handler import entry_point, short
from sluice.publish import publish


@dataclass(frozen=True)
class Event:
    """job: `pack/job`. run_id: which run. error: what the state machine caught, if anything."""

    job: str
    run_id: int
    error: Mapping[str, Any] | None = None


@entry_point(Event)
def lambda_handler(event: Event, context: Context) -> Mapping[str, object]:
    run = finish_run(context, event.run_id, problem_of(event.error))
    report = run.report or publish(context, run)
    return {
        "run_id": run.run_id,
        "state": run.state,
        "error": run.error_code or "",
        "cause": short(run.error or ""),
        "report": report,
    }
