from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors import safe_open
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from fimaq_deploy.calibration.learning.gradients import suffix_of
from fimaq_deploy.calibration.quantization import quantize
from fimaq_deploy.calibration.quantized_model import QuantizedModel, load_quantized
from fimaq_deploy.calibration.quantizers.layers import activation_quantizers, quantized_layers
from fimaq_deploy.errors import UserError
from fimaq_deploy.recipe import Loss, Rounding

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def vit(tiny_vit: Make) -> nn.Module:
    return tiny_vit()


@pytest.fixture(scope="module")
def images(random_images: Make) -> Tensor:
    return random_images(16)


def bytes_of(quantized: QuantizedModel, folder: Path) -> bytes:
    quantized.save(folder / "saved.safetensors")
    return (folder / "saved.safetensors").read_bytes()


def error_of(quantized: QuantizedModel, model: nn.Module, images: Tensor) -> float:
    with torch.no_grad():
        exact = model(images)
        return ((quantized(images) - exact).square().sum() / exact.square().sum()).item()


# Losses, roundings, grids


@pytest.mark.parametrize("loss", get_args(Loss))
def test_every_loss_lowers_the_block_errors(vit: nn.Module, images: Tensor, quick_recipe: Make, loss: str) -> None:
    settings = {"loss": loss, "iterations": 60, "weight_lr": 0.02, "qdrop": 0.0, "temperature": 1.0}
    recipe = quick_recipe(
        weights={"bits": 3}, activations={"bits": 8}, reconstruction={**settings, "rounding": "straight_through"}
    )
    history = quantize(vit, images, recipe).history
    assert [record.name for record in history] == ["patch_embed", "blocks.0", "blocks.1", "head"]
    blocks = history[:3]
    assert sum(record.loss_after for record in blocks) < sum(record.loss_before for record in blocks)
    assert all(record.iterations == 60 for record in history)


@pytest.mark.parametrize("rounding", get_args(Rounding))
@pytest.mark.parametrize("family", ["vit", "swin"])
def test_every_rounding_beats_scale_search_alone(
    tiny_vit: Make, tiny_swin: Make, random_images: Make, quick_recipe: Make, rounding: str, family: str
) -> None:
    model, images = (tiny_vit(), random_images(16)) if family == "vit" else (tiny_swin(), random_images(16, 32))
    settings = {"rounding": rounding, "iterations": 40, "weight_lr": 0.02, "scale_lr": 0.01, "qdrop": 0.0}
    recipe = quick_recipe(reconstruction={**settings, "rounding_weight": 0.001}, activations={"bits": 6})
    if rounding == "nearest":  # learns activation scales alone, so give it some that are worth learning
        recipe = recipe.replace(activations={"bits": 4}, scale_search={"candidates": 1})
    history = quantize(model, images, recipe).history
    assert sum(r.loss_after for r in history[:-1]) < sum(r.loss_before for r in history[:-1])


@pytest.mark.parametrize("bits", [8, 6, 4, 3, 2])
@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime-cpu"])
def test_frozen_integers_stay_in_the_asked_range(
    vit: nn.Module, images: Tensor, quick_recipe: Make, bits: int, target: str
) -> None:
    activations = max(bits, 3)
    recipe = quick_recipe(
        weights={"bits": bits},
        activations={"bits": activations},
        patch_embed={"weight_bits": None, "activation_bits": None},
        head={"weight_bits": None, "activation_bits": None},
    )
    quantized = quantize(vit, images, recipe, target)
    for _, layer in quantized_layers(quantized):
        assert layer.q_weight.dtype == torch.int8
        assert layer.q_weight.min() >= -(2 ** (bits - 1)) and layer.q_weight.max() <= 2 ** (bits - 1) - 1
        assert (layer.q_scale > 0).all()
    for name, quantizer in activation_quantizers(quantized):
        span = quantizer.integer_range()
        kept = 8 if name.endswith("softmax") and target == "tensorrt" else activations
        assert span.high - span.low == 2 ** (kept - (quantizer.nonnegative and span.high == 127)) - 1
        assert span.fits_int8 or (target == "onnxruntime-cpu" and bits == 8 and (span.low, span.high) == (0, 255))
        assert torch.equal(quantizer.scale.half().float(), quantizer.scale)


