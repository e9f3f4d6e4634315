"""Cutting a key space into chunks of whole key groups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from sluice.job import ChunkSize

Key = Sequence[str]


@dataclass(frozen=True)
class Cut:
    """A planned chunk: lo < key <= hi, an open end as None; groups and rows as counted.

    oversized: a single key group above the maximum, which no cut can make smaller.
    """

    lo: Key | None
    hi: Key | None
    groups: int
    rows: int
    is_null: bool = False
    oversized: bool = False


class Cutter:
    """Cuts a stream of key groups, in key order, into chunks.

    The ranges share their ends and leave the first and the last one open, so that they cover every key there is and
    every key that may come. A group is never divided. Rows whose key holds a NULL are one chunk of their own.
    """

    def __init__(self, size: ChunkSize, *, nullable: bool) -> None:
        self.size = size
        self.nullable = nullable
        self.null_rows = 0
        self.null_groups = 0

    def cut(self, groups: Iterable[tuple[Key, bool, int]]) -> Iterator[Cut]:
        """The chunks of a stream of (key, whether it holds a NULL, rows).

        Holds one chunk in memory. Yields nothing for an empty stream.
        """
        lo: Key | None = None
        previous: Cut | None = None
        for closed in self._closed(groups):
            if previous is not None:
                yield replace(previous, lo=lo)
                lo = previous.hi
            previous = closed
        if previous is not None:
            yield replace(previous, lo=lo, hi=None)
        if self.nullable and (previous is not None or self.null_rows):
            oversized = self.null_rows > self.size.max_rows
            yield Cut(None, None, self.null_groups, self.null_rows, is_null=True, oversized=oversized)

    def _closed(self, groups: Iterable[tuple[Key, bool, int]]) -> Iterator[Cut]:
        """Chunks with their upper end; the last group of each is its end."""
        size, last, count, total = self.size, None, 0, 0
        for key, is_null, rows in groups:
            if is_null:
                self.null_rows += rows
                self.null_groups += 1
                continue
            if count and total + rows > size.max_rows:
                yield Cut(None, last, count, total)
                count = total = 0
            last, count, total = key, count + 1, total + rows
            if total >= size.target_rows or count == size.max_keys:
                yield Cut(None, last, count, total, oversized=total > size.max_rows)
                count = total = 0
        if count:
            yield Cut(None, last, count, total, oversized=total > size.max_rows)


def as_records(cuts: Sequence[Cut], first_no: int) -> list[dict[str, object]]:
    """Chunks in the shape that the ledger's insert reads, numbered from first_no."""
    return [
        {
            "chunk_no": first_no + index,
            "lo": cut.lo,
            "hi": cut.hi,
            "is_null": cut.is_null,
            "groups": cut.groups,
            "est_rows": cut.rows,
        }
        for index, cut in enumerate(cuts)
    ]
