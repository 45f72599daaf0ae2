from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models import SwinTransformer

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.describe import describe_model
from fimaq_deploy.models.factory import current_directory_importable, find_function
from fimaq_deploy.models.load import load_model, open_model

Refusal = Callable[..., str]


@pytest.mark.parametrize("factory", ["tiny_vit", "OfItsOwn"])
def test_factory_from_the_current_directory(factories: str, factory: str) -> None:
    path = list(sys.path)
    info = describe_model(load_model(f"{factories}:{factory}"))
    assert info.input_shape == (2, 16, 24)
    assert info.classes == 5
    assert info.mean == info.std == (0.5, 0.5)
    assert sys.path == path


def test_half_precision_is_loaded_as_float32_and_said(factories: str) -> None:
    loaded = open_model(f"{factories}:half_swin")
    assert isinstance(loaded.model, SwinTransformer)
    assert loaded.model(torch.zeros(1, 3, 16, 16)).dtype == torch.float32
    assert loaded.notes == ("weights of float16 were loaded as float32",)


def test_what_a_factory_prints_goes_to_stderr(factories: str, capsys: pytest.CaptureFixture[str]) -> None:
    load_model(f"{factories}:talkative")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "loading the model\n")


def test_no_module_or_function(factories: str, refusal: Refusal) -> None:
    assert "no module 'absent_module'" in refusal("absent_module:create")
    assert "no module 'timm.absent'" in refusal("timm.absent:create")
    assert "has no function 'tiny_vat'; did you mean 'tiny_vit'?" in refusal(f"{factories}:tiny_vat")
    assert "has no function 'constant'" in refusal(f"{factories}:constant")
    assert "expected package.module:factory" in refusal("my models:create")
    assert "expected package.module:factory" in refusal("models:create()")


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "os:abort",
        "os:_exit",
        "sys:exit",
        "json:loads",
        "builtins:print",
        "builtins:input",
        "builtins:dict",
        "builtins:exit",
        "builtins:type",
        "math:sqrt",
        "time:time",
        "torch.nn:Linear",
        "timm:create_model",
        "itertools:count",
        "functools:partial",
        "antigravity_of_mine:fly",
    ],
)
def test_what_is_no_factory(name: str, refusal: Refusal) -> None:
    """Before any of them does what it does: nothing is called that needs arguments or is Python's own."""
    assert refusal(name).startswith(("factory ", "model '"))


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        ("NeedsArguments", "cannot be called without arguments (missing a required argument: 'width')"),
        ("text", "returned str: expected a torch.nn.Module"),
        ("nothing", "returned NoneType: expected a torch.nn.Module"),
        ("drawn", "returned generator: expected a torch.nn.Module"),
        ("leaves", "ended the program (exit code 0)"),
        ("made", "is a Linear already"),
        ("hybrid_of_nothing", "is a Linear: expected a"),
    ],
)
def test_bad_factories(factories: str, factory: str, reason: str, refusal: Refusal) -> None:
    assert reason in refusal(f"{factories}:{factory}")


@pytest.mark.filterwarnings("ignore:coroutine")
def test_a_coroutine_is_no_factory(factories: str, refusal: Refusal) -> None:
    assert "returned coroutine" in refusal(f"{factories}:later")


def test_a_factory_decides_its_own_weights_and_sizes(factories: str, refusal: Refusal) -> None:
    assert "a factory decides its own" in refusal(f"{factories}:tiny_vit", "random")
    assert "decides its own image size and channels" in refusal(f"{factories}:tiny_vit", image_size=(32, 32))
    assert "decides its own image size and channels" in refusal(f"{factories}:tiny_vit", in_chans=1)


@pytest.mark.parametrize(("factory", "error"), [("broken", KeyError), ("broken_by_type", TypeError)])
def test_mistake_inside_a_factory_keeps_its_traceback(factories: str, factory: str, error: Any) -> None:
    with pytest.raises(error):
        load_model(f"{factories}:{factory}")


def test_missing_dependency_of_a_factory_keeps_its_traceback(factories: str, tmp_path: Path) -> None:
    (tmp_path / f"{factories}_b.py").write_text("import absent_dependency")
    with pytest.raises(ModuleNotFoundError, match="absent_dependency"):
        load_model(f"{factories}_b:create")


def test_a_module_that_is_no_python_keeps_its_traceback(factories: str, tmp_path: Path) -> None:
    (tmp_path / f"{factories}_c.py").write_text("def create(:")
    with pytest.raises(SyntaxError):
        load_model(f"{factories}_c:create")


def test_functions_are_found_alike_whatever_they_are_called(factories: str) -> None:
    with current_directory_importable():
        assert find_function(f"{factories}:broken", "figure", "module:function").__name__ == "broken"
        for name, reason in (
            ("x", "figure 'x': expected module:function"),
            ("x:", "expected"),
            ("json:x", "no function"),
        ):
            with pytest.raises(UserError, match=reason):
                find_function(name, "figure", "module:function")
