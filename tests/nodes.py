"""A Ray cluster of several nodes on this machine, with their own processes and, if possible, networks."""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

from commands import PATIENCE, reserved_port
from servers import moto

BIN = Path(sys.executable).parent
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
NUMBERS = itertools.count()  # Linux removes a network some time after it was told to


def run(*args: object, **more) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(arg) for arg in args],
        check=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        **more,
    )


class Cluster:
    """A head that runs no trials, and worker nodes of one CPU each.

    Attributes:
        env: Environment variables of the nodes and of a driver, including the token.
        address: The head's address.
        namespaces: Whether nodes have network namespaces of their own.
    """

    def __init__(self, env: dict[str, str]) -> None:
        self.env = os.environ | {
            "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16), "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
        } | env  # fmt: skip
        self.namespaces = os.geteuid() == 0 and shutil.which("ip") is not None
        self.name, self.net, self.hosts = (
            f"of{os.getpid() % 100000}-{next(NUMBERS)}",
            f"10.{os.getpid() % 200 + 20}.77",
            {},
        )
        self.roots: dict[str, list[int]] = {}
        if self.namespaces:
            try:
                run("ip", "link", "add", self.name, "type", "bridge")
            except subprocess.CalledProcessError:
                self.namespaces = False
        if self.namespaces:
            run("ip", "addr", "add", f"{self.net}.1/24", "dev", self.name)
            run("ip", "link", "set", self.name, "up")
        self.host = f"{self.net}.1" if self.namespaces else "127.0.0.1"
        self.held = ExitStack()
        self.port = self.held.enter_context(reserved_port(self.host))
        self.address = f"{self.host}:{self.port}"

    def start(self) -> None:
        self._ray(
            "head", "--head", "--port", self.port, "--num-cpus", 0, "--include-dashboard=false"
        )

    def add(self, number: int, hidden: Path | None = None, **env: str) -> None:
        """Start a worker node, from which a folder may be hidden, with further environment variables."""
        name = f"{self.name}n{number}"
        self.hosts[number] = self.host
        if self.namespaces:
            self.hosts[number] = f"{self.net}.{number + 1}"
            if not Path(f"/run/netns/{name}").exists():
                run("ip", "netns", "add", name)
                run("ip", "link", "add", f"{name}v", "type", "veth", "peer", "name", f"{name}e")
                run("ip", "link", "set", f"{name}v", "master", self.name, "up")
                run("ip", "link", "set", f"{name}e", "netns", name)
                run("ip", "-n", name, "addr", "add", f"{self.hosts[number]}/24", "dev", f"{name}e")
                run("ip", "-n", name, "link", "set", f"{name}e", "up")
                run("ip", "-n", name, "link", "set", "lo", "up")
        self._ray(number, "--address", self.address, "--num-cpus", 1, hidden=hidden, env=env)

    def _ray(
        self,
        node: int | str,
        *args: object,
        hidden: Path | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        inside = (
            ["ip", "netns", "exec", f"{self.name}n{node}"]
            if self.namespaces and node != "head"
            else []
        )
        if hidden is not None:  # `ip netns exec` gives its command mounts of its own
            inside += ["sh", "-c", f'mount -t tmpfs none {hidden} && exec "$@"', "sh"]
        host = self.hosts.get(node, self.host)
        mark = {"OFBNAS_TEST_NODE": f"{self.name}-{node}"}
        run(
            *inside,
            BIN / "ray",
            "start",
            "--node-ip-address",
            host,
            *args,
            env=self.env | mark | (env or {}),
        )

    def processes(self, node: int | str) -> dict[int, str]:
        """Command lines of a node's processes, by process id."""
        found, mark = {}, f"OFBNAS_TEST_NODE={self.name}-{node}\0".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (folder / "environ").read_bytes() + b"\0":
                    found[int(folder.name)] = (
                        (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    )
            except OSError:
                continue
        return found

    def kill(self, node: int | str) -> None:
        """End all processes of a node at once, as when its power fails."""
        for _ in range(3):
            for pid in self.processes(node):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.2)

    def close(self) -> None:
        for node in ["head", *self.hosts]:
            self.kill(node)
        if self.namespaces:
            for number in self.hosts:
                subprocess.run(
                    ["ip", "netns", "del", f"{self.name}n{number}"], check=False, **QUIET
                )
            subprocess.run(["ip", "link", "del", self.name], check=False, **QUIET)
        self.held.close()


@contextmanager
def cluster(workers: int):
    """A cluster with moto's server, a stand-in for S3, beside its head."""
    with ExitStack() as stack:
        made = Cluster({
            "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1",
        })  # fmt: skip
        stack.callback(made.close)
        port = stack.enter_context(moto(made.host))
        made.env["AWS_ENDPOINT_URL"] = f"http://{made.host}:{port}"
        made.start()
        for number in range(1, workers + 1):
            made.add(number)
        yield made
