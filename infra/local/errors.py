"""The mistakes a user of the local stack can make, each with one line that says what to do."""

from __future__ import annotations


class LocalStackError(Exception):
    """The local stack cannot do that."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or self.__doc__ or "")
