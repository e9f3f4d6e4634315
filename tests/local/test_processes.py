"""Children that end with their parent, also where the kernel does not see to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from infra.local import processes
from infra.local.processes import is_alive, wait_until


@pytest.fixture
def watched() -> list[str]:
    """Command of a launcher that believes to be on another system than Linux, watching a child that sleeps."""
    child = [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(600)"]
    code = "import sys; sys.platform = 'elsewhere'\n" + processes._TETHER
    return [sys.executable, "-c", code, str(os.getpid()), str(int(signal.SIGKILL)), "-1", "-1", *child]


def start(command: list[str]) -> tuple[subprocess.Popen[bytes], int]:
    launcher = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert launcher.stdout
    return launcher, int(launcher.stdout.readline())


def test_watchman_kills_the_child_when_the_parent_is_gone(watched: list[str]) -> None:
    launcher, child = start(watched)
    with launcher:
        assert launcher.stdin
        launcher.stdin.close()
        assert wait_until(lambda: not is_alive(child), 20)
        assert launcher.wait(20) != 0


def test_watchman_passes_signals_on(watched: list[str]) -> None:
    launcher, child = start(watched)
    with launcher:
        launcher.send_signal(signal.SIGTERM)
        assert wait_until(lambda: not is_alive(child), 20)


def test_watchman_ends_with_the_child(watched: list[str]) -> None:
    launcher, child = start(watched)
    with launcher:
        os.kill(child, signal.SIGKILL)
        assert launcher.wait(20) != 0


def test_a_zombie_is_not_alive() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    assert wait_until(lambda: not is_alive(child.pid), 20)
    child.wait()
