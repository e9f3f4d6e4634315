"""How much time is left: Lambda's own answer, or no limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf

MARGIN_SECONDS = 20.0
"""Kept free for rolling back, writing the outcome down and answering."""


class Deadline:
    """The end of the time that this attempt has.

    remaining: gives the seconds left; without it there is no end.
    """

    def __init__(self, remaining: Callable[[], float] | None = None) -> None:
        self._remaining = remaining or (lambda: inf)

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The deadline that lies so many seconds ahead."""
        end = time.monotonic() + seconds
        return cls(lambda: end - time.monotonic())

    def seconds_left(self) -> float:
        """Seconds until the end; infinite without one."""
        return self._remaining()

    def budget(self, limit: float, margin: float = MARGIN_SECONDS) -> float:
        """Seconds that one statement may take: at most `limit`, less where the end is nearer.

        Negative or zero where nothing is left after the margin. A short deadline keeps half of its time.
        """
        left = self.seconds_left()
        return min(limit, left - min(margin, left / 2) if left > 0 else 0.0)
