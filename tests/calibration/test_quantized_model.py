"""What `quantize` returns as a value: saved and loaded it is the same, and other files are refused by one line."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

from fimaq_deploy.calibration.network.plan import make_plan
from fimaq_deploy.calibration.network.rules import LayerGrids
from fimaq_deploy.calibration.quantized_model import QuantizedModel, load_quantized
from fimaq_deploy.calibration.state import read_state, write_state
from fimaq_deploy.errors import UserError
from fimaq_deploy.target import TARGETS, Target, find_target

Make = Callable[..., Any]


def test_a_saved_file_computes_the_same_bits(
    quantized_vit: QuantizedModel, tiny_vit: Make, random_images: Make, tmp_path: Path
) -> None:
    path = tmp_path / "quantized.safetensors"
    quantized_vit.save(path)
    assert list(tmp_path.iterdir()) == [path], "no temporary file stays"
    loaded = load_quantized(path, tiny_vit())
    images = random_images(4, seed=9)
    assert torch.equal(loaded(images), quantized_vit(images))
    assert (loaded.recipe, loaded.target, loaded.seed) == (quantized_vit.recipe, quantized_vit.target, 7)
    assert not loaded.training
    loaded.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_the_weights_of_the_model_that_is_passed_to_load_do_not_matter(
    quantized_vit: QuantizedModel, tiny_vit: Make, random_images: Make, tmp_path: Path
) -> None:
    quantized_vit.save(tmp_path / "q.safetensors")
    loaded = load_quantized(tmp_path / "q.safetensors", tiny_vit(seed=5))
    assert torch.equal(loaded(random_images(2)), quantized_vit(random_images(2)))


def test_a_file_holds_integers_scales_and_high_precision_parameters_only(
    quantized_vit: QuantizedModel, tmp_path: Path
) -> None:
    quantized_vit.save(tmp_path / "q.safetensors")
    with safe_open(tmp_path / "q.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = json.loads(file.metadata()["fimaq"])
    integers = {name for name in tensors if name.endswith("q_weight")}
    assert len(integers) == 1 + 2 * 4 + 1
    assert all(tensors[name].dtype == torch.int8 for name in integers)
    assert not [name for name in tensors if name.endswith(("qkv.weight", "fc1.weight", "latent"))]
    assert metadata["seed"] == 7 and metadata["targets"] == ["onnxruntime-cpu"]
    assert metadata["recipe"]["weights"]["bits"] == 4


def test_a_file_of_another_model_is_refused(quantized_vit: QuantizedModel, tiny_vit: Make, tmp_path: Path) -> None:
    path = tmp_path / "q.safetensors"
    quantized_vit.save(path)
    with pytest.raises(UserError, match="belong to another model"):
        load_quantized(path, tiny_vit(depth=1))
    with pytest.raises(UserError, match="belong to another model"):
        load_quantized(path, tiny_vit(embed_dim=48))
    with pytest.raises(UserError, match="belong to another model"):
        load_quantized(path, tiny_vit(mlp_ratio=3))


def test_whatever_byte_of_a_file_is_cut_or_flipped_loads_or_is_one_line(
    quantized_vit: QuantizedModel, tiny_vit: Make, tmp_path: Path
) -> None:
    path, model = tmp_path / "q.safetensors", tiny_vit()
    quantized_vit.save(path)
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for at in [*range(0, header, 97), *range(header, len(whole), 4001)]:
        for harmed in (whole[:at], whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :]):
            path.write_bytes(harmed)
            try:
                load_quantized(path, model)
            except UserError as error:
                assert "\n" not in str(error)


@pytest.mark.parametrize("fimaq", ["[]", "5", "not JSON", "[" * 100_000, "{}"])
def test_metadata_of_something_else_is_one_line(tiny_vit: Make, tmp_path: Path, fimaq: str) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "q.safetensors", {"fimaq": fimaq})
    with pytest.raises(UserError, match=r"cannot be read|holds no quantized model"):
        load_quantized(tmp_path / "q.safetensors", tiny_vit())


def test_a_saved_model_knows_what_it_left_alone(quantized_vit: QuantizedModel, tiny_vit: Make, tmp_path: Path) -> None:
    quantized_vit.save(tmp_path / "q.safetensors")
    loaded = load_quantized(tmp_path / "q.safetensors", tiny_vit())
    assert (
        set(loaded.left_alone) == {"blocks.0.attn", "blocks.1.attn"} and loaded.left_alone == quantized_vit.left_alone
    )
    assert loaded.notes == quantized_vit.notes and "blocks.0.attn and 1 more left in high precision" in loaded.notes[0]
    assert [stage.name for stage in loaded.stages] == ["patch_embed", "blocks.0", "blocks.1", "head"]
    assert (loaded.tokens, loaded.input_shape) == ({"blocks.0.attn": 5, "blocks.1.attn": 5}, (3, 16, 16))


def stricter(name: str, least_size: int) -> Target:
    """A target whose smallest products gain nothing from integers."""
    target = TARGETS[name]
    return dataclasses.replace(
        target, kernels=tuple(dataclasses.replace(one, least_size=least_size) for one in target.kernels)
    )


def test_a_saved_model_loads_after_a_rule_of_its_target_has_changed(
    quantized_vit: QuantizedModel, tiny_vit: Make, random_images: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan is the file's, not today's."""
    quantized_vit.save(tmp_path / "q.safetensors")
    monkeypatch.setitem(TARGETS, "onnxruntime-cpu", stricter("onnxruntime-cpu", 64))
    today = make_plan(tiny_vit(), quantized_vit.recipe, find_target("onnxruntime-cpu"), quantized_vit.tokens)
    assert today.kept.keys() > quantized_vit.plan.kept.keys(), "made today, the plan would be another"
    loaded, images = load_quantized(tmp_path / "q.safetensors", tiny_vit()), random_images(2)
    assert loaded.plan == quantized_vit.plan
    assert torch.equal(loaded(images), quantized_vit(images))


