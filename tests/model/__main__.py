"""`python -m tests.model [part of a name]`: sizes of the scenarios, the table, and every shortest counter-example."""

from __future__ import annotations

import sys
import time

from tests.model.cases import (
    COLUMNS,
    FULL,
    SCENARIOS,
    TABLE,
    TAKEN_AWAY,
    check,
    check_design,
    check_without,
    verdict,
)


def main(part: str) -> None:
    for scenario in SCENARIOS + (FULL if part else []):
        if part in scenario.name:
            started = time.perf_counter()
            found = check(scenario)
            for kind in found.violations:
                print(found.explain(kind))
            size = f"{len(found.states):9,} states {found.transitions:10,} moves"
            print(f"{size} {time.perf_counter() - started:6.1f} s  {scenario.name}", flush=True)
    for wrong, rules, scenario, expected in TAKEN_AWAY:
        if part in wrong:
            found = check_without(rules, scenario, expected)
            print(f"\n{wrong}")
            for kind in found.violations:
                print(found.explain(kind))
    for name in TABLE:
        if part in name:
            show_row(name, with_traces=bool(part))


def show_row(name: str, with_traces: bool) -> None:
    """One row of the table; with its counter-examples when it was asked for by name."""
    started = time.perf_counter()
    cells = {column: check_design(name, column) for column in COLUMNS}
    states = sum(len(found.states) for found in cells.values())
    letters = " ".join(f"{verdict(found) or 'ok':3}" for found in cells.values())
    print(f"{name:52} {letters} {states:9,} states {time.perf_counter() - started:6.1f} s", flush=True)
    for column, found in cells.items() if with_traces else ():
        for kind in found.violations:
            print(f"{column}, {found.explain(kind)}")


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]))
