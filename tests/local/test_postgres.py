"""The PostgreSQL server of the local stack: starting, keeping data, dying with its parent, refusing clearly."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from infra.local import postgres as module
from infra.local.postgres import Postgres, PostgresInUseError, PostgresStartError
from infra.local.postgres_binaries import Binaries, PostgresNotFoundError, find_binaries, server_version
from infra.local.processes import is_alive, unprivileged_user, wait_until

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root drops its privileges")


def query(dsn: str, statement: str) -> Any:
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        row = cursor.fetchone() if cursor.description else None
        connection.commit()
        return row[0] if row else None


def test_server_is_reached_by_password_over_tcp_only(postgres: Postgres) -> None:
    assert query(postgres.dsn(), "SHOW listen_addresses") == "127.0.0.1"
    assert query(postgres.dsn(), "SHOW unix_socket_directories") == ""
    assert query(postgres.dsn(), "SHOW server_encoding") == "UTF8"
    assert query(postgres.dsn(), "SHOW timezone") == "UTC"
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(postgres.dsn().replace(postgres.password, "wrong"))


def test_a_copied_database_has_its_template_s_tables(postgres: Postgres) -> None:
    original = postgres.create_database("original")
    query(original, "CREATE TABLE kept AS SELECT 7 AS number")
    copy = postgres.create_database('a "quoted" copy', template="original")
    assert query(copy, "SELECT number FROM kept") == 7
    assert postgres.has_database('a "quoted" copy')
    postgres.drop_database('a "quoted" copy')
    postgres.drop_database("original")
    assert not postgres.has_database("original")


def test_data_and_password_survive_a_stop(open_folder: Path) -> None:
    with Postgres.start(open_folder / "pg") as server:
        query(server.dsn(), "CREATE TABLE kept AS SELECT 1 AS number")
        password, pid = server.password, server.pid
        assert query(server.dsn(), "SHOW fsync") == "on"
    assert not is_alive(pid)
    with Postgres.start(open_folder / "pg", settings={"work_mem": "9MB"}, durable=False) as server:
        assert server.password == password
        assert query(server.dsn(), "SELECT number FROM kept") == 1
        assert query(server.dsn(), "SHOW work_mem") == "9MB"
        assert query(server.dsn(), "SHOW fsync") == "off"


def test_commits_survive_kill_9(open_folder: Path) -> None:
    server = Postgres.start(open_folder / "pg", durable=False)
    query(server.dsn(), "CREATE TABLE kept AS SELECT 1 AS number")
    server.kill()
    with Postgres.start(open_folder / "pg", durable=False) as recovered:
        assert query(recovered.dsn(), "SELECT number FROM kept") == 1


def test_second_server_on_the_same_folder_is_refused(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ORPHAN_SECONDS", 0.0)
    with Postgres.start(open_folder / "pg", durable=False) as server:
        with pytest.raises(PostgresInUseError, match=f"process {server.pid}, port {server.port}"):
            Postgres.start(open_folder / "pg", durable=False)
        assert query(server.dsn(), "SELECT 1") == 1


def test_pid_file_that_names_another_process_is_no_obstacle(open_folder: Path) -> None:
    server = Postgres.start(open_folder / "pg", durable=False)
    lock = server.home / "data" / "postmaster.pid"
    content = lock.read_text().splitlines()
    server.stop()
    lock.write_text("\n".join([str(os.getpid()), *content[1:]]) + "\n")
    with Postgres.start(open_folder / "pg", durable=False) as again:
        assert again.pid != os.getpid()


def test_taken_port_is_named(open_folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PostgresStartError, match=f"port {port} is taken"):
            Postgres.start(open_folder / "pg", port=port, durable=False)


def test_interrupted_initialisation_is_begun_anew(open_folder: Path) -> None:
    half_done = open_folder / "pg" / "data"
    half_done.mkdir(parents=True)
    (half_done / "PG_VERSION").write_text("18")
    with Postgres.start(open_folder / "pg", durable=False) as server:
        assert query(server.dsn(), "SELECT 1") == 1


def test_bad_setting_shows_the_server_s_own_words(open_folder: Path) -> None:
    with pytest.raises(PostgresStartError, match="no_such_setting"):
        Postgres.start(open_folder / "pg", settings={"no_such_setting": "1"}, durable=False)


def test_server_dies_with_a_parent_that_is_killed(open_folder: Path, run_and_read: Callable[[str], Any]) -> None:
    script = (
        "import sys, time; from pathlib import Path; from infra.local.postgres import Postgres\n"
        f"server = Postgres.start(Path({str(open_folder / 'pg')!r}))\n"
        "print(server.pid, flush=True); time.sleep(600)"
    )
    parent, line = run_and_read(script)
    server = int(line)
    assert is_alive(server)
    parent.kill()
    parent.wait()
    assert wait_until(lambda: not is_alive(server), 20)
    with Postgres.start(open_folder / "pg") as again:
        assert query(again.dsn(), "SELECT 1") == 1


@pytest.fixture
def run_and_read() -> Any:
    """Run a script in another interpreter and give its process and first line."""
    children: list[subprocess.Popen[str]] = []

    def run(script: str) -> tuple[subprocess.Popen[str], str]:
        child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        children.append(child)
        assert child.stdout
        return child, child.stdout.readline()

    yield run
    for child in children:
        child.kill()
        child.wait()
        assert child.stdout
        child.stdout.close()


def test_server_survives_the_thread_that_started_it(open_folder: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as executor:
        server = executor.submit(Postgres.start, open_folder / "pg", durable=False).result()
    with server:
        assert query(server.dsn(), "SELECT 1") == 1


@root_only
def test_folder_that_the_server_s_user_may_not_enter_is_replaced_by_a_link(
    open_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    closed = open_folder / "home"
    closed.mkdir(mode=0o700)
    with Postgres.start(closed / "pg", durable=False) as server:
        elsewhere = server.home
        assert (closed / "pg").is_symlink()
        assert (closed / "pg").resolve() == elsewhere
        query(server.dsn(), "CREATE TABLE kept AS SELECT 1 AS number")
    assert str(elsewhere) in capfd.readouterr().err
    with Postgres.start(closed / "pg", durable=False) as server:
        assert query(server.dsn(), "SELECT number FROM kept") == 1
    shutil.rmtree(elsewhere)


@root_only
def test_wheel_that_the_server_s_user_may_not_read_is_copied(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from infra.local import postgres_binaries

    user = unprivileged_user()
    wheel = find_binaries(user)
    if wheel.source != "wheel":
        pytest.skip("the wheel is not installed")
    closed = open_folder / "home"
    closed.mkdir(mode=0o700)
    package = wheel.bin.parents[1]
    copied = closed / postgres_binaries.WHEEL
    shutil.copytree(wheel.bin.parent, copied / wheel.bin.parent.name)
    shutil.copytree(package.with_name(f"{package.name}.libs"), closed / f"{package.name}.libs")
    hidden = copied / wheel.bin.parent.name / "bin"
    assert server_version(hidden, user) is None
    monkeypatch.setattr(postgres_binaries, "_candidates", lambda: iter([("wheel", hidden)]))
    monkeypatch.setattr(postgres_binaries, "CACHE_HOMES", (open_folder,))
    found = find_binaries(user)
    assert found.version == wheel.version
    assert found.bin.is_relative_to(open_folder)
    assert not found.bin.is_relative_to(closed)
    assert find_binaries(user).bin == found.bin


def test_unusable_candidates_are_passed_over_with_a_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from infra.local import postgres_binaries

    good = find_binaries(unprivileged_user())
    candidates = [("system", tmp_path / "nothing here"), ("system", good.bin)]
    monkeypatch.setattr(postgres_binaries, "_candidates", lambda: iter(candidates))
    assert find_binaries(unprivileged_user()) == Binaries(good.bin, good.version, "system")
    assert "nothing here" in capsys.readouterr().err


def test_pg_bin_without_a_server_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PG_BIN", str(tmp_path))
    with pytest.raises(PostgresNotFoundError, match=f"PG_BIN={tmp_path}"):
        find_binaries(None)


def test_no_postgres_at_all_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    from infra.local import postgres_binaries

    monkeypatch.setattr(postgres_binaries, "_candidates", lambda: iter([]))
    with pytest.raises(PostgresNotFoundError, match="No PostgreSQL found"):
        find_binaries(None)


def test_stop_ends_sessions_that_are_busy(open_folder: Path) -> None:
    server = Postgres.start(open_folder / "pg")
    with closing(psycopg2.connect(server.dsn())) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        row = cursor.fetchone()
        assert row
        backend = row[0]
        server.stop()
        assert wait_until(lambda: not is_alive(backend), 10)
