"""Sharing through folders and the web, with kills, as users run it."""

from __future__ import annotations

import datetime
import ipaddress
import json
import resource
import shutil
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import servers
from commands import ofbnas
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sharing import contents, is_the_study, kill_when_stalled, refused, table

from ofbnas.files.durable import TEMPORARY
from ofbnas.table.sharing import web as web_places

pytestmark = pytest.mark.slow


@pytest.fixture
def web(shared):
    """A web server with the shared table."""
    with servers.running(servers.files(shared)) as server:
        yield server


def test_a_killed_pull_resumes_and_never_shows_half_a_file(web, small_study, shared, tmp_path):
    file = sorted(path for path in contents(shared) if path.endswith(".safetensors"))[-1]
    web.stall_at = file
    place = (tmp_path / "got" / file).parent
    kill_when_stalled(
        web, "pull", web.url, tmp_path / "got", seen=lambda: any(place.glob(f"{TEMPORARY}*"))
    )
    left = contents(tmp_path / "got")
    assert any(TEMPORARY in path for path in left), "it was killed inside a file"
    whole = {path for path in left if TEMPORARY not in path}
    assert whole and file not in whole and "manifest.json" not in whole
    assert all(left[path] == contents(shared)[path] for path in whole)
    web.log.clear()
    table("pull", web.url, tmp_path / "got")
    assert {path.lstrip("/") for _, path, _ in web.log} == {*contents(shared)} - whole, (
        "what was there is not asked for"
    )
    assert contents(tmp_path / "got") == contents(shared) and is_the_study(
        tmp_path / "got", small_study
    )


def test_a_killed_push_to_a_folder_resumes(small_study, shared, tmp_path):
    code = f"""
import os, signal
from ofbnas.table.sharing.share import push
def tell(line):
    if "architectures.parquet" in line:
        os.kill(os.getpid(), signal.SIGKILL)
push({str(small_study)!r}, {str(tmp_path / "out")!r}, notify=tell)
"""
    killed = subprocess.run([sys.executable, "-c", code], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "out" / "manifest.json").exists()
    sent, _ = table("push", small_study, tmp_path / "out")
    assert (sent["files"], sent["sent_files"]) == (14, 4)
    assert contents(tmp_path / "out") == contents(shared)


def test_every_command_for_tables_reads_what_was_pulled(web, small_study, tmp_path):
    table("pull", web.url + "/", tmp_path / "got")
    for command in (["front", "show"], ["arch", "list"]):
        printed = [
            json.loads(ofbnas(*command, f, "--json").stdout)
            for f in (tmp_path / "got", small_study)
        ]
        assert printed[0] == printed[1]


def test_the_web_says_what_is_wrong(web, shared, tmp_path):
    got = tmp_path / "got"
    refused("pull", f"{web.url}/nowhere", got, message="holds no manifest.json", code=2)
    web.lie["manifest.json"] = (403, {})
    refused("pull", web.url, got, message="is not public", code=2)
    web.lie["manifest.json"] = (500, {})
    refused("pull", web.url, got, message="the server answers 500", code=1)
    for leads_to, message, code in (
        ("http://example.org/manifest.json", "which is not https", 2),
        ("ftp://example.org/manifest.json", "which is not https", 2),
        (f"{(shared / 'manifest.json').as_uri()}", "is not allowed", 1),
    ):
        web.lie["manifest.json"] = (302, {"Location": leads_to})
        refused("pull", web.url, got, message=message, code=code)
    web.lie["manifest.json"] = b"x" * (17 * 2**20)
    refused("pull", web.url, got, message="more than", code=2)
    del web.lie["manifest.json"]
    web.lie["history.parquet"] = (shared / "history.parquet").read_bytes() + bytes(10**6)
    refused("pull", web.url, got, message="has more bytes", code=1)
    assert "history.parquet" not in contents(got)
    refused("pull", web.url, got, "--max-size", "0.0001", message="--max-size 1 allows it", code=2)
    refused("pull", "http://127.0.0.1:1", got, message="refused", code=1)


@pytest.mark.parametrize(
    ("whole_headers", "message"), [(False, "did not answer within 1 s"), (True, "comes at less")]
)
def test_a_server_that_sends_a_byte_now_and_then_does_not_hold_a_pull(
    monkeypatch, tmp_path, whole_headers, message
):
    monkeypatch.setattr(web_places, "SECONDS", 1.0)
    with servers.running(servers.dripping(whole_headers)) as server:
        pulled = ofbnas("table", "pull", server.url, tmp_path / "got")
    assert (
        pulled.returncode == 1 and message in pulled.stderr and len(pulled.stderr.splitlines()) == 1
    ), pulled.stderr


def test_a_disk_that_becomes_full_ends_a_pull_with_one_line(web, shared, tmp_path):
    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    refused(
        "pull", web.url, tmp_path / "got", message="File too large", code=1, preexec_fn=small_files
    )
    left = contents(tmp_path / "got")
    assert left and all(left[path] == contents(shared)[path] for path in left), (
        "no part is left behind"
    )
    table("pull", web.url, tmp_path / "got")
    assert contents(tmp_path / "got") == contents(shared)


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for this machine, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
    return folder / "cert.pem", folder / "key.pem"


def test_https_is_read_where_the_certificate_is_trusted(small_study, shared, tmp_path):
    cert, key = certificate(tmp_path)
    server = servers.files(shutil.copytree(shared, tmp_path / "served"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with servers.running(server):
        address = f"https://127.0.0.1:{server.server_port}"
        refused("pull", address, tmp_path / "got", message="CERTIFICATE_VERIFY_FAILED", code=1)
        table("pull", address, tmp_path / "got", env={"SSL_CERT_FILE": str(cert)})
        assert is_the_study(tmp_path / "got", small_study)
        server.lie["manifest.json"] = (
            302,
            {"Location": f"http://127.0.0.1:{server.server_port}/manifest.json"},
        )
        refused(
            "pull",
            address,
            tmp_path / "no",
            env={"SSL_CERT_FILE": str(cert)},
            message="not https",
            code=2,
        )
