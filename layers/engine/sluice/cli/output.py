"""What the operator reads: tables and sentences for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import click
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

WIDTH_OF_A_FILE = 240
STYLES = {
    "running": "cyan",
    "working": "cyan",
    "marking": "cyan",
    "marked": "cyan",
    "held": "yellow",
    "paused": "yellow",
    "cancelling": "yellow",
    "skipped": "yellow",
    "succeeded_with_drift": "yellow",
    "succeeded": "green",
    "done": "green",
    "failed": "red",
    "quarantined": "red",
    "cancelled": "red",
}


def console() -> Console:
    """Standard output; lines are not cut where it is no terminal."""
    width = None if sys.stdout.isatty() else WIDTH_OF_A_FILE
    return Console(file=sys.stdout, highlight=False, markup=False, emoji=False, width=width)


def say(*parts: RenderableType) -> None:
    """Print for people; without the blanks that fill a table's lines where it is no terminal."""
    out = console()
    if out.is_terminal:
        return out.print(*parts, sep="\n")
    with out.capture() as captured:
        out.print(*parts, sep="\n", soft_wrap=all(isinstance(part, str) for part in parts))
    click.echo("\n".join(text.rstrip() for text in captured.get().splitlines()))


def emit(value: object) -> None:
    """One JSON document on a line of its own."""
    click.echo(json.dumps(value, default=plain))


def plain(value: object) -> object:
    """A database value as JSON has it."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(type(value).__name__)


def notice(text: str) -> None:
    """A line for people that is no result: on stderr, so that --json stays clean."""
    click.echo(text, err=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()) -> Table:
    """A table without lines; the columns named in `right` hold numbers, a state is coloured."""
    shown = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in columns:
        shown.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(cell(value) for value in row))
    return shown


def cell(value: object) -> Text:
    text = shown(value)
    return Text(text, style=STYLES.get(text, ""))


def shown(value: object) -> str:
    """A value as a person reads it."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case datetime():
            return f"{value.astimezone():%Y-%m-%d %H:%M:%S}"
        case _:
            return str(value)


def percent(value: Decimal | float) -> str:
    """With one decimal place, none at 0 and 100; never rounded up."""
    return f"{value:.0f} %" if value in (0, 100) else f"{value:.1f} %"


def seconds(value: float) -> str:
    """A length of time in its two greatest units."""
    if value < 10:
        return f"{value:.1f} s"
    whole = int(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def since(value: datetime) -> str:
    """How long ago."""
    return seconds(max(0.0, (datetime.now(value.tzinfo) - value) / timedelta(seconds=1)))


def fate(state: str) -> str:
    """A run's final state as the end of a sentence."""
    return "was cancelled" if state == "cancelled" else f"has {state.replace('_', ' ')}"


def as_dict(row: Any) -> dict[str, Any]:
    """A named row of the database as a mapping, in the order of its columns."""
    fields: Mapping[str, Any] = row._asdict()
    return dict(fields)