def test_fewer_bits_mean_a_larger_error(vit: nn.Module, images: Tensor, quick_recipe: Make) -> None:
    errors = [
        error_of(quantize(vit, images, quick_recipe(weights={"bits": b}, activations={"bits": b})), vit, images)
        for b in (8, 6, 4, 3)
    ]
    assert errors == sorted(errors)
    assert errors[0] < 5e-3


def test_int4_weight_only_blocks(tiny_vit: Make, images: Tensor, quick_recipe: Make) -> None:
    model = tiny_vit(embed_dim=64)
    recipe = quick_recipe(
        weights={"bits": 4, "block_size": 64}, activations={"bits": 16}, head={"weight_bits": 8, "activation_bits": 16}
    )
    quantized = quantize(model, images, recipe, "tensorrt")
    layers = dict(quantized_layers(quantized.model))
    fc2 = layers["blocks.0.mlp.fc2"]
    assert fc2.q_weight.shape == (128, 64) and fc2.q_scale.shape == (2, 64)
    assert fc2.q_weight.min() >= -8 and fc2.q_weight.max() <= 7
    assert [name for name, _ in activation_quantizers(quantized.model)] == ["patch_embed.proj.input_quantizer"]
    assert error_of(quantized, model, images) < 0.05


@pytest.mark.parametrize("rounding", get_args(Rounding))
def test_every_rounding_without_activation_bits(
    vit: nn.Module, images: Tensor, quick_recipe: Make, rounding: str
) -> None:
    edge = {"weight_bits": 8, "activation_bits": 16}
    settings = {"rounding": rounding, "iterations": 2}
    recipe = quick_recipe(activations={"bits": 16}, patch_embed=edge, head=edge, reconstruction=settings)
    assert not list(activation_quantizers(quantize(vit, images, recipe).model))


def test_attention_outside_the_envelope_stays_in_high_precision(
    tiny_vit: Make, images: Tensor, quick_recipe: Make
) -> None:
    odd = tiny_vit(embed_dim=48)
    quantized = quantize(odd, images, quick_recipe(), ["tensorrt", "onnxruntime-cpu"])
    assert not [name for name, _ in activation_quantizers(quantized.model) if ".quantizers." in name]
    assert quantized.target.name == "tensorrt+onnxruntime-cpu"


def test_swin_and_distilled_deit(
    tiny_swin: Make, tiny_deit: Make, random_images: Make, quick_recipe: Make, tmp_path: Path
) -> None:
    for model, size in ((tiny_swin(img_size=40, window_size=4), 40), (tiny_deit(), 16)):
        images = random_images(8, size)
        recipe = quick_recipe(weights={"bits": 8}, activations={"bits": 8}, reconstruction={"iterations": 2})
        quantized = quantize(model, images, recipe)
        assert error_of(quantized, model, images) < 1e-2
        quantized.save(tmp_path / "q.safetensors")
        assert torch.equal(load_quantized(tmp_path / "q.safetensors", model)(images), quantized(images))


# What a quantized model is


def test_stages_compose_to_the_quantized_model(vit: nn.Module, images: Tensor, quick_recipe: Make) -> None:
    quantized = quantize(vit, images, quick_recipe(reconstruction={"iterations": 1}))
    assert torch.equal(suffix_of(quantized.stages)(images), quantized(images))
    assert quantized(images[:3]).shape == (3, 5)
    assert not quantized.training
    assert quantized.seed == 0 and quantized.recipe.weights.bits == 4


def test_the_model_passed_in_and_the_random_state_are_left_alone(
    tiny_vit: Make, images: Tensor, quick_recipe: Make
) -> None:
    model = tiny_vit().train()
    before, kept = copy.deepcopy(model.state_dict()), images.clone()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    quantize(model, images, quick_recipe(tuning={"iterations": 2}))
    assert torch.equal(torch.rand(3), expected)
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in before.items())
    assert torch.equal(images, kept)


