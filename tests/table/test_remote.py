"""Sharing through S3 and the Hugging Face Hub, with kills, as users run it.

S3 is moto's server and the Hub is `servers.HubApi`, stand-ins on this machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
import servers
from commands import wait
from sharing import is_the_study, kill_when_stalled, refused, table

from ofbnas.table.sharing.manifest import entry_of

KEYS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def moto():
    """The port of a stand-in for S3."""
    with servers.moto() as port:
        yield port


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


def test_a_table_goes_through_s3_and_back(s3, small_study, tmp_path):
    address = f"s3://{s3.bucket}/some/table"
    sent, _ = table("push", small_study, address, env=s3.env)
    assert sent["sent_files"] == sent["files"] == 14 and puts(s3)[-1] == "manifest.json"
    s3.log.clear()
    again, _ = table("push", small_study, address, env=s3.env)
    assert again["sent_files"] == 0 and not puts(s3)
    table("pull", address, tmp_path / "got", env=s3.env)
    assert is_the_study(tmp_path / "got", small_study)


def test_a_killed_push_to_s3_resumes(s3, small_study, tmp_path):
    address = f"s3://{s3.bucket}/table"
    s3.stall_at = f"PUT /{s3.bucket}/table/history.parquet"
    kill_when_stalled(s3, "push", small_study, address, env=s3.env)
    refused("pull", address, tmp_path / "got", env=s3.env, message="holds no manifest.json", code=2)
    before = {path for path in puts(s3) if path != "history.parquet"}
    assert len(before) == 10, "nine files of weights and the table"
    s3.log.clear()
    sent, _ = table("push", small_study, address, env=s3.env)
    assert set(puts(s3)).isdisjoint(before) and sent["files"] - sent["sent_files"] >= 10
    table("pull", address, tmp_path / "got", env=s3.env)
    assert is_the_study(tmp_path / "got", small_study)


def test_large_files_go_to_s3_in_parts(s3, tmp_path):
    large = tmp_path / "large"
    large.write_bytes(os.urandom(2**20) * 120)
    entry = entry_of(large, "subnets/a/model.safetensors")
    code = f"""
from pathlib import Path
from ofbnas.table.sharing.manifest import Entry
from ofbnas.table.sharing.bucket import Bucket
from ofbnas.table.sharing.folder import Folder
entry, bucket = Entry(**{entry.model_dump()!r}), Bucket("s3://{s3.bucket}/table")
with bucket.prepared():
    bucket.put({{entry: Path({str(large)!r})}}, print)
    assert bucket.missing([entry]) == []
with bucket.open(entry.path) as stream:
    Folder(Path({str(tmp_path / "got")!r})).receive(entry, stream, "S3")
