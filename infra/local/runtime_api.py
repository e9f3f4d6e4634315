"""The Lambda Runtime API, as one worker process sees it (2018-06-01).

Each worker gets a listener of its own: the client cannot put an identity into its requests, so the port is it.
"""

from __future__ import annotations

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler
from typing import Any, Protocol

HOST = "127.0.0.1"
# AWS's limit for a response: 6 MB and a little for the envelope.
MAX_PAYLOAD = 6 * 1024 * 1024 + 100
API = "/2018-06-01/runtime"


class RuntimePeer(Protocol):
    """The side of the pool that one worker talks to."""

    def next_invocation(self) -> tuple[dict[str, str], bytes] | None:
        """Block until there is an event; (headers, body), or None when there will be none any more."""

    def responded(self, request_id: str, payload: bytes) -> bool:
        """The handler returned; False when nobody waits for that request."""

    def failed(self, request_id: str, payload: bytes) -> bool:
        """The handler raised; False when nobody waits for that request."""

    def response_too_large(self, request_id: str) -> None:
        """The handler returned more than `MAX_PAYLOAD` bytes."""

    def init_failed(self, payload: bytes) -> None:
        """The handler's module could not be loaded."""


class RuntimeApi:
    """Listener for one worker. `address` goes into the worker's AWS_LAMBDA_RUNTIME_API."""

    def __init__(self, peer: RuntimePeer, name: str) -> None:
        self._listener = socket.create_server((HOST, 0))
        self.address = f"{HOST}:{self._listener.getsockname()[1]}"
        self._peer = peer
        threading.Thread(target=self._accept, name=f"{name} runtime api", daemon=True).start()

    def close(self) -> None:
        """Refuse new connections and end the thread that accepts them."""
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        finally:
            self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, address = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection, address), daemon=True).start()

    def _serve(self, connection: socket.socket, address: Any) -> None:
        try:
            _Handler(connection, address, self)  # type: ignore[arg-type]
        except OSError:
            pass  # the worker is gone; the pool hears of it from the kernel
        finally:
            connection.close()

    @property
    def peer(self) -> RuntimePeer:
        return self._peer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Without these two a reply leaves in two packets, and the second waits 40 ms for an acknowledgement.
    disable_nagle_algorithm = True
    wbufsize = 65536
    server: RuntimeApi  # type: ignore[assignment]

    def do_GET(self) -> None:
        if self.path != f"{API}/invocation/next":
            self._reply(404, {"errorType": "NotFound", "errorMessage": self.path})
            return
        event = self.server.peer.next_invocation()
        if event is None:
            self.close_connection = True
            return
        headers, body = event
        self.send_response_only(200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        peer = self.server.peer
        body = self._body()
        if body is None:
            self.close_connection = True
            return
        if self.path == f"{API}/init/error":
            peer.init_failed(body)
            self._reply(202, {"status": "OK"})
            return
        request_id, _, verb = self.path.removeprefix(f"{API}/invocation/").partition("/")
        if verb == "response" and len(body) > MAX_PAYLOAD:
            peer.response_too_large(request_id)
            message = f"Exceeded maximum allowed payload size ({MAX_PAYLOAD} bytes)."
            self._reply(413, {"errorType": "RequestEntityTooLarge", "errorMessage": message})
            return
        known = {"response": peer.responded, "error": peer.failed}.get(verb)
        if known is None or not known(request_id, body):
            self._reply(400, {"errorType": "InvalidRequestID", "errorMessage": "Invalid request ID"})
            return
        self._reply(202, {"status": "OK"})

    def _body(self) -> bytes | None:
        """The request's body; None where the worker died before it had sent it whole."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            return body if len(body) == length else None
        parts = []
        while head := self.rfile.readline():
            size = int(head.split(b";")[0], 16)
            part, end = self.rfile.read(size), self.rfile.readline()
            if len(part) != size or not end:
                return None
            if size == 0:
                while end.strip():
                    end = self.rfile.readline()
                return b"".join(parts)
            parts.append(part)
        return None

    def _reply(self, status: int, body: dict[str, str]) -> None:
        data = json.dumps(body).encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass
