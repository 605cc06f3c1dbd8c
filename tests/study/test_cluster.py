"""The cluster files: Ray accepts those that it reads, and the Slurm script runs to its end.

There is no cluster here. Ray is real; stand-ins for Slurm's commands run everything on this machine.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from commands import PATIENCE, processes, wait
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.version import Version
from ray.autoscaler._private.util import prepare_config, validate_config

CLUSTER = ROOT / "studies" / "cluster"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NODE = """#!/bin/bash
# Stand-in for srun: runs here what Slurm would run on a node.
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""
CONTROL = """#!/bin/bash
# Stand-in for scontrol: two nodes, of which the second is told late; what is queued again is written down.
if [[ $1 == show ]]; then echo node-1; sleep 0.2; echo node-2; else echo "$@" > "$SHARED/scontrol"; fi
"""
OFBNAS = f"""#!{sys.executable}
# Stand-in for ofbnas: says what it was asked for and how many nodes Ray has; a study runs until it is stopped.
import json, os, signal, sys, time
import ray

address = sys.argv[sys.argv.index("--address") + 1]
ray.init(address, log_to_driver=False, logging_level="ERROR")
nodes = sum(node["Alive"] for node in ray.nodes())
ray.shutdown()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
with open(os.environ["SHARED"] + "/asked", "a") as file:
    print(json.dumps({{"arguments": sys.argv[1:], "nodes": nodes}}), file=file)
while sys.argv[1] == "study":
    time.sleep(0.1)
"""


@pytest.mark.parametrize("name", ["ray_cluster.yaml", "ray_cluster_aws.yaml"])
def test_rays_launcher_accepts_the_clusters(name):
    given = yaml.safe_load((CLUSTER / name).read_text())
    config = prepare_config(given)
    validate_config(config)
    types = config["available_node_types"]
    assert sum(kind.get("min_workers", 0) for kind in types.values()) == config["max_workers"] == 2
    tokens = [there for there, here in config["file_mounts"].items() if here == "~/.ray/auth_token"]
    home = "/home/ray" if "docker" in given else "/home/ubuntu"
    assert tokens == [f"{home}/.ray/auth_token"], "Ray's own place for it"
    assert "RAY_AUTH_MODE=token" in (CLUSTER / name).read_text().partition("cluster_name")[2]


def kuberay() -> dict[str, dict]:
    return {
        part["kind"]: part for part in yaml.safe_load_all((CLUSTER / "kuberay.yaml").read_text())
    }


def test_the_manifest_for_kubernetes_fits_together():
    found = kuberay()
    job, claim = found["RayJob"], found["PersistentVolumeClaim"]
    assert (job["apiVersion"], claim["apiVersion"]) == ("ray.io/v1", "v1")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert volumes["shared"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        paths = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert paths == {"/shared": "shared", "/dev/shm": "memory"}
        limits, requests = (
            container["resources"][kind]["nvidia.com/gpu"] for kind in ("limits", "requests")
        )
        assert limits == requests > 0
    images = {group["template"]["spec"]["containers"][0]["image"] for group in groups}
    assert len(images) == 1, "one image has one version of everything"
    words = job["spec"]["entrypoint"].split()
    assert (
        words[:3] == ["ofbnas", "study", "run"]
        and (ROOT / words[3].removeprefix("/home/ray/ofbnas/")).is_file()
    )
    assert words[words.index("--output") + 1].startswith("/shared/")


@pytest.mark.parametrize("file", sorted(CLUSTER.iterdir()), ids=lambda file: file.name)
def test_all_nodes_get_one_version_of_everything_and_it_is_allowed(file):
    text = file.read_text()
    for line in PROJECT["dependencies"]:
        needed = Requirement(line)
        pinned = set(re.findall(rf"\b{needed.name}(?:\[[a-z,0-9]+\])?==([0-9.]+[0-9])", text))
        assert len(pinned) <= 1 and all(Version(one) in needed.specifier for one in pinned), (
            needed.name,
            pinned,
        )
        if needed.name in ("torch", "timm", "optuna", "ray") and file.suffix == ".yaml":
            assert pinned, needed.name
    rays = set(
        re.findall(r"(?:ray:|rayVersion: |\bray(?:\[[a-z,0-9]+\])?==)([0-9]+(?:\.[0-9]+)+)", text)
    )
    assert len(rays) == (file.suffix == ".yaml"), "images, pins and KubeRay's rayVersion agree"
    assert set(re.findall(r"ofbnas[-:](\d[\d.]*\d)", text)) <= {PROJECT["version"]}


def test_the_script_is_bash():
    subprocess.run(["bash", "-n", CLUSTER / "slurm.sh"], check=True)


@pytest.fixture
def slurm(tmp_path):
    """A job of two nodes, both of which are this machine."""
    commands = tmp_path / "commands"
    commands.mkdir()
    for name, text in (("srun", NODE), ("scontrol", CONTROL), ("ofbnas", OFBNAS)):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    job = str(os.getpid())
    yield {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "VENV": str(tmp_path / "none"), "SHARED": str(tmp_path),
        "PATH": f"{commands}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SLURM_JOB_ID": job, "SLURM_JOB_NODELIST": "node-[1-2]", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "1",
    }  # fmt: skip
    shutil.rmtree(f"/tmp/ray-{job}", ignore_errors=True)


def asked(folder: Path) -> list[dict]:
    file = folder / "asked"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


@pytest.mark.slow
def test_a_job_on_slurm_brings_up_ray_and_runs_the_study_until_its_time_is_over(slurm, tmp_path):
    command = ["bash", str(CLUSTER / "slurm.sh"), "studies/deit_b.yaml", "--set", "seed=1"]
    with (tmp_path / "log").open("w") as log:
        job = subprocess.Popen(
            command, env=slurm, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
        )
        try:
            wait(lambda: len(asked(tmp_path)) == 2 or job.poll() is not None)
            job.send_signal(signal.SIGUSR1)
            status = job.wait(timeout=PATIENCE)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(job.pid, signal.SIGKILL)
    told = (tmp_path / "log").read_text()
    assert status == 130, told
    doctor, study = asked(tmp_path)
    assert doctor["nodes"] == study["nodes"] == 2, "both had joined before anything was asked"
    (address,) = {
        one["arguments"][one["arguments"].index("--address") + 1] for one in (doctor, study)
    }
    assert doctor["arguments"][1:] == study["arguments"][2:], "what is run is what was looked at"
    assert study["arguments"] == [
        "study", "run", "studies/deit_b.yaml", "--address", address, "--output", f"{tmp_path}/runs/deit_b",
        "--set", "seed=1",
    ]  # fmt: skip
    assert (tmp_path / "scontrol").read_text().split() == ["requeue", slurm["SLURM_JOB_ID"]]
    wait(lambda: not processes(f"/tmp/ray-{slurm['SLURM_JOB_ID']}"))  # no Ray is left
