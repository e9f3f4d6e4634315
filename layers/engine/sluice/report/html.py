"""The run report as one page that needs nothing else: no network, no script; charts are inline SVG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sluice.report import charts, sections
from sluice.report.text import badge, count, esc, number, prose, seconds, time

Report = Mapping[str, Any]
STYLE = Path(__file__).with_name("report.css")
SETBACKS = ("transient", "timeout", "failed", "lost")
STATES = {
    "running": ("running", "calm"),
    "succeeded": ("succeeded", "good"),
    "succeeded_with_drift": ("succeeded with drift", "warn"),
    "failed": ("failed", "bad"),
    "cancelled": ("cancelled", "calm"),
}


def render(report: Report) -> str:
    """The page for a report as `collect` makes it. Every text of the report is escaped."""
    run = report["run"]
    title = f"{run['job']} · {run['run_key']} · {STATES.get(run['state'], (run['state'],))[0]}"
    parts = [
        headline(report),
        callout(report),
        figures(report),
        sections.rows(report),
        charts.progress(report),
        f'<div class="pair">{charts.rates(report)}{charts.durations(report)}</div>',
        sections.steps(report),
        sections.attempts(report),
        sections.findings(report),
        sections.invariants(report),
        sections.events(report),
        sections.facts(report),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="color-scheme" content="light dark"><meta name="robots" content="noindex">'
        f"<title>{esc(title)}</title><style>\n{STYLE.read_text(encoding='utf-8')}</style></head>\n"
        f"<body><main>\n{body}\n{footer(report)}</main></body></html>\n"
    )


def headline(report: Report) -> str:
    """Which run, what became of it, and one sentence."""
    run = report["run"]
    label, tone = STATES.get(run["state"], (run["state"], "calm"))
    if run["state"] == "running" and run["desired"] != "run":
        label, tone = f"running, asked to {run['desired']}", "warn"
    return (
        f'<header><p class="eyebrow">{badge(label, tone)}<span>Run {number(run["run_id"])}</span>'
        f"<span>{time(report['timing']['opened'])}</span></p>"
        f'<h1>{esc(run["job"])} <span class="key">{esc(run["run_key"])}</span></h1>'
        f'<p class="lead">{sentence(report)}</p></header>'
    )


def sentence(report: Report) -> str:
    """The run in one sentence."""
    totals, timing = report["totals"], report["timing"]
    if not totals["chunks"]:
        return f"No work was planned in {seconds(timing['seconds'])}."
    if not totals["rows_updated"]:
        return f"No row was updated; {count(totals['chunks_done'], 'chunk')} done in {seconds(timing['seconds'])}."
    worked = f"{count(totals['rows_updated'], 'row')} updated in {seconds(timing['working_seconds'])} of work"
    apart = timing["seconds"] - timing["working_seconds"]
    whole = f", {seconds(timing['seconds'])} from start to end" if apart > 0.1 * timing["seconds"] else ""
    return f"{worked}{whole}: {number(totals['rows_per_second'])} rows per second."


def callout(report: Report) -> str:
    """What a reader must know first: why the run did not simply succeed, and what to do."""
    run, totals = report["run"], report["totals"]
    match run["state"]:
        case "failed":
            tone, title, reason = "bad", run["error_code"] or "The run failed", run["error"]
            advice = "What is done stays done. Starting the job again with the same run_key resumes this run."
        case "cancelled":
            tone, title, reason = "calm", "Cancelled", run["error"] or run["reason"]
            advice = "What was applied stays applied. `sluice resume` takes the run up again."
        case "succeeded_with_drift":
            left = number(totals["rows_drift"])
            tone, title = "warn", f"{left} rows were left as they are"
            reason = "They came or moved while the run worked, or lie in chunks that an operator skipped."
            advice = "The next run with another run_key takes them up."
        case "running" if run["desired"] != "run":
            tone, title, reason = "warn", f"An operator asked the run to {run['desired']}", run["reason"]
            advice = "This report shows the run as it stood when it was written."
        case "running":
            tone, title, reason = "calm", "The run has not ended", None
            advice = "This report shows the run as it stood when it was written."
        case _:
            return ""
    text = f"<p>{prose(reason)}</p>" if reason else ""
    return f'<div class="callout {tone}"><h2>{esc(title)}</h2>{text}<p class="soft">{prose(advice)}</p></div>'


def figures(report: Report) -> str:
    """The numbers that are asked for first."""
    totals, timing, found = report["totals"], report["timing"], report["findings"]
    failing = [finding for finding in found if finding["rows"]]
    setbacks = sum(totals["outcomes"].get(outcome, 0) for outcome in SETBACKS)
    shown = [
        ("Rows updated", number(totals["rows_updated"]), f"of {number(totals['rows_planned'])} planned"),
        ("From start to end", seconds(timing["seconds"]), f"{seconds(timing['working_seconds'])} at work"),
        ("Rows per second", number(totals["rows_per_second"]), "while chunks were at work"),
        ("Chunks done", number(totals["chunks_done"]), f"of {number(totals['chunks'])}"),
        ("Attempts", number(totals["attempts"]), f"{number(setbacks)} failed"),
        ("Checks failing", number(len(failing)), f"of {number(len(found))}"),
    ]
    cells = "".join(f"<div><dt>{esc(name)}</dt><dd>{value}</dd><dd>{note}</dd></div>" for name, value, note in shown)
    return f'<dl class="figures">{cells}</dl>'


def footer(report: Report) -> str:
    """When the page was written and what is not in it."""
    return (
        f"<footer><p>Written {time(report['written'])} by Sluice from its ledger. Times are UTC. The report holds no "
        "key and no value of a row; keys that checks found stay in the database.</p></footer>"
    )
