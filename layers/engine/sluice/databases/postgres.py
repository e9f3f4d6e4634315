"""PostgreSQL: connections, transactions with their limits, and what an SQLSTATE means."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg2
import psycopg2.extensions
from psycopg2 import sql
from psycopg2.extras import NamedTupleCursor

from sluice.errors import (
    BadInputError,
    ChunkBusyError,
    DatabaseUnavailableError,
    DeadlineNearError,
    SluiceError,
    StatementError,
    StatementTimeoutError,
    TransientError,
)
from sluice.sqltext import to_driver

Parameters = Mapping[str, object]
ConnectionFacts = Mapping[str, Any]
LOCK_TIMEOUT_SECONDS = 5.0
IDLE_TIMEOUT_SECONDS = 30.0
LEAST_BUDGET_SECONDS = 1.0
LIMIT_STEP_SECONDS = 1.0
MESSAGE_HOLDS_DATA = ("22", "23", "38", "39", "HV", "P0", "XX")
MESSAGE_IS_THE_SERVERS = ("08", "25", "40", "53", "55", "57")
PROCEDURAL_LANGUAGES = ("pl_", "plpy", "plperl", "pltcl")
BAD_CREDENTIALS = ("28P01", "28000")


@dataclass(frozen=True)
class Limits:
    """What one transaction may take.

    budget: gives the seconds that a statement starting now may take. name: shown as application_name. durable: False
    lets COMMIT return before the disk has it, for records that only serve an audit. settings: further run-time
    parameters.
    """

    budget: Callable[[], float]
    lock_seconds: float = LOCK_TIMEOUT_SECONDS
    name: str = "sluice"
    durable: bool = True
    settings: Mapping[str, str] = field(default_factory=dict)

    def statement_seconds(self) -> float:
        """The limit of a statement that starts now; raises DeadlineNearError where no time is left for one."""
        seconds = self.budget()
        if seconds < LEAST_BUDGET_SECONDS:
            raise DeadlineNearError
        return seconds

    def as_settings(self, statement_seconds: float) -> dict[str, str]:
        """The transaction's run-time parameters by name."""
        return {
            "statement_timeout": milliseconds(statement_seconds),
            "lock_timeout": milliseconds(self.lock_seconds),
            "idle_in_transaction_session_timeout": milliseconds(IDLE_TIMEOUT_SECONDS),
            "application_name": self.name,
            "DateStyle": "ISO, YMD",
            **({} if self.durable else {"synchronous_commit": "off"}),
            **self.settings,
        }


def milliseconds(seconds: float) -> str:
    return f"{int(min(seconds, 2_000_000) * 1000)}ms"


class Transaction:
    """An open transaction: statements in the driver's composition or in `:name` text.

    The time that statements take comes off the limit of those that follow.
    """

    def __init__(self, connection: psycopg2.extensions.connection, limits: Limits, statement_seconds: float) -> None:
        self.connection = connection
        self.statement_seconds = statement_seconds
        self._limits = limits

    def execute(self, statement: str | sql.Composable, values: Parameters | None = None) -> int:
        """Run a statement; gives the number of rows it touched."""
        with self._cursor(statement, values) as cursor:
            return int(cursor.rowcount)

    def rows(self, statement: str | sql.Composable, values: Parameters | None = None) -> list[Any]:
        """All rows of a query, as named tuples."""
        with self._cursor(statement, values) as cursor:
            return list(cursor.fetchall())

    def row(self, statement: str | sql.Composable, values: Parameters | None = None) -> Any:
        """The first row of a query as a named tuple, None where there is none."""
        with self._cursor(statement, values) as cursor:
            return cursor.fetchone()

    def column_names(self, statement: str | sql.Composable, values: Parameters | None = None) -> list[str]:
        """Names of the columns that a query returns."""
        with self._cursor(statement, values) as cursor:
            return [column.name for column in cursor.description or ()]

    def stream(
        self, statement: str | sql.Composable, values: Parameters | None = None, batch: int = 20_000
    ) -> Iterator[tuple[Any, ...]]:
        """The rows of a query through a server-side cursor, `batch` at a time in memory."""
        with engine_errors(), self.connection.cursor(name="sluice_stream") as cursor:
            cursor.itersize = batch
            cursor.execute(self._composed(statement), dict(values or {}))
            yield from cursor

    @contextmanager
    def _cursor(self, statement: str | sql.Composable, values: Parameters | None) -> Iterator[NamedTupleCursor]:
        with engine_errors(), self.connection.cursor(cursor_factory=NamedTupleCursor) as cursor:
            self._shorten_limit(cursor)
            cursor.execute(self._composed(statement), dict(values or {}))  # type: ignore[no-untyped-call]
            yield cursor

    def _shorten_limit(self, cursor: NamedTupleCursor) -> None:
        seconds = self._limits.statement_seconds()
        if seconds < self.statement_seconds - LIMIT_STEP_SECONDS:
            cursor.execute("SELECT set_config('statement_timeout', %s, true)", (milliseconds(seconds),))  # type: ignore[no-untyped-call]
            self.statement_seconds = seconds

    @staticmethod
    def _composed(statement: str | sql.Composable) -> str | sql.Composable:
        return to_driver(statement) if isinstance(statement, str) else statement


