"""Health checks that hold chunks back while the database has other worries."""

from __future__ import annotations

from sluice.context import Context, run_values
from sluice.ledger import Ledger, Run

BUILT_IN = {"lock_wait": "longest_lock_wait", "replica_lag": "longest_replica_lag"}


def reason_to_wait(context: Context, ledger: Ledger, run: Run) -> str | None:
    """Why no chunk should start now, None where nothing speaks against it.

    A check of the job holds back with the first column of the first row that its SQL returns; the text must hold no
    key value, for it is shown in status and report.
    """
    for check in context.job.spec.throttle:
        if check.file is not None:
            row = ledger.transaction.row(context.job.sql(check.file), run_values(run))
            if row is not None:
                return f"{check.name}: {row[0]}"
        elif check.max_seconds is not None:
            seconds = ledger.row(BUILT_IN[check.name]).seconds
            if seconds > check.max_seconds:
                return f"{check.name}: {seconds:.0f} s, the limit is {check.max_seconds:g} s"
    return None
