"""The page from a local server, made again whenever the study has changed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ofbnas.errors import InputError
from ofbnas.study.report.page import page

HOST = "127.0.0.1"
PAUSE_PER_TRIAL = 0.01  # seconds between two times that contents are made


class Server(ThreadingHTTPServer):
    """Serves / (the page) and /data.json (what it shows) to this machine only."""

    def __init__(
        self,
        contents: Callable[[], Mapping[str, Any]],
        stamp: Callable[[], Any],
        port: int = 0,
    ) -> None:
        """Listen.

        Args:
            contents: What the page shows.
            stamp: Called on each request; if its value has changed, `contents` is called again,
                unless that was only just done for a large study.
            port: 0 takes a free one.

        Raises:
            InputError: The port is not available.
        """
        self.contents = contents
        self.stamp = stamp
        self.building = threading.Lock()  # requests are answered in threads of their own
        self.last: tuple[Any, Mapping[str, Any]] | None = None
        self.next_build = 0.0  # when contents may be made again, by the monotonic clock
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            raise InputError(
                f"port {port}: is not available ({error}); "
                "give --port another, or none for a free one"
            ) from None

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.server_port}/"

    def current(self) -> Mapping[str, Any]:
        """The contents as they are now."""
        with self.building:
            # The stamp is taken before reading, so that a change in between is read the next time.
            stamp = self.stamp()
            now = time.monotonic()
            if self.last is None or (self.last[0] != stamp and now >= self.next_build):
                self.last = stamp, self.contents()
                # A study changes with each epoch of each trial, and all of its files are read.
                self.next_build = now + PAUSE_PER_TRIAL * len(self.last[1]["trials"])
            return self.last[1]


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        """Answer with the page or its data."""
        # A page from elsewhere could reach this server under a name that it lets point here (DNS
        # rebinding), so only requests under its own names are answered.
        own_hosts = {f"{host}:{self.server.server_port}" for host in (HOST, "localhost")}
        if self.headers.get("Host") not in own_hosts:
            self._answer_text(
                HTTPStatus.FORBIDDEN, "this server answers under its own address only"
            )
            return
        if self.path not in ("/", "/data.json"):
            self._answer_text(HTTPStatus.NOT_FOUND, "there is only / and /data.json")
            return
        try:
            contents = self.server.current()
        except (InputError, OSError) as error:
            self._answer_text(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
            return
        if self.path == "/":
            self._answer(HTTPStatus.OK, "text/html", page(contents, live=True))
        else:
            data = json.dumps(contents, allow_nan=False)
            self._answer(HTTPStatus.OK, "application/json", data)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: a page that polls every few seconds would fill the terminal."""

    def _answer_text(self, status: HTTPStatus, line: str) -> None:
        self._answer(status, "text/plain", f"{line}\n")

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
