"""The sections of the page that are charts, each with its numbers as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sluice.report.svg import Words, area, columns
from sluice.report.text import count, esc, folded, number, seconds, table, time

Report = Mapping[str, Any]
MOST_TABLE_ROWS = 30


def section(title: str, *content: str) -> str:
    """A card of the page."""
    return f"<section><h2>{esc(title)}</h2>{''.join(content)}</section>"


def none(text: str) -> str:
    """A sentence where there is nothing to show."""
    return f'<p class="none">{esc(text)}</p>'


def thinned(rows: Sequence[Any]) -> list[Any]:
    """At most MOST_TABLE_ROWS of the rows, evenly, with the last one."""
    step = -(-len(rows) // MOST_TABLE_ROWS)
    return [row for n, row in enumerate(rows, start=1) if n % step == 0 or n == len(rows)] if rows else []


def progress(report: Report) -> str:
    """Rows updated over working time."""
    points = report["progress"]
    if len(points) < 2:
        return section("Progress", none("No rows were at work."))
    timing, totals = report["timing"], report["totals"]
    end = timing["working_seconds"]
    drawn = [(point["seconds"], point["rows"]) for point in points]
    if drawn[-1][0] < end:
        drawn.append((end, drawn[-1][1]))
    pauses = [(pause["at_seconds"], f"{seconds(pause['seconds'])} without work") for pause in timing["pauses"]]
    setbacks = [point["seconds"] for point in points if point["setbacks"]]
    failed = sum(point["setbacks"] for point in points)
    words = Words(
        "progress",
        "Rows updated over time",
        f"{number(drawn[-1][1])} of {number(totals['rows_planned'])} planned rows updated in {seconds(end)} of work; "
        f"{count(failed, 'failed attempt')}; {count(len(pauses), 'pause')} left out.",
    )
    chart = area(words, drawn, goal=totals["rows_planned"], marks=pauses, setbacks=setbacks)
    legend = ["<li>rows updated</li>"]
    if failed:
        legend.append(f'<li class="bad">{count(failed, "attempt")} failed, marked on the axis</li>')
    if pauses:
        legend.append(f'<li class="calm">{count(len(pauses), "pause")} left out</li>')
    rows = [
        (time(point["at"]), seconds(point["seconds"]), number(point["rows"]), number(point["setbacks"]))
        for point in thinned(points)
    ]
    numbers = table("Rows updated over time", ("At", "Work", "Rows", "Failed attempts"), rows, numeric=(1, 2, 3))
    return section(
        "Progress",
        f'<div class="scroll wide">{chart}</div>',
        f'<ul class="legend">{"".join(legend)}</ul>',
        folded("Show as a table", numbers),
    )


def rates(report: Report) -> str:
    """Rows per second over working time."""
    parts = report["rates"]
    heights = [part["rows_per_second"] for part in parts]
    if not any(heights):
        return section("Rows per second", none("No rows were updated."))
    mean = report["totals"]["rows_per_second"]
    words = Words(
        "rates",
        "Rows per second over time",
        f"On average {number(mean)}, at most {number(max(heights))} rows per second.",
    )
    rows = [
        (f"{seconds(part['from_seconds'])} to {seconds(part['to_seconds'])}", number(part["rows_per_second"]))
        for part in thinned(parts)
    ]
    numbers = table("Rows per second over time", ("Work", "Rows per second"), rows, numeric=(1,))
    note = f'<p class="soft small">{number(mean)} on average, {number(max(heights))} at best.</p>'
    return section(
        "Rows per second", columns(words, heights, parts[-1]["to_seconds"]), note, folded("Show as a table", numbers)
    )


def durations(report: Report) -> str:
    """How many chunks took how long, and the slowest of them."""
    found, bars = report["durations"], report["durations"]["bars"]
    if not bars:
        return section("Chunk durations", none("No chunk of rows was done."))
    open_end = bars[-1]["to_seconds"] is None
    width = bars[0]["to_seconds"] or found["max"]
    words = Words(
        "durations",
        "Chunks by duration",
        f"Half of {count(found['chunks'], 'chunk')} took {seconds(found['p50'])} or less, 95 in a hundred "
        f"{seconds(found['p95'])} or less, the longest {seconds(found['max'])}.",
    )
    chart = columns(
        words,
        [bar["chunks"] for bar in bars],
        width * len(bars),
        marks=[(found["p50"], f"half: {seconds(found['p50'])}"), (found["p95"], f"95 %: {seconds(found['p95'])}")],
        open_end=open_end,
        least_y_step=1.0,
    )
    note = f"{count(found['chunks'], 'chunk')}; the longest took {seconds(found['max'])}."
    if open_end:
        note += " The last column holds all that took longer."
    rows = [
        (
            f"{seconds(bar['from_seconds'])} to {seconds(bar['to_seconds'])}"
            if bar["to_seconds"] is not None
            else f"{seconds(bar['from_seconds'])} and more",
            number(bar["chunks"]),
        )
        for bar in bars
    ]
    numbers = table("Chunks by duration", ("Duration", "Chunks"), rows, numeric=(1,))
    return section("Chunk durations", chart, f'<p class="soft small">{note}</p>', folded("Show as a table", numbers))
