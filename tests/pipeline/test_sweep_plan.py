from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from fimaq_deploy import UserError
from fimaq_deploy.models.preprocessing import Preprocessing
from fimaq_deploy.pipeline.arguments import Budget
from fimaq_deploy.pipeline.request import Request
from fimaq_deploy.pipeline.sweep_plan import Cell, ModelEntry, Plan, RecipeEntry
from fimaq_deploy.pipeline.sweeps import sweep

WHOLE = """
models: [vit_digits, {name: swin_digits, weights: random}]
recipes: [w8a8, {recipe: w4a8, name: longer, set: [reconstruction.iterations=500]}]
targets: [onnxruntime-cpu, [onnxruntime-cpu, tensorrt-rtx]]
set: [tuning.iterations=0]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "trial.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def cells(folder: Path, text: str) -> list[Cell]:
    return Plan.load(written(folder, text)).cells()


def test_the_cells_are_the_product_in_order(tmp_path: Path) -> None:
    found = cells(tmp_path, WHOLE)
    assert [cell.name for cell in found] == [
        f"{model}-{recipe}-{target}"
        for model in ("vit_digits", "swin_digits")
        for recipe in ("w8a8", "longer")
        for target in ("onnxruntime-cpu", "onnxruntime-cpu+tensorrt-rtx")
    ]
    assert {cell.recipe.tuning.iterations for cell in found} == {0}
    assert {cell.title: cell.recipe.reconstruction.iterations for cell in found}["longer"] == 500
    assert found[-1].model.weights == "random"


def test_one_target_is_not_part_of_the_name(tmp_path: Path) -> None:
    (cell,) = cells(tmp_path, "models: [vit_digits]\nrecipes: [w8a8]\ntargets: [onnxruntime-cpu]")
    assert (cell.name, cell.targets) == ("vit_digits-w8a8", ("onnxruntime-cpu",))


def test_targets_default_to_what_works_here(tmp_path: Path) -> None:
    (cell,) = cells(tmp_path, "models: [vit_digits]\nrecipes: [w8a8]")
    assert "onnxruntime-cpu" in cell.targets


def test_the_folder_is_named_after_the_file_unless_it_says_another(tmp_path: Path) -> None:
    text = "models: [vit_digits]\nrecipes: [w8a8]\n"
    assert Plan.load(written(tmp_path, text)).out == "build/trial"
    assert Plan.load(written(tmp_path, f"{text}out: elsewhere")).out == "elsewhere"


def test_a_recipe_of_the_users_own_is_a_path(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("weights: {bits: 3}")
    (cell,) = cells(tmp_path, f"models: [vit_digits]\nrecipes: ['{tmp_path / 'mine.yaml'}']")
    assert (cell.title, cell.recipe.weights.bits) == ("mine", 3)


@pytest.mark.parametrize(
    "change",
    [
        ("w4a8, name", "w4a4, name"),
        ("=500", "=501"),
        ("tuning.iterations=0", "tuning.iterations=1"),
        ("weights: random", "weights: pretrained"),
        ("tensorrt-rtx", "tensorrt"),
    ],
)
def test_a_cell_is_another_when_anything_about_it_changes(tmp_path: Path, change: tuple[str, str]) -> None:
    before, again, after = cells(tmp_path, WHOLE), cells(tmp_path, WHOLE), cells(tmp_path, WHOLE.replace(*change))
    assert [cell.identity() for cell in before] == [cell.identity() for cell in again]
    assert before[-1].identity() != after[-1].identity()
    assert before[0].identity(1) != before[0].identity(2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: [vit_digits]", "field 'recipes' is missing: expected models, recipes"),
        ("recipe: [w8a8]\nmodels: [vit_digits]\nrecipes: [w8a8]", "unknown field 'recipe'; did you mean 'recipes'?"),
        ("models: []\nrecipes: [w8a8]", "field 'models': list should have at least 1 item"),
        ("models: 3\nrecipes: [w8a8]", "field 'models': input should be a valid list, got 3"),
        ("models: [{weights: random}]\nrecipes: [w8a8]", "field 'models.0.name' is missing"),
        ("models: [{name: vit_digits, image: x}]\nrecipes: [w8a8]", "unknown field 'models.0.image'"),
        ("models: [vit_digits]\nrecipes: [w8a8]\nseed: x", "field 'seed': input should be a valid integer"),
        ("[1, 2]", "holds list: expected fields such as 'models: [vit_digits]'"),
        ("models: [", "is not YAML"),
        ("[" * 3000, "is not YAML"),
        ("models: [vit_digits]\nmodels: [swin_digits]\nrecipes: [w8a8]", "key 'models' is given twice"),
        ("models: [vit_digits]\nrecipes: [w8a8]\nmax_drop: .nan", "field 'max_drop': input should be a finite number"),
        ("models: [vit_digits]\nrecipes: [w8a8]\nmax_drop: -5", "field 'max_drop'"),
        ("models: [vit_digits]\nrecipes: [w8a8]\nmax_drop: .inf", "field 'max_drop'"),
        ("models: [vit_digits]\nrecipes: [w8a8]\nseed: -1", "field 'seed'"),
        ("models: [vit_digits]\nrecipes: [w8a8]\nseed: 9223372036854775808", "field 'seed'"),
        (f"models: [vit_digits]\nrecipes: [w8a8]\nseed: 0x{'f' * 5000}", "field 'seed'"),
        ("models: [vit_digits]\nrecipes: [w8a8]\nsensitivity: 1000000000", "field 'sensitivity'"),
        ("models: [vit_digits]\nrecipes: [w8a8]\nout: ''", "field 'out'"),
        ("\0", "is not YAML"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        Plan.load(written(tmp_path, text))
    assert message in str(error.value)
    assert "trial.yaml" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: [vit_digit]\nrecipes: [w8a8]", "unknown model 'vit_digit': did you mean vit_digits"),
        ("models: [resnet50]\nrecipes: [w8a8]", "is a ResNet: a convolutional network"),
        ("models: ['nowhere:model']\nrecipes: [w8a8]", "no module 'nowhere'"),
        ("models: [vit_digits]\nrecipes: [w8a9]", "no recipe 'w8a9'"),
        ("models: [vit_digits]\nrecipes: [{recipe: w8a8, set: [weights.bit=4]}]", "unknown field 'weights.bit'"),
        ("models: [vit_digits]\nrecipes: [w8a8]\ntargets: [tensorflow]", "unknown target 'tensorflow'"),
        ("models: [vit_digits]\nrecipes: [w8a8, w8a8]", "two builds of the sweep are called vit_digits-w8a8"),
    ],
)
def test_what_no_build_would_take_is_one_line_before_anything_is_built(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        cells(tmp_path, text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"cannot read sweep .*none\.yaml: no such file or directory; name the YAML file"
    ):
        Plan.load(tmp_path / "none.yaml")


def test_how_images_are_read_is_what_build_takes(tmp_path: Path) -> None:
    """Every option of `build` about it has a field, and arrives."""
    said = "class_map: names.txt, image_size: 16x24, in_chans: 1, mean: 0.5, std: [0.2], crop: 0.9, crop_mode: squash"
    text = f"models: [{{name: vit_tiny_patch16_224, {said}, interpolation: bilinear, bit_depth: 12}}]\nrecipes: [w8a8]"
    plan = Plan.load(written(tmp_path, text))
    (cell,) = plan.cells()
    request = cell.request(plan, tmp_path)
    assert (request.class_map, request.sizes.image_size, request.sizes.in_chans) == ("names.txt", (16, 24), 1)
    assert request.preprocessing == Preprocessing((0.5,), (0.2,), "bilinear", 0.9, "squash", 12)
    assert cell.identity() != cells(tmp_path, text.replace("0.9", "0.8"))[0].identity()


def test_what_a_build_of_a_detector_takes_a_sweep_takes(tmp_path: Path) -> None:
    said = "eval_coco: annotations.json, eval_maps: maps, backbone: backbone.body, divergence: detections"
    text = f"models: [{{name: vit_digits, {said}}}]\nrecipes: [w8a8]\n"
    files = "opset: 17\nweight_storage: int8\nsm: 89\nreplay: 2\nembed_preprocessing: true\n"
    plan = Plan.load(written(tmp_path, text + files))
    request = plan.cells()[0].request(plan, tmp_path)
    assert (request.eval_coco, request.eval_maps) == ("annotations.json", "maps")
    assert (request.backbone, request.divergence) == ("backbone.body", "detections")
    assert (request.opset, request.weight_storage, request.sm, request.replay) == (17, "int8", 89, 2)
    assert request.embed_preprocessing
    for field in ("annotations.json", "maps,", "backbone.body", "detections"):
        changed = cells(tmp_path, (text + files).replace(field, f"other{',' if field.endswith(',') else ''}", 1))
        assert changed[0].identity() != plan.cells()[0].identity() or field == "detections"


def test_every_option_of_a_build_has_a_field() -> None:
    options = set(inspect.signature(Request.of).parameters)
    fields = {*ModelEntry.model_fields, *Plan.model_fields, *RecipeEntry.model_fields, "model", "preprocessing"}
    assert options <= fields


BUDGETS = """
models: [vit_digits]
recipes: [{recipe: auto, size_budget: 0.25}, {recipe: auto, speed_budget: 1.5, gpu: rtx 4090, name: fast}, w8a8]
targets: [[onnxruntime-cpu, tensorrt-rtx]]
set: [tuning.iterations=0]
"""


def test_a_budget_arrives_and_is_part_of_what_a_cell_is(tmp_path: Path) -> None:
    plan = Plan.load(written(tmp_path, BUDGETS))
    sized, fast, plain = plan.cells()
    assert [cell.name for cell in (sized, fast, plain)] == [
        "vit_digits-auto-0.25MB",
        "vit_digits-fast",
        "vit_digits-w8a8",
    ]
    asked = [cell.request(plan, tmp_path) for cell in (sized, fast, plain)]
    assert [one.budget for one in asked] == [Budget(0.25), Budget(speed=1.5), None]
    assert [one.gpu for one in asked] == [None, "RTX 4090", None]
    assert [one.recipe for one in asked] == [cell.recipe for cell in (sized, fast, plain)]
    assert asked[0].recipe.name == "auto" and asked[0].recipe.tuning.iterations == 0
    for old, new in (("0.25", "0.3"), ("1.5", "1.6"), ("4090", "5090")):
        other = cells(tmp_path, BUDGETS.replace(old, new))
        assert [one.identity() != two.identity() for one, two in zip(plan.cells(), other, strict=True)] == [
            old == "0.25",
            old != "0.25",
            False,
        ]


def test_accuracy_alone_is_a_budget(tmp_path: Path) -> None:
    plan = Plan.load(written(tmp_path, "models: [vit_digits]\nrecipes: [auto]\nmax_drop: 0.5"))
    (cell,) = plan.cells()
    assert cell.name == "vit_digits-auto" and cell.request(plan, tmp_path).budget == Budget()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("recipe: auto", "--recipe auto needs a budget: --max-drop, --size-budget or --speed-budget"),
        ("recipe: w8a8, size_budget: 1", "--size-budget chooses formats for --recipe auto, and no other"),
        ("recipe: w8a8, speed_budget: 2", "--speed-budget chooses formats for --recipe auto, and no other"),
        ("recipe: w8a8, gpu: L4", "--gpu prices formats for --recipe auto, and no other"),
        ("recipe: auto, size_budget: 1, speed_budget: 2", "--size-budget and --speed-budget: give one of them"),
        ("recipe: auto, size_budget: -1", "--size-budget -1.0: expected 0 to"),
        ("recipe: auto, speed_budget: 2, gpu: RTX 4091", "no rates are known of it; expected one like RTX 4090"),
        ("recipe: auto, size_budget: 1, set: [rewrites=auto]", "rewrites: auto is measured for one recipe"),
        ("recipe: auto, size_budget: x", "field 'recipes.0.size_budget': input should be a valid number"),
        ("recipe: auto, size_budget: .nan", "field 'recipes.0.size_budget': input should be a finite number"),
        ("recipe: auto, gpu: 4090", "field 'recipes.0.gpu': input should be a valid string"),
        ("recipe: auto, size_budge: 1", "did you mean 'size_budget'?"),
    ],
)
def test_a_budget_that_cannot_be_meant_is_one_line_before_anything_is_built(
    tmp_path: Path, entry: str, message: str
) -> None:
    path = written(tmp_path, f"models: [vit_digits]\nrecipes: [{{{entry}}}]\ntargets: [tensorrt-rtx]")
    with pytest.raises(UserError) as error:
        sweep(path, out=tmp_path / "out")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("backbon: x", "unknown field 'models.0.backbon'; did you mean 'backbone'?"),
        ("eval_coc: x", "unknown field 'models.0.eval_coc'; did you mean 'eval_coco'"),
        ("divergance: x", "unknown field 'models.0.divergance'; did you mean 'divergence'?"),
        ("seed: 1", "unknown field 'models.0.seed'; expected backbone, "),
    ],
)
def test_nearest_names_are_those_of_the_entry(tmp_path: Path, field: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        Plan.load(written(tmp_path, f"models: [{{name: vit_digits, {field}}}]\nrecipes: [w8a8]"))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("divergence: detection", "--divergence 'detection': did you mean 'detections'"),
        ("divergence: mine", "--divergence 'mine': expected detections, classes or package.module:function"),
        ("backbone: ''", "--backbone : expected the name of a module of the model"),
        ("eval_coco: ''", "--eval-coco"),
        ("eval_maps: ''", "--eval-maps"),
        ("crop: 7", "--crop"),
        ("mean: x", "--mean x: expected numbers"),
        ("std: 0", "--std"),
        ("crop_mode: round", "--crop-mode"),
        ("image_size: [1, 2, 3]", "--image-size"),
        ("images: ''", "--images"),
        ("class_map: ''", "--class-map"),
    ],
)
def test_how_images_cannot_be_read_is_one_line(tmp_path: Path, field: str, message: str) -> None:
    plan = Plan.load(written(tmp_path, f"models: [{{name: vit_tiny_patch16_224, {field}}}]\nrecipes: [w8a8]"))
    with pytest.raises(UserError, match=message) as error:
        plan.cells()[0].request(plan, tmp_path)
    assert str(error.value).startswith("build vit_tiny_patch16_224-w8a8 of the sweep: ")
