"""A PostgreSQL server of our own: real, on loopback, gone when this process is gone."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import NoReturn
from urllib.parse import quote

import psycopg2
from psycopg2 import sql

from infra.local.errors import LocalStackError
from infra.local.postgres_binaries import Binaries, find_binaries, server_version
from infra.local.processes import User, is_alive, spawn_tethered, unprivileged_user, wait_until

HOST = "127.0.0.1"
SUPERUSER = "postgres"
START_SECONDS = 60.0
STOP_SECONDS = 30.0
ORPHAN_SECONDS = 2.0

SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
    "log_line_prefix": "%m [%p] ",
}
# A test that kills the server still finds its commits: what is written the operating system keeps, and a commit
# is written. Only a crash of the machine would lose it.
NOT_DURABLE = {
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum_naptime": "1h",
    "max_wal_size": "4GB",
}


class PostgresStartError(LocalStackError):
    """PostgreSQL did not start."""


class PostgresInUseError(LocalStackError):
    """Another live PostgreSQL server owns this data folder."""


class Postgres:
    """One running server. `Postgres.start(...)` makes it; `stop()` or the end of a `with` block ends it.

    The folder it is given holds `data/` (PGDATA), `password` and `server.log`; started again on the same
    folder it has the same databases and password, also after a crash.
    """

    host = HOST
    user = SUPERUSER

    def __init__(self, home: Path, binaries: Binaries, run_as: User | None, password: str, durable: bool) -> None:
        self.home = home
        self.binaries = binaries
        self.password = password
        self.port = 0
        self.durable = durable
        self._run_as = run_as
        self._log = home / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(
        cls,
        data_dir: Path,
        *,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        durable: bool = True,
    ) -> Postgres:
        """Start a server on `data_dir`, which is created when it is not there, and wait until it answers.

        `port` None takes a free one. `settings` are postgresql.conf settings. `durable` False trades safety
        against a crash of the machine for speed, for tests.

        Raises PostgresNotFoundError, PostgresInUseError, PostgresStartError.
        """
        user = unprivileged_user()
        home = _reachable(data_dir.absolute(), user)
        binaries = _binaries_for(home / "data", user)
        refuse_if_owned(home / "data")
        password = _initialise(home, binaries, user)
        server = cls(home, binaries, user, password, durable)
        try:
            server._launch(port, {**SETTINGS, **({} if durable else NOT_DURABLE), **(settings or {})})
        except BaseException:
            server.kill()
            raise
        return server

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        assert self._process is not None
        return int(_lock_lines(self.home / "data")[0])

    def dsn(self, database: str = "postgres") -> str:
        """A libpq URI with the password in it."""
        return f"postgresql://{self.user}:{quote(self.password)}@{self.host}:{self.port}/{quote(database)}"

    def create_database(self, name: str, template: str | None = None) -> str:
        """Create a database, as a copy of `template` where one is given; returns its DSN."""
        clause = sql.SQL(" TEMPLATE {}").format(sql.Identifier(template)) if template else sql.SQL("")
        self._admin(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)) + clause)
        return self.dsn(name)

    def drop_database(self, name: str) -> None:
        """Drop a database that may still have sessions."""
        self._admin(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def has_database(self, name: str) -> bool:
        with closing(psycopg2.connect(self.dsn())) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT FROM pg_catalog.pg_database WHERE datname = %s", (name,))
            return cursor.fetchone() is not None

    def stop(self) -> None:
        """End the server: in an orderly way when durable, at once when not."""
        process, self._process = self._process, None
        if process is None:
            return
        first = signal.SIGINT if self.durable else signal.SIGQUIT
        for number, seconds in ((first, STOP_SECONDS), (signal.SIGQUIT, 10.0)):
            process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
                return
        process.kill()
        process.wait()

    def kill(self) -> None:
        """SIGKILL, as a crash; the next start recovers."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        # Where a watchman stands between us and the server, it ends with the server.
        lines = _lock_lines(self.home / "data")
        if lines and _is_server_of(int(lines[0]), self.home / "data"):
            with suppress(ProcessLookupError):
                os.kill(int(lines[0]), signal.SIGKILL)
        else:
            process.kill()
        process.wait()

    def __enter__(self) -> Postgres:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _admin(self, statement: sql.Composable) -> None:
        with closing(psycopg2.connect(self.dsn())) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)

    def _launch(self, port: int | None, settings: Mapping[str, str]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            self.port = port or free_port()
            _write_settings(self.home / "data", {**settings, "port": str(self.port)})
            if self._answers():
                return
            # Between choosing a free port and binding it another process may take it; and the sessions of a
            # server that was killed need a moment to end.
            passing = (port is None and "could not bind" in self._log_tail()) or "still in use" in self._log_tail()
            if not passing or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        if port is not None and "could not bind" in self._log_tail():
            raise PostgresStartError(f"port {port} is taken; choose another one for PostgreSQL")
        raise PostgresStartError(f"PostgreSQL did not start; {self._log} ends:\n{self._log_tail()}")

    def _answers(self) -> bool:
        data = self.home / "data"
        command = [self.binaries.program("postgres"), "-D", str(data), "-k", ""]
        stale = _lock_lines(data)
        with self._log.open("wb") as log:
            process = self._process = spawn_tethered(
                command,
                death_signal=signal.SIGQUIT,
                user=self._run_as,
                cwd=data,
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
                stdout=log,
            )

        def settled() -> bool:
            lines = _lock_lines(data)
            is_ready = lines != stale and len(lines) > 7 and lines[7].strip() == "ready"
            return is_ready or process.poll() is not None

        if not wait_until(settled, START_SECONDS):
            raise PostgresStartError(f"PostgreSQL was not ready after {START_SECONDS:.0f} s; see {self._log}")
        if process.poll() is None:
            return True
        process.wait()
        self._process = None
        return False

    def _log_tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-8:])


