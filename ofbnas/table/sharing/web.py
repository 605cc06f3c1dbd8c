"""A shared table on a web server, to read."""

from __future__ import annotations

import http.client
import ipaddress
import queue
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ofbnas.errors import InputError, TransferError
from ofbnas.table.sharing.place import Readable

SECONDS = 60.0  # that a server may take to answer, and stay silent in between
MIN_RATE = 10_000  # bytes per second that it has to send on average, once these have passed


class Web:
    """A folder on a web server, to read; plain http only on this machine."""

    def __init__(self, address: str) -> None:
        _check_url(address)
        self.address = address.rstrip("/")
        # Plain http stays on this machine and needs no proxy; otherwise the environment's is used.
        proxies: dict[str, str] | None = None
        if address.startswith("http://"):
            proxies = {}
        handler = urllib.request.ProxyHandler(proxies)
        self._opener = urllib.request.build_opener(handler, _Redirects())

    @contextmanager
    def open(self, path: str) -> Iterator[Readable]:
        """A file's bytes.

        Raises:
            FileNotFoundError: The server has no such file.
            InputError: The file is not public.
            TransferError: The server fails, or is too slow.
        """
        url = f"{self.address}/{urllib.parse.quote(path)}"
        try:
            response = _within(SECONDS, url, lambda: self._opener.open(url, timeout=SECONDS))
            with response as stream:
                yield _Steady(stream, url)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in (404, 410):
                raise FileNotFoundError(url) from None
            if error.code in (401, 403):
                raise InputError(
                    f"{url}: is not public (the server answers {error.code})"
                ) from None
            raise TransferError(f"{url}: the server answers {error.code} {error.reason}") from None
        except urllib.error.URLError as error:
            raise TransferError(f"{url}: {error.reason}") from None
        except (http.client.HTTPException, TimeoutError, ConnectionError) as error:
            raise TransferError(f"{url}: {error!r}") from None


class _Steady:
    """A stream with a minimum rate: no server can stall a transfer by sending single bytes."""

    def __init__(self, stream: http.client.HTTPResponse, url: str) -> None:
        self.stream = stream
        self.url = url
        self.received = 0
        self.started = time.monotonic()

    def read(self, size: int) -> bytes:
        """At most `size` bytes, as many as have arrived; none at the end.

        Raises:
            TransferError: They come too slowly.
        """
        chunk = self.stream.read1(size)
        self.received += len(chunk)
        elapsed = time.monotonic() - self.started
        if elapsed > SECONDS + self.received / MIN_RATE:
            raise TransferError(
                f"{self.url}: comes at less than {MIN_RATE:,} bytes per second; "
                "the same command resumes"
            )
        return chunk


def _within(seconds: float, url: str, run: Callable[[], Any]) -> Any:
    """The result of a call that has to return in time.

    The socket's own timeout does not suffice: it starts anew with each byte of the headers.

    Raises:
        TransferError: It takes longer.
    """
    done: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue()

    def call() -> None:
        try:
            done.put((run(), None))
        except BaseException as error:  # noqa: BLE001 (raised in the thread that waits)
            done.put((None, error))

    # A daemon, so that a server that never answers does not keep this process alive.
    threading.Thread(target=call, daemon=True).start()
    try:
        result, error = done.get(timeout=seconds)
    except queue.Empty:
        raise TransferError(f"{url}: the server did not answer within {seconds:g} s") from None
    if error is not None:
        raise error
    return result


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Redirects are followed unless they lead from https to http, or to another machine by http."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: Any,
        code: int,
        msg: str,
        headers: Any,
        newurl: str,
    ) -> Any:
        """The request to follow a redirect with.

        Raises:
            InputError: It would be sent unencrypted.
        """
        may_be_plain = req.type != "https" and _may_read(newurl)
        if not newurl.startswith("https://") and not may_be_plain:
            raise InputError(f"{req.full_url}: leads to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_url(url: str) -> None:
    """Check the address of a folder on a web server.

    Raises:
        InputError: It is not one, or is not encrypted.
    """
    parts = urllib.parse.urlsplit(url)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise InputError(
            f"{url}: expected https://HOST/FOLDER, the folder that holds manifest.json"
        )
    if not _may_read(url):
        raise InputError(f"{url}: expected https://; plain http is read from this machine only")


def _may_read(url: str) -> bool:
    """Whether an address is https, or on this machine."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "http":
        return parts.scheme == "https"
    if parts.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:  # a name
        return False
