"""Reading SQL files."""

from __future__ import annotations

from pathlib import Path

import pytest

from sluice.errors import BadInputError
from sluice.sqltext import first_word, parameters, read_queries, single_statement, statements, to_driver


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT :since", "SELECT %(since)s"),
        ("SELECT a::date, :d::date", "SELECT a::date, %(d)s::date"),
        ("SELECT ':no', E'\\':no', \":no\", $$:no$$, $x$ :no $$ $x$", None),
        ("SELECT 1 -- :no\n/* :no */", None),
        ("SELECT a LIKE 'x%', b % 2", "SELECT a LIKE 'x%%', b %% 2"),
        ("SELECT 'it''s :no'", None),
        ("f(x := 1)", None),
        ("SELECT arr[1:n]", "SELECT arr[1%(n)s]"),
    ],
)
def test_parameters_are_read_outside_quotes_and_comments(sql: str, expected: str | None) -> None:
    assert to_driver(sql) == (expected if expected is not None else sql)


def test_the_names_of_parameters() -> None:
    assert parameters("SELECT :a, ':b', :c::text -- :d") == {"a", "c"}


def test_the_statements_of_a_file_with_their_lines() -> None:
    sql = "-- a comment; with a semicolon\nselect ';';\n\n/* x */ COMMIT;;\n(SELECT 2)\n-- the end\n"
    found = list(statements(sql))
    assert [(first_word(statement), line) for statement, line in found] == [("SELECT", 2), ("COMMIT", 4), ("", 5)]
    assert found[0][0] == "-- a comment; with a semicolon\nselect ';'"


def test_one_statement_loses_its_semicolon() -> None:
    assert single_statement("SELECT ';' ; -- the end\n") == "SELECT ';'"
    with pytest.raises(BadInputError, match="one statement is expected here, there are 2"):
        single_statement("SELECT 1; SELECT 2")


def test_queries_by_name_with_their_attributes(tmp_path: Path) -> None:
    file = tmp_path / "checks.sql"
    first = "-- first\n-- does a thing\n-- severity: warning\nSELECT 1\n;\n\n"
    file.write_text(f"{first}-- second\n-- and another\nSELECT 2")
    queries = read_queries(file)
    assert list(queries) == ["first", "second"]
    assert (queries["first"].sql, queries["first"].description) == ("SELECT 1", "does a thing")
    assert queries["first"].attributes == {"severity": "warning"}
    assert queries["second"].line == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SELECT 1", "no query found"),
        ("-- one\n-- does\nSELECT 1;\n-- one\n-- does\nSELECT 2", "4: the query name 'one' is used twice"),
        ("-- one\n-- does\n;\n", "1: the query 'one' has no SQL"),
    ],
)
def test_what_is_wrong_with_a_file_of_queries(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "q.sql").write_text(text)
    with pytest.raises(BadInputError, match=message):
        read_queries(tmp_path / "q.sql")
