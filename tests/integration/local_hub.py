"""A Hugging Face Hub on this machine, which fails on request; see ``Fault``.

It does not know the xet protocol, so clients set ``HF_HUB_DISABLE_XET=1``.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

from hub_api import Asked, Fault, File, Hub, Refused, answer, kind_of

MESSAGES = {429: "Too Many Requests"}


class Handler(BaseHTTPRequestHandler):
    """One connection to a Hub."""

    hub: ClassVar[Hub]
    protocol_version = "HTTP/1.1"

    def do(self) -> None:
        path = self.path.partition("?")[0]
        length = int(self.headers.get("Content-Length", 0))
        try:
            with self.hub.lock:
                self.hub.requests.append((self.command, path))
                kind, groups = kind_of(self.command, path)
                waiting = self.hub.faults[kind]
                fault = (waiting.pop(0) if waiting else None) or Fault()
        except Refused as refused:
            self.rfile.read(length)
            self.say(refused.status, refused.body, refused.headers)
            return
        if fault.cut == "body":
            self.rfile.read(length // 2)
            self.hang_up()
            return
        body = self.rfile.read(length)
        time.sleep(fault.wait_s)
        token = (self.headers["Authorization"] or "").removeprefix("Bearer ")
        said = self.answer(fault, kind, Asked(groups, body, token))
        if fault.cut == "answer":
            self.hang_up()
        else:
            self.say(*said)

    do_GET = do_HEAD = do_POST = do_PUT = do

    def answer(self, fault: Fault, kind: str, asked: Asked) -> tuple[int, Any, dict[str, str]]:
        """Status, content and headers of what is answered."""
        with self.hub.lock:
            if fault.revoke:
                self.hub.may_write.clear()
            if fault.status is not None:
                message = MESSAGES.get(fault.status, "Internal Error")
                return fault.status, {"error": message}, fault.headers
            try:
                return 200, answer(self.hub, kind, self.command, asked), {}
            except Refused as refused:
                return refused.status, refused.body, refused.headers

    def say(self, status: int, said: Any, headers: dict[str, str]) -> None:
        if isinstance(said, File):
            data, headers = said.data, {**headers, **said.headers}
        else:
            data = json.dumps(said).encode()
            headers = {"Content-Type": "application/json", **headers}
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def hang_up(self) -> None:
        """Close the connection as a cable that is pulled: no farewell."""
        self.close_connection = True
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """A server that says nothing of connections that were cut."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing."""


@contextmanager
def serve(may_write: dict[str, bool], part_bytes: int | None = None) -> Iterator[Hub]:
    """Run a Hub on a free port of this machine.

    Args:
        may_write: Whether the owner of each token may write; other tokens are unknown.
        part_bytes: See ``Hub``.
    """
    own = type("OwnHandler", (Handler,), {})
    server = Server(("127.0.0.1", 0), own)
    hub = own.hub = Hub(f"http://127.0.0.1:{server.server_port}", may_write, part_bytes)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
