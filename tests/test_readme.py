"""Every command of the README works, in the README's order, in a copy of the project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```sh *(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_RUN_HERE = {
    "test": "it is what runs this test",
    "docker": "there is no Docker",
    "aws": "there is no AWS account",
}


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Path]:
    """What git would clone, with the environment of this run."""
    copy = tmp_path / "clone"
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    (copy / ".venv").symlink_to(ROOT / ".venv")
    # Older than the environment, so that make does not point the shared environment at this copy.
    for name in ("uv.lock", "pyproject.toml"):
        os.utime(copy / name, (0, 0))
    yield copy
    subprocess.run(["make", "down"], cwd=copy, check=False, capture_output=True)


@pytest.mark.timeout(600)
def test_every_command_of_the_readme_works(clone: Path) -> None:
    script = "\n".join(commands for kind, commands in BLOCK.findall(README) if not kind)
    # The engine is installed from the project that this test belongs to; the copy's own is the one to try.
    environment = {**os.environ, "ROWS": "3000", "PYTHONPATH": f"{clone / 'layers/engine'}:{clone}"}
    ended = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", script],
        cwd=clone,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert ended.returncode == 0, f"{ended.stdout[-3000:]}\n{ended.stderr[-3000:]}"


def test_a_block_that_is_not_run_has_a_reason() -> None:
    assert {kind for kind, _ in BLOCK.findall(README) if kind} == set(NOT_RUN_HERE)


def test_the_readme_names_every_make_target_and_command() -> None:
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    told_by_help = {"help", "setup", "env"}
    assert [name for name in targets if name not in told_by_help and f"make {name}" not in README] == []
    from sluice.cli.app import main

    commands = set(main.commands) - {"schema"}
    assert [name for name in sorted(commands) if f"sluice {name}" not in README] == []
