"""A run in this process: the verbs of the Lambda handlers in threads, without Step Functions and S3."""

from __future__ import annotations

import random
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sluice.cli.access import Access
from sluice.context import Context
from sluice.databases.postgres import ConnectionFacts, Limits, Postgres, Transaction
from sluice.errors import ChunkBusyError, DeadlineNearError, SluiceError, TerminalError, TransientError
from sluice.finish import Problem, finish_run
from sluice.job import Job
from sluice.ledger import Run
from sluice.run import Round, plan_round, work_chunk

Result = TypeVar("Result")
CANCEL_AGAIN_SECONDS = 0.5


class StoppedError(SluiceError):
    """The run was interrupted here; starting it again goes on."""


@dataclass(frozen=True)
class Retry:
    """As the state machine retries: which errors, how often, and the wait before each new try."""

    errors: tuple[type[SluiceError], ...]
    first_seconds: float
    rate: float
    most: int
    longest_seconds: float

    def delay(self, tries: int) -> float:
        """Anything up to the full wait, so that workers do not come back together."""
        return random.uniform(0, min(self.longest_seconds, self.first_seconds * self.rate**tries))


CHUNK_RETRIES = (
    Retry((ChunkBusyError, DeadlineNearError), 5, 1.5, 20, 60),
    Retry((TransientError,), 5, 2, 5, 60),
)
PLAN_RETRIES = (Retry((TransientError, DeadlineNearError), 5, 1.5, 20, 120),)
FINISH_RETRIES = (Retry((TransientError, DeadlineNearError), 5, 2, 8, 120),)


class StoppablePostgres(Postgres):
    """A connection whose work another thread can end.

    Once it is stopped, transactions that touch data are rolled back and refused with DeadlineNearError, which says
    nothing against a chunk; the short ones that only write down how an attempt ended still go through.
    """

    def __init__(self, facts: Callable[[bool], ConnectionFacts]) -> None:
        super().__init__(facts)
        self._stopping = False
        self._at_work = threading.Lock()
        self._working = False

    @contextmanager
    def transaction(self, limits: Limits) -> Iterator[Transaction]:
        if not limits.durable:
            with super().transaction(limits) as transaction:
                yield transaction
            return
        with self._at_work:
            self._refuse_if_stopping()
            self._working = True
        try:
            with super().transaction(limits) as transaction:
                yield transaction
        except TransientError:
            self._refuse_if_stopping()
            raise
        finally:
            with self._at_work:
                self._working = False

    def stop(self) -> None:
        """Refuse further work and cancel the statement that runs now; may be called again until nothing runs."""
        with self._at_work:
            self._stopping = True
            if self._working and self._connection is not None:
                self._connection.cancel()

    def _refuse_if_stopping(self) -> None:
        if self._stopping:
            raise DeadlineNearError("the run is being stopped here")


class InlineRun:
    """Drives one opened run in the background until it ends, is paused or is stopped.

    publish: writes the report of a run that has ended. Attributes after the end: run (None where it did not come to
    one), paused (the operator's reason), error.
    """

    def __init__(
        self, access: Access, job: Job, run: Run, threads: int | None, publish: Callable[[Context, Run], None]
    ) -> None:
        self.run: Run | None = None
        self.paused: str | None = None
        self.error: SluiceError | None = None
        self._access = access
        self._job = job
        self._run_id = run.run_id
        self._threads = threads or job.spec.max_concurrency
        self._publish = publish
        self._stopping = threading.Event()
        self._local = threading.local()
        self._databases: list[StoppablePostgres] = []
        self._unexpected: list[str] = []
        self._thread = threading.Thread(target=self._drive, name="sluice-inline")

    def start(self) -> InlineRun:
        self._thread.start()
        return self

    def wait(self, seconds: float) -> bool:
        """Wait at most so long; tells whether the run has come to its end here."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def stop(self) -> None:
        """Roll back what is open and end; returns when nothing of this run is at work here any more."""
        self._stopping.set()
        while self._thread.is_alive():
            for database in list(self._databases):
                database.stop()
            self.wait(CANCEL_AGAIN_SECONDS)

    def _context(self) -> Context:
        """This thread's own."""
        known: Context | None = getattr(self._local, "context", None)
        if known is None:
            database = self._access.database(self._job, StoppablePostgres)
            assert isinstance(database, StoppablePostgres)
            self._databases.append(database)
            known = self._local.context = Context(self._job, database)
        return known

    def _drive(self) -> None:
        try:
            with ThreadPoolExecutor(self._threads, thread_name_prefix="sluice-chunk") as pool:
                problem = self._rounds(pool)
            if self.paused is None:
                self.run = self._retrying(FINISH_RETRIES, lambda: finish_run(self._context(), self._run_id, problem))
                self._publish(self._context(), self.run)
        except (StoppedError, DeadlineNearError):
            pass
        except SluiceError as error:
            self.error = error
        except Exception as error:
            self.error = unexpected(error)
        finally:
            for database in self._databases:
                database.close()

    def _rounds(self, pool: ThreadPoolExecutor) -> Problem | None:
        """Plan and work until nothing is left; gives what the run fails of, if it cannot go on."""
        try:
            while True:
                planned = self._retrying(PLAN_RETRIES, lambda: plan_round(self._context(), self._run_id))
                if planned.action == "finish":
                    return None
                if planned.action == "stop":
                    self.paused = planned.reason
                    return None
                self._pause(planned.wait_seconds)
                if planned.action == "work":
                    self._work(pool, planned)
        except (StoppedError, DeadlineNearError):
            raise
        except SluiceError as error:
            return Problem(type(error).__name__, str(error))

    def _work(self, pool: ThreadPoolExecutor, planned: Round) -> None:
        """One round. A chunk that fails has noted it in the ledger; the next plan decides what follows."""
        halt = threading.Event()

        def work(number: int) -> None:
            if halt.is_set() or self._stopping.is_set():
                return
            try:
                outcome = self._retrying(
                    CHUNK_RETRIES, lambda: work_chunk(self._context(), self._run_id, planned.step, number)
                )
                if outcome.state in ("stopped", "held"):
                    halt.set()
            except SluiceError:
                return
            except Exception as error:
                self._unexpected.append(str(unexpected(error)))
                halt.set()

        wait([pool.submit(work, number) for number, _ in planned.chunks])
        if self._stopping.is_set():
            raise StoppedError
        if self._unexpected:
            raise TerminalError(self._unexpected[0])

    def _retrying(self, retries: Sequence[Retry], verb: Callable[[], Result]) -> Result:
        """Call the verb again while its errors are of a passing kind."""
        tries = [0] * len(retries)
        while True:
            try:
                return verb()
            except SluiceError as error:
                index = next((i for i, retry in enumerate(retries) if isinstance(error, retry.errors)), None)
                if self._stopping.is_set() or index is None or tries[index] >= retries[index].most:
                    raise
                self._pause(retries[index].delay(tries[index]))
                tries[index] += 1

    def _pause(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise StoppedError


def unexpected(error: Exception) -> TerminalError:
    """An error of the program itself, without its message, which might quote a row."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return TerminalError(f"unexpected {type(error).__name__} at {Path(place.filename).name}:{place.lineno}")