OLD = Path(__file__).parents[1] / "data" / "quantized-0.1.0.safetensors"


def old_model() -> VisionTransformer:
    """What the file was made from, with other weights: they are all in the file."""
    return VisionTransformer(
        img_size=16, patch_size=4, in_chans=1, num_classes=10, embed_dim=32, depth=1, num_heads=2
    ).eval()


def test_a_file_of_0_1_0_is_read() -> None:
    """Written by version 0.1.0 from a model of seed 0, w4a8 for tensorrt-rtx, nothing learned."""
    loaded = load_quantized(OLD, old_model())
    torch.manual_seed(0)
    old_model()
    images = torch.rand(8, 1, 16, 16) * 2 - 1
    expected = torch.tensor([0.005137324333190918, 0.03390789031982422, -0.12147903442382812, -0.092315673828125])
    torch.testing.assert_close(loaded(images)[0, :4], expected, atol=1e-5, rtol=0)
    assert isinstance(loaded.plan["head"], LayerGrids) and loaded.input_shape == (1, 16, 16)


def test_a_file_of_0_1_0_that_does_not_fit_todays_rules_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TARGETS, "tensorrt-rtx", stricter("tensorrt-rtx", 16))
    with pytest.raises(UserError, match=r"was written by 0\.1\.0 and does not fit today's rules.*quantize again"):
        load_quantized(OLD, old_model())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"format": 99}, r"newer version \(format 99\): update fimaq-deploy"),
        ({"format": "2"}, "newer version"),
        ({"seed": "seven"}, "holds no quantized model"),
        ({"tokens": [5, 5]}, "holds no quantized model"),
        ({"input_shape": [3]}, "holds no quantized model"),
        ({"recipe": None}, "holds no quantized model"),
        ({"plan": {"a": 3}}, "saved plan"),
        ({"targets": ["abacus"]}, "abacus"),
    ],
)
def test_metadata_that_no_save_of_this_version_writes_is_one_line(
    quantized_vit: QuantizedModel, tiny_vit: Make, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    quantized_vit.save(tmp_path / "q.safetensors")
    state, metadata = read_state(tmp_path / "q.safetensors")
    write_state(tmp_path / "new.safetensors", state, {**metadata, **changed})
    with pytest.raises(UserError, match=message) as raised:
        load_quantized(tmp_path / "new.safetensors", tiny_vit())
    assert "\n" not in str(raised.value)
