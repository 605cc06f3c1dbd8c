"""A subnet on disk is read back as the same model; anything else is refused."""

from __future__ import annotations

import json
import os

import pytest
import torch
from conftest import KWARGS, NAME, SPACE, make
from limits import limited_memory
from rows import write_row
from safetensors.torch import load_file, save_file
from test_shrink import KEPT, shrink

from ofbnas.errors import InputError
from ofbnas.files.weights import file_sha256
from ofbnas.models.axes import axes
from ofbnas.models.create import create_parent, on_meta
from ofbnas.models.shrink import shapes_at
from ofbnas.models.subnet import Architecture, Subnet, load, save
from ofbnas.study.networks import load_subnet


@pytest.fixture
def subnet(model):
    model_axes = axes(model, SPACE)
    kept = {"embed": torch.arange(0, 16, 2)[None], "blocks.0.attn": KEPT["heads and channels"][1]}
    small = shrink(model, model_axes, kept)
    sizes = {axis.name: axis.size for axis in axes(small, {})}
    return Subnet(
        Architecture(NAME, KWARGS, sizes), small, {name: k.tolist() for name, k in kept.items()}
    )


def test_a_saved_subnet_comes_back_bit_for_bit(subnet, images, tmp_path):
    save(subnet, tmp_path / "a", card="hello")
    again = load(tmp_path / "a")
    assert torch.equal(again.model(images), subnet.model(images))
    assert again.architecture == subnet.architecture and again.units == subnet.units
    assert not again.model.training and type(again.model) is type(subnet.model)
    assert sorted(f.name for f in (tmp_path / "a").iterdir()) == [
        "README.md",
        "config.json",
        "load.py",
        "model.safetensors",
    ]


def test_unfused_attention_is_scaled_by_its_own_head_size(subnet, images, tmp_path):
    save(subnet, tmp_path / "a")
    again = load(tmp_path / "a").model
    for block in again.blocks:
        block.attn.fused_attn = False
    torch.testing.assert_close(again(images), subnet.model(images), rtol=1e-4, atol=1e-5)


def test_equal_architectures_have_equal_ids_and_others_have_not(subnet):
    one = subnet.architecture
    same = Architecture.from_json(json.loads(json.dumps(one.to_json())))
    reordered = Architecture(
        one.model, dict(reversed(one.kwargs.items())), dict(reversed(one.sizes.items()))
    )
    assert one.id == same.id == reordered.id
    assert len({one.id, Architecture(one.model, one.kwargs, one.sizes | {"embed": (1, 9)}).id}) == 2


def test_an_id_stays_the_same_between_releases():
    assert Architecture("vit", {"depth": 1}, {"embed": (1, 8)}).id == "dff7eb3467c5"


def test_saving_never_overwrites(subnet, tmp_path):
    save(subnet, tmp_path / "a")
    with pytest.raises(FileExistsError):
        save(subnet, tmp_path / "a")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def break_config(change):
    def damage(folder):
        config = json.loads((folder / "config.json").read_text())
        change(config)
        (folder / "config.json").write_text(json.dumps(config))

    return damage


def write_config(text):
    return lambda folder: (folder / "config.json").write_text(text)


def break_units(**units):
    return break_config(lambda config: config["ofbnas"]["units"].update(units))


def break_weights(change):
    def damage(folder):
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return damage


def pipe(name):
    def damage(folder):
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return damage


