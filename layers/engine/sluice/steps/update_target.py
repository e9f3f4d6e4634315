"""What an update step finds out about its target before it changes a row."""

from __future__ import annotations

from sluice.context import Context, run_values
from sluice.databases.postgres import Transaction
from sluice.errors import BadInputError, RowCountError, StatementError
from sluice.job import UpdateStep
from sluice.ledger import Ledger, Run, queries
from sluice.steps.update_sql import Column, UpdateSql, check_outputs, check_target

KNOWN_STATEMENTS = 32
known: dict[tuple[object, ...], UpdateSql] = {}


def update_sql(context: Context, transaction: Transaction, spec: UpdateStep, run: Run) -> UpdateSql:
    """The step's statements, composed from the catalogue and the shape of its SELECT; kept for the run.

    Raises BadInputError where the target or the SELECT does not fit the step.
    """
    # The moment of opening tells runs of one number in two databases apart.
    identity = (context.job.name, spec.name, run.run_id, run.run_ts, context.job.sha256)
    if identity in known:
        return known[identity]
    columns = read_columns(transaction, spec)
    check_target(spec, columns)
    select = context.job.sql(spec.file)
    shape = UpdateSql(spec, columns, select)
    outputs = select_outputs(context, transaction, shape, run)
    statements = UpdateSql(spec, columns, select, outputs)
    if len(known) >= KNOWN_STATEMENTS:
        known.clear()
    if run.run_id:
        known[identity] = statements
    return statements


def read_columns(transaction: Transaction, spec: UpdateStep) -> dict[str, Column]:
    """The target's columns by name, in order; empty where there is no such table."""
    schema, table = spec.target.split(".")
    rows = transaction.rows(queries()["describe_target"], {"schema": schema, "table": table})
    return {row.name: Column(**row._asdict()) for row in rows}


def select_outputs(context: Context, transaction: Transaction, statements: UpdateSql, run: Run) -> list[str]:
    """The columns that the SELECT sets, as the database describes its result."""
    spec = statements.spec
    path = context.job.path.parent / spec.file
    try:
        names = transaction.column_names(statements.statement("select_columns"), run_values(run))
    except StatementError as error:
        raise BadInputError(str(error), file=path, sqlstate=error.code) from None
    return check_outputs(spec, statements.columns, names, path)


def rehearse(context: Context, transaction: Transaction, statements: UpdateSql, run: Run) -> None:
    """Apply the SELECT to one row inside a savepoint that is rolled back.

    Raises BadInputError where the row would not end up free and stamped, as with a trigger that overwrites the stamp.
    """
    from sluice.steps.update import apply_to

    path = context.job.path.parent / statements.spec.file
    values = run_values(run)
    if statements.spec.chunk.whole:
        return
    transaction.execute("SAVEPOINT rehearsal")
    try:
        locked = transaction.row(statements.statement("lock_one_row"), values)
        if locked.n:
            apply_to(transaction, statements, locked.addresses, locked.n, values)
    except (StatementError, RowCountError) as error:
        raise BadInputError(f"rehearsal of one row: {error}", file=path) from None
    transaction.execute("ROLLBACK TO SAVEPOINT rehearsal")


def warnings(ledger: Ledger, statements: UpdateSql) -> list[str]:
    """What will work but slowly."""
    spec = statements.spec
    schema, table = spec.target.split(".")
    found = []
    if ledger.row("key_index", schema=schema, table=table, key=spec.key) is None:
        key = ", ".join(f'"{name}"' for name in spec.key)
        found.append(
            f"step '{spec.name}': no index of {spec.target} starts with ({key}): every chunk will scan the table"
        )
    return found
