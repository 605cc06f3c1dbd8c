"""Studies on several real Ray nodes whose processes are killed; S3 is moto's server."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from importlib.metadata import version

import pytest
import s3fs
from commands import OFBNAS, PATIENCE, ofbnas, process, wait
from nodes import cluster
from running import ONE_OF_TWO, rows, trials, write, written

from ofbnas.table.store import read_table

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def nodes():
    with cluster(workers=2) as made:
        yield made


@pytest.fixture
def bucket(nodes):
    files = s3fs.S3FileSystem(
        key="testing", secret="testing", endpoint_url=nodes.env["AWS_ENDPOINT_URL"], use_listings_cache=False,
        skip_instance_cache=True,
    )  # fmt: skip
    if not files.exists("studies"):
        files.mkdir("studies")
    return files


def start(nodes, file, out, *settings, env=None) -> subprocess.Popen[str]:
    given = [word for setting in settings for word in ("--set", setting)]
    return subprocess.Popen(
        [OFBNAS, "study", "run", file, "--output", out, "--address", nodes.address, *given],
        stderr=subprocess.PIPE, text=True, start_new_session=True, env=nodes.env | (env or {}),
    )  # fmt: skip


def finish(study: subprocess.Popen[str], code: int = 0) -> str:
    _, err = study.communicate(timeout=PATIENCE)
    assert study.returncode == code, err
    return err


def checkpoints(bucket) -> list[str]:
    return [name for name in bucket.find("studies") if "/checkpoints/" in name]


def test_trials_that_span_nodes_survive_the_loss_of_a_node_and_the_driver_and_are_stopped_early(
    nodes, bucket, tmp_path
):
    """The second trial costs less than the first, so it is promoted; the third, which costs more, is not."""
    sweep = ONE_OF_TWO["sweep"] | {
        "n_trials": 3,
        "start": [{"search.budget.gmacs_share": share} for share in (0.5, 0.3, 0.8)],
    }
    file, out = write(tmp_path, **ONE_OF_TWO | {"sweep": sweep}), tmp_path / "out"
    spread = [
        "resources.workers_per_trial=2",
        "resources.cpus_per_trial=2",
        "resources.span_nodes=true",
        "resources.storage_path=s3://studies/here",
    ]
    study = start(nodes, file, out, *spread)
    wait(lambda: checkpoints(bucket))
    lines = [nodes.processes(node).values() for node in (1, 2)]
    ranks = [line for of_node in lines for line in of_node if "ray::_Rank" in line]
    assert len(ranks) == 1, "the first worker is the trial's own process, on the other node"
    nodes.kill(2)
    nodes.add(2)
    wait(lambda: any("trial-00001" in name for name in checkpoints(bucket)))
    os.kill(study.pid, signal.SIGKILL)
    study.communicate()
    done = written(out)
    assert [trial.state.name for trial in trials(out)][:2] == ["COMPLETE", "RUNNING"]

    finish(start(nodes, file, out, *spread))
    assert written(out).items() >= done.items(), "finished trials were not run again"
    assert [trial.state.name for trial in trials(out)] == ["COMPLETE", "COMPLETE", "PRUNED"]
    table = read_table(out)
    assert table["status"].tolist() == ["complete", "complete", "pruned"]
    assert all((out / weights).is_file() for weights in table["weights"][:2])
    went_on = re.findall(
        r"trial-0000(\d): search resumes after epoch [1-9]", (out / "study.log").read_text()
    )
    assert went_on == ["0", "1"], "interrupted trials went on from their checkpoints"
    assert not bucket.find("studies"), "nothing is left in the storage of a finished study"


def test_mistakes_are_reported_before_a_run_starts(nodes, bucket, tmp_path):
    file, out = write(tmp_path), tmp_path / "out"

    asked = process(
        "doctor", "--json", file, "--output", out, "--address", nodes.address, env=nodes.env
    )
    found = json.loads(asked.stdout)
    assert (
        asked.returncode == 0
        and not found["problems"]
        and found["trials_at_a_time"] == 2
        and not out.exists()
    )
    assert sorted(node["cpus"] for node in found["nodes"]) == [0, 1, 1]
    assert {node["versions"]["ofbnas"] for node in found["nodes"] if node["cpus"]} == {
        version("ofbnas")
    }

    nowhere = "resources.storage_path=s3://nowhere/x"
    err = finish(start(nodes, file, out, nowhere), code=2)
    assert (
        "the cluster is not ready" in err
        and err.count("cannot use resources.storage_path s3://nowhere") == 2
    )
    assert len(err.splitlines()) == 1
    assert rows(out) == 0

    err = finish(start(nodes, file, tmp_path / "other", env={"RAY_AUTH_TOKEN": "f" * 32}), code=2)
    assert "has another token: set RAY_AUTH_MODE=token" in err and len(err.splitlines()) == 1


def test_a_node_without_the_data_the_folder_or_the_versions_is_reported(nodes, tmp_path):
    if not nodes.namespaces:
        pytest.skip("a node that sees other files needs namespaces, which need root")
    here, other = tmp_path / "here", tmp_path / "other" / "timm-0.0.1.dist-info"
    (here / "images").mkdir(parents=True)
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: timm\nVersion: 0.0.1\n")
    images = {"name": "folder", "path": str(here / "images"), "num_classes": 10}
    file = write(here, data=images, resources={"workers_per_trial": 2, "cpus_per_trial": 2})
    nodes.add(
        3,
        hidden=here,
        PYTHONPATH=os.pathsep.join([str(other.parent), nodes.env.get("PYTHONPATH", "")]),
    )
    asked = process(
        "doctor",
        "--json",
        file,
        "--output",
        here / "out",
        "--address",
        nodes.address,
        env=nodes.env,
    )
    nodes.kill(3)
    of_all, *of_nodes = json.loads(asked.stdout)["problems"]
    problems = "\n".join(of_nodes)
    assert asked.returncode == 1
    assert "a trial needs 2 CPUs on one node; the largest node has 1" in of_all
    assert f"{nodes.hosts[3]}: data.path {here}/images is not there" in problems
    assert f"{nodes.hosts[3]}: does not see {here}/out" in problems
    assert f"{nodes.hosts[3]}: has timm 0.0.1, this process {version('timm')}" in problems
    assert all(line.startswith(nodes.hosts[3]) for line in problems.splitlines()), (
        "the others have all of it"
    )


@pytest.mark.parametrize(
    ("address", "says"), [("here", "HOST:PORT"), ("127.0.0.1:1", "nothing answers there")]
)
def test_an_address_without_a_cluster_is_reported(address, says, tmp_path):
    asked = ofbnas(
        "study", "run", write(tmp_path), "--output", tmp_path / "out", "--address", address
    )
    assert asked.returncode == 2 and says in asked.stderr and len(asked.stderr.splitlines()) == 1
