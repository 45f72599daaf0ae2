"""One argument of a build at a time: what a user may have meant by it, or one line that says why not."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

from fimaq_deploy.calibration.rest import Whole as Divergence
from fimaq_deploy.calibration.rest import find_divergence
from fimaq_deploy.data.intake import Images
from fimaq_deploy.engines.runner import ComputeCapability
from fimaq_deploy.engines.runtimes import every_runtime, find_runtime
from fimaq_deploy.engines.tensorrt_library import FAMILY, not_for
from fimaq_deploy.errors import UserError, shown, within
from fimaq_deploy.export.opset import check_storage
from fimaq_deploy.measure.gpus import find_gpu
from fimaq_deploy.measure.own import OwnFunction
from fimaq_deploy.models.devices import find_device
from fimaq_deploy.models.names import is_onnx, require_known
from fimaq_deploy.recipe import AUTO, Recipe
from fimaq_deploy.target import WeightStorage, find_target, since
from fimaq_deploy.target.kernels import in_words

LARGEST_SEED = 2**63 - 1
OLDEST_SM, LATEST_SM = 75, 999  # Turing, and what nobody has built yet
REPLAYED = 8  # images that a build keeps with their outputs

FASTEST = 16  # times as fast as floats: nothing is, and a budget beyond is a slip

_AUTO_LEARNS_AS = "w4a8"


@dataclass(frozen=True)
class Budget:
    """What `--recipe auto` has to keep; with neither it is --max-drop.

    megabytes: of model.onnx. speed: how many times as fast as in floats matrix products have to be (`pipeline.costs`).
    """

    megabytes: float | None = None
    speed: float | None = None


def default_out(model: str) -> str:
    """`build/MODEL`; a `package.module:factory` is named by its factory, an ONNX file by its own name."""
    if is_onnx(model):
        return str(Path("build") / Path(model).stem)
    return str(Path("build") / model.rpartition(":")[2].replace("/", "_"))


def resolve_targets(asked: str | Sequence[str] | None) -> tuple[str, ...]:
    """The targets asked for, or all that can be compiled or run on this machine.

    Raises:
        UserError: an unknown target, or none.
    """
    if asked is None:
        return tuple(runtime.name for runtime in every_runtime() if None in runtime.availability())
    names = [asked] if isinstance(asked, str) else asked
    if not isinstance(names, Sequence) or not names:
        raise UserError(f"--target {shown(asked)}: expected names of targets; without any it is all that work here")
    return tuple(dict.fromkeys(target_name(name) for name in names))


def storage_for(asked: str, opset: int, targets: Sequence[str], sm: int | None) -> WeightStorage:
    """How weights of at most four bits are stored in the files of a build.

    Raises:
        UserError: no such storage, or the opset or a target on the oldest GPU cannot read it.
    """
    storage = check_storage(asked, opset)
    for name in targets:
        refusal = since(find_target(name), sm).storage_refusal(storage)
        if refusal:
            raise UserError(f"--weight-storage {asked}: {refusal}")
    return storage


def target_name(name: object) -> str:
    if not isinstance(name, str):
        raise UserError(f"--target {shown(name)}: expected the name of a target")
    return find_runtime(name).name


def require_name(model: object) -> None:
    if not isinstance(model, str):
        raise UserError(
            f"--model is a {type(model).__name__}: expected a name, or package.module:factory for a module of your own"
        )
    if not is_onnx(model):
        require_known(model)


def require_of_onnx(weights: object, sensitivity: object, backbone: object, recipe: object) -> None:
    """What asks for a module."""
    if weights != "pretrained":
        raise UserError(f"--weights {shown(weights)}: an ONNX file brings its own; leave it out")
    if sensitivity:
        raise UserError("--sensitivity needs the PyTorch model: an ONNX file has no blocks to spare one by one")
    if backbone is not None:
        raise UserError("--backbone needs the PyTorch model: an ONNX file is quantized as a whole")
    if recipe == AUTO:
        raise UserError(f"--recipe {AUTO} needs the PyTorch model: name a recipe for an ONNX file")


def require_decided(recipe: Recipe, *, onnx: bool, budget: bool) -> None:
    """What cannot choose its rewrites by trials."""
    if recipe.rewrites != AUTO:
        return
    if onnx:
        raise UserError(f"rewrites: {AUTO} needs the PyTorch model: an ONNX file is not rewritten")
    if budget:
        raise UserError(
            f"rewrites: {AUTO} is measured for one recipe, and --recipe {AUTO} tries several: build with the first, "
            "and name the switches of its recipe.yaml for the second"
        )


def require_bank(bank: object, maps: object) -> None:
    if maps is not None and bank is None:
        raise UserError("--bank-maps are maps of the images in --bank: name their folder too")


def path_text(option: str, given: object) -> str | None:
    if given is None:
        return None
    path = os.fspath(given) if isinstance(given, (str, os.PathLike)) else None
    if not isinstance(path, str):
        raise UserError(f"{option} is a {type(given).__name__}: expected a path")
    if not path.strip() or "\0" in path:
        raise UserError(f"{option} {shown(repr(path))}: expected a path")
    return path


def divergence_of(divergence: object) -> str | Divergence | None:
    if divergence is None or callable(divergence) or isinstance(divergence, str):
        find_divergence(divergence)
        return divergence
    raise UserError(f"--divergence is a {type(divergence).__name__}: expected a function, or package.module:function")


def module_name(backbone: object) -> str | None:
    if backbone is None:
        return None
    if not isinstance(backbone, str) or not backbone.strip():
        raise UserError(f"--backbone {shown(backbone)}: expected the name of a module of the model")
    return backbone


def images_of(option: str, given: object) -> Any:
    """A path as the user wrote it; what a program holds is judged by whoever reads it (`data.intake`)."""
    if isinstance(given, (str, os.PathLike)):
        return path_text(option, given)
    held = any(hasattr(type(given), name) for name in ("__iter__", "__getitem__"))
    if given is not None and (isinstance(given, (bytes, bytearray)) or not held):
        raise UserError(f"{option} is a {type(given).__name__}: expected a path, an array or an iterable of batches")
    return given


def images_text(images: Images | None) -> str | None:
    """Images as a command line has them: a path, or what stands for something that only a program holds."""
    if images is None or isinstance(images, str):
        return images
    shape = tuple(getattr(images, "shape", ()))
    return f"<{type(images).__name__}{f' {shape}' if shape else ''} of a program>"


def recipe_of(recipe: object, settings: Sequence[str]) -> Recipe:
    if not isinstance(recipe, Recipe):
        recipe = named_recipe(path_text("--recipe", recipe) or "")
    return recipe.with_settings(settings) if settings else recipe


def named_recipe(name: str) -> Recipe:
    """A recipe by name or path; `auto` learns as W4A8 does, and has its formats from a budget."""
    return Recipe.load(_AUTO_LEARNS_AS).replace(name=AUTO) if name == AUTO else Recipe.load(name)


def budget_of(recipe: object, megabytes: float | None, speed: float | None, max_drop: float | None) -> Budget | None:
    """What `--recipe auto` has to keep."""
    if recipe != AUTO:
        for option, given in (("--size-budget", megabytes), ("--speed-budget", speed)):
            if given is not None:
                raise UserError(f"{option} chooses formats for --recipe {AUTO}, and no other: leave one of them out")
        return None
    if megabytes is not None and speed is not None:
        raise UserError("--size-budget and --speed-budget: give one of them, and --max-drop to check what comes of it")
    if megabytes is None and speed is None and max_drop is None:
        raise UserError(f"--recipe {AUTO} needs a budget: --max-drop, --size-budget or --speed-budget")
    return Budget(
        None if megabytes is None else within("--size-budget", megabytes, 0, 1e6),
        None if speed is None else within("--speed-budget", speed, 1, FASTEST),
    )


def gpu_of(gpu: object, targets: Sequence[str], budget: Budget | None, sm: int | None) -> str | None:
    """The card that times of products are taken from, by the name that the table has."""
    if gpu is None:
        return None
    if budget is None:
        raise UserError(f"--gpu prices formats for --recipe {AUTO}, and no other: leave one of them out")
    card = find_gpu(gpu)
    if all(find_runtime(name).device != "gpu" for name in targets):
        raise UserError(f"--gpu {card.name}: none of the targets runs on a GPU ({', '.join(targets)}); leave it out")
    if sm is not None and card.capability < divmod(sm, 10):
        own = "".join(map(str, card.capability))
        raise UserError(f"--gpu {card.name} is of generation {own}, and engines are for --sm {sm}: name a newer card")
    return card.name


def number_text(given: float | None) -> str | None:
    return None if given is None else f"{given:g}"


def own_function(evaluate: object) -> str | OwnFunction | None:
    if evaluate is None or callable(evaluate) or isinstance(evaluate, str):
        return evaluate
    raise UserError(f"--evaluate is a {type(evaluate).__name__}: expected a function, or package.module:function")


def device_name(device: object) -> str:
    """A device that is here; by default the first GPU, else the CPU."""
    import torch

    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not isinstance(device, (str, torch.device)):
        raise UserError(f"--device {shown(device)}: expected a name such as cpu or cuda")
    find_device(device)
    return str(device)


def channels(given: object) -> int:
    number = whole_number("--in-chans", given, 1024)
    if not number:
        raise UserError("--in-chans 0: expected at least 1")
    return number


def generation(given: object, targets: Sequence[str]) -> int:
    """The oldest GPU generation of engines.

    Raises:
        UserError: no such generation, or one that a target compiles nothing for.
    """
    number = whole_number("--sm", given, LATEST_SM)
    if number < OLDEST_SM:
        raise UserError(f"--sm {number}: expected a GPU generation such as 89, which is compute capability 8.9")
    capability: ComputeCapability = divmod(number, 10)
    for name in targets:
        refusal = not_for(name, capability) if name in FAMILY else None
        if refusal:
            fitting = [one for one in FAMILY if not_for(one, capability) is None]
            other = f", or name --target {' or '.join(fitting)} on such a GPU" if fitting else ""
            raise UserError(
                f"--sm {number}: target {name} makes no engine for compute capability {in_words(capability)}, "
                f"{refusal}: name one of these as the oldest{other}"
            )
    return number


def whole_number(option: str, given: object, most: int) -> int:
    number = -1 if isinstance(given, bool) or not isinstance(given, Integral) else int(given)
    if not 0 <= number <= most:
        raise UserError(f"{option} {shown(given)}: expected a whole number from 0 to {most}")
    return number
