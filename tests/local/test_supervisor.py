"""`python -m infra.local`: up, down, and what is left of it: nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from infra.local.processes import is_alive, wait_until
from infra.local.supervisor import Files, Running

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def local(open_folder: Path) -> Iterator[Command]:
    """Run the command on a data folder of this test's own; whatever is up at the end is taken down."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "infra.local", arguments[0], "--data-dir", str(open_folder), *arguments[1:]]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    yield run
    if Files(open_folder).is_locked():
        run("down")


@pytest.fixture
def up(local: Command, application: Path, open_folder: Path) -> Callable[..., Running]:
    """Start the little application."""

    def start(*arguments: str) -> Running:
        done = local("up", "--template", str(application / "template.yaml"), *arguments)
        assert done.returncode == 0, done.stderr
        return Files(open_folder).running()

    return start


def family(pid: int) -> list[int]:
    """The process and all its descendants."""
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(child): int(parent) for child, parent in (line.split() for line in listing.splitlines())}
    found = [pid]
    for member in found:
        found += [child for child, parent in parents.items() if parent == member]
    return found


def everything(running: Running) -> list[int]:
    """Supervisor, PostgreSQL with its own children, and workers."""
    found = family(running.pid)
    assert len(found) > 4
    return found


def none_left(pids: list[int]) -> bool:
    return wait_until(lambda: not any(is_alive(pid) for pid in pids), 30)


def test_up_says_where_everything_is_and_down_leaves_nothing(
    local: Command, up: Callable[..., Running], open_folder: Path
) -> None:
    running = up()
    assert local("invoke", "echo_event", "{}").returncode == 0
    pids = everything(running)
    shown = local("status").stdout
    for text in (running.endpoint_url, running.dsn, running.state_machines["LittleStateMachine"]):
        assert text in shown
    script = f"source {open_folder}/env; echo $AWS_ENDPOINT_URL $SLUICE_DSN $AWS_PROFILE $SLUICE_STATE_MACHINE_ARN"
    answer = subprocess.run(
        ["bash", "-c", script], env={**os.environ, "AWS_PROFILE": "mine"}, capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == [running.endpoint_url, running.dsn, running.state_machines["LittleStateMachine"]]
    assert Files(open_folder).env.stat().st_mode & 0o077 == 0
    done = local("down")
    assert done.returncode == 0, done.stderr
    assert not any(is_alive(pid) for pid in pids)
    assert not Files(open_folder).env.exists()


def test_database_survives_down_and_up(local: Command, up: Callable[..., Running]) -> None:
    with closing(psycopg2.connect(up().dsn)) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE kept AS SELECT 5 AS number")
        connection.commit()
        local("down")
    with closing(psycopg2.connect(up().dsn)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT number FROM kept")
        assert cursor.fetchone() == (5,)


def test_kill_9_of_the_supervisor_leaves_nothing_and_up_works_again(local: Command, up: Callable[..., Running]) -> None:
    running = up()
    assert local("invoke", "echo_event", "{}").returncode == 0
    pids = everything(running)
    os.kill(running.pid, signal.SIGKILL)
    assert none_left(pids)
    assert "is not up" in local("status").stderr
    assert up().pid != running.pid


def test_foreground_ends_with_ctrl_c(application: Path, open_folder: Path) -> None:
    command = [sys.executable, "-m", "infra.local", "up", "--foreground", "--data-dir", str(open_folder)]
    command += ["--template", str(application / "template.yaml")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline().startswith("endpoint ")
        pids = everything(Files(open_folder).running())
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert not any(is_alive(pid) for pid in pids)


def test_second_up_is_refused_in_one_line(local: Command, up: Callable[..., Running], application: Path) -> None:
    running = up()
    again = local("up", "--template", str(application / "template.yaml"))
    assert again.returncode == 1
    assert again.stderr == "The local stack is up already: `make down` ends it.\n"
    assert is_alive(running.pid)


def test_commands_without_a_stack_say_so_in_one_line(local: Command) -> None:
    for arguments in (["down"], ["env"], ["status"], ["invoke", "echo_event"], ["logs", "echo_event"]):
        done = local(*arguments)
        assert done.returncode == 1
        assert done.stderr == "The local stack is not up: `make up` starts it.\n"


def test_user_s_mistakes_at_up_are_one_line(
    local: Command, application: Path, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = str(application / "template.yaml")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        cases = [
            (["--port", port, "--template", template], f"port {port} cannot be used"),
            (["--postgres-port", port, "--template", template], f"port {port} is taken"),
            (["--template", "/nowhere.yaml"], "there is no template /nowhere.yaml"),
            (["--template", template, "--parameter", "Colour=red"], "the template has no parameter Colour"),
        ]
        for arguments, message in cases:
            done = local("up", *arguments)
            assert done.returncode == 1
            assert done.stderr.startswith(message)
            assert done.stderr.count("\n") == 1
    monkeypatch.setenv("PG_BIN", "/nowhere")
    done = local("up", "--template", template, "--data-dir", str(open_folder / "other"))
    assert done.returncode == 1
    assert done.stderr.startswith("PG_BIN=/nowhere")
    assert done.stderr.count("\n") == 1


def test_invoke_and_logs_by_folder_logical_id_and_name(
    local: Command, up: Callable[..., Running], tmp_path: Path
) -> None:
    up()
    for name in ("echo_event", "EchoEventFunction", "sluice-EchoEventFunction"):
        done = local("invoke", name, '{"by": "name"}')
        assert done.returncode == 0
        assert json.loads(done.stdout)["echo"] == {"by": "name"}
        assert "REPORT RequestId" in done.stderr
    event = tmp_path / "event.json"
    event.write_text('{"by": "file"}')
    for argument in (str(event), f"@{event}"):
        assert json.loads(local("invoke", "echo_event", argument).stdout)["echo"] == {"by": "file"}
    failed = local("invoke", "echo_event", '{"mode": "raise"}')
    assert failed.returncode == 1
    assert json.loads(failed.stdout)["errorType"] == "BadInputError"
    assert local("logs", "echo_event").stdout.count("START RequestId") == 6
    for arguments, message in (
        (["no_such"], "there is no function no_such; there are broken_import, echo_event, one_at_a_time"),
        (["echo_event", "{"], "the event is not JSON"),
        (["echo_event", "@/nowhere"], "cannot read /nowhere"),
    ):
        refused = local("invoke", *arguments)
        assert refused.returncode == 1
        assert refused.stderr.startswith(message)
        assert refused.stderr.count("\n") == 1
