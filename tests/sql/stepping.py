"""Sessions that take one step at a time, in the order that a test says."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import psycopg2

from sluice.databases.postgres import Postgres
from sluice.errors import SluiceError
from tests.sql.faults import COMMITTED, STATEMENT, Crash, WatchedConnection, WatchedPostgres, in_transaction, vanish

LONGEST_SECONDS = 60.0
Watching = Callable[[Postgres], object]


class Actor:
    """A thread at work on the database that stops at each place until `go`, `gone` or `cut` is said.

    place: where it stands. answer: what its work returned, error: what it raised; both once it has ended.
    """

    def __init__(self, dsn: str, name: str, work: Watching) -> None:
        self.name = name
        self.database = WatchedPostgres(dsn, self._stop)
        self.place = ""
        self.statement = ""
        self.places = 0
        self.answer: object = None
        self.error: BaseException | None = None
        self.ended = False
        self.begins = True
        self._connection: WatchedConnection | None = None
        self._order: str | None = "go"
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, args=(work,), name=name, daemon=True)
        self._thread.start()

    @property
    def stands(self) -> bool:
        """Whether it waits for an order."""
        return self._order is None and not self.ended

    @property
    def pid(self) -> int:
        """Process of its session on the server, 0 without one."""
        return self._connection.info.backend_pid if self._connection and not self._connection.closed else 0

    def tell(self, order: str) -> None:
        """Let it take one step, or die (`gone`), or go on with a dead connection (`cut`)."""
        with self._changed:
            assert self.stands
            self._order = order
            self._changed.notify_all()

    def rest(self, seconds: float) -> bool:
        """Wait that long for it to stand or end; whether it does."""
        with self._changed:
            return self._changed.wait_for(lambda: self._order is None or self.ended, seconds)

    def _run(self, work: Watching) -> None:
        try:
            self.answer = work(self.database)
        except (SluiceError, psycopg2.Error, Crash) as error:
            self.error = error
        except BaseException as error:
            self.error = error
            error.add_note(f"in {self.name}, at {self.place} {self.statement}")
        finally:
            if not isinstance(self.error, Crash):
                self.database.close()
            with self._changed:
                self.ended = True
                self._changed.notify_all()

    def _stop(self, connection: WatchedConnection, place: str, statement: str) -> None:
        with self._changed:
            self.place, self.statement, self._connection = place, " ".join(statement.split()), connection
            self.begins = place == STATEMENT and not in_transaction(connection)
            self.places += 1
            self._order = None
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._order is not None)
            order = self._order
        if order == "go":
            return
        vanish(connection)
        if order == "gone":
            raise Crash(place)
        if place == COMMITTED:
            raise psycopg2.OperationalError("the answer to COMMIT was lost")


def settle(actors: Sequence[Actor], blocked: Callable[[list[int]], set[int]]) -> None:
    """Wait until each actor stands, has ended, or waits for a lock that another one holds.

    blocked: those of the sessions that wait for a lock.
    """
    end = time.monotonic() + LONGEST_SECONDS
    while moving := [actor for actor in actors if not actor.rest(0.002)]:
        waiting = blocked([actor.pid for actor in moving])
        if all(actor.pid in waiting and not actor.rest(0) for actor in moving):
            return
        assert time.monotonic() < end, [(actor.name, actor.place, actor.statement) for actor in moving]
