"""Checks the job against its database and opens the run, or attaches to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sluice.context import Context
from sluice.handler import entry_point
from sluice.observability import logger
from sluice.run import open_run


@dataclass(frozen=True)
class Event:
    """job: `pack/job`. run_key: names the run. params: values for the job's parameters."""

    job: str
    run_key: str
    params: Mapping[str, Any] = field(default_factory=dict)


@entry_point(Event)
def lambda_handler(event: Event, context: Context) -> Mapping[str, object]:
    opened = open_run(context, event.run_key, event.params)
    for warning in opened.warnings:
        logger.warning(warning)
    return {
        "job": context.job.name,
        "run_id": opened.run.run_id,
        "state": opened.run.state,
        "attached": opened.attached,
    }
