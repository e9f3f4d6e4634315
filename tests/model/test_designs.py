"""The table "which mechanism survives what": every broken design shows the violation it is known for."""

from __future__ import annotations

import os

import pytest

from tests.model.cases import COLUMNS, TABLE, check_design, verdict

CELLS = [
    pytest.param(name, column, expected, id=f"{name} - {column} - {expected or 'ok'}")
    for name, row in TABLE.items()
    for column, expected in zip(COLUMNS, row, strict=True)
]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("name", "column", "expected"), CELLS)
def test_table(name: str, column: str, expected: str) -> None:
    """D: a row applied twice, F: done with rows not applied, R: moved rows are left over."""
    found = check_design(name, column, full=os.environ.get("SLUICE_MODEL") == "full")
    traces = "\n".join(map(found.explain, found.violations))
    assert verdict(found) == expected, f"{len(found.states)} states\n{traces}"
