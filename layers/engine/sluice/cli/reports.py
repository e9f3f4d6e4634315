"""`report`: what a run did, on one page."""

from __future__ import annotations

import json
import re
import webbrowser
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from sluice.cli.access import Found
from sluice.cli.options import as_json, report_folder, with_run
from sluice.cli.output import emit, say
from sluice.context import Context
from sluice.errors import BadInputError
from sluice.ledger import Ledger, Run


@click.command()
@click.option("--open", "open_it", is_flag=True, help="Show it in the browser.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="A .html or .json file.")
@report_folder
@as_json
@with_run
def report(found: Found, open_it: bool, output: Path | None, report_folder: Path, as_json: bool) -> None:
    """Write the report of RUN as it is now, also while it runs.

    Without --output it goes to a folder of the run under --report. --json prints its figures.
    """
    account = collect(found.context, found.run)
    if as_json:
        return emit(account)
    if output is None:
        output = folder_of(report_folder, found.run) / "report.html"
        write(account, output.with_suffix(".json"))
    write(account, output)
    say(str(output))
    if open_it:
        webbrowser.open(output.absolute().as_uri())


def collect(context: Context, run: Run) -> Mapping[str, Any]:
    """The account of a run."""
    from sluice.report.collect import collect

    return collect(context, run)


def write(account: Mapping[str, Any], path: Path) -> None:
    """One form of the report, by the file's ending; raises BadInputError where it cannot be written."""
    from sluice.report.html import render

    text = json.dumps(account, indent=2) if path.suffix == ".json" else render(dict(account))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror}") from None


def write_report(context: Context, run: Run, folder: Path) -> None:
    """Write the report of a run that has ended, and keep in the ledger where it lies."""
    account = collect(context, run)
    page = folder_of(folder, run) / "report.html"
    write(account, page.with_suffix(".json"))
    write(account, page)
    with context.transaction(f"sluice:{run.run_id}:report") as transaction:
        Ledger(transaction).execute("set_report", run_id=run.run_id, report=str(page.absolute()))


def folder_of(folder: Path, run: Run) -> Path:
    """A run's own folder: its number, and its job and key to recognise it by."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{run.run_id}-{run.job.partition('/')[2]}-{run.run_key}")
    return folder / name[:120]


COMMANDS = (report,)
