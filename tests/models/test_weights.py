"""Layouts that training codes leave. Each is made here as its code makes it, and must compute what was saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from fimaq_deploy.models.load import load_model, open_model
from fimaq_deploy.models.weights import find_weights

Refusal = Callable[..., str]
Same = Callable[[nn.Module, nn.Module], bool]

NAME = "vit_tiny_patch16_224"


def made(seed: int, **options: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return timm.create_model(NAME, num_classes=7, depth=1, **options).eval()


@pytest.fixture(scope="module", autouse=True)
def one_block() -> Any:
    """timm's tiny ViT with one block, so that files are small; its names and shapes are as published."""
    patch = pytest.MonkeyPatch()
    real = timm.create_model
    patch.setattr(timm, "create_model", lambda *given, **options: real(*given, **{"depth": 1, **options}))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def model(one_block: None) -> nn.Module:
    return made(0)


@pytest.fixture(scope="module")
def averaged(one_block: None) -> nn.Module:
    return made(1)


def under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


class Lightning(nn.Module):
    """A LightningModule's shape: the net, a loss with weights, and a copy that a callback averages."""

    def __init__(self, net: nn.Module, averaged: nn.Module | None = None) -> None:
        super().__init__()
        self.net = net
        self.criterion = nn.Linear(3, 3)
        if averaged is not None:
            self.ema_net = averaged


LAYOUTS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "plain": lambda s: s,
    "DataParallel": lambda s: under("module.", s),
    "DDP and torch.compile": lambda s: under("module._orig_mod.", s),
    "torch.compile of blocks": lambda s: {k.replace("blocks.0.", "blocks.0._orig_mod."): v for k, v in s.items()},
    "FSDP": lambda s: {k.replace("blocks.0.", "_fsdp_wrapped_module.blocks.0."): v for k, v in s.items()},
    "activation checkpoints": lambda s: {
        k.replace("attn.", "attn._checkpoint_wrapped_module."): v for k, v in s.items()
    },
    "Lightning": lambda s: {"state_dict": under("model.", s), "epoch": 1, "pytorch-lightning_version": "2"},
    "Lightning with a loss": lambda s: {"state_dict": {**under("net.", s), "criterion.weight": torch.ones(3)}},
    "PyTorch tutorials": lambda s: {
        "model_state_dict": s,
        "optimizer_state_dict": {"state": {0: {"exp_avg": s["cls_token"]}}},
    },
    "DeepSpeed": lambda s: {"module": s, "buffer_names": []},
    "mmpretrain": lambda s: {"meta": {"epoch": 1}, "state_dict": {**under("backbone.", s)}},
    "any wrapper": lambda s: {"checkpoint": {"network": {"student": under("encoder.trunk.", s)}}},
    "a list": lambda s: [{"weights": s}, 3],
    "an average of torch.optim": lambda s: {"n_averaged": torch.tensor(3), **under("module.", s)},
    "a backbone beside a head": lambda s: {
        "backbone": {k: v for k, v in s.items() if not k.startswith("head")},
        "head": {"weight": s["head.weight"], "bias": s["head.bias"]},
    },
    "a NumPy scalar beside the weights": lambda s: {"model": s, "best_acc": np.float64(0.9)},
    # As nobody may write them, but somebody could.
    "an adapter's base model": lambda s: {"peft_type": "NONE", "state": under("base_model.model.", s)},
    "models in a list, and one that is empty": lambda s: {"models": [None, {"ema": {}, "net": under("encoder.", s)}]},
    "a trainer's state of everything": lambda s: {
        "state": {
            "model": under("_forward_module.module.", s),
            "rng": [torch.zeros(8, dtype=torch.uint8)],
            "optimizers": {"AdamW": {"state": {0: {"exp_avg": s["pos_embed"], "step": torch.tensor(3.0)}}}},
        }
    },
    "pairs in a list": lambda s: [("epoch", 3), ("weights", under("net.", s))],
    "half precision": lambda s: {"model": {k: v.half() for k, v in s.items()}},
    "a decoder that only training uses": lambda s: {
        **s,
        "mask_token": torch.ones(1),
        "decoder_blocks.0.w": torch.ones(2),
    },
}


