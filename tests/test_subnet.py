"""A subnet on disk: the same model back, and nothing else is believed."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import KWARGS, NAME, SPACE
from safetensors.torch import load_file, save_file
from test_shrink import KEPT, shrink

from ofbnas.axes import axes
from ofbnas.create import create_parent
from ofbnas.errors import InputError
from ofbnas.subnet import Architecture, Subnet, load, load_subnet, save
from ofbnas.table import write_row
from ofbnas.weights import file_sha256


@pytest.fixture
def subnet(model):
    model_axes = axes(model, SPACE)
    kept = {"embed": torch.arange(0, 16, 2)[None], "blocks.0.attn": KEPT["heads and channels"][1]}
    small = shrink(model, model_axes, kept)
    sizes = {axis.name: axis.size for axis in axes(small, {})}
    return Subnet(Architecture(NAME, KWARGS, sizes), small, {name: k.tolist() for name, k in kept.items()})


def test_a_saved_subnet_comes_back_bit_for_bit(subnet, images, tmp_path):
    save(subnet, tmp_path / "a", card="hello")
    again = load(tmp_path / "a")
    assert torch.equal(again.model(images), subnet.model(images))
    assert again.architecture == subnet.architecture and again.units == subnet.units
    assert not again.model.training and type(again.model) is type(subnet.model)
    assert sorted(f.name for f in (tmp_path / "a").iterdir()) == ["README.md", "config.json", "model.safetensors"]


def test_unfused_attention_is_scaled_by_its_own_head_size(subnet, images, tmp_path):
    save(subnet, tmp_path / "a")
    again = load(tmp_path / "a").model
    for block in again.blocks:
        block.attn.fused_attn = False
    torch.testing.assert_close(again(images), subnet.model(images), rtol=1e-4, atol=1e-5)


def test_equal_architectures_have_equal_ids_and_others_have_not(subnet):
    one = subnet.architecture
    same = Architecture.from_json(json.loads(json.dumps(one.to_json())))
    reordered = Architecture(one.model, dict(reversed(one.kwargs.items())), dict(reversed(one.sizes.items())))
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


def other_weights(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["head.weight"] = tensors["head.weight"][:5].clone()
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "no such file"),
        (lambda f: (f / "model.safetensors").unlink(), "weights of this subnet are not here"),
        (lambda f: (f / "config.json").write_text("{"), "no description of a subnet"),
        (lambda f: (f / "config.json").write_text("[]"), "no description of a subnet"),
        (lambda f: (f / "model.safetensors").write_bytes(b"x" * 50), "no weights in safetensors"),
        (other_weights, r"head.weight has shape \(5, 8\), expected \(10, 8\)"),
        (break_config(lambda c: c["ofbnas"]["sizes"].update(embed=[1, 10**9])), "embed at .* expected sizes up to"),
        (break_config(lambda c: c["ofbnas"]["sizes"].update(embed=[1, 0])), "expected sizes up to"),
        (break_config(lambda c: c["ofbnas"]["sizes"].update(embed="x")), "no architecture"),
        (break_config(lambda c: c["ofbnas"]["sizes"].pop("embed")), "other axes than the model: embed"),
        (break_config(lambda c: c["ofbnas"].update(format=99)), "upgrade ofbnas"),
        (break_config(lambda c: c.update(architecture="vit_none")), "unknown to timm"),
        (break_config(lambda c: c["model_args"].update(nonsense=1)), "timm cannot make"),
    ],
)
def test_damaged_subnets_are_refused_in_a_line(subnet, tmp_path, damage, message):
    save(subnet, tmp_path / "a")
    damage(tmp_path / "a")
    with pytest.raises(InputError, match=message) as error:
        load(tmp_path / "a")
    assert "\n" not in str(error.value)


def test_weights_other_than_those_recorded_are_refused(subnet, tmp_path):
    sha256 = save(subnet, tmp_path / "a")
    assert load(tmp_path / "a", sha256) and file_sha256(tmp_path / "a" / "model.safetensors") == sha256
    with pytest.raises(InputError, match="is not the one recorded"):
        load(tmp_path / "a", "0" * 64)


def table_of(subnet, folder, **values):
    sha256 = save(subnet, folder / "subnets" / subnet.architecture.id)
    weights = f"subnets/{subnet.architecture.id}/model.safetensors"
    row = {"study": "s", "trial": 0, "status": "complete", "model": NAME, "model_kwargs": "{}", "val_top1": 1.0}
    row |= {"arch_id": subnet.architecture.id, "weights": weights, "weights_sha256": sha256}
    return write_row(folder, row | values)


def test_a_subnet_is_loaded_from_study_table_or_its_own_folder(subnet, images, tmp_path):
    file = table_of(subnet, tmp_path)
    for source in (tmp_path, file, file.parent, tmp_path / "subnets" / subnet.architecture.id):
        assert torch.equal(load_subnet(source, subnet.architecture.id)(images), subnet.model(images))
    with pytest.raises(InputError, match="arch id 'ffff': no architecture has it; expected one of"):
        load_subnet(tmp_path, "ffff")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weights": None}, "names no weights"),
        ({"weights": "../../etc/passwd/model.safetensors"}, "outside its folder"),
        ({"weights_sha256": "0" * 64}, "not the one recorded"),
        ({"arch_id": "0123456789ab"}, "expected 0123456789ab"),
    ],
)
def test_tables_that_point_elsewhere_are_refused(subnet, tmp_path, values, message):
    table_of(subnet, tmp_path, **values)
    with pytest.raises(InputError, match=message):
        load_subnet(tmp_path, values.get("arch_id", subnet.architecture.id))


def test_unknown_models_are_answered_with_near_ones():
    with pytest.raises(InputError, match=r"vit_tinyy is unknown to timm .*; did you mean .*vit"):
        create_parent("vit_tinyy", {})
