"""Numbers, times and tables as HTML text. Every value passes through `esc` or a function that gives only digits."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

NONE = "\N{EN DASH}"
CODE = re.compile(r"`([^`]+)`")
RIGHT = ' class="n"'


def esc(value: object) -> str:
    """Text for an element or a quoted attribute; a dash for nothing."""
    return NONE if value is None or value == "" else html.escape(str(value), quote=True)


def prose(value: object) -> str:
    """A sentence in which `this` is code."""
    return CODE.sub(r"<code>\1</code>", esc(value))


def number(value: object) -> str:
    """1234567 as 1,234,567; of a fraction what a reader needs of it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return esc(value)
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:,.{1 if abs(value) >= 10 else 2}f}".rstrip("0").rstrip(".")


def count(n: object, one: str, many: str = "") -> str:
    """`1 chunk`, `2,000 chunks`."""
    return f"{number(n)} {one if n == 1 else many or one + 's'}"


def seconds(value: object) -> str:
    """A duration in the two largest units that say something: 320 ms, 4.2 s, 3 min 05 s, 2 h 10 min, 4 d 3 h."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return esc(value)
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def moment(value: object) -> datetime | None:
    """The time that an ISO 8601 text names, None where it names none."""
    try:
        return datetime.fromisoformat(str(value)).astimezone(UTC)
    except ValueError:
        return None


def time(value: object, *, with_date: bool = True) -> str:
    """A time element: date and time of day in UTC."""
    at = moment(value)
    if at is None:
        return esc(value)
    shown = f"{at:%Y-%m-%d %H:%M:%S} UTC" if with_date else f"{at:%H:%M:%S}"
    return f'<time datetime="{esc(value)}">{shown}</time>'


def table(
    caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]], *, numeric: Sequence[int] = (), css: str = ""
) -> str:
    """A table; cells are HTML already, columns of `numeric` are set to the right."""

    def cells(tag: str, row: Sequence[str], scope: str) -> str:
        return "".join(
            f"<{tag}{scope}{RIGHT if column in numeric else ''}>{cell}</{tag}>" for column, cell in enumerate(row)
        )

    body = "".join(f"<tr>{cells('td', row, '')}</tr>" for row in rows)
    head = cells("th", [esc(head) if head else "" for head in heads], ' scope="col"')
    return (
        f'<div class="scroll"><table class="{css or "plain"}">'
        f"<caption>{esc(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def folded(summary: str, content: str) -> str:
    """Content that is shown when a reader asks for it."""
    return f"<details><summary>{esc(summary)}</summary>{content}</details>"


def badge(label: object, tone: str) -> str:
    """A word on a coloured ground; tone is good, warn, bad or calm."""
    return f'<span class="badge {tone}">{esc(label)}</span>'
