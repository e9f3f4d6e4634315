"""How much of its time an attempt gives to one statement."""

from __future__ import annotations

from math import inf

import pytest

from sluice.databases.postgres import Limits
from sluice.deadline import Deadline
from sluice.errors import DeadlineNearError


@pytest.mark.parametrize(
    ("left", "limit", "budget"), [(900.0, 840.0, 840.0), (100.0, 840.0, 80.0), (30.0, 840.0, 15.0), (-1.0, 840.0, 0.0)]
)
def test_a_statement_gets_what_is_left_but_for_a_margin(left: float, limit: float, budget: float) -> None:
    assert Deadline(lambda: left).budget(limit) == budget


def test_without_an_end_only_the_limit_counts() -> None:
    assert Deadline().seconds_left() == inf
    assert Deadline().budget(10) == 10


def test_no_transaction_starts_without_time_for_a_statement() -> None:
    with pytest.raises(DeadlineNearError):
        Limits(budget=lambda: 0.5).statement_seconds()
    assert Limits(budget=lambda: 2.0).statement_seconds() == 2.0
