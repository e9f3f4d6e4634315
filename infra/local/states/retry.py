"""Error matching of Retry and Catch, and the length of retry intervals."""

from __future__ import annotations

import random
from collections.abc import Sequence

from .definition import Catcher, Retrier
from .errors import ALL, RUNTIME, TASK_FAILED, TERMINAL, TIMEOUT


def matches(patterns: Sequence[str], error: str | None) -> bool:
    """Whether an error name is one of `patterns`, or falls under a wildcard among them.

    States.TaskFailed takes everything but States.Timeout. No wildcard takes States.DataLimitExceeded, and nothing
    at all takes States.Runtime.
    """
    if error is None:
        return ALL in patterns
    if error == RUNTIME:
        return False
    if error in patterns:
        return True
    if error in TERMINAL:
        return False
    return ALL in patterns or (TASK_FAILED in patterns and error != TIMEOUT)


def catcher_for(catchers: Sequence[Catcher], error: str | None) -> Catcher | None:
    """The first catcher that takes the error."""
    return next((catcher for catcher in catchers if matches(catcher.errors, error)), None)


class Attempts:
    """The retries one visit of a state has used up, counted by retrier."""

    def __init__(self, retriers: Sequence[Retrier], chance: random.Random | None = None) -> None:
        self._retriers = retriers
        self._used = [0] * len(retriers)
        self._chance = chance or random

    @property
    def count(self) -> int:
        """Retries so far, as `$states.context.State.RetryCount` shows them."""
        return sum(self._used)

    def next_delay(self, error: str | None) -> float | None:
        """Seconds to wait before the next attempt, or None when the error is not to be retried (any more)."""
        for index, retrier in enumerate(self._retriers):
            if not matches(retrier.errors, error):
                continue
            if self._used[index] >= retrier.max_attempts:
                return None
            delay = _interval(retrier, self._used[index])
            self._used[index] += 1
            return self._chance.uniform(0, delay) if retrier.full_jitter else delay
        return None


def _interval(retrier: Retrier, used: int) -> float:
    ceiling = float(retrier.max_delay or 99_999_999)
    try:
        return min(retrier.interval * retrier.backoff**used, ceiling)
    except OverflowError:
        return ceiling
