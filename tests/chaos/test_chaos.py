"""The short form of `make chaos`, and the proof that its harness sees faults."""

from __future__ import annotations

import pytest

from tests.chaos.campaign import chaos, control

pytestmark = pytest.mark.timeout(240)


def test_every_row_once_whatever_is_killed() -> None:
    result = chaos(kills=25, seed=7, rows=4_000)
    assert result.account.is_clean, f"{result.text}\n{result.verdict}"
    assert result.kills >= 25


def test_the_first_design_does_not_survive_the_same() -> None:
    result = control(kills=10, seed=7, rows=4_000)
    assert result.account.lost + result.account.twice > 0, f"{result.text}\n{result.verdict}"
