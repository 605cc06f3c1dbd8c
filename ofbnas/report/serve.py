"""The page from a server of one's own, made anew whenever the study has changed."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ofbnas.errors import InputError
from ofbnas.report.page import page

HOST = "127.0.0.1"


class Server(ThreadingHTTPServer):
    """Serves / (the page) and /data.json (what it shows) to this machine only."""

    def __init__(self, contents: Callable[[], Mapping[str, Any]], stamp: Callable[[], Any], port: int = 0) -> None:
        """Listen.

        Args:
            contents: What the page shows.
            stamp: Called on each request; where it gives another value than before, `contents` is called again.
            port: 0 takes a free one.

        Raises:
            InputError: The port cannot be had.
        """
        self.contents, self.stamp, self.building = contents, stamp, threading.Lock()
        self.last: tuple[Any, Mapping[str, Any]] | None = None
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            raise InputError(
                f"port {port}: cannot be had ({error}); give --port another, or none for a free one"
            ) from None

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.server_port}/"

    def current(self) -> Mapping[str, Any]:
        """The contents as they are now."""
        with self.building:
            stamp = self.stamp()  # before reading, so that what changes meanwhile is read again
            if self.last is None or self.last[0] != stamp:
                self.last = stamp, self.contents()
            return self.last[1]


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        """Answer with the page or its data."""
        if self.headers.get("Host") not in {f"{host}:{self.server.server_port}" for host in (HOST, "localhost")}:
            self._answer(HTTPStatus.FORBIDDEN, "text/plain", "this server answers under its own address only\n")
        elif self.path not in ("/", "/data.json"):
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", "there is only / and /data.json\n")
        else:
            try:
                found = self.server.current()
            except (InputError, OSError) as error:
                self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", f"{error}\n")
                return
            if self.path == "/":
                self._answer(HTTPStatus.OK, "text/html", page(found, live=True))
            else:
                self._answer(HTTPStatus.OK, "application/json", json.dumps(found, allow_nan=False))

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a page that asks every few seconds would fill the terminal."""

    def _answer(self, status: HTTPStatus, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        for name, value in (
            ("Content-Type", f"{kind}; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
