"""Reading SQL files: named queries, statements, and `:name` parameters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from sluice.errors import BadInputError

TOKEN = re.compile(
    r"""
      (?P<comment>--[^\n]*|/\*.*?\*/)
    | (?P<quoted>[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)
    | (?P<cast>::|:=)
    | :(?P<parameter>[A-Za-z_]\w*)
    | (?P<end>;)
    | (?P<word>[A-Za-z_]\w*)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
HEADER = re.compile(r"^-- ([a-z][a-z0-9_]*)\n((?:-- .+\n)+)", re.MULTILINE)
ATTRIBUTE = re.compile(r"^([a-z_]+): (\S.*)$")


@dataclass(frozen=True)
class Query:
    """One named statement of a file: its name, one sentence, attributes (`severity: error`), SQL and first line."""

    name: str
    description: str
    sql: str
    line: int
    attributes: Mapping[str, str] = field(default_factory=dict)


def read_queries(path: Path) -> dict[str, Query]:
    """All queries of a file, by name, in the file's order.

    A query starts with the comment lines `-- name` and `-- what it does` and ends where the next one starts.
    Raises BadInputError where a file holds none, a name twice, or a query without SQL.
    """
    text = path.read_text(encoding="utf-8")
    heads = list(HEADER.finditer(text))
    if not heads:
        raise BadInputError("no query found: each one starts with the lines '-- name' and '-- what it does'", file=path)
    queries: dict[str, Query] = {}
    for head, following in zip(heads, [*heads[1:], None], strict=True):
        name, line = head.group(1), text.count("\n", 0, head.start()) + 1
        body = text[head.end() : following.start() if following else len(text)].strip().removesuffix(";").strip()
        if name in queries:
            raise BadInputError(f"the query name '{name}' is used twice", file=path, line=line)
        if not body:
            raise BadInputError(f"the query '{name}' has no SQL", file=path, line=line)
        comments = [comment.removeprefix("-- ").strip() for comment in head.group(2).splitlines()]
        attributes = {match[1]: match[2] for comment in comments if (match := ATTRIBUTE.match(comment))}
        sentences = [comment for comment in comments if not ATTRIBUTE.match(comment)]
        queries[name] = Query(name, " ".join(sentences), body, line, attributes)
    return queries


def parameters(sql: str) -> set[str]:
    """Names written as `:name` outside quotes and comments."""
    return {match["parameter"] for match in TOKEN.finditer(sql) if match["parameter"]}


@lru_cache(maxsize=512)
def to_driver(sql: str) -> str:
    """The same SQL in the driver's notation: `:name` as `%(name)s`, every other `%` doubled."""
    return "".join(
        f"%({match['parameter']})s" if match["parameter"] else match.group().replace("%", "%%")
        for match in TOKEN.finditer(sql)
    )


def statements(sql: str) -> Iterator[tuple[str, int]]:
    """The statements of a file without their semicolons, each with the line of its first word."""
    start, line, first = 0, 1, 0
    for match in TOKEN.finditer(sql):
        if not first and not match["comment"] and not match["end"] and not match.group().isspace():
            first = line
        if match["end"]:
            if first:
                yield sql[start : match.start()].strip(), first
            start, first = match.end(), 0
        line += match.group().count("\n")
    if first:
        yield sql[start:].strip(), first


def first_word(sql: str) -> str:
    """The first word of a statement in upper case, empty where it starts with something else."""
    for match in TOKEN.finditer(sql):
        if not match["comment"] and not match.group().isspace():
            return (match["word"] or "").upper()
    return ""


def single_statement(sql: str) -> str:
    """The SQL without its closing semicolon.

    Raises BadInputError where it is not one statement.
    """
    found = list(statements(sql))
    if len(found) != 1:
        raise BadInputError(f"one statement is expected here, there are {len(found)}", line=found[1][1] if found else 1)
    return found[0][0]
