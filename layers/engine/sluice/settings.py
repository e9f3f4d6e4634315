"""The only reader of the process environment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

SOURCE_TREE_SQL = Path(__file__).resolve().parents[3] / "sql"


@dataclass(frozen=True)
class Settings:
    """What the environment decides.

    sql_root: folder that holds `ledger/` and `packs/`: the SQL layer in Lambda, `sql/` in a source tree.
    bucket: S3 bucket for manifests and reports; empty where a run works without Step Functions.
    state_machine_arn: the state machine that `sluice run` starts.
    event_bus: EventBridge bus for one event per run; empty sends none.
    """

    sql_root: Path
    bucket: str
    state_machine_arn: str
    event_bus: str


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process, read once."""
    return Settings(
        sql_root=Path(os.environ.get("SLUICE_SQL_ROOT") or SOURCE_TREE_SQL),
        bucket=os.environ.get("SLUICE_BUCKET", ""),
        state_machine_arn=os.environ.get("SLUICE_STATE_MACHINE_ARN", ""),
        event_bus=os.environ.get("SLUICE_EVENT_BUS", ""),
    )
