"""The command line as a whole: its commands, and how errors end it."""

from __future__ import annotations

import click

from sluice.cli import chunks, packs, plan, reports, runs, status, steer
from sluice.errors import BadInputError, SluiceError

FAILURE, BAD_INPUT, INTERRUPTED = 1, 2, 130


class Commands(click.Group):
    """A group that tells the engine's errors in one line, and lists its commands in the order of their work."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except SluiceError as error:
            click.echo(f"sluice: {error}", err=True)
            ctx.exit(BAD_INPUT if isinstance(error, BadInputError) else FAILURE)
        except KeyboardInterrupt:
            click.echo("sluice: interrupted", err=True)
            ctx.exit(INTERRUPTED)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sluice")
def main() -> None:
    """Start, watch and steer the runs of Sluice.

    RUN is a run's number, JOB:RUN_KEY, or JOB for its latest run. JOB is `pack/job`, or `pack` where both are called
    the same.

    The ledger is found through the secret that the job names (AWS_ENDPOINT_URL is honoured), or without AWS at
    --dsn or SLUICE_DSN.

    Exit codes: 0 done, 1 the run or the command failed, 2 bad input, 130 interrupted.
    """


for module in (plan, runs, status, steer, chunks, reports, packs):
    for command in module.COMMANDS:
        main.add_command(command)