@pytest.mark.parametrize("suffix", [".pth", ".ckpt"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, suffix: str, tmp_path: Path, model: nn.Module, same: Same) -> None:
    path = tmp_path / f"a{suffix}"
    torch.save(LAYOUTS[layout](model.state_dict()), path)
    expected = made(0).half().float() if layout == "half precision" else model
    assert same(load_model(NAME, path), expected)


def test_where_they_lay_is_said(tmp_path: Path, model: nn.Module) -> None:
    torch.save({"state_dict": under("model.", model.state_dict())}, tmp_path / "a.ckpt")
    assert open_model(NAME, tmp_path / "a.ckpt").notes == (
        f"weights of {tmp_path}/a.ckpt: 'state_dict.model' was taken",
    )
    torch.save(model.state_dict(), tmp_path / "b.pth")
    assert open_model(NAME, tmp_path / "b.pth").notes == ()


@pytest.mark.parametrize(
    ("plain", "ema"),
    [
        ("state_dict", "state_dict_ema"),
        ("model", "model_ema"),
        ("model", "ema"),
        ("student", "teacher"),
        ("net", "swa_net"),
    ],
)
def test_of_two_sets_the_averaged_one_is_taken_and_that_is_said(
    tmp_path: Path, model: nn.Module, averaged: nn.Module, plain: str, ema: str, same: Same
) -> None:
    path = tmp_path / "a.pth"
    torch.save({plain: model.state_dict(), ema: under("module.", averaged.state_dict()), "epoch": 3}, path)
    loaded = open_model(NAME, path)
    assert same(loaded.model, averaged)
    assert loaded.notes == (f"weights of {path}: '{ema}.module' was taken; there too: {path}#{plain}",)
    assert same(load_model(NAME, f"{path}#{plain}"), model)
    assert same(load_model(NAME, f"{path}#{ema}"), averaged)


def test_an_average_within_one_state(tmp_path: Path, model: nn.Module, averaged: nn.Module, same: Same) -> None:
    torch.save({"state_dict": Lightning(model, averaged).state_dict()}, tmp_path / "a.ckpt")
    assert same(load_model(NAME, tmp_path / "a.ckpt"), averaged)
    assert same(load_model(NAME, f"{tmp_path}/a.ckpt#state_dict.net"), model)


def test_the_set_that_fits_is_taken_whatever_it_is_called(tmp_path: Path, model: nn.Module, same: Same) -> None:
    """A teacher of another width beside the student."""
    teacher = timm.create_model("vit_small_patch16_224", depth=1, num_classes=7)
    torch.save({"teacher": teacher.state_dict(), "student": model.state_dict()}, tmp_path / "a.pth")
    assert same(load_model(NAME, tmp_path / "a.pth"), model)


def test_a_choice_that_is_not_there(tmp_path: Path, model: nn.Module, refusal: Refusal) -> None:
    torch.save({"model": model.state_dict(), "ema": model.state_dict()}, tmp_path / "a.pth")
    assert refusal(NAME, f"{tmp_path}/a.pth#state_dict") == (
        f"checkpoint {tmp_path}/a.pth has no weights 'state_dict' that fit the model: it has ema, model"
    )
    assert "has no weights ''" in refusal(NAME, f"{tmp_path}/a.pth#")


def test_what_only_training_uses_is_said(tmp_path: Path, model: nn.Module) -> None:
    torch.save({**model.state_dict(), "mask_token": torch.ones(1)}, tmp_path / "a.pth")
    assert open_model(NAME, tmp_path / "a.pth").notes == (
        f"weights of {tmp_path}/a.pth: 1 tensors that only training uses were left out (first mask_token)",
    )


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ("blocks.0.attn.qkv.lora_A.weight", "1 are unexpected (first blocks.0.attn.qkv.lora_A.weight)"),
        ("blocks.0.ls1.gamma", "1 are unexpected (first blocks.0.ls1.gamma)"),
        ("reg_token", "1 are unexpected (first reg_token)"),
        ("blocks.1.norm1.weight", "1 are unexpected (first blocks.1.norm1.weight)"),
    ],
)
def test_tensors_that_would_change_the_answers_are_refused(
    tmp_path: Path, model: nn.Module, extra: str, reason: str, refusal: Refusal
) -> None:
    torch.save({"model": {**model.state_dict(), extra: torch.ones(3)}}, tmp_path / "a.pth")
    assert reason in refusal(NAME, tmp_path / "a.pth")


def test_a_missing_tensor_is_refused(tmp_path: Path, model: nn.Module, refusal: Refusal) -> None:
    state = {name: tensor for name, tensor in model.state_dict().items() if name != "blocks.0.norm1.bias"}
    torch.save(state, tmp_path / "a.pth")
    assert "1 tensors are missing (first blocks.0.norm1.bias)" in refusal(NAME, tmp_path / "a.pth")


def test_names_and_shapes_decide(model: nn.Module) -> None:
    own = {"a": torch.zeros(2), "b": torch.zeros(3)}
    content = {
        "x": {"a": torch.ones(2), "b": torch.ones(4)},
        "y": {"a": torch.ones(2), "b": torch.ones(3)},
        "z": {"a": 3},
    }
    taken = find_weights(content, own, "file")
    assert (taken.found.label, taken.others) == ("y", ())
    assert set(taken.found.state) == {"a", "b"}
