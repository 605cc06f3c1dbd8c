"""Sharing through servers: S3, the Hugging Face Hub and the web, with kills, as users run it.

S3 is moto's server and the Hub is `servers.HubApi`: stand-ins on this machine that know what is used of the real ones.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import servers
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from test_share import contents, same_outputs, write_study

from ofbnas.front import front
from ofbnas.manifest import entry_of
from ofbnas.share import push
from ofbnas.table import read_table
from ofbnas.transfer import PART

OFBNAS = Path(sys.executable).parent / "ofbnas"
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}

pytestmark = pytest.mark.slow


def start(*args, env=None, **kwargs) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "HF_"))}
    return subprocess.Popen([OFBNAS, "table", *map(str, args)], env=clean | (env or {}), **pipes, **kwargs)


def table(*args, env=None, code=0, **kwargs) -> tuple[dict, str]:
    """What a command printed as JSON, and what it told."""
    process = start(*args, "--json", env=env, **kwargs)
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, err
    return (json.loads(out) if out else {}), err


def refused(*args, message: str, code: int, env=None, **kwargs) -> None:
    """The command ends with a line that says why."""
    out, err = table(*args, env=env, code=code, **kwargs)
    last = err.strip().splitlines()[-1]
    assert not out and last.startswith("ofbnas: ") and message in last, err
    assert "Traceback" not in err


def kill_when_stalled(server, *args, env=None, seen=lambda: True) -> None:
    """Run a command until the server stalls in it and something is seen, and kill it there."""
    process = start(*args, env=env)
    assert server.stalled.wait(120), process.communicate()
    while not seen():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    server.go_on.set()


def is_the_study(pulled: Path, study: Path) -> bool:
    pd.testing.assert_frame_equal(read_table(pulled), read_table(study))
    return all(same_outputs(pulled, study, arch_id) for arch_id in front(read_table(study))["arch_id"])


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    return write_study(tmp_path_factory.mktemp("study") / "small")


@pytest.fixture(scope="module")
def shared(study, tmp_path_factory) -> Path:
    """The study's table as it is shared."""
    folder = tmp_path_factory.mktemp("shared") / "table"
    push(str(study), str(folder), tell=print)
    return folder


@pytest.fixture(scope="module")
def moto():
    """The port of a stand-in for S3: moto's server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).parent / "moto_server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        for _ in range(600):
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield port
        server.kill()


@pytest.fixture
def s3(moto):
    """A counting server before moto's, an empty bucket, and the environment that leads there."""
    import boto3

    with servers.running(servers.forward(moto)) as server:
        client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{moto}",
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        bucket = f"b{time.monotonic_ns()}"
        client.create_bucket(Bucket=bucket)
        server.client, server.bucket = client, bucket
        server.env = KEYS | {"AWS_ENDPOINT_URL": server.url}
        yield server
        client.close()


def puts(server) -> list[str]:
    return [path.rpartition("/table/")[2] for method, path, _ in server.log if method == "PUT"]


def test_a_table_goes_through_s3_and_back(s3, study, tmp_path):
    address = f"s3://{s3.bucket}/some/table"
    sent, _ = table("push", study, address, env=s3.env)
    assert sent["sent_files"] == sent["files"] == 14 and puts(s3)[-1] == "manifest.json"
    s3.log.clear()
    again, _ = table("push", study, address, env=s3.env)
    assert again["sent_files"] == 0 and not puts(s3)
    table("pull", address, tmp_path / "got", env=s3.env)
    assert is_the_study(tmp_path / "got", study)


def test_a_killed_push_to_s3_goes_on(s3, study, tmp_path):
    address = f"s3://{s3.bucket}/table"
    s3.stall_at = f"PUT /{s3.bucket}/table/history.parquet"
    kill_when_stalled(s3, "push", study, address, env=s3.env)
    refused("pull", address, tmp_path / "got", env=s3.env, message="holds no manifest.json", code=2)
    before = {path for path in puts(s3) if path != "history.parquet"}
    assert len(before) == 10, "nine files of weights and the table"
    s3.log.clear()
    sent, _ = table("push", study, address, env=s3.env)
    assert set(puts(s3)).isdisjoint(before) and sent["files"] - sent["sent_files"] >= 10
    table("pull", address, tmp_path / "got", env=s3.env)
    assert is_the_study(tmp_path / "got", study)


