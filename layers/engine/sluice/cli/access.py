"""From what the operator types to a database and a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import click
import psycopg2
from psycopg2.extensions import parse_dsn

from sluice.context import Context
from sluice.databases.postgres import ConnectionFacts, Limits, Postgres, parse_secret
from sluice.errors import BadInputError, SluiceError
from sluice.job import Job
from sluice.job_file import job_names, load_job
from sluice.ledger import Ledger, Run, is_current

READ_SECONDS = 60.0
ANY_LEDGER = ""


@dataclass(frozen=True)
class Access:
    """Where connections come from: the secrets that jobs name, unless a DSN stands in for one.

    dsns: by the connection's name in the job file; under the empty name, the ledger of any job.
    """

    dsns: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, options: Sequence[str]) -> Access:
        """From the values of --dsn, NAME=DSN or DSN, and from SLUICE_DSN."""
        dsns = {}
        if os.environ.get("SLUICE_DSN"):
            dsns[ANY_LEDGER] = os.environ["SLUICE_DSN"]
        for option in options:
            name, equals, dsn = option.partition("=")
            if not (equals and name.isidentifier()) or is_parameter(name):
                name, dsn = ANY_LEDGER, option
            dsn_facts(dsn)
            dsns[name] = dsn
        return cls(dsns)

    def dsn(self, job: Job) -> str | None:
        return self.dsns.get(job.ledger_connection) or self.dsns.get(ANY_LEDGER)

    def address(self, job: Job) -> str:
        """Where the job's ledger is, without a password; equal for jobs that share one."""
        dsn = self.dsn(job)
        return f"secret '{ledger_secret(job)}'" if dsn is None else without_password(dsn)

    def database(self, job: Job, make: Callable[[Callable[[bool], ConnectionFacts]], Postgres] = Postgres) -> Postgres:
        """A new connection to the job's ledger, opened when it is first used."""
        dsn = self.dsn(job)
        if dsn is not None:
            return make(lambda force: dsn_facts(dsn))
        secret = ledger_secret(job)
        return make(lambda force: parse_secret(secret, secret_text(secret, force)))


@dataclass(frozen=True)
class Place:
    """A ledger, and how to read it."""

    address: str
    database: Postgres

    @contextmanager
    def ledger(self) -> Iterator[Ledger]:
        """The ledger inside one transaction that only reads."""
        with self.database.transaction(Limits(lambda: READ_SECONDS, name="sluice:cli", durable=False)) as transaction:
            yield Ledger(transaction)

    def check(self) -> None:
        """Raises BadInputError where there is no ledger, or an older one than this Sluice reads."""
        with self.ledger() as ledger:
            if is_current(ledger.transaction):
                return
            if ledger.row("has_migrations").there:
                raise BadInputError(f"the ledger at {self.address} is older than this sluice: `sluice run` upgrades it")
        raise BadInputError(f"there is no ledger at {self.address}: nothing was run there yet")


@dataclass(frozen=True)
class Found:
    """A run, the ledger that holds it, and where that one's connection came from."""

    access: Access
    place: Place
    run: Run

    @cached_property
    def context(self) -> Context:
        """What the verbs work with; raises BadInputError where the run's job is not among the packs."""
        return Context(load_job(self.run.job), self.place.database)


def is_parameter(name: str) -> bool:
    """Whether it is a keyword of a libpq DSN such as `host`, rather than the name of a connection."""
    return name in ("host", "hostaddr", "port", "dbname", "user", "password", "sslmode", "service", "options")


def dsn_facts(dsn: str) -> dict[str, Any]:
    """A DSN in the shape of a secret; sslmode is libpq's default unless the DSN says more.

    Raises BadInputError where it is none.
    """
    try:
        parts = parse_dsn(dsn)
    except psycopg2.ProgrammingError:
        raise BadInputError("--dsn: expected [NAME=]postgresql://user:password@host:port/database") from None
    return {
        "host": parts.get("host", "localhost"),
        "port": parts.get("port", 5432),
        "username": parts.get("user", "postgres"),
        "password": parts.get("password", ""),
        "dbname": parts.get("dbname", parts.get("user", "postgres")),
        "sslmode": parts.get("sslmode", "prefer"),
    }


def without_password(dsn: str) -> str:
    facts = dsn_facts(dsn)
    return f"{facts['host']}:{facts['port']}/{facts['dbname']}"


def ledger_secret(job: Job) -> str:
    return job.spec.connections[job.ledger_connection].secret


def secret_text(name: str, force: bool) -> str:
    """The text of a secret, with a hint at the way without AWS where it cannot be read."""
    from botocore.exceptions import BotoCoreError

    from sluice.handler import read_secret

    try:
        return read_secret(name, force)
    except BadInputError as error:
        raise BadInputError(f"{error} (without AWS: --dsn or SLUICE_DSN)", secret=name) from None
    except BotoCoreError as error:
        raise BadInputError(f"secret '{name}' cannot be read: {error} (without AWS: --dsn or SLUICE_DSN)") from None


def places(access: Access, job_name: str | None = None) -> list[Place]:
    """The ledger of a job, or every ledger that the jobs of this installation name."""
    if job_name is not None:
        jobs = [load_job(job_name)]
    elif ANY_LEDGER in access.dsns:
        dsn = access.dsns[ANY_LEDGER]
        return [Place(without_password(dsn), Postgres(lambda force: dsn_facts(dsn)))]
    else:
        jobs = list(readable_jobs())
    found = {access.address(job): Place(access.address(job), access.database(job)) for job in jobs}
    if not found:
        raise BadInputError("there is no job yet: `sluice new PACK` makes one")
    return list(found.values())


def readable_jobs() -> Iterator[Job]:
    """The jobs whose files are in order; a line on stderr about each other one."""
    for name in job_names():
        try:
            yield load_job(name)
        except BadInputError as error:
            click.echo(f"sluice: passed over: {error}", err=True)


def find_run(access: Access, text: str, job_name: str | None = None) -> Found:
    """The run that an operator means: a number, JOB:RUN_KEY, or JOB for its latest run.

    Raises BadInputError where there is none, or where a number means runs of several ledgers.
    """
    if text.isdecimal():
        return by_number(access, int(text), job_name)
    name, colon, key = text.partition(":")
    job = load_job(name)
    place = Place(access.address(job), access.database(job))
    place.check()
    with place.ledger() as ledger:
        row = ledger.row("find_run", job=job.name, run_key=key) if colon else ledger.row("latest_run", job=job.name)
        if row is not None:
            return Found(access, place, ledger.run(row.run_id))
        recent = [run.run_key for run in ledger.rows("recent_runs", job=job.name, most=5)]
    if not recent:
        raise BadInputError(f"{job.name} has no run yet")
    raise BadInputError(f"{job.name} has no run '{key}'; its latest are {', '.join(recent)}")


def by_number(access: Access, run_id: int, job_name: str | None) -> Found:
    """The run of that number in the one ledger that has it."""
    found: list[Found] = []
    problems: list[SluiceError] = []
    for place in places(access, job_name):
        try:
            place.check()
            with place.ledger() as ledger:
                if ledger.row("run_status", run_id=run_id) is not None:
                    found.append(Found(access, place, ledger.run(run_id)))
        except SluiceError as error:
            problems.append(error)
    if len(found) > 1:
        jobs = " or ".join(f"--job {each.run.job}" for each in found)
        raise BadInputError(f"several ledgers have a run {run_id}: say {jobs}")
    if found:
        return found[0]
    raise problems[0] if problems else BadInputError(f"there is no run {run_id}")
