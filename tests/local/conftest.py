"""The little application that the local stack's own tests deploy."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local.postgres import Postgres
from infra.local.stack import LocalStack

FIXTURE = Path(__file__).parent / "fixture"


@pytest.fixture(scope="session")
def application() -> Path:
    """Folder of the little application."""
    return FIXTURE


@pytest.fixture(scope="module")
def stack(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """The little application, deployed; time between schedules and retries runs 600 times as fast."""
    data = tmp_path_factory.mktemp("stack")
    with LocalStack(
        template=FIXTURE / "template.yaml", data_dir=data, dsn=postgres.dsn(), clock_speed=600.0
    ) as running:
        yield running


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A temporary folder that also another user may enter; pytest's own is closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="sluice-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
