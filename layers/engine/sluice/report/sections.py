"""The sections of the page that are text and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sluice.report.charts import none, section
from sluice.report.svg import Words, parts_bar
from sluice.report.text import badge, count, esc, number, prose, seconds, table, time

Report = Mapping[str, Any]
OUTCOMES = {
    "done": "ended the chunk",
    "marked": "marked the chunk's rows",
    "settled": "found the chunk done by another attempt",
    "stopped": "gave way: the chunk was busy, the run paused or the time was up",
    "held": "was held back by a health check",
    "transient": "met a passing error of the database",
    "timeout": "ran into the time limit",
    "failed": "failed",
    "lost": "vanished without a word",
    "open": "has not ended",
}
CHUNK_STATES = (
    ("done", "done", "good"),
    ("quarantined", "in quarantine", "bad"),
    ("skipped", "skipped", "warn"),
    ("open", "open", "calm"),
)
EVENT_TONES = {
    "failed": "bad",
    "quarantined": "bad",
    "cancelled": "warn",
    "cancel_asked": "warn",
    "paused": "warn",
    "reset": "warn",
    "skipped": "warn",
    "succeeded": "good",
    "succeeded_with_drift": "warn",
}
EVENT_UNITS = {"flags_cleared": "row"}


def rows(report: Report) -> str:
    """The account of rows and the state of the chunks."""
    drawn = []
    for state, name, tone in CHUNK_STATES:
        amount = sum(step["chunks"][state] for step in report["steps"])
        drawn.append((f"{count(amount, 'chunk')} {name}", amount, tone))
    legend = "".join(f'<li class="{tone}">{label}</li>' for label, amount, tone in drawn if amount)
    words = Words("chunks", "Chunks by state", ", ".join(label for label, amount, _ in drawn if amount) or "no chunks")
    bar = f'<div class="parts">{parts_bar(words, drawn)}</div><ul class="legend">{legend}</ul>' if legend else ""
    lines = table("Account of rows", ("", "Rows", ""), account(report["totals"]), numeric=(1,), css="account")
    return section("Account of rows", lines, "<h3>Chunks</h3>" if bar else "", bar)


def account(totals: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What was planned and what became of it; lines of nothing are left out where they say nothing."""
    first = totals["rows_planned"] - totals["rows_late"]
    missing = totals["rows_planned"] - totals["rows_updated"] - totals["rows_drift"]
    lines: list[tuple[str, Any, str, bool]] = [
        ("Planned", first, "counted before the first chunk", True),
        ("Late", totals["rows_late"], "came or moved while the run worked, planned in further waves", False),
        ("Marked", totals["rows_marked"], "claimed with the flag before they were updated", False),
        ("Updated", totals["rows_updated"], "set and stamped by this run", True),
        ("Left as they are", totals["rows_drift"], "still to do when the step ended, as the job allows", False),
        ("Flags cleared", totals["flags_cleared"], "rows that were claimed and not updated, freed at the end", False),
    ]
    if missing > 0:
        why = "deleted or changed meanwhile, or in chunks that are not done"
        lines.append(("Planned, not updated", missing, why, True))
    elif missing < 0:
        lines.append(("Updated, not planned", -missing, "came while their chunk was still open", True))
    return [(name, number(n), f'<span class="soft">{note}</span>') for name, n, note, always in lines if always or n]


def steps(report: Report) -> str:
    """One line a step."""
    if not report["steps"]:
        return section("Steps", none("The run has no steps."))
    lines = []
    for step in report["steps"]:
        chunks = step["chunks"]
        total = chunks["done"] + chunks["open"] + chunks["quarantined"] + chunks["skipped"]
        target = f'<br><span class="soft">{esc(step["target"])}</span>' if step["target"] else ""
        held = f'<br>{badge("held back", "warn")} <span class="soft">{esc(step["held"])}</span>' if step["held"] else ""
        lines.append(
            (
                f"{esc(step['name'])}{target}{held}",
                esc(step["kind"]),
                step_state(step),
                number(step["rows_updated"]),
                f"{number(chunks['done'])} / {number(total)}",
                number(step["waves"]),
                number(step["rounds"]),
                seconds(step["seconds"]),
            )
        )
    heads = ("Step", "Kind", "State", "Rows", "Chunks", "Waves", "Rounds", "Time")
    return section("Steps", table("Steps", heads, lines, numeric=(3, 4, 5, 6, 7)))


def step_state(step: Mapping[str, Any]) -> str:
    if step["chunks"]["quarantined"]:
        return badge(f"{number(step['chunks']['quarantined'])} in quarantine", "bad")
    if step["finished"]:
        return badge("ended", "good")
    return badge("open", "calm") if step["started"] else badge("not started", "calm")