def test_large_files_go_to_s3_in_parts(s3, tmp_path):
    large = tmp_path / "large"
    large.write_bytes(os.urandom(2**20) * 120)
    entry = entry_of(large, "subnets/a/model.safetensors")
    code = f"""
from pathlib import Path
from ofbnas.manifest import Entry
from ofbnas.remote import Bucket
from ofbnas.transfer import Folder
entry, bucket = Entry(**{entry.model_dump()!r}), Bucket("s3://{s3.bucket}/table")
with bucket.held():
    bucket.put({{entry: Path({str(large)!r})}}, print)
    assert bucket.missing([entry]) == []
with bucket.open(entry.path) as stream:
    Folder(Path({str(tmp_path / "got")!r})).receive(entry, stream, "S3")
"""
    subprocess.run([sys.executable, "-c", code], env=os.environ | s3.env, check=True)
    assert len([path for path in puts(s3) if "partNumber" in path]) > 1
    assert (tmp_path / "got" / entry.path).stat().st_size == entry.size


def test_s3_says_what_is_wrong(s3, study, tmp_path):
    address = f"s3://{s3.bucket}/table"
    s3.client.put_object(Bucket=s3.bucket, Key="table/README.md", Body=b"mine")
    refused("push", study, address, env=s3.env, message="was not pushed by ofbnas", code=2)
    assert s3.client.get_object(Bucket=s3.bucket, Key="table/README.md")["Body"].read() == b"mine"
    for args in (("push", study, "s3://nowhere-at-all/x"), ("pull", "s3://nowhere-at-all/x", tmp_path / "got")):
        refused(*args, env=s3.env, message="there is no bucket nowhere-at-all", code=2)
    refused("push", study, "s3://B@d/x", env=s3.env, message="no bucket can have this name", code=2)
    keyless = {"AWS_ENDPOINT_URL": s3.url, "AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path)}
    refused("push", study, address, env=keyless, message="there are no AWS credentials", code=2)


@pytest.fixture
def hub():
    """A stand-in for the Hugging Face Hub."""
    with servers.running(servers.HubServer()) as server:
        server.env = {"HF_ENDPOINT": server.url, "HF_TOKEN": "good", "HF_HUB_DISABLE_XET": "1"}
        yield server


def test_a_table_goes_through_the_hub_and_back(hub, study, tmp_path):
    address = "hf://datasets/some-one/small"
    sent, _ = table("push", study, address, env=hub.env)
    held = hub.repos["some-one/small"]
    assert sent["files"] == len(held) == 14
    weights, last = hub.commits
    assert all("/" in path for path in weights), "the weights come first,"
    assert {"architectures.parquet", "manifest.json"} <= set(last), "then the table with its manifest"
    assert f'pandas.read_parquet("{address}/architectures.parquet")' in held["README.md"].decode()
    hub.log.clear()
    table("push", study, address, env=hub.env)
    assert len(hub.commits) == 2 and not [entry for entry in hub.log if entry[0] == "PUT"]
    table("pull", address, tmp_path / "got", env=hub.env)
    assert is_the_study(tmp_path / "got", study)


def test_a_table_may_lie_in_a_folder_of_a_repository(hub, study, tmp_path):
    hub.repos["some-one/many"] = {"README.md": b"mine"}
    table("push", study, "hf://datasets/some-one/many@main/first/small", env=hub.env)
    assert hub.repos["some-one/many"]["README.md"] == b"mine"
    table("pull", "hf://datasets/some-one/many/first/small", tmp_path / "got", env=hub.env)
    assert is_the_study(tmp_path / "got", study)


def test_a_killed_push_to_the_hub_goes_on(hub, study, tmp_path):
    address = "hf://datasets/some-one/small"
    hub.stall_at = "/commit/"
    kill_when_stalled(hub, "push", study, address, env=hub.env)
    sent = {path for method, path, _ in hub.log if method == "PUT"}
    assert len(sent) == 3, "the weights of the front are there"
    hub.repos["some-one/small"].clear()  # as if the commit had never arrived
    hub.log.clear()
    table("push", study, address, env=hub.env)
    again = {path for method, path, _ in hub.log if method == "PUT"}
    assert len(again) == 3 and not again & sent, "the table, the history and the picture"
    table("pull", address, tmp_path / "got", env=hub.env)
    assert is_the_study(tmp_path / "got", study)


def test_the_hub_says_what_is_wrong(hub, study, tmp_path):
    address = "hf://datasets/some-one/small"
    refused("pull", address, tmp_path / "got", env=hub.env, message="there is no such dataset", code=2)
    refused("push", study, address, env=hub.env | {"HF_TOKEN": "bad"}, message="HF_TOKEN logs in", code=2)
    refused("push", study, "hf://datasets/some--one/small", env=hub.env, message="Cannot have --", code=2)
    hub.repos["some-one/small"] = {}
    refused("pull", address, tmp_path / "got", env=hub.env, message="holds no manifest.json", code=2)
    table("push", study, address, env=hub.env)
    damaged = hub.repos["some-one/small"]
    damaged["history.parquet"] = damaged["history.parquet"][::-1]
    refused("pull", address, tmp_path / "got", env=hub.env, message="damaged or not the one", code=1)
    gone = hub.env | {"HF_ENDPOINT": "http://127.0.0.1:1"}
    refused("pull", address, tmp_path / "got", env=gone, message=address, code=1)


@pytest.fixture
def web(shared):
    """A web server with the shared table."""
    with servers.running(servers.files(shared)) as server:
        yield server


def test_a_killed_pull_goes_on_and_never_shows_half_a_file(web, study, shared, tmp_path):
    file = sorted(path for path in contents(shared) if path.endswith(".safetensors"))[-1]
    web.stall_at = file
    place = (tmp_path / "got" / file).parent
    kill_when_stalled(web, "pull", web.url, tmp_path / "got", seen=lambda: any(place.glob(f"{PART}*")))
    left = contents(tmp_path / "got")
    assert any(PART in path for path in left), "it was killed inside a file"
    whole = {path for path in left if PART not in path}
    assert whole and file not in whole and "manifest.json" not in whole
    assert all(left[path] == contents(shared)[path] for path in whole)
    web.log.clear()
    table("pull", web.url, tmp_path / "got")
    assert {path.lstrip("/") for _, path, _ in web.log} == {*contents(shared)} - whole, (
        "what was there is not asked for"
    )
    assert contents(tmp_path / "got") == contents(shared) and is_the_study(tmp_path / "got", study)


def test_a_killed_push_to_a_folder_goes_on(study, shared, tmp_path):
    code = f"""
import os, signal
from ofbnas.share import push
def tell(line):
    if "architectures.parquet" in line:
        os.kill(os.getpid(), signal.SIGKILL)
push({str(study)!r}, {str(tmp_path / "out")!r}, tell=tell)
"""
    killed = subprocess.run([sys.executable, "-c", code], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "out" / "manifest.json").exists()
    sent, _ = table("push", study, tmp_path / "out")
    assert (sent["files"], sent["sent_files"]) == (14, 4)
    assert contents(tmp_path / "out") == contents(shared)


def test_every_command_for_tables_reads_what_was_pulled(web, study, tmp_path):
    table("pull", web.url + "/", tmp_path / "got")
    for command in (["front", "show"], ["arch", "list"]):
        printed = [
            json.loads(subprocess.run([OFBNAS, *command, f, "--json"], capture_output=True, check=True).stdout)
            for f in (tmp_path / "got", study)
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


def test_a_disk_that_becomes_full_ends_a_pull_in_a_line(web, shared, tmp_path):
    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    refused("pull", web.url, tmp_path / "got", message="File too large", code=1, preexec_fn=small_files)
    left = contents(tmp_path / "got")
    assert left and all(left[path] == contents(shared)[path] for path in left), "no part is left behind"
    table("pull", web.url, tmp_path / "got")
    assert contents(tmp_path / "got") == contents(shared)


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for this machine, made by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
    return folder / "cert.pem", folder / "key.pem"


def test_https_is_read_where_the_certificate_is_trusted(study, shared, tmp_path):
    cert, key = certificate(tmp_path)
    server = servers.files(shutil.copytree(shared, tmp_path / "served"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with servers.running(server):
        address = f"https://127.0.0.1:{server.server_port}"
        refused("pull", address, tmp_path / "got", message="CERTIFICATE_VERIFY_FAILED", code=1)
        table("pull", address, tmp_path / "got", env={"SSL_CERT_FILE": str(cert)})
        assert is_the_study(tmp_path / "got", study)
        server.lie["manifest.json"] = (302, {"Location": f"http://127.0.0.1:{server.server_port}/manifest.json"})
        refused("pull", address, tmp_path / "no", env={"SSL_CERT_FILE": str(cert)}, message="not https", code=2)
