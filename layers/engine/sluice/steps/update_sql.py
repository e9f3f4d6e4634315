"""The statements of an update step, composed from its target, its key and the pack's SELECT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from psycopg2 import sql

from sluice.errors import BadInputError
from sluice.job import UpdateStep
from sluice.ledger import template
from sluice.sqltext import to_driver

FLAG_TYPES = ("smallint", "integer", "bigint", "numeric")
STAMP_VALUES = {
    "timestamp with time zone": "CAST(%(run_ts)s AS timestamptz)",
    "timestamp without time zone": "(CAST(%(run_ts)s AS timestamptz) AT TIME ZONE 'UTC')",
    "bigint": "CAST(%(run_id)s AS bigint)",
}
TRUE = sql.SQL("true")


@dataclass(frozen=True)
class Column:
    """A column of the target, as the catalogue knows it."""

    relkind: str
    name: str
    type: str
    base_type: str
    not_null: bool
    generated: bool
    readable: bool
    writable: bool


@dataclass(frozen=True)
class Bounds:
    """The part of the key space that a chunk covers: lo < key <= hi, None for an open end; or the rows with a NULL."""

    lo: Sequence[str] | None = None
    hi: Sequence[str] | None = None
    is_null: bool = False
    name: str = "chunk"

    def values(self) -> dict[str, str]:
        """The bounds as statement parameters; their names start with the name of these bounds."""
        ends = (("lo", self.lo), ("hi", self.hi))
        return {f"{self.name}_{end}_{n}": text for end, texts in ends for n, text in enumerate(texts or ())}


class UpdateSql:
    """Statements over one target.

    columns: the target's columns by name. select: the pack's SELECT. outputs: the columns that it sets.
    """

    def __init__(
        self, spec: UpdateStep, columns: Mapping[str, Column], select: str, outputs: Sequence[str] = ()
    ) -> None:
        self.spec = spec
        self.columns = columns
        self.outputs = outputs
        self._partitioned = next(iter(columns.values())).relkind == "p"
        self.parts: dict[str, sql.Composable] = {
            "target": sql.Identifier(*spec.target.split(".")),
            "select": sql.SQL(to_driver(select)),
            "keys": sql.SQL(", ").join(self._keys()),
            "key_texts": sql.SQL(", ").join(sql.SQL("CAST({} AS text)").format(key) for key in self._keys()),
            "key_is_null": self._key_is_null(),
            "todo": self._todo(),
            "stamp": sql.Identifier(spec.stamp),
            "stamped": sql.SQL("{} IS NOT DISTINCT FROM {}").format(self._of_target(spec.stamp), self._stamp_value()),
            "settled": self._settled(),
            "address": self._address(),
            "address_type": sql.SQL("sluice.row_address" if self._partitioned else "tid"),
            "place": sql.SQL("place (relation, address)" if self._partitioned else "place (address)"),
            "at_place": self._at_place(),
            "at_new": self._at(sql.SQL("new.row_id")),
            "assignments": self._assignments(),
            "stored": sql.SQL(", ").join(self._of_target(name) for name in outputs),
            "defined": sql.SQL(", ").join(sql.Identifier("new", name) for name in outputs),
        }
        if spec.flag:
            self.parts["flag"] = sql.Identifier(spec.flag)

    def statement(
        self, name: str, bounds: Bounds | None = None, *, claimed_only: bool = False, skipped: Sequence[Bounds] = ()
    ) -> sql.Composed:
        """The named statement over the rows of the bounds (all rows without), flagged ones only where asked."""
        parts = dict(self.parts)
        parts["and_not_skipped"] = sql.Composed(
            sql.SQL(" AND ({}) IS NOT TRUE").format(self._range(skip)) for skip in skipped
        )
        parts["range"] = self._range(bounds) if bounds else TRUE
        parts["and_claimed"] = sql.SQL(" AND {}").format(self._claimed()) if claimed_only else sql.SQL("")
        return template(name, **parts)

    def _of_target(self, name: str) -> sql.Composable:
        return sql.Identifier("t", name)

    def _keys(self) -> list[sql.Composable]:
        return [self._of_target(name) for name in self.spec.key]

    def _key_is_null(self) -> sql.Composable:
        nulls = [sql.SQL("{} IS NULL").format(key) for key in self._keys()]
        return sql.SQL("({})").format(sql.SQL(" OR ").join(nulls))

    def _stamp_value(self) -> sql.Composable:
        return sql.SQL(STAMP_VALUES[self.columns[self.spec.stamp].base_type])

    def _todo(self) -> sql.Composable:
        todo = sql.SQL("{} IS DISTINCT FROM {}").format(self._of_target(self.spec.stamp), self._stamp_value())
        if self.spec.eligible is None:
            return todo
        return sql.SQL("{} AND ({}\n)").format(todo, sql.SQL(to_driver(self.spec.eligible)))

    def _claimed(self) -> sql.Composable:
        if self.spec.flag is None:
            return sql.SQL("false")
        return sql.SQL("{} = 1").format(self._of_target(self.spec.flag))

    def _settled(self) -> sql.Composable:
        stamped = sql.SQL("{} IS NOT DISTINCT FROM {}").format(self._of_target(self.spec.stamp), self._stamp_value())
        if self.spec.flag is None:
            return stamped
        return sql.SQL("{} AND {} IS NULL").format(stamped, self._of_target(self.spec.flag))

    def _address(self) -> sql.Composable:
        if self._partitioned:
            return sql.SQL("CAST(ROW(t.tableoid, t.ctid) AS sluice.row_address)")
        return sql.SQL("t.ctid")

    def _at_place(self) -> sql.Composable:
        """A row of the given addresses; unnest makes columns of the parts of a composite value."""
        partition = " AND t.tableoid = place.relation" if self._partitioned else ""
        return sql.SQL("t.ctid = place.address" + partition)

    def _at(self, address: sql.Composable) -> sql.Composable:
        if self._partitioned:
            return sql.SQL("t.ctid = ({a}).address AND t.tableoid = ({a}).relation").format(a=address)
        return sql.SQL("t.ctid = {}").format(address)

    def _assignments(self) -> sql.Composable:
        sets = [sql.SQL("{} = {}").format(sql.Identifier(name), sql.Identifier("new", name)) for name in self.outputs]
        if self.spec.flag:
            sets.append(sql.SQL("{} = NULL").format(sql.Identifier(self.spec.flag)))
        sets.append(sql.SQL("{} = {}").format(sql.Identifier(self.spec.stamp), self._stamp_value()))
        return sql.SQL(", ").join(sets)

    def _range(self, bounds: Bounds) -> sql.Composable:
        if bounds.is_null:
            return self._key_is_null()
        ends = [
            self._compare(operator, f"{bounds.name}_{end}")
            for operator, end, given in ((">", "lo", bounds.lo), ("<=", "hi", bounds.hi))
            if given is not None
        ]
        # A row-value comparison is decided by the first unequal pair, so a NULL further right would pass.
        not_null = [
            sql.SQL("{} IS NOT NULL").format(self._of_target(name))
            for name in self.spec.key
            if not self.columns[name].not_null
        ]
        return sql.SQL(" AND ").join([*ends, *not_null] or [TRUE])

    def _compare(self, operator: str, end: str) -> sql.Composable:
        values = [
            sql.SQL("CAST({} AS {})").format(
                sql.Placeholder(f"{end}_{number}"), sql.SQL(self.columns[name].type.replace("%", "%%"))
            )
            for number, name in enumerate(self.spec.key)
        ]
        return sql.SQL("({}) {} ({})").format(
            sql.SQL(", ").join(self._keys()), sql.SQL(operator), sql.SQL(", ").join(values)
        )


def check_target(spec: UpdateStep, columns: Mapping[str, Column]) -> None:
    """What an update needs of its target: columns, their types and privileges.

    Raises BadInputError that names the column and what to write instead.
    """
    if not columns:
        raise BadInputError(
            f"step '{spec.name}': there is no table {spec.target} that this user can see", sqlstate="42P01"
        )
    if next(iter(columns.values())).relkind not in ("r", "p"):
        raise BadInputError(f"step '{spec.name}': {spec.target} is not a table")
    named = {"stamp": [spec.stamp], "key": spec.key, "flag": [spec.flag] if spec.flag else []}
    for use, names in named.items():
        for name in names:
            column = columns.get(name)
            if column is None:
                raise BadInputError(f"step '{spec.name}': {use}: {spec.target} has no column \"{name}\"")
            if not column.readable or (use != "key" and not column.writable):
                need = "SELECT" if not column.readable else "UPDATE"
                raise BadInputError(f"step '{spec.name}': this user lacks {need} on {spec.target}.\"{name}\"")
    if spec.flag and columns[spec.flag].base_type not in FLAG_TYPES:
        raise BadInputError(
            f"step '{spec.name}': flag: \"{spec.flag}\" is {columns[spec.flag].type}, it must be an integer type"
        )
    if spec.flag and columns[spec.flag].not_null:
        raise BadInputError(f"step '{spec.name}': flag: \"{spec.flag}\" is NOT NULL, a free row has NULL there")
    stamp = columns[spec.stamp]
    if stamp.base_type not in STAMP_VALUES or (stamp.type != stamp.base_type and "(6)" not in stamp.type):
        raise BadInputError(
            f"step '{spec.name}': stamp: \"{spec.stamp}\" is {stamp.type}, it must be timestamptz, timestamp "
            "(both with microseconds) or bigint"
        )
    if "row_id" in columns:
        raise BadInputError(f"step '{spec.name}': {spec.target} has a column row_id, chunk.row_id would be two things")


def check_outputs(spec: UpdateStep, columns: Mapping[str, Column], found: Sequence[str], path: object) -> list[str]:
    """The columns that the SELECT sets, from the names that it returns.

    Raises BadInputError for a missing row_id and for a column that cannot or may not be set.
    """
    if not found or found[0] != "row_id":
        raise BadInputError("the SELECT must return chunk.row_id as its first column", file=str(path))
    outputs = list(found[1:])
    for name in outputs:
        column = columns.get(name)
        if outputs.count(name) > 1:
            raise BadInputError(f'the SELECT returns "{name}" twice', file=str(path))
        if name in (spec.flag, spec.stamp):
            raise BadInputError(f'the SELECT sets "{name}", which belongs to the engine', file=str(path))
        if column is None:
            raise BadInputError(f'the SELECT returns "{name}", {spec.target} has no such column', file=str(path))
        if column.generated:
            raise BadInputError(f'the SELECT sets "{name}", which {spec.target} generates itself', file=str(path))
        if not column.writable:
            raise BadInputError(f'this user lacks UPDATE on {spec.target}."{name}"', file=str(path))
    if not outputs:
        raise BadInputError("the SELECT sets no column", file=str(path))
    return outputs
