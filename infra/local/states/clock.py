"""Time as executions see it: waits that a factor shortens and a stop interrupts, and deadlines."""

from __future__ import annotations

import math
import threading
import time

from .errors import DeadlinePassed, Stopped

# Condition variables overflow above this; nothing local waits for longer than a month.
LONGEST_WAIT = 30 * 86400.0


class Clock:
    """Wall clock with shortened waits.

    `speed` divides Wait states and Retry intervals only (math.inf: no wait at all). Timeouts are measured
    against the time the work really took plus the unshortened length of the waits, so a Wait of an hour still
    exceeds a TimeoutSeconds of a minute, and a Lambda function never has less time than its state grants. (What a
    Map's iterations or children leave out of their waits does not count for the execution around them.)
    """

    def __init__(self, speed: float = 1.0) -> None:
        if not speed > 0:
            raise ValueError(f"The speed of the clock must be above zero, not {speed}.")
        self.speed = speed

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that only measure differences."""
        return time.monotonic()

    def pause(self, wake: threading.Event, seconds: float) -> bool:
        """Wait for a Wait state or Retry interval; True when `wake` was set instead."""
        real = 0.0 if math.isinf(self.speed) else seconds / self.speed
        return wake.wait(min(real, LONGEST_WAIT))


class Scope:
    """One cancellable unit of work: an execution, or an iteration of an INLINE Map inside it.

    Cancelling a scope cancels everything below it. Waits end at once with Stopped, or with DeadlinePassed when
    the execution's own timeout comes first. An execution brings its own deadline, or none (math.inf); without one
    given a scope has its parent's.
    """

    def __init__(self, clock: Clock, parent: Scope | None = None, timeout: float | None = None) -> None:
        self.clock = clock
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._inner: set[Scope] = set()
        self._watchers: set[threading.Event] = set()
        self._cancelled = False
        self._skipped: float = parent._skipped if parent else 0.0
        self._deadline: float = parent._deadline if parent else math.inf
        if timeout is not None:
            self._deadline = self.elapsed() + timeout
        self._parent = parent
        if parent:
            parent._adopt(self)

    def _adopt(self, child: Scope) -> None:
        with self._lock:
            self._inner.add(child)
            cancelled = self._cancelled
        if cancelled:
            child.cancel()

    def close(self) -> None:
        """Forget the scope in its parent once its work is over."""
        if self._parent:
            with self._parent._lock:
                self._parent._inner.discard(self)

    def cancel(self) -> None:
        """Stop the work of this scope and of every scope below it."""
        with self._lock:
            self._cancelled = True
            inner, watchers = list(self._inner), list(self._watchers)
        self._wake.set()
        for watcher in watchers:
            watcher.set()
        for scope in inner:
            scope.cancel()

    @property
    def cancelled(self) -> bool:
        """Whether the work was told to stop."""
        return self._cancelled

    def elapsed(self) -> float:
        """The scope's own time in seconds: real time plus what shortened waits left out."""
        return self.clock.monotonic() + self._skipped

    def check(self) -> None:
        """Raise Stopped or DeadlinePassed when the work must not go on."""
        if self._cancelled:
            raise Stopped
        if self.elapsed() >= self._deadline:
            raise DeadlinePassed

    def remaining(self) -> float:
        """Seconds until the execution's deadline; infinite without one."""
        return self._deadline - self.elapsed()

    def sleep(self, seconds: float) -> None:
        """A Wait state or Retry interval of `seconds`."""
        self.check()
        length = max(0.0, min(seconds, self.remaining()))
        began = self.clock.monotonic()
        self.clock.pause(self._wake, length)
        self._skipped += max(0.0, length - (self.clock.monotonic() - began))
        self.check()
        if length < seconds:
            raise DeadlinePassed

    def wait_for(self, event: threading.Event, seconds: float = math.inf) -> bool:
        """Wait until `event` is set; False when `seconds` passed first. Raises like `check`.

        The event is also set by cancellation, so it must belong to this wait alone.
        """
        with self._lock:
            self._watchers.add(event)
            if self._cancelled:
                event.set()
        try:
            limit = min(seconds, self.remaining(), LONGEST_WAIT)
            arrived = event.wait(max(0.0, limit))
        finally:
            with self._lock:
                self._watchers.discard(event)
        self.check()
        if not arrived and limit < seconds:
            raise DeadlinePassed
        return arrived
