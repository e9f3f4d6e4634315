"""Puts what functions log into moto's CloudWatch Logs, so that `aws logs tail` shows it."""

from __future__ import annotations

import threading
import time
from typing import Any

from infra.local.lambda_function import Function
from infra.local.template import ACCOUNT

STREAM = "local"
FLUSH_SECONDS = 0.2
# moto keeps every event in memory; a long run must not fill it.
MAX_EVENTS = 20_000


class LogForwarder:
    """Collects lines and hands them over a few times a second, on a thread of its own."""

    def __init__(self, region: str) -> None:
        self._region = region
        self._waiting: dict[str, list[dict[str, Any]]] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log forwarder", daemon=True)
        self._thread.start()

    def put(self, function: Function, lines: list[str]) -> None:
        moment = int(time.time() * 1000)
        group = function.log_group or f"/aws/lambda/{function.name}"
        with self._lock:
            self._waiting.setdefault(group, []).extend({"timestamp": moment, "message": line} for line in lines)

    def close(self) -> None:
        self._closing.set()
        self._thread.join(5)

    def _run(self) -> None:
        while not self._closing.wait(FLUSH_SECONDS):
            with self._lock:
                waiting, self._waiting = self._waiting, {}
            for group, events in waiting.items():
                self._store(group, events)

    def _store(self, group: str, events: list[dict[str, Any]]) -> None:
        from moto.logs.models import logs_backends

        backend = logs_backends[ACCOUNT][self._region]
        if group not in backend.groups:
            backend.create_log_group(group, {})
        backend.ensure_log_stream(group, STREAM)
        # Threads hand their lines over in any order, but moto wants them by time.
        backend.put_log_events(group, STREAM, sorted(events, key=lambda event: int(event["timestamp"])))
        kept = backend.groups[group].streams[STREAM].events
        if len(kept) > MAX_EVENTS:
            del kept[: len(kept) // 2]