class Postgres:
    """One connection to one database, made when it is first needed and again after it was lost.

    facts: a callable that gives host, port, username, password, dbname and optionally sslmode; called with True
    when the server refused the credentials, to read the secret anew.
    """

    def __init__(self, facts: Callable[[bool], ConnectionFacts]) -> None:
        self._facts = facts
        self._connection: psycopg2.extensions.connection | None = None

    @contextmanager
    def transaction(self, limits: Limits) -> Iterator[Transaction]:
        """A transaction that commits at the end of the block and rolls back on any exception.

        Raises the engine's errors instead of the driver's.
        """
        seconds = limits.statement_seconds()
        connection = self._begin(limits.as_settings(seconds))
        transaction = Transaction(connection, limits, seconds)
        started = time.monotonic()
        try:
            yield transaction
            with engine_errors():
                connection.commit()
        except BaseException as error:
            with suppress(psycopg2.Error):
                connection.rollback()
            if connection.closed:
                self._connection = None
            # A statement that ends before its limit was cancelled by another session, not by the clock.
            elapsed = time.monotonic() - started
            if isinstance(error, StatementTimeoutError) and elapsed < transaction.statement_seconds:
                raise TransientError("cancelled by another session", sqlstate="57014") from None
            raise

    def close(self) -> None:
        """End the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def backend_pid(self) -> int | None:
        """Process id of the server's side of the connection."""
        return None if self._connection is None else self._connection.info.backend_pid

    def _begin(self, settings: Mapping[str, str]) -> psycopg2.extensions.connection:
        """A connection inside a new transaction; a kept connection that has died is replaced once."""
        kept = self._connection
        if kept is not None:
            try:
                return self._start(kept, settings)
            except (psycopg2.OperationalError, psycopg2.InterfaceError):
                self.close()
        self._connection = self._connect()
        with engine_errors():
            return self._start(self._connection, settings)

    @staticmethod
    def _start(
        connection: psycopg2.extensions.connection, settings: Mapping[str, str]
    ) -> psycopg2.extensions.connection:
        if connection.info.server_version >= 140000:
            settings = {**settings, "client_connection_check_interval": "5s"}
        calls = sql.SQL(", ").join(
            sql.SQL("set_config({}, {}, true)").format(sql.Literal(name), sql.Literal(value))
            for name, value in settings.items()
        )
        with connection.cursor() as cursor:
            cursor.execute(sql.SQL("SELECT {}").format(calls))
        return connection

    def _connect(self) -> psycopg2.extensions.connection:
        try:
            return connect(self._facts(False))
        except DatabaseUnavailableError as error:
            if error.facts.get("sqlstate") not in BAD_CREDENTIALS:
                raise
        try:
            return connect(self._facts(True))
        except DatabaseUnavailableError as error:
            if error.facts.get("sqlstate") in BAD_CREDENTIALS:
                raise BadInputError(str(error)) from None
            raise


def connect(facts: ConnectionFacts) -> psycopg2.extensions.connection:
    """A connection from the facts of a secret; TLS is verified unless the secret's sslmode says otherwise.

    Raises DatabaseUnavailableError with the address, never with the password.
    """
    address = f"{facts['host']}:{facts.get('port', 5432)}/{facts['dbname']} as {facts['username']}"
    try:
        return psycopg2.connect(
            host=facts["host"],
            port=facts.get("port", 5432),
            user=facts["username"],
            password=facts["password"],
            dbname=facts["dbname"],
            sslmode=facts.get("sslmode", "require"),
            application_name="sluice",
            connect_timeout=10,
            keepalives_idle=30,
            keepalives_interval=10,
            keepalives_count=3,
        )
    except psycopg2.OperationalError as error:
        raise connection_error(address, " ".join(str(error).split())) from None


