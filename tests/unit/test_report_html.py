"""The page of the run report: complete, self-contained, and harmless whatever its texts say."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from sluice.report.html import render
from sluice.report.svg import round_step, time_step
from sluice.report.text import number, seconds

HOSTILE = """</script></style></svg><script>alert(1)</script><img src=x onerror=alert(2)>" onload='x' & `code` \u202e"""
SECTIONS = (
    "Account of rows",
    "Progress",
    "Rows per second",
    "Chunk durations",
    "Steps",
    "Attempts and errors",
    "Findings",
    "Invariants",
    "Events",
    "Run",
)
VOID = {"meta", "br"}


def report_of(state: str = "failed") -> dict[str, Any]:
    """A report in which every part has something to show."""
    return {
        "version": 1,
        "written": "2025-01-31T05:00:00.000Z",
        "run": {
            "job": "demo/demo",
            "run_key": "2025-01-31",
            "run_id": 1234,
            "run_ts": "2025-01-31T04:00:00.000Z",
            "generation": 2,
            "params": {"since": "2025-01-01", "limit": 5},
            "state": state,
            "desired": "run",
            "reason": None,
            "error_code": "ChunksQuarantined",
            "error": "1 chunk in quarantine: `sluice chunks` lists it",
        },
        "timing": {
            "opened": "2025-01-31T04:00:00.000Z",
            "finished": "2025-01-31T05:00:00.000Z",
            "seconds": 3600.0,
            "working_seconds": 100.0,
            "pauses": [{"at_seconds": 50.0, "seconds": 3500.0}],
        },
        "totals": {
            "rows_planned": 1_234_567,
            "rows_late": 12,
            "rows_marked": 1_234_000,
            "rows_updated": 1_200_000,
            "rows_drift": 3,
            "flags_cleared": 34_000,
            "chunks": 103,
            "chunks_done": 100,
            "chunks_quarantined": 1,
            "chunks_skipped": 1,
            "chunks_split": 1,
            "attempts": 110,
            "outcomes": {"done": 100, "failed": 5, "lost": 5},
            "rows_per_second": 12_000.0,
        },
        "steps": [
            {
                "name": "update",
                "kind": "update",
                "target": "public.visits",
                "started": "2025-01-31T04:00:00.000Z",
                "finished": None,
                "seconds": 3600.0,
                "rounds": 3,
                "waves": 2,
                "rows_planned": 1_234_567,
                "rows_late": 12,
                "rows_drift": 3,
                "rows_marked": 1_234_000,
                "rows_updated": 1_200_000,
                "chunks": {"done": 100, "open": 1, "quarantined": 1, "skipped": 1, "split": 1},
                "held": "lock_wait: 12 s, the limit is 5 s",
            }
        ],
        "progress": [
            {"seconds": 0.0, "at": "2025-01-31T04:00:00.000Z", "rows": 0, "setbacks": 0},
            {"seconds": 40.0, "at": "2025-01-31T04:00:40.000Z", "rows": 600_000, "setbacks": 5},
            {"seconds": 90.0, "at": "2025-01-31T04:59:50.000Z", "rows": 1_200_000, "setbacks": 5},
        ],
        "rates": [
            {"from_seconds": 0.0, "to_seconds": 50.0, "rows_per_second": 15_000.0},
            {"from_seconds": 50.0, "to_seconds": 100.0, "rows_per_second": 9_000.0},
        ],
        "durations": {
            "chunks": 100,
            "p50": 1.5,
            "p95": 4.0,
            "max": 9.0,
            "bars": [
                {"from_seconds": 0.0, "to_seconds": 2.0, "chunks": 70},
                {"from_seconds": 2.0, "to_seconds": 4.0, "chunks": 0},
                {"from_seconds": 4.0, "to_seconds": None, "chunks": 30},
            ],
        },
        "slowest": [{"step": "update", "chunk": 7, "rows": 12_000, "seconds": 9.0, "attempts": 2}],
        "errors": {
            "total": 31,
            "list": [
                {
                    "code": "40P01",
                    "attempts": 5,
                    "chunks": 4,
                    "first": "2025-01-31T04:00:10.000Z",
                    "last": "2025-01-31T04:00:20.000Z",
                    "text": "deadlock detected (40P01)",
                }
            ],
        },
        "findings": [
            {
                "step": "expect",
                "name": "no_flag_left",
                "description": "no row is claimed after the run",
                "severity": "error",
                "rows": 17,
                "read_with": "SELECT jsonb_pretty(keys) FROM sluice.finding WHERE name = 'no_flag_left';",
            },
            {
                "step": "expect",
                "name": "counts_agree",
                "description": "as many rows as visits",
                "severity": "error",
                "rows": 0,
                "read_with": "SELECT 1;",
            },
        ],
        "invariants": [{"name": "ranges partition the key space", "broken": 2}],
        "events": {
            "total": 70,
            "list": [
                {
                    "at": "2025-01-31T04:10:00.000Z",
                    "event": "paused",
                    "step": None,
                    "n": 0,
                    "detail": "a deployment",
                }
            ],
        },
        "moves": {
            "total": 1,
            "list": [
                {
                    "at": "2025-01-31T04:20:00.000Z",
                    "until": "2025-01-31T04:21:00.000Z",
                    "event": "skipped",
                    "step": "update",
                    "n": 12,
                    "chunks": [1, 2, 3],
                    "detail": "wrong at the source",
                }
            ],
        },
        "holds": [
            {
                "step": "update",
                "check": "lock_wait",
                "times": 3,
                "seconds": 90,
                "reason": "lock_wait: 12 s",
                "now": False,
            }
        ],
    }


