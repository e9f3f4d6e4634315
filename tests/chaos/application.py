"""The application beside the run: locks rows, changes, inserts, deletes and re-keys them, and keeps a journal."""

from __future__ import annotations

import random
from typing import Any

import psycopg2

from tests.chaos.actors import Actor, Scene, with_timeout

FIRST_DAY = "2025-01-01"
DAYS, PEOPLE = 30, 60
QUIET_AFTER_WAVE = 3


def fill(connection: Any, rows: int, seed: int) -> None:
    """The table's first rows: some caregivers have many visits, some keys have a NULL."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT setseed(%s)", (random.Random(seed).uniform(-1, 1),))
        cursor.execute(
            """INSERT INTO chaos.visits ("ID", "VisitDate", "SSN", "Minutes")
               SELECT n, CASE WHEN random() > 0.01 THEN date %s + floor(random() * %s)::integer END,
                      CASE WHEN random() > 0.01
                           THEN '900-00-' || lpad(floor(power(random(), 2) * %s)::text, 4, '0') END,
                      floor(random() * 300)::integer
               FROM generate_series(1, %s) AS n""",
            (FIRST_DAY, DAYS, PEOPLE, rows),
        )
        cursor.execute("ANALYZE chaos.visits")


class Application(Actor):
    """One transaction after another over some rows of its choice.

    Once a run has swept late rows a few times the application is quiet until the next run: one that never rested
    would never let a run end.
    """

    every = 0.05

    def __init__(self, scene: Scene, rows: int, *, every: float | None = None) -> None:
        super().__init__(scene, every=every)
        self.connection: Any = None
        self._next = rows + 1
        self._alive = list(range(1, rows + 1))

    def act(self) -> None:
        if self.connection is None:
            self.connection = psycopg2.connect(with_timeout(self.scene.stack.dsn), application_name="application")
        if self._quiet():
            return
        deed = self.rng.choices(["touch", "move", "insert", "delete"], [4, 3, 2, 1])[0]
        chosen = sorted(self.rng.sample(range(len(self._alive)), k=self.rng.randint(1, 6)))
        visits = [self._alive[place] for place in chosen]
        rest = self.rng.choice([0, 0, 0.01, 0.05])
        try:
            with self.connection.cursor() as cursor:
                cursor.execute('SELECT FROM chaos.visits WHERE "ID" = ANY(%s) FOR UPDATE', (visits,))
                self.over.wait(rest)
                entries = getattr(self, f"{deed}_rows")(cursor, visits)
            self.connection.commit()
        except psycopg2.OperationalError:
            self.connection.rollback()
            self.scene.count("application transactions undone")
            return
        if deed == "delete":
            for place in reversed(chosen):
                self._alive[place] = self._alive[-1]
                self._alive.pop()
        if deed == "insert":
            self._alive.extend(range(self._next - len(entries), self._next))
        self._saw(entries)
        self.scene.count(f"rows {PAST[deed]}", len(entries))

    def leave(self) -> None:
        if self.connection is not None:
            self.connection.close()

    def _quiet(self) -> bool:
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT coalesce(max(wave), 0) FROM chaos.runs WHERE state = 'running'")
            wave = cursor.fetchone()[0]
        self.connection.commit()
        return bool(wave >= QUIET_AFTER_WAVE)

    def _saw(self, entries: list[int]) -> None:
        """Write down, after the commit, that by now everyone can see the rows."""
        with self.connection.cursor() as cursor:
            cursor.execute("UPDATE chaos.journal SET seen_at = clock_timestamp() WHERE entry = ANY(%s)", (entries,))
        self.connection.commit()

    def _note(self, cursor: Any, statement: str, values: tuple[object, ...]) -> list[int]:
        """Do a deed that returns deed, visit, runs, flagged, with its entries in the journal."""
        cursor.execute(
            f"WITH done AS ({statement}) INSERT INTO chaos.journal (deed, visit, runs, flagged) "
            "SELECT * FROM done RETURNING entry",
            values,
        )
        return [entry for (entry,) in cursor.fetchall()]

    def touch_rows(self, cursor: Any, visits: list[int]) -> list[int]:
        return self._note(
            cursor,
            """UPDATE chaos.visits SET "Touched" = "Touched" + 1 WHERE "ID" = ANY(%s)
               RETURNING 'touched', "ID", "Runs", coalesce("UpdateFlag" = 1, false)""",
            (visits,),
        )

    def move_rows(self, cursor: Any, visits: list[int]) -> list[int]:
        return self._note(
            cursor,
            """UPDATE chaos.visits SET "VisitDate" = date %s + %s, "SSN" = %s WHERE "ID" = ANY(%s)
               RETURNING 'moved', "ID", "Runs", coalesce("UpdateFlag" = 1, false)""",
            (FIRST_DAY, self.rng.randrange(DAYS), self._person(), visits),
        )

    def delete_rows(self, cursor: Any, visits: list[int]) -> list[int]:
        return self._note(
            cursor,
            """DELETE FROM chaos.visits WHERE "ID" = ANY(%s)
               RETURNING 'deleted', "ID", "Runs", coalesce("UpdateFlag" = 1, false)""",
            (visits,),
        )

    def insert_rows(self, cursor: Any, visits: list[int]) -> list[int]:
        first, self._next = self._next, self._next + len(visits)
        return self._note(
            cursor,
            """INSERT INTO chaos.visits ("ID", "VisitDate", "SSN", "Minutes")
               SELECT n, date %s + %s, %s, n %% 300 FROM generate_series(%s, %s) AS n
               RETURNING 'inserted', "ID", "Runs", false""",
            (FIRST_DAY, self.rng.randrange(DAYS), self._person(), first, self._next - 1),
        )

    def _person(self) -> str | None:
        number = int(self.rng.random() ** 2 * PEOPLE)
        return None if self.rng.random() < 0.02 else f"900-00-{number:04d}"


PAST = {"touch": "touched", "move": "moved", "insert": "inserted", "delete": "deleted"}
