"""Options and arguments that several commands take."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from sluice.cli.access import Access, find_run
from sluice.errors import BadInputError

Command = TypeVar("Command", bound=Callable[..., Any])

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
reason = click.option("--reason", help="Why; status and report show it. Default: who asked.")
run_key = click.option(
    "--run-key", required=True, metavar="KEY", help="Name of the run, for instance a date; the same key resumes it."
)
params = click.option(
    "--param", "params", multiple=True, metavar="NAME=VALUE", help="Value of a parameter; may be repeated."
)
report_folder = click.option(
    "--report",
    "report_folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".sluice/reports"),
    show_default=True,
    help="Folder for the report of an --inline run.",
)


def reason_or_name(given: str | None) -> str:
    """The reason, or who asked where none was given."""
    return given or f"asked by {getpass.getuser()}"


def parse_params(given: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE pairs as a mapping; raises BadInputError for any other."""
    parsed = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise BadInputError(f"--param takes NAME=VALUE, not '{text}'")
        parsed[name] = value
    return parsed


def with_access(command: Command) -> Command:
    """Gives the command `access`, from --dsn and the environment."""

    @click.option(
        "--dsn",
        multiple=True,
        metavar="[NAME=]DSN",
        help="postgresql://… of the ledger, or of the job's connection NAME, in place of its secret. "
        "Default: SLUICE_DSN, else the secret.",
    )
    @wraps(command)
    def wrapped(dsn: tuple[str, ...], **values: Any) -> Any:
        return command(access=Access.of(dsn), **values)

    return wrapped  # type: ignore[return-value]


def with_run(command: Command) -> Command:
    """Gives the command `found`: the run that RUN names."""

    @click.argument("run", metavar="RUN")
    @click.option("--job", metavar="JOB", help="Whose ledger to look in, where RUN is a number and several have it.")
    @with_access
    @wraps(command)
    def wrapped(access: Access, run: str, job: str | None, **values: Any) -> Any:
        return command(found=find_run(access, run, job), **values)

    return wrapped  # type: ignore[return-value]


def how_to_work(command: Command) -> Command:
    """The options of the commands that start a run: through Step Functions, or --inline in this process."""
    for option in reversed(
        (
            click.option("--inline", is_flag=True, help="Work the run in this process, without Step Functions or S3."),
            click.option("--threads", type=click.IntRange(1, 64), help="Of --inline; default: max_concurrency."),
            click.option("--detach", is_flag=True, help="Start the execution and do not wait for it."),
            report_folder,
        )
    ):
        command = option(command)
    return command
