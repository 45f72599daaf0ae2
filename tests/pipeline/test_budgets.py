"""`--recipe auto`: what is asked, what is chosen, and that what was chosen makes the same files again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import fimaq_deploy as fd
from fimaq_deploy.data.bundled import bundled_images
from fimaq_deploy.data.intake import as_source
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.bundled import BUNDLED
from fimaq_deploy.pipeline.budgets import Search
from fimaq_deploy.pipeline.builds import BuildResult
from fimaq_deploy.pipeline.costs import Costs
from fimaq_deploy.pipeline.measures import Measures
from fimaq_deploy.pipeline.request import Request
from fimaq_deploy.pipeline.steps import Counter
from fimaq_deploy.report.schema import Mix

QUICK = ["reconstruction.iterations=2", "reconstruction.images=16", "tuning.iterations=0", "scale_search.candidates=4"]


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({}, "^--recipe auto needs a budget: --max-drop, --size-budget or --speed-budget$"),
        ({"size_budget": 1, "speed_budget": 1.5}, "^--size-budget and --speed-budget: give one of them"),
        ({"size_budget": float("nan")}, "^--size-budget nan: expected"),
        ({"size_budget": -1}, "^--size-budget -1: expected 0 to"),
        ({"speed_budget": 17}, "^--speed-budget 17: expected 1 to 16$"),
        ({"speed_budget": 2, "gpu": "L4"}, r"^--gpu L4: none of the targets runs on a GPU \(onnxruntime-cpu\)"),
        ({"recipe": "w8a8", "gpu": "L4"}, "^--gpu prices formats for --recipe auto, and no other"),
        (
            {"speed_budget": 2, "gpu": "T4", "sm": 89, "targets": "tensorrt-rtx"},
            "^--gpu T4 is of generation 75, and engines are for --sm 89: name a newer card$",
        ),
        ({"size_budget": 1, "settings": ["rewrites=auto"]}, "^rewrites: auto is measured for one recipe, and --recipe"),
        ({"recipe": "w8a8", "size_budget": 1}, "^--size-budget chooses formats for --recipe auto, and no other"),
    ],
)
def test_a_budget_that_cannot_be_meant_is_one_line(asked: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError, match=why):
        Request.of("vit_digits", **{"recipe": "auto", "targets": "onnxruntime-cpu", **asked})


def test_a_bare_onnx_file_has_no_budget() -> None:
    with pytest.raises(UserError, match=r"^--recipe auto needs the PyTorch model: name a recipe for an ONNX file$"):
        Request.of("model.onnx", recipe="auto", targets="onnxruntime-cpu", size_budget=1)


def test_the_command_of_a_build_asks_for_the_same_budget() -> None:
    request = Request.of("vit_digits", recipe="auto", settings=QUICK, targets="onnxruntime-cpu", size_budget=0.25)
    words = request.command().split()
    assert words[words.index("--recipe") + 1] == "auto" and words[words.index("--size-budget") + 1] == "0.25"
    assert "reconstruction.iterations=2" in words and not any(word.startswith("weights.") for word in words)
    assert request.as_dict()["budget"] == {"megabytes": 0.25, "speed": None}


def mix_of(result: BuildResult | None) -> Mix:
    assert result is not None and result.report.mix is not None
    return result.report.mix


@pytest.mark.slow
def test_a_file_within_its_budget_and_its_recipe_makes_it_again(tmp_path: Path) -> None:
    budget, common = 0.25, {"targets": ["onnxruntime-cpu"], "device": "cpu", "replay": 0}
    result = fd.build("vit_digits", recipe="auto", settings=QUICK, size_budget=budget, out=tmp_path / "auto", **common)
    mix = mix_of(result)
    file = tmp_path / "auto" / "model.onnx"
    assert file.stat().st_size <= 1e6 * budget and abs(file.stat().st_size - 1e6 * mix.chosen.megabytes) < 300
    assert set(mix.formats.values()) == {"w4a8", "w8a8"} and 1 <= len(mix.probes) <= 2
    assert mix.built is not None and 1e6 * mix.built.megabytes == file.stat().st_size
    assert [one.target for one in mix.built.times] == ["onnxruntime-cpu"]
    again = fd.build("vit_digits", recipe=tmp_path / "auto" / "recipe.yaml", out=tmp_path / "again", **common)
    assert again is not None and again.report.mix is None
    assert (tmp_path / "again" / "model.onnx").read_bytes() == file.read_bytes()
    with pytest.raises(UserError, match=r"^--size-budget 0\.01: the smallest mix takes 0\.\d+ MB"):
        fd.build("vit_digits", recipe="auto", settings=QUICK, size_budget=0.01, out=tmp_path / "none", **common)


@pytest.mark.slow
def test_a_budget_of_accuracy_is_met_by_the_smallest_that_was_tried(tmp_path: Path) -> None:
    result = fd.build(
        "vit_digits", recipe="auto", settings=QUICK, max_drop=1.0, targets=["onnxruntime-cpu"], out=tmp_path / "a"
    )
    mix = mix_of(result)
    kept = [one.point.megabytes for one in mix.probes if one.drop is not None and one.drop <= 1.0]
    assert mix.chosen.megabytes == min(kept) and result is not None and not result.failures


@pytest.mark.slow
def test_a_budget_of_time_leaves_floats_where_they_spare_most(search: Any) -> None:
    mix = search("a", speed_budget=1.1, targets="tensorrt-rtx", gpu="L4").run()
    assert mix.chosen.speed >= 1.1 and set(mix.formats.values()) == {"w8a8", "floats"}
    assert mix.costs == "roofline of L4"
    with pytest.raises(UserError, match=r"^--speed-budget 9: the products of the fastest mix are 1\.\d+ times as fast"):
        search("a", speed_budget=9, targets="tensorrt-rtx", gpu="L4").run()


@pytest.mark.slow
@pytest.mark.parametrize("model", ["vit_digits", "swin_digits"])
def test_every_layer_that_has_formats_has_a_time(search: Any, tmp_path: Path, model: str) -> None:
    images = bundled_images(BUNDLED[model].task, "calibration", 8)
    request = Request.of(
        model, recipe="auto", settings=TINY, targets=["onnxruntime-cpu", "tensorrt-rtx"], gpu="A10", size_budget=1
    )
    found = Search(request, fd.load_model(model), images, images, Measures({}), tmp_path, lambda *_: None)
    mix = found.run()
    assert mix.costs == "measured on this CPU with onnxruntime-cpu; roofline of A10"
    (kept,) = tmp_path.glob("costs-*.json")
    work = Costs.from_json(kept.read_bytes()).work
    assert set(work) == set(mix.formats) and all(min(each.values()) > 0 for each in work.values())


@pytest.mark.slow
def test_4_bit_floats_are_taken_where_time_is_short(tmp_path: Path, tiny_vit: Any, random_images: Any) -> None:
    """One row an image and wide layers: bytes of weights decide, and 4-bit floats have the fewest."""
    model, images = tiny_vit(img_size=8, patch_size=8, embed_dim=256, depth=1), random_images(4, 8)
    settings = ["reconstruction.iterations=0", "tuning.iterations=0", "scale_search.candidates=1"]
    asked = {"recipe": "auto", "settings": settings, "targets": "tensorrt-rtx", "sm": 120, "device": "cpu"}

    def run(**more: Any) -> Mix:
        request = Request.of("vit_digits", **asked, **more)
        source = as_source(images)
        return Search(request, model, source, source, Measures({}), tmp_path, lambda *_: None).run()

    fast = run(speed_budget=2.5, gpu="RTX 5090")
    assert fast.chosen.speed >= 2.5 and "nvfp4" in fast.formats.values()
    assert "nvfp4" not in fast.losses["patch_embed.proj"] and "nvfp4" in fast.losses["blocks.0.mlp.fc1"]
    assert not any("nvfp4" in each for each in run(size_budget=9).losses.values()), "they save no bytes of model.onnx"


@pytest.mark.slow
def test_a_mix_is_tried_for_the_gpus_that_it_is_built_for(tmp_path: Path, tiny_vit: Any, random_images: Any) -> None:
    """By --sm alone FP8 is a format, and attention over 37 tokens with heads of 24 is in FP8, as in the build."""
    model, images = tiny_vit(img_size=24, patch_size=4, embed_dim=48, depth=1), random_images(4, 24)
    settings = ["reconstruction.iterations=0", "tuning.iterations=0", "scale_search.candidates=1"]
    request = Request.of(
        "vit_digits", recipe="auto", settings=settings, targets="tensorrt-rtx", sm=89, size_budget=1, device="cpu"
    )
    search = Search(request, model, as_source(images), as_source(images), Measures({}), tmp_path, lambda *_: None)
    mix = search.run()
    assert all(list(each) == ["w4a8", "w8a8", "fp8"] for each in mix.losses.values())
    assert ("fp8", "attention") in search._learn(mix.formats).plan.float_products


TINY = ["reconstruction.iterations=1", "reconstruction.images=8", "tuning.iterations=1", "scale_search.candidates=2"]


@pytest.fixture
def search(tiny_vit: Any, random_images: Any, tmp_path: Path) -> Callable[..., Search]:
    torch.manual_seed(0)
    model, images = tiny_vit(embed_dim=32), random_images(8)

    def make(state: str, count: Counter = lambda *_: None, **asked: Any) -> Search:
        common = {"recipe": "auto", "settings": TINY, "targets": "onnxruntime-cpu", "device": "cpu", **asked}
        request = Request.of("vit_digits", **common)
        return Search(request, model, as_source(images), as_source(images), Measures({}), tmp_path / state, count)

    return make


@pytest.mark.slow
def test_searches_with_other_budgets_share_a_state_and_find_what_each_finds_alone(search: Any) -> None:
    wide, narrow = search("one", size_budget=1).run(), search("two", size_budget=1)
    smallest = wide.front[0].megabytes
    between = (smallest + wide.chosen.megabytes) / 2
    alone = search("two", size_budget=between).run()
    shared = search("one", size_budget=between).run()
    assert shared.formats == alone.formats != wide.formats and shared.losses == alone.losses
    assert narrow.chosen()[1].formats == wide.formats, "and what is kept of one is not another's"
    assert len(list((narrow.state).glob("mix-*.json"))) == 1


class Killed(Exception):
    """Where a process would have ended."""


@pytest.mark.slow
@pytest.mark.parametrize("last", [1, 2])
def test_a_choice_goes_on_where_it_was_killed(search: Any, last: int) -> None:
    """In the second format, or in the first mix."""

    def count(done: int, total: int, what: str) -> None:
        if done == last:
            raise Killed

    asked = {"speed_budget": 1.1, "targets": "tensorrt-rtx", "gpu": "L4"}
    whole = search("whole", **asked).chosen()
    with pytest.raises(Killed):
        search("killed", count, **asked).chosen()
    recipe, record = search("killed", **asked).chosen()
    assert recipe == whole[0] and record.formats == whole[1].formats and record.losses == whole[1].losses