def other_weights(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["head.weight"] = tensors["head.weight"][:5].clone()
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "no such file"),
        (lambda f: (f / "model.safetensors").unlink(), "weights of this subnet are not here"),
        (lambda f: (f / "config.json").write_text("{"), "does not describe a subnet"),
        (lambda f: (f / "config.json").write_text("[]"), "does not describe a subnet"),
        (lambda f: (f / "model.safetensors").write_bytes(b"x" * 50), "not weights in safetensors"),
        (other_weights, r"head.weight has shape \(5, 8\), expected \(10, 8\)"),
        (
            break_config(lambda c: c["ofbnas"]["sizes"].update(embed=[1, 10**9])),
            "embed at .* expected sizes up to",
        ),
        (break_config(lambda c: c["ofbnas"]["sizes"].update(embed=[1, 0])), "expected sizes up to"),
        (
            break_config(lambda c: c["ofbnas"]["sizes"].update(embed="x")),
            "does not describe an architecture",
        ),
        (
            break_config(lambda c: c["ofbnas"]["sizes"].pop("embed")),
            "other axes than the model: embed",
        ),
        (break_config(lambda c: c["ofbnas"].update(format=99)), "upgrade ofbnas"),
        (break_config(lambda c: c["ofbnas"].update(model="vit_none")), "unknown to timm"),
        (break_config(lambda c: c["ofbnas"]["kwargs"].update(nonsense=1)), "timm cannot make"),
        (
            break_config(lambda c: c["ofbnas"].update(model=5)),
            "expected pretrained_cfg, and ofbnas with format",
        ),
        (
            break_config(lambda c: c.pop("pretrained_cfg")),
            "expected pretrained_cfg, and ofbnas with format",
        ),
        (
            break_config(lambda c: c["pretrained_cfg"].update(mean=["0.5"])),
            "pretrained_cfg is not one of timm: expected mean and std",
        ),
        (
            break_config(lambda c: c["ofbnas"]["kwargs"].update(drop_rate=float("inf"))),
            "Infinity is not a number of JSON",
        ),
        (
            break_config(lambda c: c["ofbnas"]["sizes"].update(embed=[1, 8.0])),
            "size of embed: expected two whole numb",
        ),
        (
            break_config(lambda c: c["ofbnas"]["sizes"].update(embed=[1, 8, 1])),
            "size of embed: expected two whole num",
        ),
        (
            break_config(lambda c: c["ofbnas"]["sizes"].update(embed=None)),
            "size of embed: expected two whole numbers",
        ),
        (
            break_config(lambda c: c["ofbnas"].update(arch_id="0" * 12)),
            "is 000000000000, but its model and sizes make",
        ),
        (
            break_config(lambda c: c["ofbnas"].update(arch_id="../x")),
            "'../x' is not an architecture's id",
        ),
        (break_config(lambda c: c["ofbnas"].update(format="1")), "does not describe a subnet"),
        (write_config("[" * 200_000), "nested too deep"),
        (
            write_config('{"architecture": "a", "architecture": "b"}'),
            "the key architecture occurs twice",
        ),
        (write_config(" " * 5 * 2**20), "has more than .* bytes"),
        (break_units(embed="x"), "units of embed: expected 1 lists of 8 numbers each"),
        (break_units(embed=[[0, 2, 4]]), "units of embed: expected 1 lists of 8 numbers each"),
        (
            break_units(embed=[[0, 2, 4, 6, 8, 10, 12, 16]]),
            "expected different whole numbers from 0 to 15",
        ),
        (
            break_units(embed=[[0, 2, 4, 6, 8, 10, 12, -1]]),
            "expected different whole numbers from 0 to 15",
        ),
        (
            break_units(embed=[[0, 2, 4, 6, 8, 10, 12, 12]]),
            "expected different whole numbers from 0 to 15",
        ),
        (
            break_units(embed=[[0, 2, 4, 6, 8, 10, 12, []]]),
            "expected different whole numbers from 0 to 15",
        ),
        (break_units(head=[[0]]), "units of head: the model has no such axis"),
        (
            break_weights(lambda t: t.update(norm=t["norm.weight"].clone())),
            "norm with shape .*, which is not expected",
        ),
        (
            break_weights(lambda t: t.pop("norm.weight")),
            r"lacks norm.weight, expected with shape \(8,\)",
        ),
        (
            break_weights(lambda t: t.update({"norm.weight": t["norm.weight"].int()})),
            "norm.weight holds values of ano",
        ),
        (pipe("config.json"), "is not a regular file"),
        (pipe("model.safetensors"), "is not a regular file"),
    ],
)
def test_damaged_subnets_are_refused_in_a_line(subnet, tmp_path, damage, message):
    save(subnet, tmp_path / "a")
    damage(tmp_path / "a")
    with pytest.raises(InputError, match=message) as error:
        load(tmp_path / "a")
    assert "\n" not in str(error.value) and len(str(error.value)) < 1000


