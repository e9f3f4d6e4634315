"""`plan`: what a run would do, tried and rolled back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click
from rich.text import Text

from sluice.cli.access import Access
from sluice.cli.options import as_json, params, parse_params, with_access
from sluice.cli.output import emit, say, seconds, table
from sluice.context import Context
from sluice.job_file import load_job

UNITS = ("B", "kB", "MB", "GB", "TB")


@click.command()
@click.argument("job")
@params
@click.option("--no-rehearsal", is_flag=True, help="Execute nothing that writes, not even to roll it back.")
@click.option("--explain", is_flag=True, help="Show the plans of the statements that were tried.")
@as_json
@with_access
def plan(access: Access, job: str, params: Sequence[str], no_rehearsal: bool, explain: bool, as_json: bool) -> None:
    """Show what a run of JOB would do, and leave the database as it is.

    Cuts every update step into chunks, tries the sql steps and one chunk of each update in a transaction that is
    rolled back, warns where a statement's cost grows with the table, and forecasts time, WAL and Lambda cost. The
    rehearsal holds the locks of what it tries until it is rolled back.
    """
    from sluice.dry_run import plan as dry_run

    spec = load_job(job)
    context = Context(spec, access.database(spec))
    found = dry_run(context, spec.bind(parse_params(params)), rehearse_steps=not no_rehearsal)
    if as_json:
        return emit(found)
    say(Text(found["job"], style="bold"), steps_table(found["steps"]))
    for step in found["steps"]:
        for warning in dict.fromkeys(step["warnings"]):
            say(Text.assemble(("warning  ", "yellow"), warning))
        if explain:
            say_plans(step)
    say("", forecast(found["forecast"]))


def steps_table(steps: Sequence[Mapping[str, Any]]) -> Any:
    """Steps with their cut: rows, chunks, and how evenly the rows lie in them."""
    numbers = {
        "rows": "rows",
        "chunks": "chunks",
        "median chunk": "median_chunk",
        "largest": "largest_chunk",
        "key groups": "groups",
        "largest group": "largest_group",
        "NULL keys": "null_rows",
    }
    return table(
        ("step", "kind", *numbers, "tried"),
        (
            (
                step["name"],
                step["kind"],
                *(step[name] if step["kind"] == "update" else None for name in numbers.values()),
                ", ".join(f"{phase['name']} {phase['rows']:,} in {phase['seconds']:.2f} s" for phase in step["phases"]),
            )
            for step in steps
        ),
        right=tuple(numbers),
    )


def say_plans(step: Mapping[str, Any]) -> None:
    for phase in step["phases"]:
        if phase["plan"]:
            say(Text(f"\n{step['name']}, {phase['name']}", style="dim"))
            say("\n".join(phase["plan"]))


def forecast(found: Mapping[str, Any]) -> str:
    """Time, WAL and cost of a whole run in one line."""
    dollars = sum(found["dollars"].values())
    return (
        f"forecast  about {seconds(found['seconds'])}, {size(found['wal_bytes'])} of WAL, "
        f"{found['chunks']:,} chunks, {found['state_transitions']:,} state transitions, "
        f"${dollars:.4f} for Lambda, Step Functions and S3 (prices of {found['prices_as_of']})"
    )


def size(value: float) -> str:
    """Bytes in the greatest unit that leaves at least one."""
    for unit in UNITS:
        if value < 1000 or unit == UNITS[-1]:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError


COMMANDS = (plan,)
