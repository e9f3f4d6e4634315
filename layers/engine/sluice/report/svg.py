"""Charts as inline SVG that takes its colours from the page: areas, columns and a bar of parts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sluice.report.text import esc, number, seconds

ROUND_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
# Steps of a time axis that people count in.
TIME_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)


@dataclass(frozen=True)
class Frame:
    """A plotting area in the units of the drawing, and the greatest values on its axes."""

    width: int
    height: int
    x_most: float
    y_most: float
    left: int = 58
    right: int = 14
    top: int = 12
    bottom: int = 30

    def x(self, value: float) -> float:
        return self.left + (self.width - self.left - self.right) * value / self.x_most

    def y(self, value: float) -> float:
        return self.floor - (self.floor - self.top) * value / self.y_most

    @property
    def floor(self) -> int:
        return self.height - self.bottom


@dataclass(frozen=True)
class Words:
    """What a chart is called and what it shows, for those who do not see it; `name` is unique on the page."""

    name: str
    title: str
    description: str


def round_step(most: float, parts: int) -> float:
    """The smallest round step that needs at most that many parts."""
    least = max(most, 1e-9) / parts
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * step for step in ROUND_STEPS if power * step >= least * (1 - 1e-9))


def time_step(most: float, parts: int) -> float:
    """The smallest step in which people count time that needs at most that many parts."""
    if most < parts:
        return round_step(most, parts)
    return next((step for step in TIME_STEPS if step * parts >= most), round_step(most / 86_400, parts) * 86_400)


def short(value: float) -> str:
    """A number for an axis: 1,500 or 2.5M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e4)):
        if value >= size:
            return f"{value / (1e3 if unit == 'k' else size):,.1f}".removesuffix(".0") + unit
    return number(value)


def short_time(value: float) -> str:
    """A duration for an axis, without a second unit that says nothing."""
    if not value:
        return "0"
    return seconds(value).replace(".0 s", " s").removesuffix(" 00 s").removesuffix(" 00 min").removesuffix(" 0 h")


def label(x: float, y: float, anchor: str, text: str, css: str = "note") -> str:
    """A text of the drawing; anchor is start, middle or end."""
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{esc(text)}</text>'


def drawing(frame: Frame, words: Words, parts: Sequence[str], *, stretched: bool = False) -> str:
    """The drawing with its title and description; a stretched one takes the form of its box."""
    stretch = ' preserveAspectRatio="none"' if stretched else ""
    return (
        f'<svg viewBox="0 0 {frame.width} {frame.height}"{stretch} role="img" '
        f'aria-labelledby="{esc(words.name)}-t {esc(words.name)}-d">'
        f'<title id="{esc(words.name)}-t">{esc(words.title)}</title>'
        f'<desc id="{esc(words.name)}-d">{esc(words.description)}</desc>{"".join(parts)}</svg>'
    )


def axes(frame: Frame, x_step: float, least_y_step: float = 0.0) -> list[str]:
    """Horizontal lines at round values, and ticks of seconds below."""
    parts = []
    y_step = max(round_step(frame.y_most, 4), least_y_step)
    for n in range(int(frame.y_most / y_step * (1 + 1e-9)) + 1):
        at = frame.y(n * y_step)
        css = "base" if n == 0 else "grid"
        parts.append(f'<path class="{css}" d="M{frame.left} {at:.1f}H{frame.width - frame.right}"/>')
        parts.append(label(frame.left - 8, at + 4, "end", short(n * y_step), "tick"))
    for n in range(int(frame.x_most / x_step * (1 + 1e-9)) + 1):
        at = frame.x(n * x_step)
        anchor = "start" if n == 0 else "end" if at > frame.width - frame.right - 20 else "middle"
        parts.append(f'<path class="base" d="M{at:.1f} {frame.floor}v4"/>')
        parts.append(label(at, frame.floor + 18, anchor, short_time(n * x_step), "tick"))
    return parts


