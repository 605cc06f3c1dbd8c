"""The command line as its users run it: standard output, standard error and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import yaml
from commands import ofbnas, process
from conftest import DIGITS, KWARGS, NAME, ROOT, make
from running import STUDY


def ok(*args) -> str:
    done = ofbnas(*args)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def study(finished) -> Path:
    """The folder of a finished small study."""
    return finished / "out"


pytestmark = pytest.mark.slow


def test_a_study_leaves_what_it_promises(study):
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    import ofbnas

    assert not [p for p in study.iterdir() if p.name not in (
        "study.yaml", "journal.log", "architectures", "history", "subnets", "study.log", ".lock")]  # fmt: skip
    table = ofbnas.read_table(study)
    assert table["trial"].tolist() == [0, 1, 2] and set(table["status"]) == {"complete"}
    storage = JournalStorage(JournalFileBackend(str(study / "journal.log")))
    trials = optuna.load_study(study_name="small", storage=storage)
    assert trials.metric_names == ["val_top1", "gmacs"]
    assert [t.values for t in trials.trials] == [
        list(v) for v in table[["val_top1", "gmacs"]].to_numpy()
    ]
    assert [t.params["search.budget.gmacs_share"] for t in trials.trials] == table[
        "hp.search.budget.gmacs_share"
    ].tolist()
    for _, row in table.iterrows():
        share = row["hp.search.budget.gmacs_share"]
        assert 0.95 * share <= row["gmacs"] / row["parent_gmacs"] <= share
        assert sorted(f.name for f in (study / "subnets" / row["arch_id"]).iterdir()) == [
            "README.md", "config.json", "load.py", "model.safetensors",
        ]  # fmt: skip


def test_json_is_one_object_and_other_output_is_on_stderr(study):
    found = json.loads((study.parent / "run.json").read_text())
    assert found["trials"] == 3 and found["front"] and found["hypervolume"]["value"] > 0
    lines = (study.parent / "run.err").read_text().splitlines()
    assert sum("trial" in line and "top1" in line for line in lines) == 3
    assert not [
        line for line in lines if "Warning" in line or "ray" in line.lower() or "Traceback" in line
    ]


def test_running_a_finished_study_again_does_nothing(study):
    before = {
        p: p.stat().st_mtime_ns for p in study.rglob("*") if p.is_file() and p.name != "study.log"
    }
    done = ofbnas("study", "run", study.parent / "small.yaml", "--output", study)
    assert done.returncode == 0 and "is finished: 3 trials in" in done.stderr
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_the_folders_own_study_yaml_runs_too(study):
    assert "is finished" in ofbnas("study", "run", study / "study.yaml", "--output", study).stderr


def test_another_study_is_not_mixed_in(study):
    done = ofbnas(
        "study", "run", study.parent / "small.yaml", "--output", study, "--set", "search.epochs=9"
    )
    assert done.returncode == 2
    assert "search.epochs 4 (requested: 9)" in done.stderr
    for params in ("{search.budget.gmacs_share: {low: 0.4, high: 0.8}}", "{}"):
        done = ofbnas(
            "study",
            "run",
            study.parent / "small.yaml",
            "--output",
            study,
            "--set",
            f"sweep.params={params}",
        )
        assert done.returncode == 2, "other ranges of swept fields make another study"
        assert "sweep.params" in done.stderr


def test_a_subnet_has_the_accuracy_of_its_row_in_a_fresh_process(study):
    for row, run in zip(
        json.loads(ok("arch", "list", study, "--json")), (process, ofbnas, ofbnas), strict=True
    ):
        done = run("evaluate", study, "--arch", row["arch_id"], "--latency", "--json")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert (
            0 < found["latency_ms"] <= found["latency_p90_ms"]
            and "batch 1, float32" in found["latency_device"]
        )
        assert found["top1"] == found["recorded_top1"] == row["top1"]
        assert found["params"] == row["params"]


def test_a_subnet_that_was_pulled_has_the_accuracy_of_its_row(study, tmp_path):
    ok("table", "push", study, tmp_path / "shared", "--weights", "all")
    ok("table", "pull", tmp_path / "shared", tmp_path / "got")
    for row in json.loads(ok("arch", "list", tmp_path / "got", "--json")):
        found = json.loads(ok("evaluate", tmp_path / "got", "--arch", row["arch_id"], "--json"))
        assert (found["top1"], found["top5"]) == (row["top1"], row["top5"])
        assert (found["top1"], found["top5"]) == (found["recorded_top1"], found["recorded_top5"])


def test_the_front_is_printed_and_as_json(study):
    found = json.loads(ok("front", "show", study, "--json"))
    text = ok("front", "show", study)
    assert all(row["arch_id"] in text for row in found["front"])
    assert "Hypervolume" in text and found["hypervolume"]["x"] == pytest.approx(
        found["hypervolume"]["x"]
    )
    assert [r["gmacs"] for r in found["front"]] == sorted(r["gmacs"] for r in found["front"])


@pytest.mark.parametrize(
    ("ending", "head"),
    [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF"), ("html", b"<!doctype html>")],
)
def test_the_front_is_drawn(study, tmp_path, ending, head):
    out = tmp_path / f"front.{ending}"
    assert ok("front", "plot", study, "--out", out).strip() == str(out)
    assert out.read_bytes().startswith(head) and out.stat().st_size > 5_000


def test_architectures_and_studies_are_shown(study):
    arch_id = json.loads(ok("arch", "list", study, "--json"))[0]["arch_id"]
    assert arch_id in ok("arch", "list", study)
    shown = json.loads(ok("arch", "show", study, "--arch", arch_id[:6], "--json"))
    assert len(shown["architecture"]["blocks"]) == 2
    assert "head_size" in ok("arch", "show", study, "--arch", arch_id)
    assert json.loads(ok("study", "list", study.parent, "--json"))[0]["trials"] == 3
    assert json.loads(ok("study", "show", study, "--json"))["config"]["name"] == "small"
    assert "gmacs_share" in ok("study", "show", study)


def test_a_study_is_planned_with_its_rungs():
    asked = [
        "study",
        "plan",
        DIGITS,
        "--set",
        "sweep.early_stopping={method: front, eta: 3, first_rung: 2}",
    ]
    found = json.loads(ok(*asked, "--json"))
    assert found["rungs"] == [2, 6, 18] and found["trials"] == 10
    told = " ".join(ok(*asked).split())
    assert "trials may be stopped after epoch 2, 6, 18" in told and "budget, macs" in told
    assert "stopped" not in ok(*asked[:3])


def test_a_plan_measures_the_front_that_a_study_would_begin_from(tmp_path):
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(STUDY))
    cheap = ["search.compensation.images=128", "search.training_free.scoring_images=128"]
    cheap += ["search_space={mlp: [32, 64, 128], heads: [1, 2]}", "pretrain.epochs=1"]
    cheap += ["sweep.params={search.budget.gmacs_share: {choices: [0.8, 0.6]}}"]
    asked = [
        "study",
        "plan",
        file,
        "--measure",
        *(word for one in cheap for word in ("--set", one)),
    ]
    *found, parent = json.loads(ok(*asked, "--json"))["measured"]
    for point, share in zip(found, (0.6, 0.8), strict=True):
        assert point["gmacs"] <= share * parent["gmacs"] and point["params"] < parent["params"]
        assert 0 < point["val_top1"] <= 100 and point["seconds"] > 0
    assert not list(tmp_path.glob("runs")), "nothing is written beside the cached parent"


def test_the_space_of_a_study_is_shown():
    found = json.loads(ok("space", "show", DIGITS, "--json"))
    assert (
        found["gmacs"]["min"] < found["gmacs"]["full"]
        and found["params"]["min"] < found["params"]["full"]
    )
    assert [axis["axis"] for axis in found["axes"]][:2] == ["embed", "blocks.0.attn"]
    assert found["axes"][1]["options"] == {
        "groups": [1, 2, 3, 4],
        "channels": [4, 6, 8, 10, 12, 14, 16],
    }
    assert "blocks.0.mlp and 3 more" in ok("space", "show", DIGITS)


def test_the_space_of_a_model_is_shown_with_a_space_of_ones_own(tmp_path):
    (tmp_path / "mlp.yaml").write_text("mlp: [96, 192]\n")
    found = json.loads(
        ok("space", "show", "deit_tiny_patch16_224", "--space", tmp_path / "mlp.yaml", "--json")
    )
    assert found["params"]["full"] == 5_717_416
    assert found["axes"][2]["options"]["channels"] == [96, 192] and found["axes"][0]["options"][
        "channels"
    ] == [192]


def test_doctor_describes_this_machine():
    assert json.loads(process("doctor", "--json").stdout)["torch"]
    assert "torch" in ok("doctor")


def test_a_parent_is_compressed_to_several_budgets_without_training(tmp_path):
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(STUDY))
    out = tmp_path / "out"
    done = ofbnas(
        "compress", tmp_path / "small.yaml", "--budget", "0.7,0.4", "--output", out, "--json",
        "--set", "search.compensation.images=256",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    for row, share in zip(rows, (0.7, 0.4), strict=True):
        assert 0.9 * share < row["gmacs"] / row["parent_gmacs"] <= share
        assert row["search_epochs"] == row["finetune_epochs"] == 0
        assert json.loads(row["budget"])["gmacs_share"] == share
        assert (out / row["weights"]).is_file()
    listed = ok("arch", "list", out)
    assert all(row["arch_id"] in listed for row in rows)


def test_a_model_is_compressed_without_a_study(tmp_path):
    timm.models.save_for_hf(make(), str(tmp_path / "model"), model_args=KWARGS)
    done = ofbnas(
        "compress", f"local-dir:{tmp_path / 'model'}", "--data", "digits", "--budget", "0.8",
        "--output", tmp_path / "out", "--json", "--set", "search.compensation.images=128",
        "--set", "search.training_free.scoring_images=128",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert row["model"] == NAME and json.loads(row["model_kwargs"])["depth"] == KWARGS["depth"]
    assert 0 < row["gmacs"] / row["parent_gmacs"] <= 0.8 and row["dataset"] == "digits"


def test_a_model_without_a_classifier_is_compressed_and_measured_by_its_features(tmp_path):
    model = make(num_classes=0)
    timm.models.save_for_hf(model, str(tmp_path / "model"), model_args=KWARGS | {"num_classes": 0})
    name, out = f"local-dir:{tmp_path / 'model'}", tmp_path / "out"
    cheap = ["search.compensation.images=128", "search.training_free.scoring_images=128"]
    cheap += ["search_space={mlp: [16, 32, 64]}"]
    asked = [
        "compress",
        name,
        "--data",
        "digits",
        *(word for one in cheap for word in ("--set", one)),
    ]
    row = json.loads(ok(*asked, "--budget", "0.8", "--output", out, "--json"))
    assert row["top1"] is row["val_top1"] is row["parent_top1"] is None
    assert 0.5 < row["cka"] <= 1 and 0 < row["knn_top1"] <= 100 and row["parent_knn_top1"] > 0
    again = json.loads(ok("evaluate", out, "--arch", row["arch_id"], "--json"))
    assert again["knn_top1"] == again["recorded_knn_top1"] == row["knn_top1"]
    assert json.loads(ok("front", "show", out, "--y", "knn_top1", "--json"))["front"]
    assert "k-NN top-1" in (out / "subnets" / row["arch_id"] / "README.md").read_text()


def test_one_search_runs_without_ray(tmp_path):
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(STUDY))
    for trial in (0, 1):
        done = ofbnas(
            "search",
            tmp_path / "small.yaml",
            "--output",
            tmp_path / "o",
            "--json",
            "--set",
            "search.epochs=2",
        )
        assert done.returncode == 0, done.stderr
        row = json.loads(done.stdout)
        assert row["trial"] == trial and (tmp_path / "o" / row["weights"]).is_file()


WRONG = {
    "no share": (["compress", DIGITS, "--budget", "0.5,half"], "--budget is '0.5,half', expected shares"),
    "share given twice": (["compress", DIGITS, "--budget", "0.5,0.50"], "expected each share once"),
    "neither study nor model": (["compress", "studies/digits"], "neither a study's .yaml file nor a model"),
    "model without data": (["compress", "deit_tiny_patch16_224"], "give --data DIR, or --data NAME such as digits"),
    "no images": (["compress", "deit_tiny_patch16_224", "--data", "nowhere"], "--data nowhere: no such folder"),
    "folder without a model": (["compress", "local-dir:.", "--data", "digits"], "has no config.json"),
    "classes of other weights": (["compress", "deit_tiny_patch16_224", "--data", ".", "--num-classes", "7"],
                                 "are for 1000 classes"),
    "model with images of another size": (["compress", "deit_tiny_patch16_224", "--data", "digits",
                                           "--checkpoint", "none.safetensors"], "set model.kwargs"),
    "data of a study": (["compress", DIGITS, "--data", "digits"], "a study says its data and weights itself"),
    "training without a classifier": (["search", DIGITS, "--set", "model.kwargs.num_classes=0"],
                                      "so pretrain cannot train it; give it weights"),
    "share above 1": (["compress", DIGITS, "--budget", "1.5"], "--budget is '1.5', expected shares"),
    "unknown key": (["study", "run", "epocs.yaml"], "unknown key search.epocs; did you mean epochs?"),
    "broken YAML": (["study", "run", "broken.yaml"], "not valid YAML"),
    "empty YAML": (["study", "run", "empty.yaml"], "holds nothing"),
    "missing file": (["study", "run", "none.yaml"], "no such file"),
    "missing data folder": (["study", "run", "nodata.yaml"], "data.path must name the folder"),
    "negative budget": (["study", "run", DIGITS, "--set", "search.budget.gmacs=-1"], "greater than 0"),
    "budget out of reach": (["study", "run", DIGITS, "--set", "sweep.params={}", "--set", "search.budget.gmacs=1e-9",
                             "--output", "o"], "reaches from"),
    "unknown model": (["study", "run", DIGITS, "--set", "model.name=vit_tinny", "--output", "o"], "unknown to timm"),
    "model of no family": (["space", "show", "resnet18"], "cannot be searched"),
    "wrong arguments": (["study", "run", DIGITS, "--set", "model.kwargs.depht=3", "--output", "o"], "timm cannot make"),
    "other images": (["study", "run", DIGITS, "--set", "model.kwargs.img_size=16", "--output", "o"], "img_size"),
    "unknown sampler": (["study", "run", DIGITS, "--set", "sweep.sampler=magic"], "'tpe'"),
    "unknown data": (["study", "run", DIGITS, "--set", "data.name=cifar"], "'digits' or 'fashion_mnist'"),
    "no Parquet": (["front", "show", "text.parquet"], "not a Parquet file"),
    "unknown arch": (["arch", "show", "STUDY", "--arch", "ffffff"], "no architecture has it; expected one of"),
    "unknown arch to evaluate": (["evaluate", "STUDY", "--arch", "ffffff"], "no architecture has it"),
    "no study": (["study", "show", "."], "is not a study's folder"),
    "no folder of studies": (["study", "list", "nowhere"], "no such folder"),
    "unknown column": (["front", "show", "STUDY", "--x", "joules"], "expected one of gmacs"),
    "unknown picture": (["front", "plot", "STUDY", "--out", "a.bmp"], "expected .png, .svg, .pdf or .html"),
    "missing space": (["space", "show", "deit_tiny_patch16_224", "--space", "none.yaml"], "no such file"),
    "checkpoint of a study missing": (
        ["study", "run", DIGITS, "--set", "model.checkpoint=none.safetensors", "--output", "o"],
        "model.checkpoint must name the model",
    ),
    "checkpoint missing": (["search", DIGITS, "--set", "model.checkpoint=none.safetensors"], "no such file"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_gets_one_line_and_exit_2(case, study, tmp_path):
    small = yaml.safe_dump(STUDY)
    (tmp_path / "epocs.yaml").write_text(small.replace("epochs: 4", "epocs: 4"))
    (tmp_path / "broken.yaml").write_text("name: [1\n")
    (tmp_path / "empty.yaml").write_text("")
    (tmp_path / "text.parquet").write_text("text")
    nodata = STUDY | {"data": {"name": "fashion_mnist", "path": "nowhere"}, "search_space": "vit"}
    nodata["model"] = {
        "name": "vit_tiny_patch16_224",
        "kwargs": {"img_size": 28, "patch_size": 4, "in_chans": 1},
    }
    (tmp_path / "nodata.yaml").write_text(yaml.safe_dump(nodata))
    args, message = WRONG[case]
    done = ofbnas(*[study if arg == "STUDY" else arg for arg in args], cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    assert (
        message in done.stderr
        and done.stderr.startswith("ofbnas: ")
        and done.stderr.count("\n") == 1
    )
    assert not (tmp_path / "runs").exists() and not (tmp_path / "o").exists(), (
        "nothing is left behind"
    )


def test_debug_shows_the_traceback():
    done = process("--debug", "study", "run", "none.yaml")
    assert done.returncode != 0 and "Traceback" in done.stderr


@pytest.mark.parametrize(
    "command",
    [[], ["study"], ["front"], ["arch"], ["space"], ["study", "run"], ["study", "list"], ["study", "show"],
     ["search"], ["compress"],
     ["front", "show"], ["front", "plot"], ["arch", "list"], ["arch", "show"], ["space", "show"], ["doctor"],
     ["evaluate"], ["table"], ["table", "push"], ["table", "pull"]],
    ids=" ".join,
)  # fmt: skip
def test_every_command_explains_itself(command):
    text = ok(*command, "--help")
    assert "Usage: ofbnas" in text
    assert (
        len(command) == 1 and command[0] in ("study", "front", "arch", "space", "table")
    ) or "Example:" in text


def test_the_digits_study_reaches_what_its_header_promises(tmp_path):
    """At both ends of the promised front; the shipped table of a whole run has what lies between."""
    import ofbnas as package

    ends = "sweep.start=[{search.budget.gmacs_share: 0.12}, {search.budget.gmacs_share: 0.02}]"
    settings = ["--set", ends, "--set", "sweep.n_trials=2"]
    done = process("study", "run", DIGITS, "--output", tmp_path / "digits", "--json", *settings)
    assert done.returncode == 0, done.stderr
    whole = package.read_table(ROOT / "studies" / "tables" / "digits")
    for table, trials in ((package.read_table(tmp_path / "digits"), 2), (whole, 10)):
        assert len(table) == trials and set(table["status"]) == {"complete"}
        parent = table["parent_top1"][0]
        assert parent >= 97
        share = table["gmacs"] / table["parent_gmacs"]
        assert table["top1"][share <= 0.12].max() >= parent - 2
        assert table["top1"][share <= 0.03].max() < parent - 3, "a front with a trade-off"
        assert (table["parent_top1"] == parent).all(), "one parent, shared by all trials"
    assert len(package.front(whole)) >= 3
