"""Servers on this machine for tests of sharing; they count what they receive, and can stall."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from commands import PATIENCE, wait


class Server(ThreadingHTTPServer):
    """Keeps a log of (method, path, bytes of the body) and stalls once, in the request that `stall_at` names."""

    daemon_threads = True

    def __init__(self, handler) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.log: list[tuple[str, str, int]] = []
        self.stall_at: str | None = None
        self.stalled, self.go_on = threading.Event(), threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def wait_here(self, text: str) -> None:
        if self.stall_at and self.stall_at in text and not self.stalled.is_set():
            self.stalled.set()
            self.go_on.wait(PATIENCE)

    def handle_error(self, request, client_address) -> None:
        """Ignore clients that are killed."""


@contextmanager
def running(server):
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args) -> None:
        pass

    def body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.log.append((self.command, self.path, len(body)))
        return body

    def answer(self, status: int, body: bytes | dict | list = b"", **headers: str) -> None:
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class Files(Handler):
    """Serves a folder; `server.lie` maps a path to other bytes, or to a status with headers."""

    def do_GET(self) -> None:
        self.body()
        path = unquote(self.path).lstrip("/")
        lie = self.server.lie.get(path)
        if isinstance(lie, tuple):
            self.answer(lie[0], **lie[1])
            return
        file = self.server.root / path
        if lie is None and not file.is_file():
            self.answer(404)
            return
        data = file.read_bytes() if lie is None else lie
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2])
        self.wfile.flush()
        self.server.wait_here(path)
        self.wfile.write(data[len(data) // 2 :])


class Dripping(Handler):
    """Answers a byte at a time, without end: the headers or, if `server.whole_headers`, the body."""

    def do_GET(self) -> None:
        if self.server.whole_headers:
            self.send_response(200)
            self.end_headers()
        with suppress(OSError):  # the client has closed the connection
            while not self.server.go_on.wait(0.1):
                self.wfile.write(b"H")


def dripping(whole_headers: bool) -> Server:
    server = Server(Dripping)
    server.whole_headers = whole_headers
    return server


def files(root: Path) -> Server:
    server = Server(Files)
    server.root, server.lie = root, {}
    return server


class Forward(Handler):
    """Forwards every request to another server, moto's."""

    def do_GET(self) -> None:
        body = self.body()
        self.server.wait_here(f"{self.command} {self.path}")
        other = http.client.HTTPConnection("127.0.0.1", self.server.port_behind, timeout=PATIENCE)
        other.request(
            self.command,
            self.path,
            body,
            {k: v for k, v in self.headers.items() if k != "Connection"},
        )
        found = other.getresponse()
        data = found.read()
        length = (
            found.headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(data))
        )
        skipped = ("content-length", "transfer-encoding", "connection", "date", "server")
        headers = {k: v for k, v in found.getheaders() if k.lower() not in skipped}
        self.send_response(found.status)
        for name, value in (headers | {"Content-Length": length}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        other.close()

    do_PUT = do_POST = do_HEAD = do_DELETE = do_GET


@contextmanager
def moto(host: str = "127.0.0.1") -> Iterator[int]:
    """The port of moto's server, a stand-in for S3, once it answers."""
    command = [Path(sys.executable).parent / "moto_server", "-H", host, "-p", "0"]
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder, "said")
        with said.open("w") as file:
            server = subprocess.Popen(command, stdout=file, stderr=file)

        def port() -> int | None:
            assert server.poll() is None, said.read_text()
            found = re.search(r"Running on http://\S+:(\d+)\n", said.read_text())
            return found and int(found[1])

        try:
            wait(port)
            yield port()
        finally:
            server.kill()
            server.wait()


