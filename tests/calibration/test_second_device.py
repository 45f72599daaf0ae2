"""Everything that learns and judges, on a device that is not the host: its rules are `fixtures.second_device`."""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures.second_device import Elsewhere, TwoDevices, metered, second_device
from torch import Tensor, nn

from fimaq_deploy.calibration import budget
from fimaq_deploy.calibration.learning.reconstruct import BlockLearner
from fimaq_deploy.calibration.quantization import quantize
from fimaq_deploy.calibration.quantized_model import QuantizedModel, load_quantized
from fimaq_deploy.export import export_onnx
from fimaq_deploy.measure.accuracy import evaluate
from fimaq_deploy.recipe import Recipe
from fimaq_deploy.verify.stages import compare_stages

Make = Callable[..., Any]

LOSSES = ("mse", "brecq", "dplr", "diag", "low_rank", "least_squares", "feature", "divergence")
ROUNDINGS = ("nearest", "adaround", "straight_through", "sign_gradient")
REWRITES = ("norm", "heads", "rotation")


@pytest.fixture
def device() -> Iterator[torch.device]:
    with second_device() as found:
        yield found


@pytest.fixture
def recipe(quick_recipe: Make) -> Callable[..., Recipe]:
    """Everything that learns does so, long enough to be recorded and replayed."""
    rates = {"weight_scale_lr": 1e-3, "other_lr": 1e-3, "iterations": 7, "rank": 2}

    def make(loss: str = "dplr", **changes: Any) -> Recipe:
        settings = {**rates, "loss": loss, "rounding": "straight_through", **changes.pop("reconstruction", {})}
        return quick_recipe(reconstruction=settings, **changes)

    return make


def on_device(module: nn.Module, device: torch.device) -> bool:
    return all(tensor.device == device for tensor in (*module.parameters(), *module.buffers()))


def answers(quantized: nn.Module, images: Tensor, device: torch.device) -> Tensor:
    with torch.no_grad():
        return quantized(images.to(device)).cpu()


def learned(model: nn.Module, images: Tensor, recipe: Recipe, device: torch.device, **options: Any) -> QuantizedModel:
    """Quantized on the device, where it stays."""
    target = options.pop("target", "tensorrt")
    quantized = quantize(model.to(device), images, recipe, target, device=device, **options)
    assert on_device(quantized, device)
    assert answers(quantized, images, device).isfinite().all()
    return quantized


def test_it_refuses_what_a_gpu_refuses(device: torch.device) -> None:
    here, there, number = torch.ones(3), torch.ones(3).to(device), torch.tensor(2.0)
    assert (there * number + 1).cpu().tolist() == [3, 3, 3]
    assert there[torch.tensor([0, 2])].cpu().tolist() == [1, 1]
    for meet in (
        lambda: there + here,
        lambda: torch.cat([there, here]),
        lambda: torch.stack([there[0], number]),
        lambda: here[torch.tensor([0]).to(device)],
        lambda: number.add_(there[0]),
        lambda: torch.dot(there, here),
    ):
        with pytest.raises(TwoDevices):
            meet()
    with pytest.raises((RuntimeError, TypeError)):
        there.numpy()


def test_it_counts_each_time_that_the_host_waits(device: torch.device) -> None:
    there = torch.arange(3.0).to(device)
    with metered() as meter:
        doubled = (there * 2).view(3, 1)
    assert (meter.launches, meter.syncs) == (1, 0)
    with metered() as meter:
        waits = (doubled.sum().item(), bool(there[0] > 1), doubled.tolist(), there.nonzero(), there.cpu())
    assert meter.syncs == len(waits)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss(tiny_vit: Make, random_images: Make, recipe: Make, device: torch.device, loss: str) -> None:
    learned(tiny_vit(), random_images(16), recipe(loss), device)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_every_rounding(tiny_vit: Make, random_images: Make, recipe: Make, device: torch.device, rounding: str) -> None:
    learned(tiny_vit(), random_images(16), recipe(reconstruction={"rounding": rounding}), device)


@pytest.mark.parametrize("rewrite", REWRITES)
def test_every_rewrite(tiny_vit: Make, random_images: Make, recipe: Make, device: torch.device, rewrite: str) -> None:
    learned(tiny_vit(), random_images(16), recipe(rewrites={rewrite: True}), device)


@pytest.mark.parametrize("model", ["tiny_swin", "tiny_deit"])
def test_every_architecture(
    request: pytest.FixtureRequest, random_images: Make, recipe: Make, device: torch.device, model: str
) -> None:
    images = random_images(16, 32 if model == "tiny_swin" else 16)
    wishes = {"rewrites": {"norm": True, "heads": True}, "tuning": {"iterations": 2}}
    learned(request.getfixturevalue(model)(), images, recipe("least_squares", **wishes), device)


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_every_precision(
    tiny_vit: Make, random_images: Make, recipe: Make, device: torch.device, precision: str
) -> None:
    learned(tiny_vit(), random_images(16), recipe(reconstruction={"precision": precision}), device)