def test_progress_names_every_stage(vit: nn.Module, images: Tensor, quick_recipe: Make) -> None:
    seen: list[tuple[int, int, str]] = []
    recipe = quick_recipe(reconstruction={"iterations": 1}, tuning={"iterations": 1})
    quantize(vit, images, recipe, progress=lambda *event: seen.append(event))
    assert [name for _, _, name in seen[:4]] == ["patch_embed", "blocks.0", "blocks.1", "head"]
    assert [done for done, _, _ in seen] == list(range(len(seen)))
    assert {total for _, total, _ in seen} == {5}


# The same again


def test_the_same_seed_gives_the_same_bytes(vit: nn.Module, images: Tensor, quick_recipe: Make, tmp_path: Path) -> None:
    recipe = quick_recipe(reconstruction={"loss": "dplr"}, tuning={"iterations": 3, "batch_size": 8})
    first = bytes_of(quantize(vit, images, recipe, seed=3), tmp_path)
    torch.manual_seed(99)
    assert bytes_of(quantize(vit, images, recipe, seed=3), tmp_path) == first
    assert bytes_of(quantize(vit, images, recipe, seed=4), tmp_path) != first


@pytest.mark.parametrize("split", [1, 5, 16])
def test_how_images_are_batched_does_not_matter(
    vit: nn.Module, images: Tensor, quick_recipe: Make, tmp_path: Path, split: int
) -> None:
    expected = bytes_of(quantize(vit, images, quick_recipe()), tmp_path)
    assert bytes_of(quantize(vit, iter(images.split(split)), quick_recipe()), tmp_path) == expected


def test_no_more_images_are_taken_than_the_recipe_asks_for(
    vit: nn.Module, images: Tensor, random_images: Make, quick_recipe: Make, tmp_path: Path
) -> None:
    taken = 0

    def endless() -> Any:
        nonlocal taken
        for batch in [*images.split(6), *random_images(100, seed=1).split(6)]:
            taken += 1
            yield batch

    expected = bytes_of(quantize(vit, images, quick_recipe()), tmp_path)
    more = torch.cat([images, random_images(20, seed=1)])
    assert bytes_of(quantize(vit, more, quick_recipe()), tmp_path) == expected
    quantize(vit, endless(), quick_recipe(reconstruction={"iterations": 1}))
    assert taken <= 3


@pytest.mark.parametrize("loss", ["dplr", "brecq"])
def test_memory_mapped_activations_give_the_same_bytes(
    vit: nn.Module, images: Tensor, quick_recipe: Make, tmp_path: Path, loss: str
) -> None:
    recipe = quick_recipe(reconstruction={"loss": loss}, tuning={"iterations": 2})
    in_memory = bytes_of(quantize(vit, images, recipe), tmp_path)
    assert bytes_of(quantize(vit, images, recipe, memory_bytes=0), tmp_path) == in_memory
    assert bytes_of(quantize(vit, images, recipe, memory_bytes=50_000), tmp_path) == in_memory


# Interrupted and resumed

