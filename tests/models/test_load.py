from __future__ import annotations

import os
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import SwinTransformer, VisionTransformer
from torch import nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.bundled import BUNDLED
from fimaq_deploy.models.checkpoint import read_checkpoint
from fimaq_deploy.models.describe import describe_model, find_device, require_finite, require_supported
from fimaq_deploy.models.load import load_model
from fimaq_deploy.models.names import SHORT_NAMES, model_names

FACTORIES = """
from timm.models import SwinTransformer, VisionTransformer
from torch import nn

def tiny_vit():
    return VisionTransformer(
        img_size=(16, 24), patch_size=8, in_chans=2, num_classes=5, embed_dim=16, depth=1, num_heads=2
    )

def half_swin():
    return SwinTransformer(
        img_size=16, patch_size=2, num_classes=3, embed_dim=16, depths=(1,), num_heads=(2,), window_size=4
    ).half()

def hybrid_of_nothing():
    return nn.Linear(2, 2)

def broken():
    raise KeyError("the factory's own mistake")

def text():
    return "model"

constant = 3
"""


def tiny_vit(**changes: Any) -> VisionTransformer:
    sizes = {"img_size": 16, "patch_size": 8, "num_classes": 5, "embed_dim": 16, "depth": 1, "num_heads": 2}
    return VisionTransformer(**{**sizes, **changes})


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def message(name: str, weights: str | Path = "pretrained", **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        load_model(name, weights, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module with factories in the current directory; its name is new each time, as Python caches modules."""
    name = f"factories_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    return name


# --- names ---


@pytest.mark.parametrize("name", ["vit_digits", "swin_digits"])
def test_bundled_model_is_trained_and_in_eval_mode(name: str) -> None:
    model = load_model(name)
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not same(model, load_model(name, "random"))


def test_random_weights_come_from_the_seed_alone() -> None:
    state = torch.random.get_rng_state()
    a, b, c = (load_model("vit_digits", "random", seed=seed) for seed in (1, 1, 2))
    assert same(a, b)
    assert not same(a, c)
    assert torch.equal(state, torch.random.get_rng_state())


def test_names_for_help_are_the_bundled_and_the_short_ones() -> None:
    assert model_names()[:4] == list(BUNDLED)
    assert {"vit_l", "deit_b", "swin_b_384"} < set(model_names())


def test_short_names_are_weights_that_timm_has() -> None:
    for full in SHORT_NAMES.values():
        assert timm.get_pretrained_cfg(full).hf_hub_id == f"timm/{full}"


def test_timm_name_and_its_short_name_are_the_same_model() -> None:
    model = load_model("vit_t", "random", seed=3)
    assert isinstance(model, VisionTransformer)
    assert same(model, load_model("vit_tiny_patch16_224", "random", seed=3))


@pytest.mark.parametrize("name", ["deit_tiny_distilled_patch16_224", "vit_tiny_patch16_224.augreg_in21k"])
def test_other_names_of_the_family(name: str) -> None:
    model = load_model(name, "random")
    assert describe_model(model).input_shape == (3, 224, 224)


def test_unknown_name_gets_the_nearest_names() -> None:
    text = message("vit_digit")
    assert text.startswith("unknown model 'vit_digit': did you mean vit_digits?")
    assert "vit_small_patch" in message("vit_smal")
    assert "swin_tiny_patch4_window7_224" in message("swin_tiny_patch4_window7_225")


def test_name_like_nothing_gets_the_list() -> None:
    assert "expected vit_digits, swin_digits" in message("q")


def test_unknown_timm_tag_gets_the_tags() -> None:
    assert "expected one of deit_tiny_patch16_224.fb_in1k" in message("deit_tiny_patch16_224.in21k")


def test_other_architecture_is_named() -> None:
    assert message("resnet18", "random").startswith("model 'resnet18' is a ResNet: expected a timm")
    assert "SwinTransformerV2" in message("swinv2_tiny_window8_256", "random")
    assert "HybridEmbed stem" in message("vit_tiny_r_s16_p8_224", "random")


# --- factories ---


def test_factory_from_the_current_directory(factories: str) -> None:
    path = list(sys.path)
    info = describe_model(load_model(f"{factories}:tiny_vit"))
    assert info.input_shape == (2, 16, 24)
    assert info.classes == 5
    assert info.mean == info.std == (0.5, 0.5)
    assert sys.path == path


def test_factory_model_becomes_float32(factories: str) -> None:
    model = load_model(f"{factories}:half_swin")
    assert isinstance(model, SwinTransformer)
    assert model(torch.zeros(1, 3, 16, 16)).dtype == torch.float32


def test_factory_with_a_checkpoint(factories: str, tmp_path: Path) -> None:
    trained = tiny_vit(img_size=(16, 24), in_chans=2)
    save_file(trained.state_dict(), tmp_path / "trained.safetensors")
    assert same(load_model(f"{factories}:tiny_vit", "trained.safetensors"), trained)


def test_bad_factories(factories: str) -> None:
    assert "no module 'absent_module'" in message("absent_module:create")
    assert "has no function 'tiny_vat'; did you mean 'tiny_vit'?" in message(f"{factories}:tiny_vat")
    assert "has no function 'constant'" in message(f"{factories}:constant")
    assert "expected package.module:factory" in message("my models:create")
    assert "returned str: expected a torch.nn.Module" in message(f"{factories}:text")
    assert "is a Linear: expected a timm" in message(f"{factories}:hybrid_of_nothing")
    assert "a factory decides its own" in message(f"{factories}:tiny_vit", "random")


def test_mistake_inside_a_factory_keeps_its_traceback(factories: str) -> None:
    with pytest.raises(KeyError, match="the factory's own mistake"):
        load_model(f"{factories}:broken")


def test_missing_dependency_of_a_factory_keeps_its_traceback(factories: str, tmp_path: Path) -> None:
    (tmp_path / f"{factories}_b.py").write_text("import absent_dependency")
    with pytest.raises(ModuleNotFoundError, match="absent_dependency"):
        load_model(f"{factories}_b:create")


# --- checkpoints ---


def test_safetensors_checkpoint(tmp_path: Path) -> None:
    trained = load_model("vit_digits", "random", seed=9)
    save_file(trained.state_dict(), tmp_path / "a.safetensors")
    assert same(load_model("vit_digits", tmp_path / "a.safetensors"), trained)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": state, "epoch": 3},
        lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}, "args": Namespace(lr=1)},
        lambda state: {"model_ema": {f"_orig_mod.{k}": v for k, v in state.items()}},
        lambda state: {k: v.half() for k, v in state.items()},
    ],
    ids=["plain", "model", "state_dict of DataParallel", "ema of a compiled model", "half"],
)
def test_torch_checkpoint(tmp_path: Path, wrap: Any) -> None:
    trained = load_model("vit_digits", "random", seed=9).half().float()
    torch.save(wrap(trained.state_dict()), tmp_path / "a.pth")
    assert same(load_model("vit_digits", tmp_path / "a.pth"), trained)


def test_checkpoint_with_other_classes_changes_the_classifier_of_a_timm_name(tmp_path: Path) -> None:
    trained = timm.create_model("vit_tiny_patch16_224", num_classes=7)
    save_file(trained.state_dict(), tmp_path / "a.safetensors")
    model = load_model("vit_t", tmp_path / "a.safetensors")
    assert describe_model(model, "vit_t").classes == 7
    assert same(model, trained)


def test_original_swin_checkpoint_is_translated(tmp_path: Path) -> None:
    trained = load_model("swin_digits", "random", seed=4)
    state = trained.state_dict()
    original = {
        k.replace("layers.1.downsample", "layers.0.downsample").replace("head.fc.", "head."): v
        for k, v in state.items()
    }
    original["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(16, 16)
    torch.save({"model": original}, tmp_path / "a.pth")
    assert same(load_model("swin_digits", tmp_path / "a.pth"), trained)


def test_missing_checkpoint(tmp_path: Path) -> None:
    assert message("vit_digits", tmp_path / "absent.pth").startswith(f"no checkpoint '{tmp_path / 'absent.pth'}'")
    assert "expected 'pretrained', 'random' or the path" in message("vit_digits", "pretrain")


def test_checkpoint_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"")
    assert "expected a file named *.safetensors, *.pth" in message("vit_digits", tmp_path / "a.npz")


@pytest.mark.parametrize("suffix", ["safetensors", "pth", "bin"])
@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all", bytes(range(256)) * 20])
def test_corrupt_checkpoint(tmp_path: Path, suffix: str, content: bytes) -> None:
    (tmp_path / f"a.{suffix}").write_bytes(content)
    assert f"a.{suffix} is corrupt or no" in message("vit_digits", tmp_path / f"a.{suffix}")


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_truncated_checkpoint(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    state = load_model("vit_digits", "random").state_dict()
    (save_file if suffix == "safetensors" else torch.save)(state, path)
    path.write_bytes(path.read_bytes()[:-1000])
    assert f"{path} is corrupt" in message("vit_digits", path)


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    torch.save(load_model("vit_digits", "random"), tmp_path / "a.pth")
    assert "holds Python objects, which are refused" in message("vit_digits", tmp_path / "a.pth")


def test_checkpoint_without_tensors(tmp_path: Path) -> None:
    torch.save({"model": {"epoch": 3}}, tmp_path / "a.pth")
    assert "holds no tensors" in message("vit_digits", tmp_path / "a.pth")


def test_checkpoint_of_another_architecture(tmp_path: Path) -> None:
    save_file(load_model("swin_digits", "random").state_dict(), tmp_path / "a.safetensors")
    text = message("vit_digits", tmp_path / "a.safetensors")
    assert "is of another architecture than vit_digits: " in text
    assert "tensors are missing (first cls_token)" in text
    assert "59 are unexpected (first " in text
    assert "patch_embed.proj.weight has shape (32, 1, 2, 2), expected (64, 1, 4, 4)" in text


def test_checkpoint_of_another_image_size_is_not_resampled(tmp_path: Path, factories: str) -> None:
    state = tiny_vit(in_chans=2, img_size=(32, 24)).state_dict()
    torch.save({"model": {**state, "pre_logits.weight": torch.zeros(1)}}, tmp_path / "a.pth")
    assert "pos_embed has shape (1, 13, 16), expected (1, 7, 16)" in message(f"{factories}:tiny_vit", "a.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(tmp_path: Path, value: float) -> None:
    model = load_model("vit_digits", "random")
    model.blocks[1].mlp.fc1.weight.data[0, :3] = value
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    assert "weight blocks.1.mlp.fc1.weight: 3 of 16384 values are NaN" in message(
        "vit_digits", tmp_path / "a.safetensors"
    )
    with pytest.raises(UserError, match=r"blocks\.1\.mlp"):
        require_finite(model)


def test_order_of_wrapped_states(tmp_path: Path) -> None:
    torch.save({"model_ema": {"a": torch.ones(1)}, "model": {"a": torch.zeros(1)}}, tmp_path / "a.pt")
    assert read_checkpoint(tmp_path / "a.pt")["a"] == 0


# --- pretrained weights from the hub ---


IN_A_PROCESS_OF_ITS_OWN = """
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.load import load_model

print(load_model("vit_t").head.bias.unique().tolist())
try:
    load_model("deit_t")
except UserError as error:
    print(error, "|", type(error.__cause__).__name__)
"""


@pytest.fixture
def hub_cache(tmp_path: Path) -> Path:
    """A Hugging Face cache that holds vit_t, every weight 0.25, and nothing else."""
    folder = tmp_path / "models--timm--vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    state = timm.create_model("vit_tiny_patch16_224").state_dict()
    save_file({k: torch.full_like(v, 0.25) for k, v in state.items()}, snapshot / "model.safetensors")
    return tmp_path


def test_pretrained_comes_from_the_cache_or_fails_fast_with_the_fix(hub_cache: Path) -> None:
    closed = {"HF_HUB_CACHE": str(hub_cache), "HF_ENDPOINT": "http://127.0.0.1:9", "NO_PROXY": "*"}
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS_OF_ITS_OWN],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **closed},
    )
    cached, failed = done.stdout.splitlines()
    assert cached == "[0.25]"
    assert failed.startswith("the pretrained weights of 'deit_tiny_patch16_224.fb_in1k' cannot be downloaded (")
    assert "pass --weights PATH" in failed
    assert failed.endswith(("ConnectError", "ConnectionError"))
    assert time.perf_counter() - started < 40


def test_name_without_pretrained_weights() -> None:
    assert "has no pretrained weights in timm" in message("vit_small_patch16_36x1_224")


# --- devices and descriptions ---


def test_devices() -> None:
    assert find_device("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match="unknown device 'gpu': expected cpu, cuda"):
        find_device("gpu")
    absent = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(UserError, match=f"device '{absent}': "):
        find_device(absent)


@pytest.mark.parametrize(("name", "shape"), [("vit_digits", (1, 16, 16)), ("swin_digits", (1, 16, 16))])
def test_bundled_description(name: str, shape: tuple[int, int, int]) -> None:
    info = describe_model(load_model(name))
    assert (info.name, info.input_shape, info.classes) == (name, shape, 10)
    assert (info.mean, info.std, info.crop_pct) == ((0.5,), (0.5,), 1.0)


def test_timm_description_follows_the_module_where_it_was_changed() -> None:
    info = describe_model(timm.create_model("vit_tiny_patch16_224", img_size=32, in_chans=1, num_classes=4), "mine")
    assert info.name == "mine"
    assert info.input_shape == (1, 32, 32)
    assert info.mean == (0.5,)
    assert (info.interpolation, info.crop_pct, info.classes) == ("bicubic", 0.9, 4)


def test_description_of_a_module_of_ones_own() -> None:
    model = tiny_vit()
    info = describe_model(model)
    assert (info.name, info.crop_pct, info.mean[0]) == ("VisionTransformer", 1.0, 0.485)
    model.pretrained_cfg = {"mean": (0.1, 0.2, 0.3), "std": (1, 1, 1), "crop_pct": 0.8}
    assert describe_model(model).mean == (0.1, 0.2, 0.3)
    assert describe_model(model).crop_pct == 0.8


def test_description_needs_a_supported_model_of_fixed_size() -> None:
    with pytest.raises(UserError, match="the model is a Linear"):
        describe_model(nn.Linear(1, 1))
    model = tiny_vit()
    model.patch_embed.img_size = None
    with pytest.raises(UserError, match="no fixed image size"):
        describe_model(model)
    with pytest.raises(UserError, match="the model is a str"):
        require_supported("model")