def area(
    words: Words,
    points: Sequence[tuple[float, float]],
    *,
    goal: float = 0,
    marks: Sequence[tuple[float, str]] = (),
    setbacks: Sequence[float] = (),
    width: int = 920,
    height: int = 250,
) -> str:
    """A quantity that grows by steps over seconds.

    goal: a dashed line. marks: (second, label) of upright lines. setbacks: seconds of ticks along the floor.
    """
    last_x = points[-1][0] or 1.0
    frame = Frame(width, height, last_x, max(goal, *(y for _, y in points), 1.0) * 1.04)
    path = f"M{frame.x(points[0][0]):.1f} {frame.y(points[0][1]):.1f}" + "".join(
        f"H{frame.x(x):.1f}V{frame.y(y):.1f}" for x, y in points[1:]
    )
    parts = axes(frame, time_step(last_x, 10), 1.0)
    parts.append(f'<path class="fill" d="{path}H{frame.x(last_x):.1f}V{frame.floor}H{frame.left}Z"/>')
    if goal:
        at = frame.y(goal)
        parts.append(f'<path class="goal" d="M{frame.left} {at:.1f}H{frame.width - frame.right}"/>')
        parts.append(label(frame.left + 6, at + 15, "start", f"planned {number(goal)}"))
    for x, text in marks:
        at = frame.x(x)
        parts.append(f'<path class="pause" d="M{at:.1f} {frame.top}V{frame.floor}"/>')
        side, shift = ("end", -6) if at > frame.width * 0.7 else ("start", 6)
        parts.append(label(at + shift, frame.floor - 14, side, text))
    parts.append(f'<path class="line" d="{path}"/>')
    parts += [f'<path class="setback" d="M{frame.x(x):.1f} {frame.floor - 7}v7"/>' for x in setbacks]
    return drawing(frame, words, parts)


def columns(
    words: Words,
    heights: Sequence[float],
    most_x: float,
    *,
    marks: Sequence[tuple[float, str]] = (),
    open_end: bool = False,
    least_y_step: float = 0.0,
    width: int = 450,
    height: int = 220,
) -> str:
    """Columns of equal width over seconds.

    marks: (second, label) of upright lines, labelled above the columns. open_end: the last column has no end.
    """
    frame = Frame(width, height, most_x or 1.0, max(*heights, 1e-9) * 1.05, top=12 + 15 * len(marks))
    each = (frame.width - frame.left - frame.right) / len(heights)
    gap = min(2.0, each * 0.2)
    parts = axes(frame, time_step(frame.x_most, 5), least_y_step)
    for n, value in enumerate(heights):
        if value > 0:
            # A column of one among thousands must still be seen.
            tall = max(frame.floor - frame.y(value), 1.5)
            css = "bar over" if open_end and n == len(heights) - 1 else "bar"
            left = frame.left + n * each + gap / 2
            parts.append(
                f'<rect class="{css}" x="{left:.1f}" y="{frame.floor - tall:.1f}" width="{each - gap:.1f}" '
                f'height="{tall:.1f}" rx="{min(1.5, each / 4):.1f}"/>'
            )
    for n, (x, text) in enumerate(marks):
        at = frame.x(min(x, frame.x_most))
        side, shift = ("end", -5) if at > frame.width * 0.65 else ("start", 5)
        parts.append(f'<path class="mark" d="M{at:.1f} {10 + 15 * n}V{frame.floor}"/>')
        parts.append(label(at + shift, 18 + 15 * n, side, text))
    return drawing(frame, words, parts)


def parts_bar(words: Words, parts: Sequence[tuple[str, float, str]]) -> str:
    """One bar divided into parts: (label, amount, tone); parts of nothing are left out."""
    frame = Frame(920, 14, sum(amount for _, amount, _ in parts) or 1.0, 1.0, 0, 0, 0, 0)
    drawn, x = [], 0.0
    for _, amount, tone in parts:
        if amount > 0:
            wide = min(max(frame.x(amount), 3.0), frame.width - x)
            drawn.append(f'<rect class="part {tone}" x="{x:.1f}" y="0" width="{wide:.1f}" height="14"/>')
            x += wide
    return drawing(frame, words, drawn, stretched=True)
