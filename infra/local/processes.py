"""Child processes that never outlive this one."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

# Runs as the child, before the real program: drops privileges and only then asks the kernel for the signal,
# because a change of credentials clears that request. A parent that died meanwhile leaves nobody to die for.
# Elsewhere than on Linux it stays as a watchman instead: its standard input closes when the parent is gone.
_TETHER = """
import ctypes, os, sys
libc = ctypes.CDLL(None)  # the account dropped to may not be allowed to read Python's own folder
parent, death_signal, uid, gid = map(int, sys.argv[1:5])
command = sys.argv[5:]
if uid >= 0:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
if sys.platform == "linux":
    libc.prctl(1, death_signal, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(0)
    os.execv(command[0], command)
import select, signal
child = os.fork()
if child == 0:
    os.execv(command[0], command)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
    signal.signal(number, lambda number, frame: os.kill(child, number))
sent = False
while True:
    pid, status = os.waitpid(child, os.WNOHANG)
    if pid:
        sys.exit(os.waitstatus_to_exitcode(status) & 0xFF)
    if select.select([] if sent else [0], [], [], 0.1)[0]:
        os.kill(child, death_signal)
        sent = True
"""


@dataclass(frozen=True)
class User:
    """The account a child runs under."""

    name: str
    uid: int
    gid: int


def unprivileged_user() -> User | None:
    """The account to drop to: `nobody` for root, None for everyone else."""
    if os.geteuid() != 0:
        return None
    import pwd

    entry = pwd.getpwnam("nobody")
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid)


class _Spawner:
    """The one thread that forks.

    The kernel sends a child its parent-death signal when the forking *thread* ends, so no request thread
    may fork. This one ends with the process.
    """

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="spawner", daemon=True).start()

    def _run(self) -> None:
        while True:
            task, future = self._tasks.get()
            try:
                future.set_result(task())
            except BaseException as error:
                future.set_exception(error)

    def call(self, task: Callable[[], Any]) -> Any:
        future: Future[Any] = Future()
        self._tasks.put((task, future))
        return future.result()


_spawner: _Spawner | None = None
_spawner_lock = threading.Lock()


def _forget_spawner() -> None:
    global _spawner, _spawner_lock
    _spawner, _spawner_lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget_spawner)


def _on_spawner(task: Callable[[], Any]) -> Any:
    global _spawner  # noqa: PLW0603
    with _spawner_lock:
        if _spawner is None:
            _spawner = _Spawner()
    return _spawner.call(task)


def spawn(
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stderr: int | IO[bytes] = subprocess.STDOUT,
) -> subprocess.Popen[bytes]:
    """Start a child, in a session of its own, that asks for its parent-death signal itself."""

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            cwd=cwd,
            env=None if env is None else dict(env),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )

    child: subprocess.Popen[bytes] = _on_spawner(start)
    return child


def spawn_tethered(
    command: Sequence[str],
    *,
    death_signal: signal.Signals = signal.SIGKILL,
    user: User | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start any program as a child that gets `death_signal` when this process is gone, however it went."""
    identity = [str(user.uid), str(user.gid)] if user else ["-1", "-1"]
    # The venv's own interpreter costs a search for site-packages that the launcher does not need.
    launcher = [sys.executable, "-I", "-S", "-c", _TETHER, str(os.getpid()), str(int(death_signal))]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*launcher, *identity, *command],
            cwd=cwd,
            env=None if env is None else dict(env),
            stdin=subprocess.DEVNULL if sys.platform == "linux" else subprocess.PIPE,
            stdout=stdout,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    child: subprocess.Popen[bytes] = _on_spawner(start)
    return child


def is_alive(pid: int) -> bool:
    """Whether a process of this id runs; a zombie does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return True


def wait_until(condition: Callable[[], bool], seconds: float, *, every: float = 0.01) -> bool:
    """Poll `condition` until it holds; False when `seconds` have passed without it."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(every)
    return True
