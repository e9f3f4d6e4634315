"""Plans the next round of a run and writes its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sluice.context import Context
from sluice.handler import entry_point, short
from sluice.manifest import write_manifest
from sluice.run import plan_round
from sluice.settings import settings


@dataclass(frozen=True)
class Event:
    """job: `pack/job`. run_id: as validate_config gave it."""

    job: str
    run_id: int


@entry_point(Event)
def lambda_handler(event: Event, context: Context) -> Mapping[str, object]:
    planned = plan_round(context, event.run_id)
    key = write_manifest(settings().bucket, event.run_id, planned) if planned.action == "work" else ""
    return {
        "action": planned.action,
        "step": planned.step,
        "kind": planned.kind,
        "round": planned.number,
        "count": len(planned.chunks),
        "bucket": settings().bucket,
        "key": key,
        "concurrency": context.job.spec.max_concurrency,
        "wait_seconds": planned.wait_seconds,
        "reason": short(planned.reason),
    }
