from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fimaq_deploy import Recipe, UserError, build, quantize
from fimaq_deploy.engines.runtimes import every_runtime
from fimaq_deploy.models.load import load_model
from fimaq_deploy.pipeline.arguments import LARGEST_SEED
from fimaq_deploy.pipeline.request import Request, changed_settings


def request(model: str = "swin_digits", **changes: Any) -> Request:
    return Request.of(model, **{"targets": "onnxruntime-cpu", "out": "build/x", "device": "cpu", **changes})


def test_what_is_left_open_is_decided() -> None:
    asked = Request.of("vit_digits")
    assert asked.device == ("cuda" if torch.cuda.is_available() else "cpu")
    assert asked.targets == tuple(one.name for one in every_runtime() if None in one.availability())
    assert (asked.recipe, asked.out) == (Recipe.load("w8a8"), Path("build/vit_digits"))
    rest = (asked.weights, asked.images, asked.eval_images, asked.seed, asked.max_drop, asked.sensitivity)
    assert rest == ("pretrained", None, None, 0, None, 0)


def test_what_is_given_is_kept_as_it_was_written(tmp_path: Path) -> None:
    asked = request(images=tmp_path / "..", weights="./w.safetensors", seed=np.int64(3), max_drop=1, sensitivity=2)
    assert (asked.images, asked.weights, asked.seed) == (f"{tmp_path}/..", "./w.safetensors", 3)
    assert (asked.max_drop, asked.sensitivity, type(asked.seed)) == (1.0, 2, int)


def test_settings_change_the_recipe_whatever_it_is() -> None:
    changed = Recipe.load("w4a8").replace(weights={"bits": 3})
    assert request(recipe="w4a8", settings=["weights.bits=3"]).recipe == changed
    assert request(recipe=Recipe.load("w4a8"), settings=["weights.bits=3"]).recipe == changed


@pytest.mark.parametrize("seed", [0, 1, LARGEST_SEED])
def test_a_seed_is_any_whole_number_of_63_bits(seed: int) -> None:
    assert request(seed=seed).seed == seed


def test_a_model_learns_with_the_largest_seed(tiny_vit, random_images, quick_recipe) -> None:
    recipe = quick_recipe(reconstruction={"iterations": 1}, rewrites={"rotation": True})
    quantized = quantize(tiny_vit(), random_images(16), recipe, seed=LARGEST_SEED)
    assert quantized.seed == LARGEST_SEED
    assert load_model("vit_t", "random", seed=LARGEST_SEED).training is False


NO_WHOLE_NUMBERS = [-1, LARGEST_SEED + 1, 10**5000, 1.0, True, "1", float("nan"), None]


@pytest.mark.parametrize("value", NO_WHOLE_NUMBERS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("name", ["seed", "sensitivity"])
def test_a_seed_and_a_number_of_images_are_whole_numbers(name: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"^--{name} .*: expected a whole number from 0 to {LARGEST_SEED}$") as caught:
        request(**{name: value})
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("value", [-0.5, float("nan"), float("inf"), True, "1"])
def test_a_drop_is_a_number_of_at_least_0(value: object) -> None:
    with pytest.raises(UserError, match=r"^--max-drop .*: expected a number of at least 0$"):
        request(max_drop=value)


@pytest.mark.parametrize("device", ["tpu", "cuda:99", "", "cpu:x", torch.device("cuda", 98), 0, ["cpu"]])
def test_a_device_that_is_not_here_is_one_line(device: object) -> None:
    with pytest.raises(UserError) as caught:
        request(device=device)
    assert "device" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": []}, "--target []: expected names of targets; without any it is all that work here"),
        ({"targets": ["onnxruntime-cpu", 3]}, "--target 3: expected the name of a target"),
        ({"targets": 3}, "--target 3: expected names of targets"),
        ({"targets": "cuda"}, "unknown target 'cuda'"),
        ({"images": 3}, "--images is a int: expected a path"),
        ({"images": ""}, "--images '': expected a path"),
        ({"eval_images": b"folder"}, "--eval-images is a bytes: expected a path"),
        ({"eval_images": "a\0b"}, "--eval-images 'a\\x00b': expected a path"),
        ({"weights": " "}, "--weights ' ': expected a path"),
        ({"out": ""}, "--out '': expected a path"),
        ({"recipe": 8}, "--recipe is a int: expected a path"),
        ({"recipe": {"weights": {"bits": 4}}}, "--recipe is a dict: expected a path"),
        ({"recipe": "w8a9"}, "no recipe 'w8a9'"),
        ({"settings": ["weights.bit=4"]}, "recipe w8a8: unknown field 'weights.bit'"),
        ({"model": "swin_digit"}, "unknown model 'swin_digit'"),
        ({"task": "classe"}, "task 'classe': expected one of"),
        ({"evaluate": 3}, "--evaluate is a int: expected a function, or package.module:function"),
        ({"min_agreement": 101}, "--min-agreement 101: expected 0 to 100"),
        ({"min_agreement": float("nan")}, "--min-agreement nan: expected 0 to 100"),
        ({"min_cosine": -2}, "--min-cosine -2: expected -1 to 1"),
    ],
)
def test_what_cannot_be_meant_is_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        request(**changes)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_module_in_place_of_a_name_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^--model is a \w+: expected a name, or package\.module:factory"):
        build(load_model("vit_digits"), out=tmp_path / "out")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_changed_preset_is_spelt_as_settings() -> None:
    recipe = Recipe.load("w4a4").replace(head={"weight_bits": None}, rewrites={"norm": False})
    assert set(changed_settings(recipe)) == {"head.weight_bits=null", "rewrites.norm=False"}
    assert Recipe.load("w4a4").with_settings(changed_settings(recipe)) == recipe


