from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from fimaq_deploy.calibration.network.attentions import attention_tokens
from fimaq_deploy.calibration.network.plan import make_plan
from fimaq_deploy.calibration.network.quantized_copy import quantized_copy
from fimaq_deploy.calibration.quantization import quantize
from fimaq_deploy.calibration.quantized_model import QuantizedModel, load_quantized
from fimaq_deploy.calibration.state import fingerprint, frozen_state, load_frozen_state, read_state, write_state
from fimaq_deploy.errors import UserError
from fimaq_deploy.target import find_target

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def quantized(tiny_vit: Make, random_images: Make, quick_recipe: Make) -> QuantizedModel:
    return quantize(tiny_vit(), random_images(16), quick_recipe(reconstruction={"iterations": 2}), seed=7)


def test_a_saved_file_computes_the_same_bits(
    quantized: QuantizedModel, tiny_vit: Make, random_images: Make, tmp_path: Path
) -> None:
    path = tmp_path / "quantized.safetensors"
    quantized.save(path)
    assert list(tmp_path.iterdir()) == [path], "no temporary file stays"
    loaded = load_quantized(path, tiny_vit())
    images = random_images(4, seed=9)
    assert torch.equal(loaded(images), quantized(images))
    assert (loaded.recipe, loaded.target, loaded.seed) == (quantized.recipe, quantized.target, 7)
    assert not loaded.training
    loaded.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_the_weights_of_the_model_that_is_passed_to_load_do_not_matter(
    quantized: QuantizedModel, tiny_vit: Make, random_images: Make, tmp_path: Path
) -> None:
    quantized.save(tmp_path / "q.safetensors")
    loaded = load_quantized(tmp_path / "q.safetensors", tiny_vit(seed=5))
    assert torch.equal(loaded(random_images(2)), quantized(random_images(2)))


def test_a_file_holds_integers_scales_and_high_precision_parameters_only(
    quantized: QuantizedModel, tmp_path: Path
) -> None:
    quantized.save(tmp_path / "q.safetensors")
    with safe_open(tmp_path / "q.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = json.loads(file.metadata()["fimaq"])
    integers = {name for name in tensors if name.endswith("q_weight")}
    assert len(integers) == 1 + 2 * 4 + 1
    assert all(tensors[name].dtype == torch.int8 for name in integers)
    assert not [name for name in tensors if name.endswith(("qkv.weight", "fc1.weight", "latent"))]
    assert metadata["seed"] == 7 and metadata["targets"] == ["onnxruntime-cpu"]
    assert metadata["recipe"]["weights"]["bits"] == 4


def test_a_file_of_another_model_is_refused(quantized: QuantizedModel, tiny_vit: Make, tmp_path: Path) -> None:
    path = tmp_path / "q.safetensors"
    quantized.save(path)
    with pytest.raises(UserError, match="belong to another model"):
        load_quantized(path, tiny_vit(depth=1))
    with pytest.raises(UserError, match="belong to another model"):
        load_quantized(path, tiny_vit(embed_dim=48))
    with pytest.raises(UserError, match="belong to another model"):
        load_quantized(path, tiny_vit(mlp_ratio=3))


def test_a_file_whose_integers_have_another_shape_is_refused(
    quantized: QuantizedModel, tiny_vit: Make, tmp_path: Path
) -> None:
    state = frozen_state(quantized.model)
    state["blocks.0.mlp.fc1.q_weight"] = state["blocks.0.mlp.fc1.q_weight"][:-1].contiguous()
    model = tiny_vit()
    tokens = attention_tokens(model, torch.zeros(1, 3, 16, 16))
    twin = quantized_copy(model, make_plan(model, quantized.recipe, find_target("onnxruntime-cpu"), tokens))
    with pytest.raises(UserError, match=r"blocks\.0\.mlp\.fc1\.q_weight"):
        load_frozen_state(twin, state)


def test_missing_damaged_and_foreign_files_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="do not exist"):
        read_state(tmp_path / "nothing.safetensors")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"\x00" * 100)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(2)}, foreign)
    for path in (damaged, foreign, tmp_path):
        with pytest.raises(UserError, match="cannot be read"):
            read_state(path)


def test_writing_is_reproducible_whatever_the_order(tmp_path: Path) -> None:
    tensors = {name: torch.randn(3) for name in ("b", "a", "c")}
    write_state(tmp_path / "1", tensors, {"x": 1, "y": 2})
    write_state(tmp_path / "2", dict(reversed(tensors.items())), {"y": 2, "x": 1})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    state, metadata = read_state(tmp_path / "1")
    assert metadata == {"x": 1, "y": 2}
    assert all(torch.equal(state[name], tensors[name]) for name in tensors)


def test_fingerprints_tell_builds_apart() -> None:
    layer, x = nn.Linear(2, 2), torch.randn(3)
    same = fingerprint(layer, x, {"a": 1}, "t", 0)
    assert fingerprint(layer, x.clone(), {"a": 1}, "t", 0) == same
    others = [
        fingerprint(nn.Linear(2, 2), x, {"a": 1}, "t", 0),
        fingerprint(layer, x + 1, {"a": 1}, "t", 0),
        fingerprint(layer, x, {"a": 2}, "t", 0),
        fingerprint(layer, x, {"a": 1}, "u", 0),
        fingerprint(layer, x, {"a": 1}, "t", 1),
    ]
    assert len({same, *others}) == 6


Harm = Callable[[torch.Tensor], torch.Tensor]


def with_nan(tensor: torch.Tensor) -> torch.Tensor:
    tensor.view(-1)[0] = torch.nan
    return tensor


@pytest.mark.parametrize(
    ("name", "harm", "message"),
    [
        ("blocks.0.mlp.fc1.q_weight", lambda t: t.float(), "is float32"),
        ("blocks.0.mlp.fc1.q_weight", lambda t: t.to(torch.int32), "is int32"),
        ("blocks.0.mlp.fc1.q_weight", lambda t: t.t().contiguous(), "another model"),
        ("blocks.0.mlp.fc1.q_weight", lambda t: t.flatten(), "another model"),
        ("patch_embed.proj.q_weight", lambda t: t.flatten(1), "another model"),
        ("blocks.0.mlp.fc1.q_weight", lambda t: t * 0 + 100, "leaves its grid of -8 to 7"),
        ("blocks.0.mlp.fc1.q_scale", lambda t: t[:1].clone(), "another model"),
        ("blocks.0.mlp.fc1.q_scale", lambda t: t.half(), "is float16"),
        ("blocks.0.mlp.fc1.q_scale", with_nan, "NaN or infinite"),
        ("blocks.0.mlp.fc1.q_scale", lambda t: -t, "not above zero"),
        ("blocks.0.norm1.weight", with_nan, "NaN or infinite"),
        ("blocks.0.norm1.weight", lambda t: t.double(), "is float64"),
    ],
)
def test_a_tensor_that_no_save_writes_is_refused(
    quantized: QuantizedModel, tiny_vit: Make, tmp_path: Path, name: str, harm: Harm, message: str
) -> None:
    path = tmp_path / "q.safetensors"
    quantized.save(path)
    state, metadata = read_state(path)
    state[name] = harm(state[name].clone())
    write_state(path, state, metadata)
    with pytest.raises(UserError, match=message) as raised:
        load_quantized(path, tiny_vit())
    assert name in str(raised.value)


def test_whatever_byte_of_a_file_is_cut_or_flipped_loads_or_is_one_line(
    quantized: QuantizedModel, tiny_vit: Make, tmp_path: Path
) -> None:
    path, model = tmp_path / "q.safetensors", tiny_vit()
    quantized.save(path)
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
