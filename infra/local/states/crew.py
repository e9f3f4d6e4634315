"""Threads that work off numbered jobs, with a limit that may change while they run."""

from __future__ import annotations

import threading
from collections.abc import Callable

from .clock import Scope


class Crew:
    """Runs `work(0)` … `work(jobs - 1)` on at most `limit` threads (0: as many as `max_threads`)."""

    def __init__(self, jobs: int, work: Callable[[int], None], limit: int, max_threads: int, name: str) -> None:
        self._jobs = jobs
        self._work = work
        self._max_threads = max_threads
        self._name = name
        self._lock = threading.Lock()
        self._finished = threading.Event()
        self._next = 0
        self._threads = 0
        self._stopped = False
        self._broken: Exception | None = None
        self._wanted = self._cap(limit)

    def _cap(self, limit: int) -> int:
        return min(limit or self._max_threads, self._max_threads)

    def run(self, scope: Scope) -> None:
        """Work off all jobs, or until `stop`.

        Raises Stopped or DeadlinePassed of the scope, and what a job itself raised, which ends the work.
        """
        if not self._jobs:
            return
        self.resize(self._wanted)
        try:
            scope.wait_for(self._finished)
        finally:
            self.stop()
        if self._broken:
            raise self._broken

    def resize(self, limit: int) -> None:
        """Change the number of jobs that run at once; running jobs finish."""
        with self._lock:
            self._wanted = self._cap(limit)
            missing = 0 if self._stopped else min(self._wanted - self._threads, self._jobs - self._next)
            self._threads += max(0, missing)
        for _ in range(missing):
            threading.Thread(target=self._loop, name=self._name, daemon=True).start()

    def stop(self) -> None:
        """Start no further job, and let `run` return without waiting for the running ones."""
        with self._lock:
            self._stopped = True
        self._finished.set()

    def _loop(self) -> None:
        while True:
            with self._lock:
                index = self._next
                if self._stopped or index >= self._jobs or self._threads > self._wanted:
                    self._threads -= 1
                    if not self._threads and self._next >= self._jobs:
                        self._finished.set()
                    return
                self._next += 1
            try:
                self._work(index)
            except Exception as error:
                self._broken = error
                self.stop()
