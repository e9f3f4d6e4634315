"""Every error of the engine. The class name is the error name that the state machine matches."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class SluiceError(Exception):
    """Something went wrong."""

    def __init__(self, message: str | None = None, **facts: object) -> None:
        super().__init__(message or (self.__doc__ or "").strip())
        self.facts = facts

    @property
    def code(self) -> str:
        """SQLSTATE where a database said it, else the class name: what the ledger keeps."""
        return str(self.facts.get("sqlstate") or type(self).__name__)


class BadInputError(SluiceError):
    """The job file, its SQL, a parameter or the database does not fit the job; nothing was changed."""

    def __init__(
        self, message: str | None = None, *, file: Path | str | None = None, line: int | None = None, **facts: object
    ) -> None:
        place = "" if file is None else f"{file}:{line}: " if line else f"{file}: "
        super().__init__(place + (message or (self.__doc__ or "").strip()), file=file, line=line, **facts)


class TargetBusyError(BadInputError):
    """Another run is active on the same target."""


class RunKeyReusedError(BadInputError):
    """The run key belongs to a run of other parameters or other SQL."""


class RunCancelledError(BadInputError):
    """The run was cancelled."""


class TransientError(SluiceError):
    """The database asked to try again (deadlock, serialization)."""


class DatabaseUnavailableError(TransientError):
    """The database cannot be reached or ended the connection."""


class ChunkBusyError(TransientError):
    """Another attempt holds the chunk, or another session a row of it.

    The fact `held` is `chunk` where it is the ledger's row that is held: then the chunk makes progress elsewhere.
    """


class DeadlineNearError(SluiceError):
    """Too little time is left to start a transaction."""


class StatementTimeoutError(SluiceError):
    """A statement ran into its time limit; the chunk is split when it happens again."""


class TerminalError(SluiceError):
    """The same attempt would fail again."""


class StatementError(TerminalError):
    """The database refused a statement of the job."""


class StaleGenerationError(TerminalError):
    """The run was reset while this attempt worked; the attempt's transaction was rolled back."""


class RowCountError(TerminalError):
    """The job's SELECT did not return each row of the chunk exactly once."""


class NotConvergingError(TerminalError):
    """Rows of the chunk keep appearing undone although every round applied what it found."""


class LedgerError(TerminalError):
    """The ledger contradicts itself."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word, where a known one is close."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f", did you mean '{close[0]}'?" if close else ""
