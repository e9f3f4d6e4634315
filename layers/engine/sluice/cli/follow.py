"""Watching a run until it ends: drawn anew in a terminal, line by line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from rich.live import Live
from rich.text import Text

from sluice.cli.access import Place
from sluice.cli.output import console, emit, notice, say
from sluice.cli.snapshot import Snapshot, line, panel, take, title
from sluice.errors import SluiceError, TransientError

POLL_SECONDS = 0.5
LINE_SECONDS = 3.0


class Watched(Protocol):
    """What a run is driven by, or waited for."""

    def wait(self, seconds: float) -> bool:
        """Wait at most so long; tells whether it has ended."""


class UntilFinal:
    """Waits for the run's final state in the ledger, whoever drives it."""

    def __init__(self) -> None:
        self.final = False

    def see(self, now: Snapshot) -> None:
        self.final = now.is_final

    def wait(self, seconds: float) -> bool:
        if not self.final:
            time.sleep(seconds)
        return self.final


class Display:
    """Shows snapshots as they come: in place in a terminal, else a line now and then, or JSON lines."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.live: Live | None = None
        self.said = ""
        self.said_at = 0.0

    @property
    def is_drawn(self) -> bool:
        """Whether a terminal keeps the last snapshot in full."""
        return self.live is not None

    def open(self) -> AbstractContextManager[Any]:
        if self.quiet or self.as_json or not sys.stdout.isatty():
            return nullcontext()
        self.live = Live(Text("waiting for the run to be opened"), console=console(), auto_refresh=False)
        return self.live

    def show(self, now: Snapshot) -> None:
        if self.quiet:
            return
        if self.live is not None:
            self.live.update(panel(now), refresh=True)
        elif self.as_json:
            document = now.as_json()
            self.say(str(document), lambda: emit(document))
        else:
            text = line(now)
            moved = f"{now.run.state} {now.run.step} {now.run.reason}"
            if not self.said:
                say(title(now))
            self.say(moved, lambda: say(f"{time.strftime('%H:%M:%S')}  {text}"))

    def say(self, key: str, write: Callable[[], None]) -> None:
        """Write where something other than the count moved, or some seconds have passed."""
        if key != self.said or time.monotonic() - self.said_at >= LINE_SECONDS:
            self.said, self.said_at = key, time.monotonic()
            write()


def follow(place: Place, find: Callable[[], int | None], watched: Watched, display: Display) -> Snapshot | None:
    """Show the run until what is watched has ended; gives its last state, None where no run was ever opened.

    find: gives the run's number, None while it has not been opened. A database that cannot be reached meanwhile is
    waited for; where something drives the run, nothing that keeps it from being looked at ends the waiting.
    """
    passing = TransientError if isinstance(watched, UntilFinal) else SluiceError
    run_id: int | None = None
    now: Snapshot | None = None
    lost = False
    with display.open():
        while True:
            ended = watched.wait(POLL_SECONDS if now is not None or lost else 0.1)
            try:
                run_id = find() if run_id is None else run_id
                if run_id is not None:
                    with place.ledger() as ledger:
                        now = take(ledger, run_id)
                    if isinstance(watched, UntilFinal):
                        watched.see(now)
                    display.show(now)
                lost = False
            except passing as error:
                if not lost:
                    notice(f"sluice: the ledger cannot be read just now: {error}")
                lost = True
            if ended:
                return now