def attempts(report: Report) -> str:
    """Attempts by outcome, errors by code, the slowest chunks."""
    totals = report["totals"]
    if not totals["attempts"]:
        return section("Attempts and errors", none("No chunk was attempted."))
    outcomes = sorted(totals["outcomes"].items(), key=lambda item: -item[1])
    lines = [(esc(name), number(n), f'<span class="soft">{esc(OUTCOMES.get(name))}</span>') for name, n in outcomes]
    heads: Sequence[str] = ("Outcome", "Attempts", "")
    parts = [table("Attempts by outcome", heads, lines, numeric=(1,), css="account"), "<h3>Errors</h3>"]
    errors = [
        (
            f"<code>{esc(error['code'])}</code>",
            number(error["attempts"]),
            number(error["chunks"]),
            time(error["last"]),
            esc(error["text"]),
        )
        for error in report["errors"]["list"]
    ]
    heads = ("Code", "Attempts", "Chunks", "Last", "Text")
    parts.append(table("Errors by code", heads, errors, numeric=(1, 2)) if errors else none("No attempt met an error."))
    if report["errors"]["total"] > len(errors):
        rest = number(report["errors"]["total"] - len(errors))
        parts.append(f'<p class="soft small">{rest} rarer codes are in sluice.attempt.</p>')
    slow = [
        (
            esc(chunk["step"]),
            number(chunk["chunk"]),
            number(chunk["rows"]),
            seconds(chunk["seconds"]),
            number(chunk["attempts"]),
        )
        for chunk in report["slowest"]
    ]
    if slow:
        heads = ("Step", "Chunk", "Rows", "Time", "Attempts")
        parts += ["<h3>Slowest chunks</h3>", table("Slowest chunks", heads, slow, numeric=(1, 2, 3, 4))]
    return section("Attempts and errors", *parts)


def findings(report: Report) -> str:
    """What the checks found, without keys."""
    if not report["findings"]:
        return section("Findings", none("No check was asked."))
    lines = []
    for finding in sorted(report["findings"], key=lambda finding: not finding["rows"]):
        if not finding["rows"]:
            state, read = badge("passed", "good"), ""
        else:
            fatal = finding["severity"] == "error"
            state = badge("failed" if fatal else "warning", "bad" if fatal else "warn")
            read = f'<code class="sql">{esc(finding["read_with"])}</code>'
        name = f'{esc(finding["name"])}<br><span class="soft">{esc(finding["description"])}</span>{read}'
        lines.append((state, name, esc(finding["step"]), number(finding["rows"])))
    hint = '<p class="soft small">The SQL shows the first keys; run it in the database that holds the ledger.</p>'
    failing = any(finding["rows"] for finding in report["findings"])
    content = table("Findings", ("", "Check", "Step", "Rows"), lines, numeric=(3,))
    return section("Findings", content, hint if failing else "")


def invariants(report: Report) -> str:
    """Whether the ledger agrees with itself."""
    if not report["invariants"]:
        return section("Invariants", f"<p>{badge('hold', 'good')} The ledger agrees with itself.</p>")
    lines = [(badge("broken", "bad"), esc(row["name"]), number(row["broken"])) for row in report["invariants"]]
    return section("Invariants", table("Broken invariants", ("", "Invariant", "Exceptions"), lines, numeric=(2,)))


def events(report: Report) -> str:
    """What happened to the run and to chunks apart from ordinary work, in order, and what held chunks back."""
    listed = [*report["events"]["list"], *report["moves"]["list"]]
    total = report["events"]["total"] + report["moves"]["total"]
    if not listed:
        content = none("Nothing happened apart from ordinary work.")
    else:
        lines = [event_line(event) for event in sorted(listed, key=lambda event: str(event["at"]))]
        content = table("Events", ("At", "Event", "Step", ""), lines, css="events")
        if total > len(listed):
            content += f'<p class="soft small">{number(total - len(listed))} more are in sluice.event.</p>'
    return section("Events", content, holds(report["holds"]))


def event_line(event: Mapping[str, Any]) -> Sequence[str]:
    chunks = event.get("chunks")
    said = []
    if chunks:
        numbers = ", ".join([*map(number, chunks), *(["…"] if event["n"] > len(chunks) else [])])
        said.append(f"chunk {numbers}" if event["n"] == 1 else f"{count(event['n'], 'chunk')}: {numbers}")
    elif event["n"]:
        said.append(count(event["n"], EVENT_UNITS.get(str(event["event"]), "chunk")))
    if event["detail"]:
        said.append(prose(event["detail"]))
    name = str(event["event"])
    shown = badge(name.replace("_", " "), EVENT_TONES.get(name, "calm"))
    return time(event["at"]), shown, esc(event["step"]), "; ".join(said)


def holds(found: Sequence[Mapping[str, Any]]) -> str:
    """How long health checks held chunks back."""
    if not found:
        return ""
    lines = [
        (
            esc(hold["check"]),
            esc(hold["step"]),
            badge("now", "warn") if hold["now"] else number(hold["times"]),
            seconds(hold["seconds"]),
            esc(hold["reason"]),
        )
        for hold in found
    ]
    return "<h3>Held back by health checks</h3>" + table(
        "Held back by health checks", ("Check", "Step", "Times", "In all", "Last reason"), lines, numeric=(2, 3)
    )


def facts(report: Report) -> str:
    """Who the run is, to look further with."""
    run, timing = report["run"], report["timing"]
    params = ", ".join(f"{name} = {value}" for name, value in run["params"].items())
    shown = [
        ("Job", esc(run["job"])),
        ("Run key", esc(run["run_key"])),
        ("Run", f"{number(run['run_id'])}, generation {number(run['generation'])}"),
        ("Parameters", esc(params)),
        ("Opened", time(timing["opened"])),
        ("Ended", time(timing["finished"]) if timing["finished"] else "not yet"),
        ("Stamp", time(run["run_ts"])),
    ]
    items = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in shown)
    return section("Run", f'<dl class="facts">{items}</dl>')
