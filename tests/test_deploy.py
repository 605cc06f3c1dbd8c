"""docs/deploy.md, command by command."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from commands import PATIENCE, ofbnas, reserved_port, wait
from conftest import ROOT

pytestmark = pytest.mark.slow
PAGE = (ROOT / "docs" / "deploy.md").read_text()


def test_the_pages_commands_lead_from_a_table_to_a_server_that_classifies(tmp_path):
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    shutil.copytree(ROOT / "studies" / "tables" / "digits", tmp_path / "studies/tables/digits")
    (tmp_path / "examples").mkdir()
    shutil.copy(ROOT / "examples" / "serve.py", tmp_path / "examples")
    printed, servers = {}, []
    with reserved_port() as port:
        try:
            for line in "".join(blocks).replace("8000", str(port)).splitlines():
                words = shlex.split(line)
                if words[0] == "ofbnas":
                    done = ofbnas(*words[1:], cwd=tmp_path)
                    assert done.returncode == 0, done.stderr
                    continue
                if words[0] == "python":
                    words[0] = sys.executable
                if words[-1] == "&":
                    servers.append(
                        subprocess.Popen(words[:-1], cwd=tmp_path, stderr=subprocess.DEVNULL)
                    )
                    continue
                if words[0] == "curl":
                    refused = ["--retry-connrefused", "--retry", "100", "--retry-delay", "1"]
                    words[1:1] = refused  # the server may still be starting
                done = subprocess.run(
                    words,
                    cwd=tmp_path,
                    capture_output=True,
                    text=True,
                    check=True,
                    timeout=PATIENCE,
                )
                printed[words[0]] = done.stdout
            (server,) = servers
            assert server.poll() is None
        finally:
            for server in servers:
                server.terminate()
                wait(lambda server=server: server.poll() is not None)
    classes = json.loads(printed["curl"])
    assert list(classes) == list("0123456789")
    assert classes["7"] > 0.8 and sum(classes.values()) == pytest.approx(1, abs=1e-4)
