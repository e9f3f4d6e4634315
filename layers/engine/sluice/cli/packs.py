"""`jobs`, `schema` and `new`: packs and their job files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import click

from sluice.cli.options import as_json
from sluice.cli.output import emit, say, table
from sluice.errors import BadInputError
from sluice.job import Job, json_schema
from sluice.job_file import job_names, load_job
from sluice.settings import settings

PACK_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
SCHEMA_FILE = "job.schema.json"


@click.command()
@as_json
def jobs(as_json: bool) -> None:
    """List the jobs there are, with their parameters; a job file that is not in order says what is wrong."""
    described = [describe(name) for name in job_names()]
    if as_json:
        return emit(described)
    if not described:
        return say("no jobs yet: `sluice new PACK` makes one")
    say(
        table(
            ("job", "description", "parameters", "steps"),
            (
                (
                    job["job"],
                    job.get("error") or job["description"],
                    ", ".join(f"{name}={value['default']}" for name, value in job.get("params", {}).items()),
                    ", ".join(step["name"] for step in job.get("steps", [])),
                )
                for job in described
            ),
        )
    )


def describe(name: str) -> Mapping[str, Any]:
    """A job for a list, or what is wrong with its files."""
    try:
        return described(load_job(name))
    except BadInputError as error:
        return {"job": name, "error": str(error)}


def described(job: Job) -> Mapping[str, Any]:
    spec = job.spec.model_dump(mode="json")
    return {
        "job": job.name,
        "file": str(job.path),
        "description": job.spec.description,
        "connections": spec["connections"],
        "params": spec["params"],
        "steps": [{"name": step["name"], "kind": step["kind"]} for step in spec["steps"]],
    }


@click.command()
@as_json
def schema(as_json: bool) -> None:
    """Print the JSON Schema of the job file, by which editors complete it."""
    click.echo(schema_text(), nl=False)


def schema_text() -> str:
    """What the repository keeps as job.schema.json beside the packs."""
    return json.dumps(json_schema(), indent=2) + "\n"


@click.command()
@click.argument("pack")
@click.option("--secret", default="sluice/target", show_default=True, help="Secret of the database it works on.")
@as_json
def new(pack: str, secret: str, as_json: bool) -> None:
    """Make a PACK that runs as it is: a job, its SQL, example tables and a README that says what to change."""
    if not PACK_NAME.fullmatch(pack):
        raise BadInputError(f"'{pack}' cannot name a pack: a to z, 0 to 9 and _ are allowed, a letter comes first")
    packs = settings().sql_root / "packs"
    try:
        written = write_pack(packs / pack, pack, secret)
        if not (packs / SCHEMA_FILE).exists():
            (packs / SCHEMA_FILE).write_text(schema_text(), encoding="utf-8")
    except FileExistsError:
        raise BadInputError(f"there is a pack '{pack}' already: {packs / pack}") from None
    except OSError as error:
        raise BadInputError(f"{packs / pack}: {error.strerror}") from None
    job = load_job(pack)
    if as_json:
        return emit({"job": job.name, "folder": str(packs / pack), "files": [path.name for path in written]})
    for path in written:
        say(str(path))
    say(f"\n`sluice run {pack} --run-key first --inline` runs it; its README says how to make it yours")


def write_pack(folder: Path, pack: str, secret: str) -> list[Path]:
    """The files of a new pack; raises FileExistsError where its folder is there."""
    folder.mkdir(parents=True)
    written = []
    for source in sorted(files("sluice.cli").joinpath("scaffold").iterdir(), key=lambda file: file.name):
        path = folder / (f"{pack}.job.yaml" if source.name == "job.yaml" else source.name)
        text = source.read_text(encoding="utf-8").replace("__pack__", pack).replace("__secret__", secret)
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


COMMANDS = (jobs, schema, new)