def test_weights_in_blocks_and_eight_bits(
    tiny_vit: Make, random_images: Make, recipe: Make, device: torch.device
) -> None:
    weights = {"weights": {"bits": 4, "block_size": 64}, "activations": {"bits": 16}}
    learned(tiny_vit(embed_dim=64), random_images(16), recipe(**weights), device)
    eight = {"weights": {"bits": 8}, "activations": {"bits": 8}, "tuning": {"iterations": 2}}
    learned(tiny_vit(), random_images(16), recipe(**eight), device, target="onnxruntime-cpu")


def test_patience_tuning_and_sensitivity(
    tiny_vit: Make, random_images: Make, recipe: Make, device: torch.device
) -> None:
    settings = {"iterations": 80, "patience": 1, "weight_lr": 1e-6, "scale_lr": 1e-6}
    quantized = learned(
        tiny_vit(),
        random_images(16),
        recipe("mse", reconstruction=settings, tuning={"iterations": 3}),
        device,
        sensitivity=8,
    )
    assert any(record.stopped == "converged" for record in quantized.history)
    assert {found.kind for found in quantized.sensitivity} == {"block", "layer"}


@pytest.mark.parametrize("loss", LOSSES)
def test_activations_that_do_not_fit_are_streamed(tiny_vit: Make, random_images: Make, recipe: Make, loss: str) -> None:
    for memory_bytes in (0, 2**20):
        with second_device(spare_bytes=0) as device:
            learned(tiny_vit(), random_images(16), recipe(loss), device, memory_bytes=memory_bytes)


