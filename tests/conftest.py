"""Small models and real images for all tests."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from browser import Page, chromium
from hypothesis import HealthCheck, settings
from torch import nn

from ofbnas.models.axes import Axis, Shares, axes
from ofbnas.training.data import Data, load_data

# Imports make about a million objects that all stay: no garbage is looked for while test files are
# imported, and never again among what they made.
gc.disable()

# The models are too small for more threads, which would wait for each other on a busy machine.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start
# Otherwise torch starts further processes to compile in, each of which imports torch.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
# Ray's own default lets trials starve on a machine where anything else runs.
os.environ.setdefault("RAY_worker_niceness", "0")

# A busy machine may take any time for an example.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

ROOT = Path(__file__).parent.parent
DIGITS = ROOT / "studies" / "digits.yaml"
NAME = "vit_tiny_patch16_224"
KWARGS: dict[str, Any] = {
    "img_size": 8,
    "patch_size": 2,
    "in_chans": 1,
    "num_classes": 10,
    "embed_dim": 16,
    "depth": 2,
    "num_heads": 4,
}
SPACE = {
    "embed": Shares(0.5, 1, 0.25),
    "heads": [1, 2, 4],
    "head_size": Shares(0.25, 1, 0.25),
    "mlp": [16, 32, 48, 64],
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run files with slow tests first, so that no process is left alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """Collect garbage as usual from here on, except among what was imported."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """Let the process destroy at its end what it imported."""
    gc.unfreeze()


def make(name: str = NAME, **kwargs: Any) -> nn.Module:
    """A 2-block Vision Transformer in evaluation mode, with weights large enough to matter."""
    torch.manual_seed(0)
    model = timm.create_model(name, **KWARGS | kwargs).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


SWIN: dict[str, Any] = {
    "img_size": 8,
    "patch_size": 1,
    "window_size": 2,
    "embed_dim": 16,
    "depths": (2, 2),
    "num_heads": (2, 4),
}


def make_swin() -> nn.Module:
    """A Swin Transformer of two stages in evaluation mode, with weights large enough to matter."""
    torch.manual_seed(0)
    model = timm.create_model(
        "swin_tiny_patch4_window7_224", in_chans=1, num_classes=10, **SWIN
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture
def model() -> nn.Module:
    return make()


@pytest.fixture
def model_axes(model: nn.Module) -> list[Axis]:
    return axes(model, SPACE)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def data() -> Data:
    """A few hundred of the digits."""
    full = load_data("digits", shift=1)
    return replace(full, train=type(full.train)(full.train.images[:320], full.train.labels[:320]))


@pytest.fixture(scope="session")
def small_study(tmp_path_factory) -> Path:
    """A study's folder with four networks, three of them on the front."""
    from sharing import write_study

    return write_study(tmp_path_factory.mktemp("study") / "small")


@pytest.fixture(scope="session")
def shared(small_study, tmp_path_factory) -> Path:
    """The study's table as `ofbnas table push` writes it."""
    from ofbnas.table.sharing.share import push

    folder = tmp_path_factory.mktemp("shared") / "table"
    push(str(small_study), str(folder), notify=print)
    return folder


@pytest.fixture
def copy(shared, tmp_path) -> Path:
    """A copy of the shared table, for tests that damage it."""
    return Path(shutil.copytree(shared, tmp_path / "copy"))


@pytest.fixture(scope="session")
def run_for_all(tmp_path_factory) -> Path:
    """Where a small study was run, once for all of pytest's processes."""
    from running import run_once

    own = tmp_path_factory.getbasetemp()
    all_processes = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    return run_once(all_processes / "finished")


@pytest.fixture(scope="module")
def finished(run_for_all, tmp_path_factory) -> Path:
    """A copy of a finished small study: small.yaml, its folder out, and what it printed."""
    return Path(shutil.copytree(run_for_all, tmp_path_factory.mktemp("finished") / "small"))