def test_weights_other_than_those_recorded_are_refused(subnet, tmp_path):
    sha256 = save(subnet, tmp_path / "a")
    assert (
        load(tmp_path / "a", sha256) and file_sha256(tmp_path / "a" / "model.safetensors") == sha256
    )
    with pytest.raises(InputError, match="is not the one recorded"):
        load(tmp_path / "a", "0" * 64)


def write_empty(folder, name, kwargs, width):
    """A subnet of zeros with one head; embedding, head and MLPs are `width` wide."""
    model = on_meta(name, kwargs).model
    found = axes(model, {})
    sizes = {axis.name: (1, min(width, axis.size[1])) for axis in found}
    shapes = shapes_at(
        {name: tensor.shape for name, tensor in model.state_dict().items()}, found, sizes
    )
    architecture = Architecture(name, kwargs, sizes)
    save(Subnet(architecture, make(), {}), folder)
    config = {"architecture": name, "model_args": kwargs}
    config["ofbnas"] = {"format": 1, "arch_id": architecture.id, "sizes": sizes, "units": {}}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(
        {name: torch.zeros(shape) for name, shape in shapes.items()}, folder / "model.safetensors"
    )


def test_a_subnet_is_loaded_without_its_parent(tmp_path):
    """The parent, with 3.2 billion parameters, would take 13 GB."""
    write_empty(tmp_path / "a", NAME, KWARGS | {"embed_dim": 4096, "depth": 16}, 8)
    with limited_memory(10**9):
        model = load(tmp_path / "a").model
    assert sum(parameter.numel() for parameter in model.parameters()) < 10_000
    assert model(torch.ones(1, 1, 8, 8)).shape == (1, 10)


def test_buffers_far_beyond_the_weights_are_refused(tmp_path):
    """Relative positions of 128 x 128 patches: 2 GB per block, and several times that to compute."""
    write_empty(tmp_path / "a", "beit_base_patch16_224", {"img_size": 2048, "depth": 2}, 8)
    assert (tmp_path / "a" / "model.safetensors").stat().st_size < 10**7
    with (
        limited_memory(10**9),
        pytest.raises(InputError, match="bytes beside its weights; expected at most 1,"),
    ):
        load(tmp_path / "a")


def table_of(subnet, folder, **values):
    sha256 = save(subnet, folder / "subnets" / subnet.architecture.id)
    weights = f"subnets/{subnet.architecture.id}/model.safetensors"
    row = {
        "study": "s",
        "trial": 0,
        "status": "complete",
        "model": NAME,
        "model_kwargs": "{}",
        "val_top1": 1.0,
    }
    row |= {"arch_id": subnet.architecture.id, "weights": weights, "weights_sha256": sha256}
    return write_row(folder, row | values)


def test_a_subnet_is_loaded_from_study_table_or_its_own_folder(subnet, images, tmp_path):
    file = table_of(subnet, tmp_path)
    for source in (tmp_path, file, file.parent, tmp_path / "subnets" / subnet.architecture.id):
        assert torch.equal(
            load_subnet(source, subnet.architecture.id)(images), subnet.model(images)
        )
    with pytest.raises(InputError, match="arch id 'ffff': no architecture has it; expected one of"):
        load_subnet(tmp_path, "ffff")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weights": None}, "names no weights"),
        ({"weights": "../../etc/passwd/model.safetensors"}, "is not a path within its folder"),
        ({"weights_sha256": "0" * 64}, "not the one recorded"),
        ({"arch_id": "0123456789ab"}, "expected 0123456789ab"),
    ],
)
def test_tables_that_point_elsewhere_are_refused(subnet, tmp_path, values, message):
    table_of(subnet, tmp_path, **values)
    with pytest.raises(InputError, match=message):
        load_subnet(tmp_path, values.get("arch_id", subnet.architecture.id))


def test_a_description_behind_a_link_is_not_read(subnet, tmp_path):
    table_of(subnet, tmp_path)
    config = tmp_path / "subnets" / subnet.architecture.id / "config.json"
    config.rename(tmp_path / "elsewhere.json")
    config.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(InputError, match=r"config.json leads through a link"):
        load_subnet(tmp_path, subnet.architecture.id)


def test_an_unknown_model_is_refused_with_similar_names():
    with pytest.raises(InputError, match=r"vit_tinyy is unknown to timm .*; did you mean .*vit"):
        create_parent("vit_tinyy", {})
