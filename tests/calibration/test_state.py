"""What a file holds, and that nothing else is taken for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fimaq_deploy.calibration.network.attentions import attention_tokens
from fimaq_deploy.calibration.network.plan import make_plan
from fimaq_deploy.calibration.network.quantized_copy import quantized_copy
from fimaq_deploy.calibration.quantized_model import QuantizedModel, load_quantized
from fimaq_deploy.calibration.state import fingerprint, frozen_state, load_frozen_state, read_state, write_state
from fimaq_deploy.errors import UserError
from fimaq_deploy.target import find_target

Make = Callable[..., Any]


def test_a_file_whose_integers_have_another_shape_is_refused(
    quantized_vit: QuantizedModel, tiny_vit: Make, tmp_path: Path
) -> None:
    state = frozen_state(quantized_vit.model)
    state["blocks.0.mlp.fc1.q_weight"] = state["blocks.0.mlp.fc1.q_weight"][:-1].contiguous()
    model = tiny_vit()
    tokens = attention_tokens(model, torch.zeros(1, 3, 16, 16))
    made = quantized_copy(model, make_plan(model, quantized_vit.recipe, find_target("onnxruntime-cpu"), tokens))
    with pytest.raises(UserError, match=r"blocks\.0\.mlp\.fc1\.q_weight"):
        load_frozen_state(made, state)


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
    quantized_vit: QuantizedModel, tiny_vit: Make, tmp_path: Path, name: str, harm: Harm, message: str
) -> None:
    path = tmp_path / "q.safetensors"
    quantized_vit.save(path)
    state, metadata = read_state(path)
    state[name] = harm(state[name].clone())
    write_state(path, state, metadata)
    with pytest.raises(UserError, match=message) as raised:
        load_quantized(path, tiny_vit())
    assert name in str(raised.value)