def test_a_recipe_of_the_users_own_is_named_by_the_saved_file() -> None:
    command = request(recipe=Recipe(name="mine")).command()
    assert "--recipe build/x/recipe.yaml" in command
    assert "--set" not in command


def test_odd_paths_are_quoted() -> None:
    assert shlex.split(request(images="my images").command())[7] == "my images"


def test_the_command_says_all_that_was_asked() -> None:
    asked = request(images="i", eval_images="e", seed=3, max_drop=0.5, sensitivity=4, recipe="w4a8", min_cosine=0.9)
    words = shlex.split(asked.command())
    options = {
        "--images": "i",
        "--eval-images": "e",
        "--seed": "3",
        "--max-drop": "0.5",
        "--sensitivity": "4",
        "--min-cosine": "0.9",
    }
    for option, value in {**options, "--recipe": "w4a8", "--device": "cpu", "--out": "build/x"}.items():
        assert words[words.index(option) + 1] == value


def test_only_what_decides_the_numbers_decides_whether_to_resume() -> None:
    asked = request()
    assert asked.as_dict() == replace(asked, max_drop=1.0, sensitivity=3).as_dict()
    assert asked.as_dict() != replace(asked, seed=1).as_dict()


@pytest.mark.parametrize("preset", Recipe.presets())
def test_the_settings_of_a_recipe_make_it_again_layers_and_all(preset: str) -> None:
    layers = 'layers={"blocks.*.mlp.fc2": {activations: {bits: 8}}, head: {quantize: never}}'
    changed = Recipe.load(preset).with_settings([layers, "reconstruction.iterations=3", "head.weight_bits=null"])
    assert Recipe.load(preset).with_settings(changed_settings(changed)) == changed


GENERATIONS = (75, 80, 86, 87, 89, 90, 100, 103, 110, 120, 121)  # from Turing to Blackwell, of cards, Jetsons and racks


@pytest.mark.parametrize("sm", GENERATIONS)
@pytest.mark.parametrize("target", [each.name for each in every_runtime()])
def test_a_gpu_that_a_target_makes_no_engine_for_is_refused_first(sm: int, target: str) -> None:
    """TensorRT-RTX compiles for a list; an engine for later GPUs does not run on the one that was asked for."""
    if target != "tensorrt-rtx" or sm in (75, 80, 86, 89, 120, 121):
        assert Request.of("vit_digits", sm=sm, targets=target).sm == sm
        return
    with pytest.raises(UserError) as refused:
        Request.of("vit_digits", sm=sm, targets=("onnxruntime-cpu", target))
    assert str(refused.value) == (
        f"--sm {sm}: target tensorrt-rtx makes no engine for compute capability {sm / 10:.1f}, it compiles for 7.5, "
        "8.0, 8.6, 8.9, 12.0, 12.1 only: name one of these as the oldest, or name --target tensorrt on such a GPU"
    )


def test_the_oldest_gpu_is_a_generation_and_part_of_the_command() -> None:
    asked = Request.of("vit_digits", sm=89)
    assert asked.sm == 89 and "--sm 89" in asked.command() and asked.as_dict()["sm"] == 89
    plain = Request.of("vit_digits")
    assert "--sm" not in plain.command() and "sm" not in plain.as_dict()
    for wrong in (8, 7, "89", 8.9, True):
        with pytest.raises(UserError, match="--sm"):
            Request.of("vit_digits", sm=wrong)  # type: ignore[arg-type]
