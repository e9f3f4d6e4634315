"""The one endpoint of the local stack: Step Functions and Lambda are ours, everything else is moto."""

from __future__ import annotations

import json
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import BaseWSGIServer, make_server

from infra.local.errors import LocalStackError
from infra.local.lambda_api import LambdaApi, Reply

HOST = "127.0.0.1"
STATES_TARGET = "AWSStepFunctions."


class States(Protocol):
    """The Step Functions service, as the front door sees it."""

    def handle(self, target: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]: ...


class PortTakenError(LocalStackError):
    """The port is taken."""


class _Handler(MotoRequestHandler):
    """Keeps connections open, and sends a reply as one packet: otherwise each request waits 40 ms."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 65536

    def handle_expect_100(self) -> bool:
        super().handle_expect_100()
        self.wfile.flush()
        # The server would answer a second time.
        del self.headers["Expect"]
        return True

    def log(self, type: str, message: str, *args: Any) -> None:
        pass


class FrontDoor:
    """Listens from construction on, so that the port is known; `serve` starts answering."""

    def __init__(self, port: int = 0) -> None:
        try:
            self._socket = socket.create_server((HOST, port), backlog=256)
        except OSError as error:
            raise PortTakenError(f"port {port} cannot be used: {error.strerror}") from None
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://{HOST}:{self.port}"
        # moto writes its own address into queue URLs and the like.
        os.environ["MOTO_PORT"] = str(self.port)
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._states: States | None = None
        self._functions: LambdaApi | None = None
        self._server: BaseWSGIServer | None = None
        self._thread: threading.Thread | None = None

    def serve(self, states: States, functions: LambdaApi) -> None:
        self._states, self._functions = states, functions
        self._server = make_server(
            HOST, self.port, self._application, threaded=True, request_handler=_Handler, fd=self._socket.fileno()
        )
        self._server.daemon_threads = True  # type: ignore[attr-defined]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="front door", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        if self._server and self._thread:
            self._server.shutdown()
            self._thread.join(5)
            self._server.server_close()
        self._socket.close()

    def _application(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        path = environ.get("PATH_INFO", "")
        if target.startswith(STATES_TARGET):
            reply = self._answer_states(target, environ)
        elif LambdaApi.handles(path):
            assert self._functions
            headers = {
                name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name.startswith("HTTP_")
            }
            reply = self._functions.handle(environ["REQUEST_METHOD"], path, headers, _body(environ))
        else:
            answer: Iterable[bytes] = self._moto(environ, start_response)
            return answer
        headers_out = [("Content-Length", str(len(reply.body)))] if reply.status != 204 else []
        start_response(f"{reply.status} -", [*reply.headers.items(), *headers_out])
        return [reply.body]

    def _answer_states(self, target: str, environ: dict[str, Any]) -> Reply:
        assert self._states
        status, answer = self._states.handle(target, json.loads(_body(environ) or b"{}"))
        headers = {"Content-Type": "application/x-amz-json-1.0", "x-amzn-RequestId": str(uuid.uuid4())}
        return Reply(status, json.dumps(answer).encode(), headers)


def _body(environ: dict[str, Any]) -> bytes:
    """The whole request body. werkzeug decodes a chunked one."""
    length = environ.get("CONTENT_LENGTH")
    data: bytes = environ["wsgi.input"].read(int(length)) if length else b""
    if not length and environ.get("wsgi.input_terminated"):
        data = environ["wsgi.input"].read()
    return data
