"""One Lambda execution environment: a process with the real runtime client in it."""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from infra.local.lambda_function import Function
from infra.local.lambda_invocation import Invocation
from infra.local.lambda_logs import WorkerOutput
from infra.local.processes import spawn
from infra.local.runtime_api import RuntimeApi

# The worker ties itself to its parent before it loads anything else, and then is `python -m awslambdaric`. The
# folder it starts in, the function's code, comes first on the path as in AWS.
_BOOTSTRAP = """
import os, sys
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        os._exit(0)
sys.path[0] = os.getcwd()
sys.argv[:2] = ["awslambdaric"]
import runpy
runpy.run_module("awslambdaric", run_name="__main__", alter_sys=True)
"""


@dataclass
class Exit:
    """How a worker's process ended, in Lambda's words."""

    code: int

    @property
    def reason(self) -> str:
        if self.code == 0:
            return "Runtime exited without providing a reason"
        if self.code < 0:
            return f"Runtime exited with error: signal: {_SIGNALS.get(-self.code, str(-self.code))}"
        return f"Runtime exited with error: exit status {self.code}"


_SIGNALS = {6: "aborted", 7: "bus error", 9: "killed", 11: "segmentation fault", 15: "terminated"}


class Worker:
    """A process of one function. The pool decides what it works on; it answers through the Runtime API.

    `take` is asked for an invocation each time the worker is free and may return None, upon which the worker
    waits in `mailbox`; `give_back` gets what arrived there too late; `ended` is called once, when the process is gone.
    """

    def __init__(
        self,
        function: Function,
        output: WorkerOutput,
        *,
        take: Callable[[Worker], Invocation | None],
        give_back: Callable[[Invocation], None],
        init_failed: Callable[[Worker, bytes], None],
        ended: Callable[[Worker, Exit], None],
    ) -> None:
        self.function = function
        self.output = output
        self.mailbox: queue.SimpleQueue[Invocation | None] = queue.SimpleQueue()
        self.current: Invocation | None = None
        self.initialising = True
        self.free_since = time.monotonic()
        self.log_stream = time.strftime("%Y/%m/%d/[$LATEST]", time.gmtime()) + os.urandom(16).hex()
        self._take, self._give_back, self._init_failed, self._ended = take, give_back, init_failed, ended
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._init_seconds: float | None = None
        self._dead = False
        self.peak_memory = 0
        self._api = RuntimeApi(self, function.name)
        self.process = spawn(
            [sys.executable, "-c", _BOOTSTRAP, str(os.getpid()), function.handler],
            cwd=function.code,
            env=function.process_environment(self._api.address, self.log_stream),
            stdout=output.write_end,
        )
        os.close(output.write_end)
        threading.Thread(target=self._watch, name=f"{function.name} {self.pid}", daemon=True).start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        """SIGKILL; `ended` follows."""
        with self._lock:
            if not self._dead:
                self.process.kill()

    # The Runtime API's side of the worker.

    def next_invocation(self) -> tuple[dict[str, str], bytes] | None:
        if self._init_seconds is None:
            self._init_seconds = time.monotonic() - self._began
        self.free_since = time.monotonic()
        invocation = self._take(self) or self.mailbox.get()
        if invocation is None:
            return None
        with self._lock:
            if not self._dead:
                self.current = invocation
        if self.current is not invocation:
            self._give_back(invocation)
            return None
        self.output.start(f"START RequestId: {invocation.request_id} Version: $LATEST")
        self._sample_memory()
        invocation.begin(self)
        deadline = time.time() + invocation.function.timeout
        headers = {
            "Lambda-Runtime-Aws-Request-Id": invocation.request_id,
            "Lambda-Runtime-Deadline-Ms": str(int(deadline * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": self.function.arn,
            "Lambda-Runtime-Trace-Id": f"Root=1-{int(time.time()):08x}-{os.urandom(12).hex()};Sampled=0",
        }
        if invocation.client_context:
            headers["Lambda-Runtime-Client-Context"] = invocation.client_context
        return headers, invocation.payload

    def responded(self, request_id: str, payload: bytes) -> bool:
        return self._finish(request_id, payload, None)

    def failed(self, request_id: str, payload: bytes) -> bool:
        return self._finish(request_id, payload, "Unhandled")

    def response_too_large(self, request_id: str) -> None:
        invocation = self.current
        if invocation and invocation.request_id == request_id:
            self.report(invocation, invocation.too_large(), status="error")

    def init_failed(self, payload: bytes) -> None:
        self._init_failed(self, payload)

    def _finish(self, request_id: str, payload: bytes, error: str | None) -> bool:
        invocation = self.current
        if invocation is None or invocation.request_id != request_id:
            return False
        self.report(invocation, (payload, error), status="error" if error else None)
        return True

    def report(self, invocation: Invocation, outcome: tuple[bytes, str | None], *, status: str | None) -> None:
        """Write END and REPORT, then hand the outcome to whoever waits, unless someone else did."""
        if not invocation.claim():
            return
        self.current = None
        self.free_since = time.monotonic()
        self._sample_memory()
        lines: list[str] = []
        duration = (time.monotonic() - invocation.began) * 1000
        fields = [
            f"REPORT RequestId: {invocation.request_id}",
            f"Duration: {duration:.2f} ms",
            f"Billed Duration: {int(duration) + 1} ms",
            f"Memory Size: {self.function.memory} MB",
            f"Max Memory Used: {self.peak_memory >> 20} MB",
        ]
        if self._init_seconds:
            fields.append(f"Init Duration: {self._init_seconds * 1000:.2f} ms")
            self._init_seconds = 0.0
        if status == "timeout":
            now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
            lines.append(f"{now}.000Z {invocation.request_id} {invocation.timeout_message}")
        if status:
            fields.append(f"Status: {status}")
        log = self.output.finish([*lines, f"END RequestId: {invocation.request_id}", "\t".join(fields)])
        invocation.complete(outcome[0], outcome[1], log)

    def _sample_memory(self) -> None:
        """The high-water mark that the kernel keeps, in bytes; where it keeps none, what is used now."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
            self.peak_memory = int(status.partition("VmHWM:")[2].split()[0]) * 1024
        except (OSError, IndexError):
            self.peak_memory = max(self.peak_memory, _resident_bytes(self.pid))

    def _watch(self) -> None:
        code = self.process.wait()
        with self._lock:
            self._dead = True
        self._api.close()
        self.mailbox.put(None)
        self._ended(self, Exit(code))


def _resident_bytes(pid: int) -> int:
    if sys.platform == "linux":
        return 0
    import psutil  # type: ignore[import-untyped]

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0