def replaced(value: Any, change: Callable[[str], str]) -> Any:
    """The value with every text in it changed."""
    match value:
        case dict():
            return {key: replaced(inner, change) for key, inner in value.items()}
        case list():
            return [replaced(inner, change) for inner in value]
        case str():
            return change(value)
        case _:
            return value


class Page(HTMLParser):
    """What a page consists of; refuses tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)

    def all_text(self) -> str:
        return " ".join(text for texts in self.texts.values() for text in texts)


@pytest.mark.parametrize("state", ["running", "succeeded", "succeeded_with_drift", "failed", "cancelled", "unheard_of"])
def test_every_section_is_there_in_every_state(state: str) -> None:
    page = Page(render(report_of(state)))
    assert tuple(text for text in page.texts["h2"] if text in SECTIONS) == SECTIONS


def test_nothing_is_loaded_and_nothing_runs() -> None:
    text = render(report_of())
    page = Page(text)
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "img", "iframe", "object", "embed", "base", "form", "a", "use", "image")
        assert not {"src", "href", "xlink:href", "action", "style"} & set(attributes)
        assert not [name for name in attributes if name.startswith("on")]
    assert not re.search(r"https?:|//[a-z]|url\(|@import", text)


@pytest.mark.parametrize("state", ["running", "failed", "cancelled", "succeeded"])
def test_hostile_texts_stay_texts(state: str) -> None:
    tame = Page(render(report_of(state)))
    report = replaced(report_of(state), lambda text: HOSTILE)
    report["run"] |= {"state": state, "params": {HOSTILE: HOSTILE}}
    report["totals"]["outcomes"] = {HOSTILE: 1}
    text = render(report)
    page = Page(text)
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in tame.tags}
    assert "<script" not in text
    assert "<img" not in text
    assert "alert(1)" in page.all_text()


def test_every_text_of_the_report_is_shown_escaped() -> None:
    text = render(replaced(report_of(), lambda text: f"{text}<&"))
    assert "<&" not in text
    for said in ("deadlock detected (40P01)", "no row is claimed after the run", "wrong at the source", "a deployment"):
        assert f"{said}&lt;&amp;" in text


def test_keys_and_bounds_would_not_be_shown_if_they_were_there() -> None:
    report = report_of()
    for place in (report["findings"][0], report["slowest"][0], report["moves"]["list"][0], report["steps"][0], report):
        place |= {"keys": [{"SSN": "905-61-0002"}], "lo": ["905-61-0002"], "hi": ["CNRY0002"]}
    text = render(report)
    assert "905-61-0002" not in text
    assert "CNRY0002" not in text


def test_figures_have_separators_and_times_have_utc() -> None:
    text = Page(render(report_of())).all_text()
    for shown in ("1,200,000", "1,234,555", "12,000", "2025-01-31 04:00:00 UTC", "58 min 20 s without work"):
        assert shown in text


def test_each_chart_is_named_described_and_repeated_as_a_table() -> None:
    page = Page(render(report_of()))
    charts = [attributes for tag, attributes in page.tags if tag == "svg"]
    names = {attributes["id"] for tag, attributes in page.tags if tag in ("title", "desc") and "id" in attributes}
    assert len(charts) == 4
    assert len(names) == 8
    for attributes in charts:
        assert attributes["role"] == "img"
        assert set(str(attributes["aria-labelledby"]).split()) <= names
    assert len([text for text in page.texts["summary"] if text == "Show as a table"]) == 3
    assert {"Rows updated over time", "Rows per second over time", "Chunks by duration"} <= set(page.texts["caption"])


def test_what_was_left_out_is_counted() -> None:
    text = Page(render(report_of())).all_text()
    assert "30 rarer codes are in sluice.attempt." in text
    assert "69 more are in sluice.event." in text
    assert "12 chunks: 1, 2, 3, …" in text


def test_only_failing_checks_show_their_sql() -> None:
    text = render(report_of())
    assert "WHERE name = &#x27;no_flag_left&#x27;;" in text
    assert "SELECT 1;" not in text


def test_an_empty_run_has_a_page() -> None:
    report = copy.deepcopy(report_of("succeeded"))
    report["timing"] |= {"working_seconds": 0.0, "pauses": []}
    report["totals"] = dict.fromkeys(report["totals"], 0) | {"outcomes": {}}
    report |= {"steps": [], "progress": [], "rates": [], "slowest": [], "findings": [], "invariants": [], "holds": []}
    report["durations"] = {"chunks": 0, "p50": None, "p95": None, "max": None, "bars": []}
    report["errors"] = report["events"] = report["moves"] = {"total": 0, "list": []}
    page = Page(render(report))
    assert "No work was planned" in page.all_text()
    assert "svg" not in {tag for tag, _ in page.tags}


def test_a_run_of_no_time_is_drawn() -> None:
    report = report_of()
    report["timing"] |= {"working_seconds": 0.001, "pauses": []}
    report["progress"] = report["progress"][:1] * 2
    report["durations"]["bars"] = [{"from_seconds": 0.0, "to_seconds": 0.001, "chunks": 1}]
    assert "nan" not in render(report).lower()


def test_the_page_follows_the_scheme_and_prints() -> None:
    text = render(report_of())
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert 'lang="en"' in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0 ms"),
        (0.0321, "32 ms"),
        (4.25, "4.2 s"),
        (59.96, "60.0 s"),
        (185, "3 min 05 s"),
        (7800, "2 h 10 min"),
        (360_000, "4 d 4 h"),
        (None, "\N{EN DASH}"),
        ("<x>", "&lt;x&gt;"),
    ],
)
def test_durations_are_shown_in_two_units(value: object, shown: str) -> None:
    assert seconds(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(0, "0"), (1234567, "1,234,567"), (99.96, "100"), (10.0, "10"), (0.25, "0.25"), ("<", "&lt;")]
)
def test_numbers_are_shown_with_what_a_reader_needs(value: object, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize("most", [0, 1e-6, 0.4, 1, 7, 99, 1000, 123_456_789, 1e12])
def test_axes_have_few_round_steps(most: float) -> None:
    for step in (round_step(most, 4), time_step(most, 10)):
        assert step > 0
        assert most / step <= 10.001