@pytest.mark.parametrize("loss", ["mse", "brecq", "dplr"])
def test_parts_of_a_minibatch_that_was_streamed_are_its_own(
    tiny_vit: Make, random_images: Make, recipe: Make, loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A minibatch of eight images in parts of three, read ahead, also where the step is recorded."""
    sizes: list[int] = []
    learn_part = BlockLearner._part

    def part(self: BlockLearner, index: Tensor, *rest: Any) -> Any:
        sizes.append(len(index))
        for rows in self._stored():
            assert rows.ahead
            assert torch.equal(rows[index].inner, rows.tensor[index.inner])  # type: ignore[attr-defined]
        return learn_part(self, index, *rest)

    monkeypatch.setattr(BlockLearner, "_part", part)
    monkeypatch.setattr(
        budget, "DEVICE_BYTES", 3 * budget._LIVE_BYTES * 2 * 5**2
    )  # three images, two heads, five tokens
    with second_device(spare_bytes=0) as device:
        learned(tiny_vit(), random_images(16), recipe(loss), device, memory_bytes=0)
    assert sizes[:6] == [3, 3, 2] * 2


def test_an_interrupted_build_goes_on_there(
    tiny_vit: Make, random_images: Make, recipe: Make, device: torch.device, tmp_path: Path
) -> None:
    model, images = tiny_vit(), random_images(16)
    whole = learned(model, images, recipe(), device, resume=tmp_path)
    sorted(tmp_path.glob("*.safetensors"))[-1].unlink()
    again = learned(model, images, recipe(), device, resume=tmp_path)
    assert torch.equal(answers(whole, images, device), answers(again, images, device))


def unrecorded(self: Elsewhere, step: Callable[[], Any]) -> Any:
    raise RuntimeError("not today")


@pytest.mark.parametrize(
    ("loss", "rounding"),
    [*((loss, "straight_through") for loss in LOSSES), *(("dplr", rounding) for rounding in ROUNDINGS)],
)
def test_a_recorded_step_learns_what_a_called_one_does(
    tiny_vit: Make, random_images: Make, recipe: Make, monkeypatch: pytest.MonkeyPatch, loss: str, rounding: str
) -> None:
    """With three measurements, each of which what was recorded has to see."""
    settings = {"rounding": rounding, "iterations": 12, "rank": 3, "warm_up": 0.5, "batch_size": 4}
    found = []
    for record in (Elsewhere.record, unrecorded):
        monkeypatch.setattr(Elsewhere, "record", record)
        with second_device() as device, warnings.catch_warnings():
            warnings.simplefilter("error" if record is not unrecorded else "ignore", RuntimeWarning)
            model, images = tiny_vit(depth=1), random_images(12)
            quantized = learned(model, images, recipe(loss, reconstruction=settings), device)
            found.append((quantized.history, answers(quantized, images, device)))
    (history, recorded), (other, called) = found
    assert torch.equal(recorded, called)
    assert [record.curve for record in history] == [record.curve for record in other]


def waits_of(model: nn.Module, images: Tensor, recipe: Recipe, device: torch.device) -> Counter[str]:
    model.to(device)
    with metered() as meter:
        learned(model, images, recipe, device)
    return meter.waits


def test_a_block_waits_for_its_measurements_and_its_record(
    tiny_vit: Make, random_images: Make, recipe: Make, device: torch.device
) -> None:
    """Neither iterations nor layers nor images wait: twice an eigenvalue decomposition, once the integers of frozen
    offsets, once the record's numbers."""
    images, found = random_images(32), []
    for depth, iterations in ((2, 7), (4, 7), (4, 40)):
        found.append(waits_of(tiny_vit(depth=depth), images, recipe(reconstruction={"iterations": iterations}), device))
    shallow, deep, long = found
    assert deep - shallow == {"aten::_linalg_eigh": 2 * 2, "aten::_to_copy": 2 * 2}
    assert long == deep


def test_more_images_are_not_more_passes(
    tiny_vit: Make, random_images: Make, recipe: Make, device: torch.device
) -> None:
    launches = []
    for count in (64, 128):
        with metered() as meter:
            settings = {"images": count, "batch_size": 8}
            learned(tiny_vit(depth=1), random_images(count), recipe("mse", reconstruction=settings), device)
        launches.append(meter.launches)
    # Eight batches more: of the images to the device, and of what is seen while scales are searched.
    assert launches[1] - launches[0] <= 8


def test_recorded_tuning_learns_what_called_tuning_does(
    tiny_vit: Make, random_images: Make, recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = recipe(reconstruction={"iterations": 0}, tuning={"iterations": 9, "batch_size": 6, "weight_lr": 0.03})
    found = []
    for record in (Elsewhere.record, unrecorded):
        monkeypatch.setattr(Elsewhere, "record", record)
        with second_device() as device, warnings.catch_warnings(), metered() as meter:
            warnings.simplefilter("error" if record is not unrecorded else "ignore", RuntimeWarning)
            quantized = learned(tiny_vit(depth=1), random_images(12), settings, device)
            found.append((answers(quantized, random_images(12), device), meter.replays))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1] == 8 and found[1][1] == 0  # the first one warms up


@pytest.fixture(scope="module")
def quantized(tiny_vit: Make, random_images: Make, quick_recipe: Make) -> tuple[nn.Module, QuantizedModel]:
    model = tiny_vit()
    return model, quantize(model, random_images(16), quick_recipe(), "tensorrt")


def test_a_quantized_model_moves(
    quantized: tuple[nn.Module, QuantizedModel], random_images: Make, device: torch.device, tmp_path: Path
) -> None:
    original, model = quantized
    images = random_images(8)
    here = model(images)
    model.save(tmp_path / "quantized.safetensors")
    moved = load_quantized(tmp_path / "quantized.safetensors", original).to(device)
    loaded = load_quantized(tmp_path / "quantized.safetensors", moved_copy(original, device))
    for there in (moved, loaded):
        assert on_device(there, device)
        assert torch.equal(there(images.to(device)).cpu(), here)
    moved.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "quantized.safetensors").read_bytes()
    assert torch.equal(moved.cpu()(images), here)


def moved_copy(model: nn.Module, device: torch.device) -> Any:
    return copy.deepcopy(model).to(device)


def test_it_is_judged_there(
    quantized: tuple[nn.Module, QuantizedModel], random_images: Make, device: torch.device, tmp_path: Path
) -> None:
    images = random_images(8)
    here, there = quantized[1], moved_copy(quantized[1], device)
    scores = [evaluate(model, images, labels=[0] * 8, keep_outputs=True) for model in (here, there)]
    assert all((scores[0].outputs[name] == scores[1].outputs[name]).all() for name in scores[0].outputs)
    file = export_onnx(here, tmp_path / "model.onnx")
    for optimisations in (False, True):
        report = compare_stages(there, file, images.to(device), optimisations=optimisations)
        assert report.first_parting is None and report.agreement == 1


def test_it_is_exported_from_there(
    quantized: tuple[nn.Module, QuantizedModel], device: torch.device, tmp_path: Path
) -> None:
    here, there = quantized[1], moved_copy(quantized[1], device)
    export_onnx(here, tmp_path / "here.onnx")
    export_onnx(there, tmp_path / "there.onnx")
    assert (tmp_path / "there.onnx").read_bytes() == (tmp_path / "here.onnx").read_bytes()
    assert on_device(there, device)