CREDENTIALS_REFUSED = ("password authentication failed", "no password supplied", "PAM authentication failed")
WRONG_SECRET = {
    "server does not support SSL": 'the server has no TLS; where that is meant, put "sslmode": "disable" in the secret',
    "could not translate host name": "there is no such host",
    "does not exist": "there is no such database or user",
    "no pg_hba.conf entry": "the server does not let this user in from here",
}


def connection_error(address: str, text: str) -> SluiceError:
    """What a refused connection means: wrong credentials, a wrong secret, or a server that is away for now."""
    if any(sign in text for sign in CREDENTIALS_REFUSED):
        return DatabaseUnavailableError(f"cannot connect to {address}: the password was refused", sqlstate="28P01")
    for sign, meaning in WRONG_SECRET.items():
        if sign in text:
            return BadInputError(f"cannot connect to {address}: {meaning}")
    return DatabaseUnavailableError(f"cannot connect to {address}: {text.rsplit(': ', 1)[-1]}", sqlstate="08001")


@contextmanager
def engine_errors() -> Iterator[None]:
    """Turns the driver's errors into the engine's."""
    try:
        yield
    except psycopg2.Error as error:
        raise classify(error) from None


def classify(error: psycopg2.Error) -> SluiceError:
    """The engine's error for a driver's error, by SQLSTATE.

    Messages of data errors and of functions may quote values, so only the condition and the names of table, column
    and constraint are kept of them. Source of the classes: PostgreSQL, appendix A.
    """
    state = error.pgcode or ""
    text = describe(error)
    match state[:2]:
        case "08" | "57" | "53" | "" if state != "57014":
            return DatabaseUnavailableError(text, sqlstate=state or "08006")
        case "40":
            return TransientError(text, sqlstate=state)
    match state:
        case "57014":
            return StatementTimeoutError(text, sqlstate=state)
        case "55P03":
            return ChunkBusyError(text, sqlstate=state)
        case "25P03" | "25P04":
            return DatabaseUnavailableError(text, sqlstate=state)
    return StatementError(text, sqlstate=state)


def describe(error: psycopg2.Error) -> str:
    """One line about a driver's error that holds no row's value."""
    diag, state = error.diag, error.pgcode
    if state is None:
        return "the connection to the database was lost"
    text = type(error).__name__ if quotes_data(error) else diag.message_primary
    names = [
        f"{what} {name}"
        for what, name in (
            ("table", diag.table_name),
            ("column", diag.column_name),
            ("constraint", diag.constraint_name),
        )
        if name and not is_raised(error)
    ]
    return " ".join([f"{text} ({state})", *names])


def quotes_data(error: psycopg2.Error) -> bool:
    """Whether the message may quote a row: that of a data error, and whatever a function had a hand in.

    A trigger may raise any SQLSTATE with any text, and the SQL that it composes may hold a key.
    """
    kind = (error.pgcode or "")[:2]
    in_function = error.diag.context is not None and kind not in MESSAGE_IS_THE_SERVERS
    return kind in MESSAGE_HOLDS_DATA or in_function or is_raised(error)


def is_raised(error: psycopg2.Error) -> bool:
    """Whether a function in a procedural language worded the error, names of table and column included."""
    return (error.diag.source_file or "").startswith(PROCEDURAL_LANGUAGES)


class Connections:
    """The connections of this process, one a thread and database, by the secret's name.

    read_secret: gives the JSON text of a secret; called with force=True after the server refused the credentials.
    """

    def __init__(self, read_secret: Callable[[str, bool], str]) -> None:
        self._read_secret = read_secret
        self._local = threading.local()

    def get(self, secret: str) -> Postgres:
        """The connection of this thread to the database of that secret."""
        known: dict[str, Postgres] = self._local.__dict__.setdefault("known", {})
        if secret not in known:
            known[secret] = Postgres(lambda force: parse_secret(secret, self._read_secret(secret, force)))
        return known[secret]


def parse_secret(name: str, text: str) -> ConnectionFacts:
    """The facts of a connection from a secret's JSON, in the shape that RDS writes.

    Raises BadInputError with the keys that are missing.
    """
    try:
        facts = json.loads(text)
    except json.JSONDecodeError:
        raise BadInputError(f"secret '{name}' is not JSON") from None
    needed: Sequence[str] = ("host", "username", "password", "dbname")
    missing = [key for key in needed if not (isinstance(facts, dict) and facts.get(key))]
    if missing:
        raise BadInputError(f"secret '{name}' lacks {', '.join(missing)}")
    return dict(facts)
