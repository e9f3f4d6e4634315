"""The Lambda service of the local stack: for each function a few warm workers."""

from __future__ import annotations

import math
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

from infra.local.lambda_function import Function
from infra.local.lambda_invocation import (
    FunctionNotFoundError,
    Invocation,
    InvocationResult,
    TooManyRequestsError,
)
from infra.local.lambda_logs import LogFile, LogPump, WorkerOutput
from infra.local.lambda_worker import Exit, Worker
from infra.local.processes import wait_until

MAX_WORKERS = 10
IDLE_SECONDS = 300.0
# A worker that for so long neither loads its module to the end nor asks for work is stopped or stuck.
STALLED_SECONDS = 60.0
REAP_SECONDS = 5.0


class _Fleet:
    """The workers of one function and the invocations that wait for one."""

    def __init__(self, function: Function, log: LogFile, pump: LogPump, max_workers: int) -> None:
        self.function = function
        self.log = log
        self.workers: list[Worker] = []
        self._pump = pump
        self._max_workers = max_workers
        self._idle: list[Worker] = []
        self._starting = 0
        self._pending: deque[Invocation] = deque()
        self._in_flight = 0
        self._closed = False
        self._lock = threading.Lock()

    def submit(self, payload: bytes, client_context: str | None) -> Invocation:
        invocation = Invocation(self.function, payload, client_context, self._completed)
        with self._lock:
            reserved = self.function.reserved_concurrency
            if self._closed:
                raise FunctionNotFoundError(f"{self.function.name} is gone")
            if reserved is not None and self._in_flight >= reserved:
                raise TooManyRequestsError
            self._in_flight += 1
            if self._idle:
                self._idle.pop().mailbox.put(invocation)
            else:
                self._pending.append(invocation)
                self._start_for_pending()
        return invocation

    def _completed(self) -> None:
        with self._lock:
            self._in_flight -= 1

    def prewarm(self, count: int) -> None:
        """Start workers until there are `count`."""
        with self._lock:
            for _ in range(min(count, self._limit) - len(self.workers)):
                self._start_worker()

    @property
    def ready(self) -> bool:
        with self._lock:
            return self._starting == 0

    @property
    def _limit(self) -> int:
        reserved = self.function.reserved_concurrency
        return self._max_workers if reserved is None else min(self._max_workers, max(reserved, 1))

    def reap(self, idle_seconds: float) -> None:
        """End workers that had nothing to do for that long, and those that do not come back for work."""
        now = time.monotonic()
        with self._lock:
            old = [worker for worker in self._idle if worker.free_since < now - idle_seconds]
            self._idle = [worker for worker in self._idle if worker not in old]
            away = [worker for worker in self.workers if worker.current is None and worker not in self._idle]
            old += [worker for worker in away if worker.free_since < now - STALLED_SECONDS]
        for worker in old:
            worker.kill()

    def kill(self) -> None:
        """End every worker and fail what waits."""
        with self._lock:
            self._closed = True
            pending, self._pending = self._pending, deque()
            workers = list(self.workers)
        for worker in workers:
            worker.kill()
        for invocation in pending:
            if invocation.claim():
                invocation.complete(*invocation.error("Runtime.ExitError", "The local stack was stopped"))

    def _start_for_pending(self) -> None:
        if self._starting < len(self._pending) and len(self.workers) < self._limit and not self._closed:
            self._start_worker()

    def _start_worker(self) -> None:
        output = WorkerOutput(self.log)
        worker = Worker(
            self.function,
            output,
            take=self._take,
            give_back=self._give_back,
            init_failed=self._init_failed,
            ended=self._ended,
        )
        self.workers.append(worker)
        self._starting += 1
        self._pump.add(output)

    def _take(self, worker: Worker) -> Invocation | None:
        """The oldest invocation that waits; None puts the worker among the idle ones."""
        with self._lock:
            self._settle(worker)
            if self._pending:
                return self._pending.popleft()
            if not self._closed and worker in self.workers:
                self._idle.append(worker)
            return None

    def _give_back(self, invocation: Invocation) -> None:
        """A worker died between being chosen and taking the invocation: another one works on it."""
        with self._lock:
            self._pending.appendleft(invocation)
            self._start_for_pending()

    def _init_failed(self, worker: Worker, payload: bytes) -> None:
        """The module does not load: the invocation that this worker was started for fails with the same error."""
        with self._lock:
            self._settle(worker)
            invocation = self._pending.popleft() if self._pending else None
        if invocation:
            worker.output.start(f"START RequestId: {invocation.request_id} Version: $LATEST")
            invocation.begin(worker)
            worker.current = invocation
            worker.report(invocation, (payload, "Unhandled"), status="error")

    def _ended(self, worker: Worker, ending: Exit) -> None:
        with self._lock:
            died_in_init = self._settle(worker)
            self.workers.remove(worker)
            self._idle = [other for other in self._idle if other is not worker]
            lost = worker.current
            worker.current = None
            if lost is None and died_in_init and self._pending:
                lost = self._pending.popleft()
            self._start_for_pending()
        if lost is not None:
            worker.output.finish([f"RequestId: {lost.request_id} Error: {ending.reason}", "Runtime.ExitError"])
            lost.began = lost.began or time.monotonic()
            worker.report(lost, lost.error("Runtime.ExitError", ending.reason), status="error")
        self._pump.remove(worker.output)

    def _settle(self, worker: Worker) -> bool:
        """The worker's init phase is over; True when it was not over before."""
        if worker.initialising:
            worker.initialising = False
            self._starting -= 1
            return True
        return False