"""
    subprocess.run([sys.executable, "-c", code], env=os.environ | s3.env, check=True)
    assert len([path for path in puts(s3) if "partNumber" in path]) > 1
    assert (tmp_path / "got" / entry.path).stat().st_size == entry.size


def test_s3_says_what_is_wrong(s3, small_study, tmp_path):
    address = f"s3://{s3.bucket}/table"
    s3.client.put_object(Bucket=s3.bucket, Key="table/README.md", Body=b"mine")
    refused("push", small_study, address, env=s3.env, message="was not pushed by ofbnas", code=2)
    assert s3.client.get_object(Bucket=s3.bucket, Key="table/README.md")["Body"].read() == b"mine"
    for args in (
        ("push", small_study, "s3://nowhere-at-all/x"),
        ("pull", "s3://nowhere-at-all/x", tmp_path / "got"),
    ):
        refused(*args, env=s3.env, message="there is no bucket nowhere-at-all", code=2)
    refused(
        "push",
        small_study,
        "s3://B@d/x",
        env=s3.env,
        message="no bucket can have this name",
        code=2,
    )
    keyless = {
        "AWS_ENDPOINT_URL": s3.url,
        "AWS_EC2_METADATA_DISABLED": "true",
        "HOME": str(tmp_path),
    }
    refused(
        "push", small_study, address, env=keyless, message="there are no AWS credentials", code=2
    )


@pytest.fixture
def hub():
    """A stand-in for the Hugging Face Hub."""
    with servers.running(servers.HubServer()) as server:
        server.env = {"HF_ENDPOINT": server.url, "HF_TOKEN": "good", "HF_HUB_DISABLE_XET": "1"}
        yield server


def test_a_table_goes_through_the_hub_and_back(hub, small_study, tmp_path):
    address = "hf://datasets/some-one/small"
    sent, _ = table("push", small_study, address, env=hub.env)
    held = hub.repos["some-one/small"]
    assert sent["files"] == len(held) == 14
    weights, last = hub.commits
    assert all("/" in path for path in weights), "the weights come first,"
    assert {"architectures.parquet", "manifest.json"} <= set(last), (
        "then the table with its manifest"
    )
    assert f'pandas.read_parquet("{address}/architectures.parquet")' in held["README.md"].decode()
    hub.log.clear()
    table("push", small_study, address, env=hub.env)
    assert len(hub.commits) == 2 and not [entry for entry in hub.log if entry[0] == "PUT"]
    table("pull", address, tmp_path / "got", env=hub.env)
    assert is_the_study(tmp_path / "got", small_study)


def test_a_table_may_lie_in_a_folder_of_a_repository(hub, small_study, tmp_path):
    hub.repos["some-one/many"] = {"README.md": b"mine"}
    table("push", small_study, "hf://datasets/some-one/many@main/first/small", env=hub.env)
    assert hub.repos["some-one/many"]["README.md"] == b"mine"
    table("pull", "hf://datasets/some-one/many/first/small", tmp_path / "got", env=hub.env)
    assert is_the_study(tmp_path / "got", small_study)


def test_a_killed_push_to_the_hub_resumes(hub, small_study, tmp_path):
    address = "hf://datasets/some-one/small"
    hub.stall_at = "/commit/"
    kill_when_stalled(hub, "push", small_study, address, env=hub.env)
    sent = {path for method, path, _ in hub.log if method == "PUT"}
    assert len(sent) == 3, "the weights of the front are there"
    wait(lambda: hub.commits)  # the server goes on with what it had received
    hub.repos["some-one/small"].clear()  # as if the commit had never arrived
    hub.log.clear()
    table("push", small_study, address, env=hub.env)
    again = {path for method, path, _ in hub.log if method == "PUT"}
    assert len(again) == 3 and not again & sent, "the table, the history and the picture"
    table("pull", address, tmp_path / "got", env=hub.env)
    assert is_the_study(tmp_path / "got", small_study)


def test_the_hub_says_what_is_wrong(hub, small_study, tmp_path):
    address = "hf://datasets/some-one/small"
    refused(
        "pull", address, tmp_path / "got", env=hub.env, message="there is no such dataset", code=2
    )
    refused(
        "push",
        small_study,
        address,
        env=hub.env | {"HF_TOKEN": "bad"},
        message="HF_TOKEN logs in",
        code=2,
    )
    refused(
        "push",
        small_study,
        "hf://datasets/some--one/small",
        env=hub.env,
        message="Cannot have --",
        code=2,
    )
    hub.repos["some-one/small"] = {}
    refused(
        "pull", address, tmp_path / "got", env=hub.env, message="holds no manifest.json", code=2
    )
    table("push", small_study, address, env=hub.env)
    damaged = hub.repos["some-one/small"]
    damaged["history.parquet"] = damaged["history.parquet"][::-1]
    refused(
        "pull", address, tmp_path / "got", env=hub.env, message="damaged or not the one", code=1
    )
    gone = hub.env | {"HF_ENDPOINT": "http://127.0.0.1:1"}
    refused("pull", address, tmp_path / "got", env=gone, message=address, code=1)
