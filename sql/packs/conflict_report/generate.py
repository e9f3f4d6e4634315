"""Makes visits data for conflict_report: any size, the same for the same size and seed."""

from __future__ import annotations

import argparse
import hashlib
import re
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from sluice.sqltext import read_queries, to_driver

FOLDER = Path(__file__).parent
TABLES = ("providers", "patients", "caregivers", "visits", "inservices", "leaves", "conflictvisitmaps")
# Social Security numbers are never issued in the 900s; groups up to 49 are no taxpayer numbers (ITIN) either.
NEVER_ISSUED = re.compile(r"9\d\d-[0-4]\d-\d{4}|987-65-43[2-9]\d")
CANARY = "987-65-4329"


@dataclass(frozen=True)
class Size:
    """What is generated: conflict rows, the seed, and the SSN of the busiest caregiver where one is planted."""

    rows: int
    seed: int = 1
    canary: str | None = None

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError("rows must be at least 1")
        if self.canary is not None and not NEVER_ISSUED.fullmatch(self.canary):
            raise ValueError("a canary must be an SSN that is never issued: 9xx-[0-4]x-xxxx")

    @property
    def signature(self) -> str:
        """What the database remembers of its data; says nothing about the canary but whether it is the same."""
        canary = hashlib.sha256(self.canary.encode()).hexdigest()[:12] if self.canary else "none"
        files = hashlib.sha256((FOLDER / "generate.sql").read_bytes()).hexdigest()[:12]
        return f"generated: rows={self.rows} seed={self.seed} canary={canary} generator={files}"


def generate(dsn: str, size: Size, force: bool = False) -> Mapping[str, int] | None:
    """Create the tables of schema.sql and fill them in one transaction.

    Returns rows by table, or None where the database already holds this data and `force` is not set.
    Raises psycopg2.Error, with the database as it was.
    """
    with closing(psycopg2.connect(dsn)) as connection, connection:
        return _fill(connection, size, force)


def _fill(connection: Connection, size: Size, force: bool) -> Mapping[str, int] | None:
    with connection.cursor() as cursor:
        cursor.execute((FOLDER / "schema.sql").read_text(encoding="utf-8"))
        cursor.execute("SELECT obj_description('public.visits'::regclass)")
        if cursor.fetchone() == (size.signature,) and not force:
            return None
        values = {"rows": size.rows, "seed": size.seed, "canary": size.canary}
        for query in read_queries(FOLDER / "generate.sql").values():
            cursor.execute(to_driver(query.sql), values)
        cursor.execute("COMMENT ON TABLE public.visits IS %s", (size.signature,))
        return {table: _count(cursor, table) for table in TABLES}


def _count(cursor: Cursor, table: str) -> int:
    cursor.execute(sql.SQL("SELECT count(*) FROM public.{}").format(sql.Identifier(table)))
    (count,) = cursor.fetchone()
    return int(count)


def main() -> None:
    """Generate from the command line and print what there is then."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dsn", required=True, help="libpq connection string or URI of the database")
    parser.add_argument("--rows", type=int, default=50_000, help="rows of conflictvisitmaps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="another seed, other data (default: %(default)s)")
    parser.add_argument(
        "--canary",
        nargs="?",
        const=CANARY,
        metavar="SSN",
        help=f"SSN of the busiest caregiver, to look for where no SSN may be ({CANARY} if none is given)",
    )
    parser.add_argument("--force", action="store_true", help="generate also where this data is there already")
    options = parser.parse_args()
    try:
        size = Size(options.rows, options.seed, options.canary)
    except ValueError as error:
        parser.error(str(error))
    started = monotonic()
    counts = generate(options.dsn, size, options.force)
    if counts is None:
        print(f"The data is there already: {size.rows:,} rows, seed {size.seed}. --force makes it anew.")
        return
    for table, count in counts.items():
        print(f"{table:<20}{count:>12,}")
    print(f"Generated in {monotonic() - started:.1f} s")


if __name__ == "__main__":
    main()