def free_port() -> int:
    """A TCP port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def refuse_if_owned(data: Path) -> None:
    """Raise PostgresInUseError when a live server runs on `data`; take away a pid file that lies.

    PostgreSQL takes any live process of the same user for the old server, so a process that was given the
    old server's id since would keep it from starting.
    """
    lines = _lock_lines(data)
    try:
        pid, port = int(lines[0]), lines[3]
    except (ValueError, IndexError):
        return
    if not is_alive(pid):
        return
    if _is_server_of(pid, data):
        # One whose supervisor was killed is on its way out.
        if wait_until(lambda: not is_alive(pid), ORPHAN_SECONDS):
            return
        raise PostgresInUseError(f"PostgreSQL (process {pid}, port {port}) runs on {data}; end it first")
    (data / "postmaster.pid").unlink()


def _is_server_of(pid: int, data: Path) -> bool:
    """Whether `pid` is the postmaster of `data`, by its working folder or its command line."""
    try:
        return Path(f"/proc/{pid}/cwd").readlink() == data.resolve()
    except OSError:
        command = ["ps", "-ww", "-p", str(pid), "-o", "args="]
        listing = subprocess.run(command, capture_output=True, text=True, check=False)
        return str(data) in listing.stdout


def _lock_lines(data: Path) -> list[str]:
    """postmaster.pid: process id, …, port, …, and in the eighth line `starting`, `ready`, …"""
    try:
        return (data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return []


def _write_settings(data: Path, settings: Mapping[str, str]) -> None:
    lines = []
    for name, value in settings.items():
        quoted = value.replace("'", "''")
        lines.append(f"{name} = '{quoted}'\n")
    target = data / "sluice.conf"
    target.write_text("".join(lines))
    target.chmod(0o644)


def _binaries_for(data: Path, user: User | None) -> Binaries:
    """The programs for `data`: those that made it, so that a newer PostgreSQL beside them is no surprise."""
    made_with = data.parent / "binaries"
    try:
        source, folder = made_with.read_text().splitlines()
    except (OSError, ValueError):
        return find_binaries(user)
    chosen = os.environ.get("PG_BIN")
    version = None if chosen and Path(chosen) != Path(folder) else server_version(Path(folder), user)
    if version:
        return Binaries(Path(folder), version, source)
    binaries = find_binaries(user)
    major = (data / "PG_VERSION").read_text().strip()
    if str(binaries.major) != major:
        raise PostgresStartError(
            f"{data.parent} was made by PostgreSQL {major}; found is {binaries.major} in {binaries.bin}. "
            f"Set PG_BIN to a PostgreSQL {major}, or remove {data.parent} to start afresh"
        )
    return binaries


def _initialise(home: Path, binaries: Binaries, user: User | None) -> str:
    """Make PGDATA when it is not there; returns the superuser's password."""
    data, password_file = home / "data", home / "password"
    if (home / "binaries").exists():
        return password_file.read_text().strip()
    # No `binaries` file: an initialisation that was cut short, or nothing yet.
    shutil.rmtree(data, ignore_errors=True)
    password = secrets.token_urlsafe(18)
    password_file.touch(mode=0o600)
    password_file.write_text(password)
    data.mkdir(mode=0o700)
    if user:
        os.chown(password_file, user.uid, user.gid)
        os.chown(data, user.uid, user.gid)
    for locale in ("C.UTF-8", "C"):
        done = _initdb(binaries, data, password_file, locale, user)
        if done.returncode == 0:
            break
    else:
        raise PostgresStartError(f"initdb failed:\n{done.stdout.strip()}")
    with (data / "postgresql.conf").open("a") as configuration:
        configuration.write("include = 'sluice.conf'\n")
    (home / "binaries").write_text(f"{binaries.source}\n{binaries.bin}\n")
    return password


