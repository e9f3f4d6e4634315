"""The process that owns the local stack while it is up, and the files by which other processes find it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from infra.local.errors import LocalStackError
from infra.local.processes import is_alive, wait_until

if TYPE_CHECKING:
    from infra.local.stack import LocalStack

START_SECONDS = 120.0
STOP_SECONDS = 45.0


class AlreadyUpError(LocalStackError):
    """The local stack is up already: `make down` ends it."""


class NotUpError(LocalStackError):
    """The local stack is not up: `make up` starts it."""


@dataclass(frozen=True)
class Running:
    """What a running stack says of itself; `.sluice/stack.json` holds it."""

    pid: int
    endpoint_url: str
    dsn: str
    postgres: str
    bucket: str
    functions: dict[str, str]
    state_machines: dict[str, str]
    topics: dict[str, str]

    def lines(self) -> list[str]:
        """For people."""
        return [
            f"endpoint       {self.endpoint_url}",
            f"database       {self.dsn}",
            f"PostgreSQL     {self.postgres}",
            f"bucket         {self.bucket}",
            *(f"state machine  {arn}" for arn in self.state_machines.values()),
            *(f"topic          {arn}" for arn in self.topics.values()),
            *(f"function       {name}" for name in self.functions.values()),
        ]


@dataclass(frozen=True)
class Files:
    """The files of the stack whose state lies in `folder`."""

    folder: Path

    @property
    def lock(self) -> Path:
        return self.folder / "supervisor.lock"

    @property
    def pid(self) -> Path:
        return self.folder / "supervisor.pid"

    @property
    def log(self) -> Path:
        return self.folder / "supervisor.log"

    @property
    def env(self) -> Path:
        return self.folder / "env"

    @property
    def state(self) -> Path:
        return self.folder / "stack.json"

    def running(self) -> Running:
        """The stack that is up. Raises NotUpError."""
        if not self.is_locked():
            raise NotUpError
        try:
            return Running(**json.loads(self.state.read_text()))
        except (OSError, ValueError, TypeError):
            raise NotUpError("The local stack is still starting.") from None

    def is_locked(self) -> bool:
        """Whether a supervisor lives: the kernel drops its lock when it dies, however it dies."""
        try:
            handle = os.open(self.lock, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Be the supervisor. Raises AlreadyUpError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.lock, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AlreadyUpError from None
            self.pid.write_text(f"{os.getpid()}\n")
            try:
                yield
            finally:
                for path in (self.pid, self.env, self.state):
                    path.unlink(missing_ok=True)
        finally:
            os.close(handle)

    def publish(self, stack: LocalStack) -> Running:
        """Write `env` and `stack.json`, for the owner's eyes only: both hold the password."""
        found = stack.deployment
        running = Running(
            pid=os.getpid(),
            endpoint_url=stack.endpoint_url,
            dsn=stack.dsn,
            postgres=_describe_postgres(stack),
            bucket=stack.bucket,
            functions=found.of_type("AWS::Lambda::Function"),
            state_machines=found.of_type("AWS::StepFunctions::StateMachine"),
            topics=found.of_type("AWS::SNS::Topic"),
        )
        exports = [f"export {name}={shlex.quote(value)}" for name, value in stack.env().items()]
        # `sluice` and `aws` are those of the environment of the stack; `psql` the server's where there is none.
        psql = "" if stack.postgres is None else f":{shlex.quote(str(stack.postgres.binaries.bin))}"
        exports.append(f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"{psql}')
        # A profile of the developer's would win over these credentials.
        _write_private(self.env, "\n".join([*exports, "unset AWS_PROFILE AWS_SESSION_TOKEN"]) + "\n")
        _write_private(self.state, json.dumps(asdict(running), indent=2) + "\n")
        return running


def _describe_postgres(stack: LocalStack) -> str:
    server = stack.postgres
    if server is None:
        return "not ours"
    version = ".".join(map(str, server.binaries.version))
    return f"{version} ({server.binaries.bin}), process {server.pid}, data in {server.home}"


def _write_private(path: Path, text: str) -> None:
    staging = path.with_suffix(".new")
    staging.touch(mode=0o600)
    staging.write_text(text)
    staging.replace(path)


def run(stack: LocalStack, files: Files, ready: int | None = None) -> None:
    """Hold the stack up until SIGTERM or SIGINT.

    `ready` is a file descriptor that gets one line once the stack is up or has failed, and is then closed.
    """
    ended = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        ended.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end)
    try:
        with files.hold(), stack:
            running = files.publish(stack)
            _tell(ready, {"running": asdict(running)})
            if ready is None:
                print("\n".join([*running.lines(), "Ctrl-C ends it."]), flush=True)
            ended.wait()
    except LocalStackError as error:
        _tell(ready, {"error": str(error)})
        raise


def _tell(ready: int | None, message: dict[str, object]) -> None:
    if ready is None:
        return
    with contextlib.suppress(OSError):
        os.write(ready, json.dumps(message).encode() + b"\n")
        os.close(ready)


def start_in_background(files: Files, arguments: Sequence[str]) -> Running:
    """Start a supervisor that outlives this process. `arguments` are those of `up`. Raises LocalStackError."""
    if files.is_locked():
        raise AlreadyUpError
    files.folder.mkdir(parents=True, exist_ok=True)
    read_end, write_end = os.pipe()
    command = [sys.executable, "-m", "infra.local", "up", "--foreground", "--ready-fd", str(write_end), *arguments]
    with files.log.open("wb") as log:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[write_end], start_new_session=True
        )
    os.close(write_end)
    try:
        with os.fdopen(read_end) as answers:
            answer = json.loads(answers.readline() or "{}")
    except BaseException:
        child.terminate()
        child.wait()
        raise
    if "running" in answer:
        # This process ends before the supervisor does, and must not complain about it.
        child.returncode = 0
        return Running(**answer["running"])
    child.wait()
    if "error" in answer:
        raise LocalStackError(answer["error"])
    tail = "\n".join(files.log.read_text(errors="replace").splitlines()[-5:])
    raise LocalStackError(f"The local stack ended while it started; {files.log} ends:\n{tail}")


def stop(files: Files) -> None:
    """End the supervisor and wait until nothing of the stack is left. Raises NotUpError."""
    if not files.is_locked():
        raise NotUpError
    pid = int(files.pid.read_text())
    server = files.folder / "pg" / "data" / "postmaster.pid"
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    if not wait_until(lambda: not files.is_locked(), STOP_SECONDS):
        os.kill(pid, signal.SIGKILL)
    if not wait_until(lambda: not (is_alive(pid) or _runs(server)), STOP_SECONDS):
        raise LocalStackError(f"The local stack (process {pid}) does not end; see {files.log}")


def _runs(postmaster_pid: Path) -> bool:
    try:
        return is_alive(int(postmaster_pid.read_text().splitlines()[0]))
    except (OSError, ValueError, IndexError):
        return False
