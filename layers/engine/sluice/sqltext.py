"""Reading SQL files: named queries, statements, and `:name` parameters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
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


def to_driver(sql: str) -> str:
    """The same SQL in the driver's notation: `:name` as `%(name)s`, every other `%` doubled."""
    return "".join(
        f"%({match['parameter']})s" if match["parameter"] else match.group().replace("%", "%%")
        for match in TOKEN.finditer(sql)
    )


def first_words(sql: str) -> Iterator[tuple[str, int]]:
    """The first word of each statement, in upper case, with its line."""
    fresh, line = True, 1
    for match in TOKEN.finditer(sql):
        if match["end"]:
            fresh = True
        elif fresh and match["word"]:
            yield match["word"].upper(), line
            fresh = False
        elif fresh and not match["comment"] and not match.group().isspace():
            fresh = False
        line += match.group().count("\n")


def single_statement(sql: str) -> str:
    """The SQL without its closing semicolon and what follows it.

    Raises BadInputError where a second statement follows.
    """
    for match in TOKEN.finditer(sql):
        if match["end"]:
            rest = sql[match.end() :]
            if list(first_words(rest)):
                line = sql.count("\n", 0, match.end()) + 1
                raise BadInputError("one statement is expected here, a second one follows", line=line)
            return sql[: match.start()]
    return sql
