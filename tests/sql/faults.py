"""A database connection that tells of every place where its process or its network may fail."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import psycopg2
import psycopg2.extensions

from sluice.databases.postgres import Postgres

Watch = Callable[["WatchedConnection", str, str], None]
STATEMENT, COMMIT, COMMITTED = "before a statement", "before COMMIT", "after COMMIT"


class Crash(BaseException):
    """The process of a worker is gone; nothing of it that catches errors may run on."""


class WatchedConnection(psycopg2.extensions.connection):
    """Calls `watch(connection, place, statement)` before each statement, before each COMMIT and after it."""

    watch: Watch

    def cursor(self, *args: Any, **options: Any) -> Any:
        factory = options.get("cursor_factory") or psycopg2.extensions.cursor
        return super().cursor(*args, **{**options, "cursor_factory": watched_cursor(factory)})

    def commit(self) -> None:
        self.watch(self, COMMIT, "")
        super().commit()
        self.watch(self, COMMITTED, "")


class WatchedStatements:
    """What a cursor of a watched connection does first."""

    connection: WatchedConnection

    def execute(self, statement: Any, values: Any = None) -> Any:
        text = statement if isinstance(statement, str) else statement.as_string(self.connection)
        self.connection.watch(self.connection, STATEMENT, text)
        return super().execute(statement, values)  # type: ignore[misc]

    def __iter__(self) -> Iterator[Any]:
        if self.name:  # type: ignore[attr-defined]
            self.connection.watch(self.connection, STATEMENT, "FETCH")
        return super().__iter__()  # type: ignore[misc, no-any-return]


@lru_cache
def watched_cursor(factory: type) -> type:
    return type(f"Watched{factory.__name__}", (WatchedStatements, factory), {})


class WatchedPostgres(Postgres):
    """The engine's connection to one database, watched."""

    def __init__(self, dsn: str, watch: Watch) -> None:
        super().__init__(lambda force: {})
        self._dsn = dsn
        self._watch = watch

    def _connect(self) -> psycopg2.extensions.connection:
        connection: WatchedConnection = psycopg2.connect(
            self._dsn, connection_factory=WatchedConnection, sslmode="disable"
        )
        connection.watch = self._watch
        return connection


def vanish(connection: psycopg2.extensions.connection) -> None:
    """End the session as a dead process or a cut line does: the server hears no goodbye and no ROLLBACK."""
    with socket.socket(fileno=os.dup(connection.fileno())) as wire:
        wire.shutdown(socket.SHUT_RDWR)


def in_transaction(connection: psycopg2.extensions.connection) -> bool:
    """Whether the session has sent a statement since its last COMMIT or ROLLBACK."""
    return bool(connection.status != psycopg2.extensions.STATUS_READY)


class Fault:
    """Lets the connection fail at the k-th place that it passes.

    how: `gone` raises Crash there, `cut` leaves the process alive with a dead connection. fired: the place, once hit.
    commits: how many transactions were committed until then.
    """

    def __init__(self, how: str, at: int) -> None:
        self.how = how
        self.left = at
        self.fired: str | None = None
        self.commits = 0
        self._is_first = True

    def disarm(self) -> None:
        """Let nothing fail from here on."""
        self.left = 0

    def __call__(self, connection: WatchedConnection, place: str, statement: str) -> None:
        if self.how == "gone" and place == STATEMENT and not self._is_first and not in_transaction(connection):
            return  # the same moment as after the COMMIT before it
        self._is_first = False
        self.commits += place == COMMITTED and self.fired is None
        self.left -= 1
        if self.left != 0:
            return
        self.fired = f"{place} {' '.join(statement.split())[:100]}".strip()
        vanish(connection)
        if self.how == "gone":
            raise Crash(self.fired)
        if place == COMMITTED:
            raise psycopg2.OperationalError("the answer to COMMIT was lost")
