from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fimaq_deploy.contract import Contract, Output, Resizing, parse_contract, read_contract, resized
from fimaq_deploy.errors import UserError

WHOLE = Contract(
    shape=(3, 224, 192),
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    resize=(256, 219),
    outputs=(Output("logits", "float32", (2,), "classes"), Output("tokens", "float32", (None, 8))),
    classes=("cat", "Ångström"),
)


@pytest.mark.parametrize("pixels", [False, True])
@pytest.mark.parametrize("crop_mode", ["center", "border", "squash"])
def test_a_contract_is_read_as_it_was_written(crop_mode: str, pixels: bool) -> None:
    one = replace(WHOLE, crop_mode=crop_mode, pixels=pixels, bit_depth=12)
    assert parse_contract(one.text(), "x") == one
    assert one.differences(parse_contract(one.text(), "x")) == []


def test_a_file_that_resizes_takes_any_size_and_says_how_exact_it_is() -> None:
    one = replace(WHOLE, pixels=True, resizing=Resizing(1, 0.0002))
    document = one.document()
    assert document["input"]["shape"] == [None, None, None, 3] and one.input_shape == (None, None, None, 3)
    assert document["preprocessing"]["in_file"] == {"levels": 1, "share": 0.0002}
    assert read_contract(document, "x") == one
    del document["preprocessing"]["in_file"]
    with pytest.raises(UserError, match="cannot be read"):
        read_contract(document, "x")


def test_the_range_of_an_input_is_that_of_black_and_white() -> None:
    one = Contract((1, 8, 8), (0.5,), (0.25,), (8, 8))
    assert one.ranges == [(-2.0, 2.0)]
    assert one.document()["input"]["range"] == [[-2.0, 2.0]]


def test_the_size_is_rounded_as_timm_rounds_it() -> None:
    assert resized((3, 224, 224), 0.875) == (256, 256)
    assert resized((3, 224, 192), 0.95) == (235, 202)


def test_a_difference_is_named_by_its_place() -> None:
    told = WHOLE.differences(replace(WHOLE, mean=(0.5, 0.5, 0.5)))
    assert "preprocessing.mean: [0.485, 0.456, 0.406], not [0.5, 0.5, 0.5]" in told
    assert [line.partition(":")[0] for line in told] == ["input.range", "preprocessing.mean"]


def test_the_names_of_a_file_take_their_kinds_by_place() -> None:
    named = Contract((1, 8, 8), (0.0,), (1.0,), (8, 8), outputs=(Output(kind="classes"),)).named(
        "pictures", [Output("logits", "float32", (10,)), Output("more", "float32", (2,))]
    )
    assert named.input_name == "pictures"
    assert [(one.name, one.kind) for one in named.outputs] == [("logits", "classes"), ("more", "")]


HARM: dict[str, tuple[str, Any]] = {
    "another schema": ("schema", "fimaq-deploy/contract/9"),
    "no input": ("input", None),
    "interpolation": ("preprocessing.interpolation", "magic"),
    "crop rule": ("preprocessing.crop.rule", "left"),
    "mean or std of another number": ("preprocessing.mean", [0.5]),
    "std that is not positive": ("preprocessing.std", [0.1, 0.0, 0.1]),
    "no number": ("preprocessing.std", [0.1, float("nan"), 0.1]),
    "shape and crop": ("input.shape", [None, 3, 224, 224]),
    "sides": ("preprocessing.resize.size", [0, 10**9]),
    "dtype": ("input.dtype", "float16"),
    "outputs": ("outputs", [{"name": "x"}]),
}


@pytest.mark.parametrize("where,value", HARM.values(), ids=HARM)
def test_what_cannot_be_meant_is_refused_in_one_line(where: str, value: Any) -> None:
    document = copy.deepcopy(WHOLE.document())
    *path, last = where.split(".")
    place = document
    for name in path:
        place = place[name]
    place[last] = value
    with pytest.raises(UserError, match=r"model\.onnx: .*contract of the input"):
        read_contract(document, "model.onnx")


@given(st.recursive(st.none() | st.integers() | st.text(max_size=4), lambda inner: st.lists(inner, max_size=3)))
def test_any_document_is_a_contract_or_one_line(value: Any) -> None:
    for place in WHOLE.document():
        document = {**WHOLE.document(), place: value}
        try:
            read_contract(document, "x")
        except UserError as error:
            assert "\n" not in str(error)


def test_text_that_is_no_json_is_refused() -> None:
    with pytest.raises(UserError, match="is not JSON"):
        parse_contract(json.dumps(WHOLE.document())[:-1], "model.onnx")


def test_a_file_that_is_a_part_of_a_model_says_which() -> None:
    """And one that is whole says nothing of it."""
    whole = Contract((3, 4, 4), (0.0,) * 3, (1.0,) * 3, (4, 4))
    assert "part" not in whole.document()
    for direct in (True, False):
        part = replace(whole, part="backbone.body", direct=direct)
        assert part.document()["part"] == {"module": "backbone.body", "reads_images": direct}
        assert parse_contract(part.text(), "here") == part
