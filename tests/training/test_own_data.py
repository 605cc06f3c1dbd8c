# ruff: noqa: NPY002 (transforms of users draw from the old generator)
"""Torch's Datasets and DataLoaders as a data set of a search."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import timm
import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    TensorDataset,
    WeightedRandomSampler,
)

import ofbnas
from ofbnas.parallel import Shard
from ofbnas.training.data import Epoch

MODEL = {
    "img_size": 8,
    "patch_size": 4,
    "in_chans": 1,
    "num_classes": 10,
    "embed_dim": 16,
    "depth": 1,
    "num_heads": 2,
}
COUNT = 50


class Noisy(Dataset):
    """Numbered images with augmentation from all three kinds of generators."""

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        noise = torch.rand(()) + np.random.rand() + random.random()
        return torch.full((1, 8, 8), float(index)) + 1e-3 * noise, index % 10


class Stream(IterableDataset):
    def __init__(self, length=None):
        self.length = length

    def __iter__(self):
        images = Noisy()
        return (images[index] for index in range(COUNT))

    def __len__(self):
        if self.length is None:
            raise TypeError
        return self.length


def loader(dataset=None, batch_size=16, **options):
    return DataLoader(Noisy() if dataset is None else dataset, batch_size, **options)


def seen(batches):
    """The numbers of the images of some batches."""
    return [int(number) for images, _ in batches for number in images[:, 0, 0, 0]]


def test_a_search_runs_on_loaders_and_leaves_the_test_images_alone():
    test = loader(TensorDataset(torch.randn(20, 1, 8, 8), torch.arange(20) % 10))
    data = ofbnas.data_from(loader(shuffle=True), loader(), test, num_classes=10)
    model = timm.create_model("vit_tiny_patch16_224", **MODEL)
    config = ofbnas.SearchConfig.model_validate(
        {"epochs": 2, "batch_size": 16, "budget": {"gmacs_share": 0.6}}
    )
    result = ofbnas.search(model, data, config, name="vit_tiny_patch16_224", kwargs=MODEL)
    whole = sum(size.numel() for size in model.parameters())
    assert result.params < whole
    assert 0 <= ofbnas.evaluate(result.subnet.model, data.test).top1 <= 100
    assert len(data.val) == COUNT
    assert len(data.test) == 20


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("own_loader", [True, False])
def test_equal_epochs_give_equal_batches_and_leave_the_programs_generators_alone(
    workers, own_loader
):
    train = loader(shuffle=True, num_workers=workers) if own_loader else Noisy()
    data = ofbnas.data_from(train, Noisy(), num_classes=10, workers=workers)
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    first = list(data.shuffled(16, Epoch(seed=3, number=1)))
    drawn = (torch.rand(()), np.random.rand(), random.random())
    again = list(data.shuffled(16, Epoch(seed=3, number=1)))
    other = list(data.shuffled(16, Epoch(seed=3, number=2)))

    for batch, repeated in zip(first, again, strict=True):
        assert torch.equal(batch[0], repeated[0])
        assert torch.equal(batch[1], repeated[1])
    assert seen(first) != seen(other)
    assert [len(labels) for _, labels in first] == [16, 16, 16], "the incomplete batch is left out"
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    assert drawn == (torch.rand(()), np.random.rand(), random.random())


def test_processes_share_each_batch_of_a_loader():
    data = ofbnas.data_from(loader(shuffle=True), loader(), num_classes=10)
    whole = [seen([batch]) for batch in data.shuffled(16, Epoch(seed=0))]
    shares = [list(data.shuffled(16, Epoch(seed=0, shard=Shard(rank, 2)))) for rank in (0, 1)]
    for numbers, *parts in zip(whole, *shares, strict=True):
        mine, theirs = (seen([part]) for part in parts)
        assert len(mine) == len(theirs) == 8
        assert sorted(mine + theirs) == sorted(numbers)
    validated = [seen(data.val.batches(99, Shard(rank, 3))) for rank in range(3)]
    assert sorted(itertools.chain(*validated)) == list(range(COUNT))


def test_a_distributed_sampler_already_shares_images_between_processes():
    batches = []
    for rank in (0, 1):
        sampler = DistributedSampler(Noisy(), num_replicas=2, rank=rank, seed=5)
        own = ofbnas.data_from(loader(sampler=sampler, batch_size=5), Noisy(), num_classes=10)
        assert own.train_images == COUNT
        batches.append([seen(own.shuffled(10, Epoch(0, n, shard=Shard(rank, 2)))) for n in (0, 1)])
    (mine, mine_later), (theirs, theirs_later) = batches
    assert sorted(mine + theirs) == sorted(mine_later + theirs_later) == list(range(COUNT))
    assert mine != mine_later, "set_epoch is called"


def test_samplers_streams_and_batch_samplers_are_used_as_they_are():
    weighted = WeightedRandomSampler([0.0] * 40 + [1.0] * 10, num_samples=32)
    of_weights = ofbnas.data_from(loader(sampler=weighted), Noisy(), num_classes=10)
    assert of_weights.train_images == 32
    assert min(seen(of_weights.shuffled(16, Epoch()))) >= 40

    of_stream = ofbnas.data_from(loader(Stream(COUNT)), Noisy(), num_classes=10)
    assert seen(of_stream.shuffled(16, Epoch())) == list(range(48))

    assert [len(labels) for _, labels in of_stream.shuffled(20, Epoch())] == [20, 20], "cut anew"

    in_batches = DataLoader(Noisy(), batch_sampler=[list(range(25)), list(range(25, 50))])
    of_batches = ofbnas.data_from(in_batches, Noisy(), num_classes=10)
    assert seen(of_batches.shuffled(25, Epoch())) == list(range(COUNT))


def test_batches_of_other_forms_are_unpacked_by_a_function():
    dicts = [{"pixel_values": torch.zeros(1, 8, 8), "labels": label % 10} for label in range(COUNT)]

    class Dicts(Noisy):
        def __getitem__(self, index):
            return dicts[index]

    data = ofbnas.data_from(
        loader(Dicts()),
        Dicts(),
        num_classes=10,
        unpack=lambda batch: (batch["pixel_values"], batch["labels"]),
    )
    (_, labels), *_ = data.shuffled(16, Epoch())
    assert labels.tolist() == [label % 10 for label in range(16)]
    refused = ofbnas.data_from(loader(Dicts()), Dicts(), num_classes=10)
    with pytest.raises(ofbnas.InputError, match="a dict of pixel_values, labels, expected images"):
        next(refused.val.batches(8))


def test_what_cannot_be_used_is_named():
    with pytest.raises(ofbnas.InputError, match="val is a list, expected a torch DataLoader"):
        ofbnas.data_from(loader(), [], num_classes=10)
    with pytest.raises(ofbnas.InputError, match="train has no length.*give its Dataset a __len__"):
        ofbnas.data_from(loader(Stream()), Noisy(), num_classes=10)
    data = ofbnas.data_from(loader(), Noisy(), num_classes=10)
    with pytest.raises(ofbnas.InputError, match="rand_augment do not apply to data of your own"):
        next(data.shuffled(16, Epoch(rand_augment="rand-m9")))
    too_long = ofbnas.data_from(loader(Stream(80)), Noisy(), num_classes=10)
    with pytest.raises(ofbnas.InputError, match="ended before an epoch of 80 images"):
        list(too_long.shuffled(16, Epoch()))