class LambdaPool:
    """All functions. Safe to call from any thread.

    `max_workers` bounds the processes of one function; more concurrent invocations wait in a queue. A function with
    reserved concurrency refuses more invocations than that, as AWS does.
    """

    def __init__(
        self,
        log_folder: Path,
        *,
        max_workers: int = MAX_WORKERS,
        idle_seconds: float = IDLE_SECONDS,
        observer: Callable[[Function, list[str]], None] | None = None,
    ) -> None:
        self._log_folder = log_folder
        self._max_workers = max_workers
        self._idle_seconds = idle_seconds
        self._observer = observer
        self._pump = LogPump()
        self._fleets: dict[str, _Fleet] = {}
        self._closing = threading.Event()
        threading.Thread(target=self._reap, name="lambda reaper", daemon=True).start()

    def add(self, function: Function) -> None:
        """Deploy a function, in place of one of the same name."""
        previous = self._fleets.get(function.name)
        log = LogFile(self.log_path(function.name), self._watcher(function))
        self._fleets[function.name] = _Fleet(function, log, self._pump, self._max_workers)
        if previous:
            previous.kill()

    def functions(self) -> list[Function]:
        return [fleet.function for fleet in self._fleets.values()]

    def function(self, name: str) -> Function:
        """By name, ARN or partial ARN, with or without a qualifier. Raises FunctionNotFoundError."""
        return self._fleet(name).function

    def invoke(
        self, name: str, payload: bytes, *, patience: float = math.inf, client_context: str | None = None
    ) -> InvocationResult:
        """Invoke a function and wait for its outcome.

        Raises FunctionNotFoundError and TooManyRequestsError, and TimeoutError after `patience` seconds (the
        function itself runs on); what goes wrong in the function is in the result.
        """
        return self._fleet(name).submit(payload, client_context).wait(patience)

    def prewarm(self, name: str, count: int = 1) -> None:
        """Start workers ahead of the first invocation; returns at once."""
        self._fleet(name).prewarm(count)

    def wait_warm(self, seconds: float = 60.0) -> bool:
        """Wait until no worker is in its init phase."""
        return wait_until(lambda: all(fleet.ready for fleet in self._fleets.values()), seconds)

    def worker_pids(self, names: Iterable[str] | None = None) -> list[int]:
        """Process ids of the live workers, of some functions or of all."""
        fleets = [self._fleet(name) for name in names] if names is not None else list(self._fleets.values())
        return [worker.pid for fleet in fleets for worker in list(fleet.workers)]

    def log_path(self, name: str) -> Path:
        return self._log_folder / f"{name}.log"

    def close(self) -> None:
        """Kill all workers and wait until they are gone."""
        if self._closing.is_set():
            return
        self._closing.set()
        for fleet in self._fleets.values():
            fleet.kill()
        wait_until(lambda: not self.worker_pids(), 10)
        self._pump.close()
        for fleet in self._fleets.values():
            fleet.log.close()

    def _fleet(self, name: str) -> _Fleet:
        found = re.fullmatch(r"(?:.*:function:|\d+:)?([\w-]+)(?::(?:\$LATEST|[\w-]+))?", name)
        fleet = self._fleets.get(found[1]) if found else None
        if fleet is None:
            raise FunctionNotFoundError(f"Function not found: {name}")
        return fleet

    def _watcher(self, function: Function) -> Callable[[list[str]], None] | None:
        observer = self._observer
        return (lambda lines: observer(function, lines)) if observer else None

    def _reap(self) -> None:
        while not self._closing.wait(min(self._idle_seconds / 4, STALLED_SECONDS / 4, REAP_SECONDS)):
            for fleet in list(self._fleets.values()):
                fleet.reap(self._idle_seconds)