def _initdb(
    binaries: Binaries, data: Path, password_file: Path, locale: str, user: User | None
) -> subprocess.CompletedProcess[str]:
    identity = {} if user is None else {"user": user.uid, "group": user.gid, "extra_groups": []}
    command = [
        binaries.program("initdb"), "--pgdata", str(data), "--username", SUPERUSER, "--encoding", "UTF8",
        "--locale", locale, "--auth", "scram-sha-256", "--pwfile", str(password_file), "--no-sync",
    ]  # fmt: skip
    completed: subprocess.CompletedProcess[str] = subprocess.run(
        command, cwd=data, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}, **identity,  # type: ignore[call-overload]
    )  # fmt: skip
    return completed


def _reachable(home: Path, user: User | None) -> Path:
    """`home`, created; where the server's user may not enter its parents, a link to a place that he may."""
    if home.is_symlink() and not home.exists():
        home.unlink()
    home.mkdir(parents=True, exist_ok=True)
    real = home.resolve()
    if user is None or _can_enter(real, user):
        return real
    if home.is_symlink() or any(home.iterdir()):
        _refuse_unreachable(real, user)
    name = hashlib.sha256(str(home).encode()).hexdigest()[:12]
    elsewhere = Path("/var/tmp") / f"sluice-pg-{name}"
    elsewhere.mkdir(mode=0o755, exist_ok=True)
    if elsewhere.stat().st_uid != os.geteuid():
        _refuse_unreachable(elsewhere, user)
    home.rmdir()
    home.symlink_to(elsewhere)
    reason = f"the user {user.name} may not enter {home.parent}"
    print(f"PostgreSQL's data is in {elsewhere}: {reason}", file=sys.stderr)
    return elsewhere


def _refuse_unreachable(home: Path, user: User) -> NoReturn:
    raise PostgresStartError(f"the user {user.name}, whom PostgreSQL runs as, may not enter {home}")


def _can_enter(folder: Path, user: User) -> bool:
    check = subprocess.run(
        ["/bin/sh", "-c", 'cd "$1"', "sh", str(folder)],
        user=user.uid, group=user.gid, extra_groups=[], cwd="/", stderr=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    return check.returncode == 0


def temporary_home() -> Path:
    """A new folder for a throw-away server, where also the user that root drops to may enter."""
    home = Path(tempfile.mkdtemp(prefix="sluice-pg-"))
    home.chmod(0o755)
    return home