KILLED = """
import os, signal, sys
import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from fimaq_deploy.calibration.quantization import quantize
from fimaq_deploy.recipe import Recipe

folder, block = sys.argv[1], int(sys.argv[2])
model = VisionTransformer(img_size=16, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=5, mlp_ratio=2)
model.load_state_dict(load_file(f"{folder}/model.safetensors"))
images = load_file(f"{folder}/images.safetensors")["images"]

def progress(done, total, name):
    if done == block:
        os.kill(os.getpid(), signal.SIGKILL)

quantize(model.eval(), images, Recipe.load(f"{folder}/recipe.yaml"), progress=progress, resume=f"{folder}/blocks")
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_build_resumes_to_the_same_bytes(
    vit: nn.Module, images: Tensor, quick_recipe: Make, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    recipe = quick_recipe(reconstruction={"loss": "dplr"}, tuning={"iterations": 2})
    save_file(vit.state_dict(), tmp_path / "model.safetensors")
    save_file({"images": images}, tmp_path / "images.safetensors")
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    command = [sys.executable, "-c", KILLED, str(tmp_path), "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    blocks = sorted(path.name for path in (tmp_path / "blocks").glob("*.safetensors"))
    assert blocks == ["block-000.safetensors", "block-001.safetensors"]
    kept = {name: (tmp_path / "blocks" / name).stat().st_mtime_ns for name in blocks}
    resumed = quantize(vit, images, recipe, resume=tmp_path / "blocks")
    assert {name: (tmp_path / "blocks" / name).stat().st_mtime_ns for name in blocks} == kept, "nothing is done twice"
    assert bytes_of(resumed, tmp_path) == bytes_of(quantize(vit, images, recipe), tmp_path)


class _InterruptedError(Exception):
    pass


@pytest.mark.parametrize("block", [0, 1, 2, 3, 4])
def test_an_interruption_before_any_block_or_the_tuning_changes_nothing(
    vit: nn.Module, images: Tensor, quick_recipe: Make, tmp_path: Path, block: int
) -> None:
    recipe = quick_recipe(reconstruction={"loss": "brecq"}, tuning={"iterations": 3, "batch_size": 8})

    def stop(done: int, _total: int, _name: str) -> None:
        if done == block:
            raise _InterruptedError

    with pytest.raises(_InterruptedError):
        quantize(vit, images, recipe, progress=stop, resume=tmp_path / "blocks")
    resumed = quantize(vit, images, recipe, resume=tmp_path / "blocks")
    assert bytes_of(resumed, tmp_path) == bytes_of(quantize(vit, images, recipe), tmp_path)
    assert [record.name for record in resumed.history[:4]] == ["patch_embed", "blocks.0", "blocks.1", "head"]


def test_a_half_written_block_is_never_seen(vit: nn.Module, images: Tensor, quick_recipe: Make, tmp_path: Path) -> None:
    folder = tmp_path / "blocks"
    folder.mkdir()
    (folder / "block-000.safetensors.tmp").write_bytes(b"half a fi")
    resumed = quantize(vit, images, quick_recipe(), resume=folder)
    assert bytes_of(resumed, tmp_path) == bytes_of(quantize(vit, images, quick_recipe()), tmp_path)
    with safe_open(folder / "block-000.safetensors", "pt") as file:
        assert json.loads(file.metadata()["fimaq"])["record"]["name"] == "patch_embed"


@pytest.mark.parametrize("changed", ["seed", "recipe", "images", "model", "target"])
def test_blocks_of_another_build_are_refused(
    vit: nn.Module, tiny_vit: Make, images: Tensor, quick_recipe: Make, tmp_path: Path, changed: str
) -> None:
    recipe = quick_recipe(reconstruction={"iterations": 1})
    quantize(vit, images, recipe, resume=tmp_path)
    same: dict[str, Any] = {"model": vit, "images": images, "recipe": recipe, "target": "onnxruntime-cpu", "seed": 0}
    other = {
        "seed": 1,
        "recipe": quick_recipe(reconstruction={"iterations": 2}),
        "images": images + 1,
        "model": tiny_vit(seed=1),
        "target": "tensorrt",
    }
    with pytest.raises(UserError, match="another build"):
        quantize(**{**same, changed: other[changed]}, resume=tmp_path)


# What cannot be quantized


def with_a_hole(images: Tensor, value: float) -> Tensor:
    images = images.clone()
    images[3, 0, 2, 2] = value
    return images


BAD_IMAGES: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "nan": (lambda x: with_a_hole(x, float("nan")), "NaN or infinite"),
    "infinite": (lambda x: with_a_hole(x, float("inf")), "NaN or infinite"),
    "integers": (lambda x: x.to(torch.int32), "int32"),
    "text": (lambda x: ["a cat"], "a cat|str"),
    "no folder": (lambda x: "nowhere", "no images at nowhere"),
    "size 0": (lambda x: x[:0], "size 0: expected at least one image"),
    "a batch of size 0": (lambda x: [x[:2], x[:0]], "size 0: expected at least one image"),
    "nothing": (lambda x: [], "yields nothing"),
    "two sizes": (lambda x: [x[:4], x[:4, :, :8]], "batch 1 holds images of 3×8×16: expected 3×16×16"),
    "another size": (lambda x: torch.nn.functional.pad(x, (0, 8, 0, 8)), "24"),
    "another number of channels": (lambda x: x[:, :1], "images of 1×16×16: expected 3×16×16"),
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_bad_images_are_user_errors_of_one_line(vit: nn.Module, images: Tensor, quick_recipe: Make, kind: str) -> None:
    make, message = BAD_IMAGES[kind]
    with pytest.raises(UserError, match=message) as caught:
        quantize(vit, make(images), quick_recipe())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", [list, lambda x: [x.numpy()], lambda x: iter(x.split(3)), lambda x: {"images": x}])
def test_images_come_in_any_form(
    vit: nn.Module, images: Tensor, quick_recipe: Make, form: Callable[[Tensor], Any], tmp_path: Path
) -> None:
    recipe = quick_recipe(reconstruction={"iterations": 2})
    expected = bytes_of(quantize(vit, images, recipe), tmp_path)
    assert bytes_of(quantize(vit, form(images), recipe), tmp_path) == expected


def test_models_that_answer_nonsense_are_user_errors(tiny_vit: Make, images: Tensor, quick_recipe: Make) -> None:
    model = tiny_vit()
    model.head.weight.data[0, 0] = float("nan")
    with pytest.raises(UserError, match="NaN or infinite logits"):
        quantize(model, images, quick_recipe())


def test_unknown_models_and_targets_are_user_errors(vit: nn.Module, images: Tensor, quick_recipe: Make) -> None:
    with pytest.raises(UserError, match="is a Sequential: expected a timm"):
        quantize(nn.Sequential(nn.Flatten(), nn.Linear(768, 5)), images, quick_recipe())
    with pytest.raises(UserError, match="unknown target"):
        quantize(vit, images, quick_recipe(), "abacus")
    with pytest.raises(UserError, match="8-bit activations cannot run on target tensorrt"):
        quantize(vit, images, quick_recipe(activations={"bits": 8, "scheme": "asymmetric"}), "tensorrt")


# Cost


@pytest.mark.parametrize("loss", ["mse", "least_squares"])
def test_block_calls(tiny_vit: Make, images: Tensor, quick_recipe: Make, loss: str) -> None:
    """Each block is called as often at any depth: what lies behind it is recorded once for the measurements of all."""
    calls: dict[int, int] = {}
    for depth in (2, 4, 8):
        model = tiny_vit(depth=depth)
        count = 0

        def counted(module: nn.Module, *_: Any) -> None:
            nonlocal count
            count += isinstance(module, Block)

        handle = nn.modules.module.register_module_forward_pre_hook(counted)
        try:
            quantize(model, images, quick_recipe(reconstruction={"loss": loss, "iterations": 3}))
        finally:
            handle.remove()
        calls[depth] = count
    assert calls == {depth: calls[2] // 2 * depth for depth in calls}


def test_denormal_numbers_are_zero_while_quantizing_and_as_before_afterwards(
    vit: nn.Module, images: Tensor, quick_recipe: Make
) -> None:
    """A session of ONNX Runtime leaves its thread flushing them: the weights must not depend on it."""
    flushed = []
    for before in (False, True):
        torch.set_flush_denormal(before)
        quantize(vit, images, quick_recipe(), progress=lambda *_: flushed.append(is_flushed()))
        assert is_flushed() is before
    torch.set_flush_denormal(False)
    assert len(flushed) > 4 and all(flushed)


def is_flushed() -> bool:
    return bool(torch.tensor(2.0**-127).mul(1.0) == 0)