def forward(port: int) -> Server:
    server = Server(Forward)
    server.port_behind = port
    return server


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class HubApi(Handler):
    """A stand-in for the Hugging Face Hub: the parts of its HTTP API that are used.

    Repositories have one branch. What ends on .parquet, .safetensors or .png is stored as LFS objects.
    """

    def repo(self) -> tuple[str, dict[str, bytes] | None]:
        # Addresses of files of models have nothing before the owner.
        name = re.search(r"(?:datasets/|models/|^/(?!api/|datasets/))([\w.-]+/[\w-]+)", self.path)[
            1
        ]
        return name, self.server.repos.get(name)

    def do_POST(self) -> None:
        body, path = self.body(), urlsplit(self.path).path
        self.server.wait_here(f"POST {path}")
        if path == "/api/validate-yaml":
            self.answer(200, {"errors": [], "warnings": []})
        elif self.headers.get("Authorization") != "Bearer good" and "paths-info" not in path:
            self.answer(401, {"error": "Invalid username or password."})
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            known = name in self.server.repos
            self.server.repos.setdefault(name, {})
            home = "datasets/" if asked.get("type") == "dataset" else ""
            self.answer(409 if known else 200, {"url": f"{self.server.url}/{home}{name}"})
        elif self.repo()[1] is None:
            self.answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        elif "/preupload/" in path:
            self.answer(
                200, {"files": [self.mode(file["path"]) for file in json.loads(body)["files"]]}
            )
        elif path.endswith("/info/lfs/objects/batch"):
            self.answer(
                200,
                {
                    "transfer": "basic",
                    "objects": [self.upload(o) for o in json.loads(body)["objects"]],
                },
            )
        elif "/paths-info/" in path:
            found = [
                self.info(name)
                for name in parse_qs(body.decode()).get("paths", [])
                if name in self.repo()[1]
            ]
            self.answer(200, found)
        elif "/commit/" in path:
            self.commit([json.loads(line) for line in body.splitlines()])
        else:
            self.answer(501)

    def do_PUT(self) -> None:
        self.server.wait_here(f"PUT {self.path}")
        body = self.body()
        self.server.objects[hashlib.sha256(body).hexdigest()] = body
        self.answer(200)

    def do_GET(self) -> None:
        self.body()
        path = urlsplit(self.path).path
        name, held = self.repo()
        if held is None:
            self.answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        elif path.startswith((f"/api/datasets/{name}/tree/", f"/api/models/{name}/tree/")):
            folder = unquote(path.split("/tree/")[1]).partition("/")[2]
            below = [file for file in held if file.startswith(f"{folder}/" if folder else "")]
            self.answer(200, [self.info(file) for file in below])
        elif path.startswith(("/api/datasets/", "/api/models/")):
            self.answer(
                200,
                {"id": name, "sha": self.server.sha, "siblings": [], "tags": [], "private": False},
            )
        elif (file := unquote(path.split("/resolve/")[1].partition("/")[2])) in held:
            whole = held[file]
            first, last = map(
                int,
                self.headers.get("Range", f"bytes=0-{len(whole)}")
                .removeprefix("bytes=")
                .split("-"),
            )
            self.answer(
                206,
                whole[first : last + 1],
                ETag=f'"{git_oid(whole)}"',
                X_Repo_Commit=self.server.sha,
            )
        else:
            self.answer(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound")

    do_HEAD = do_GET

    def mode(self, path: str) -> dict:
        held = self.repo()[1]
        oid = self.info(path)["oid"] if path in held else None
        return {
            "path": path,
            "uploadMode": "lfs" if is_lfs(path) else "regular",
            "shouldIgnore": False,
            "oid": oid,
        }

    def upload(self, asked: dict) -> dict:
        if asked["oid"] in self.server.objects:
            return asked
        return asked | {"actions": {"upload": {"href": f"{self.server.url}/lfs/{asked['oid']}"}}}

    def info(self, path: str) -> dict:
        data = self.repo()[1][path]
        info = {"type": "file", "path": path, "size": len(data), "oid": git_oid(data)}
        if is_lfs(path):
            sha256 = hashlib.sha256(data).hexdigest()
            pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(data)}\n".encode()
            info |= {
                "oid": git_oid(pointer),
                "lfs": {"oid": sha256, "size": len(data), "pointerSize": len(pointer)},
            }
        return info

    def commit(self, lines: list[dict]) -> None:
        name, held = self.repo()
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "lfsFile":
                held[value["path"]] = self.server.objects[value["oid"]]
            else:
                held[value["path"]] = base64.b64decode(value["content"])
        self.server.commits.append([line["value"]["path"] for line in lines[1:]])
        oid = self.server.sha
        self.answer(
            200, {"commitUrl": f"{self.server.url}/datasets/{name}/commit/{oid}", "commitOid": oid}
        )


def is_lfs(path: str) -> bool:
    return path.endswith((".parquet", ".safetensors", ".png"))


class HubServer(Server):
    def __init__(self) -> None:
        super().__init__(HubApi)
        self.repos: dict[str, dict[str, bytes]] = {}
        self.objects: dict[str, bytes] = {}
        self.commits: list[list[str]] = []

    @property
    def sha(self) -> str:
        return f"{len(self.commits):040x}"
