"""`make demo`: Ctrl-C leaves nothing running, and the next one goes on with the same run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def start(data_dir: Path) -> subprocess.Popen[str]:
    """The demo as make starts it, in a process group of its own, as a terminal would."""
    command = [sys.executable, "-m", "infra.local", "demo", "--data-dir", str(data_dir), "--rows", "40000"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0
    )


def interrupt_at(data_dir: Path, line: str) -> str:
    """Press Ctrl-C when the line comes; gives all that was printed."""
    demo = start(data_dir)
    assert demo.stdout is not None
    printed = []
    for text in demo.stdout:
        printed.append(text)
        if re.search(line, text):
            os.killpg(demo.pid, signal.SIGINT)
            break
    printed.append(demo.stdout.read())
    assert demo.wait(timeout=60) == 130, "".join(printed)
    demo.stdout.close()
    return "".join(printed)


def processes_of(data_dir: Path) -> list[str]:
    """Command lines of processes that work in the folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            here = str((entry / "cwd").readlink())
        except OSError:
            continue
        if str(data_dir) in line or here.startswith(str(data_dir)):
            found.append(line)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ctrl_c_leaves_nothing_running_and_the_next_demo_resumes(tmp_path: Path) -> None:
    data_dir = tmp_path / "state"
    for line in ("Starting PostgreSQL", "Making 40,000 rows", "running", "running"):
        printed = interrupt_at(data_dir, line)
        assert "Traceback" not in printed, printed
        end = time.monotonic() + 10
        while (left := processes_of(data_dir)) and time.monotonic() < end:
            time.sleep(0.05)
        assert left == [], line
    demo = start(data_dir)
    printed, _ = demo.communicate(timeout=120)
    assert demo.returncode == 0, printed
    assert "run 1  conflict_report/conflict_report:demo-1" in printed
    assert "40,000 updated, 0 late" in printed and "passed   no_flag_left" in printed
    assert processes_of(data_dir) == []
    assert len(list((data_dir / "reports").glob("*.html"))) == 1
