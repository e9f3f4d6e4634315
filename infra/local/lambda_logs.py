"""What a Lambda function writes: into its log file, and the last part of it to the invoker."""

from __future__ import annotations

import os
import selectors
import threading
from collections.abc import Callable
from pathlib import Path

TAIL_BYTES = 4096


class LogFile:
    """`<function>.log`: appended to by all workers of a function, line by line."""

    def __init__(self, path: Path, observer: Callable[[list[str]], None] | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8", errors="replace")
        self._lock = threading.Lock()
        self._observer = observer

    def write(self, lines: list[str]) -> None:
        with self._lock:
            if self._file.closed:
                return
            self._file.writelines(f"{line}\n" for line in lines)
            self._file.flush()
        if self._observer:
            self._observer(lines)

    def close(self) -> None:
        with self._lock:
            self._file.close()


class WorkerOutput:
    """Standard output and error of one worker: whole lines go on to the log file, and into the tail."""

    def __init__(self, log: LogFile) -> None:
        self._log = log
        self._read_end, self.write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        self._lock = threading.Lock()
        self._rest = b""
        self._tail = b""

    def fileno(self) -> int:
        return self._read_end

    def drain(self) -> bool:
        """Take over what is in the pipe; False when the worker has closed it."""
        with self._lock:
            return self._drain()

    def start(self, line: str) -> None:
        """Begin an invocation's tail with its START line."""
        with self._lock:
            self._drain()
            self._tail = b""
            self._emit([line])

    def finish(self, lines: list[str]) -> bytes:
        """All that the worker wrote, then `lines`; returns the invocation's last 4 KB."""
        with self._lock:
            self._drain()
            if self._rest:
                rest, self._rest = self._rest, b""
                self._emit([rest.decode(errors="replace")])
            self._emit(lines)
            return self._tail[-TAIL_BYTES:]

    def close(self) -> None:
        with self._lock:
            if self._read_end >= 0:
                self._drain()
                os.close(self._read_end)
                self._read_end = -1

    def _drain(self) -> bool:
        while self._read_end >= 0:
            try:
                data = os.read(self._read_end, 65536)
            except BlockingIOError:
                return True
            if not data:
                return False
            # The runtime joins the lines of one message with carriage returns.
            *lines, self._rest = (self._rest + data).replace(b"\r", b"\n").split(b"\n")
            self._emit([line.decode(errors="replace") for line in lines if line])
        return False

    def _emit(self, lines: list[str]) -> None:
        if not lines:
            return
        self._tail = (self._tail + "".join(f"{line}\n" for line in lines).encode())[-2 * TAIL_BYTES :]
        self._log.write(lines)


class LogPump:
    """The one thread that keeps the pipes of all workers from filling up."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._lock = threading.Lock()
        self._added: list[WorkerOutput] = []
        self._removed: list[WorkerOutput] = []
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="log pump", daemon=True)
        self._thread.start()

    def add(self, output: WorkerOutput) -> None:
        self._change(self._added, output)

    def remove(self, output: WorkerOutput) -> None:
        """Stop reading `output` and close it."""
        self._change(self._removed, output)

    def _change(self, changes: list[WorkerOutput], output: WorkerOutput) -> None:
        with self._lock:
            if not self._closed:
                changes.append(output)
                os.write(self._wake_write, b".")
                return
        output.close()

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            os.write(self._wake_write, b".")
        self._thread.join(5)

    def _run(self) -> None:
        while not self._closed:
            for key, _ in self._selector.select():
                if key.data is None:
                    os.read(self._wake_read, 4096)
                elif not key.data.drain():
                    self._selector.unregister(key.fileobj)
            self._take_changes()
        self._take_changes()
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _take_changes(self) -> None:
        with self._lock:
            added, removed = self._added.copy(), self._removed.copy()
            self._added.clear()
            self._removed.clear()
        for output in added:
            self._selector.register(output.fileno(), selectors.EVENT_READ, output)
        for output in removed:
            if output.fileno() in self._selector.get_map():
                self._selector.unregister(output.fileno())
            output.close()
