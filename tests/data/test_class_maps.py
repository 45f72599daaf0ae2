from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from timm.utils.misc import natural_key

from fimaq_deploy.data.class_maps import find_labels, natural, read_class_map
from fimaq_deploy.errors import UserError
from fimaq_deploy.models.describe import ModelInfo


def of(folders: list[str], info: ModelInfo, **options: Any) -> dict[str, int]:
    return find_labels(folders, info, **options).of


# --- ranks ---


def test_numbers_are_in_natural_order_and_that_is_said(colour: ModelInfo) -> None:
    info = replace(colour, classes=12)
    labels = find_labels(sorted(str(k) for k in range(12)), info)
    assert labels.of == {str(k): k for k in range(12)}
    (note,) = labels.notes
    assert note.startswith("class folders have their classes in natural order (0, 1, 2, 10), as timm has it; the text ")
    assert "by --class-map" in note


def test_padded_numbers_and_words_have_one_order(colour: ModelInfo) -> None:
    info = replace(colour, classes=12)
    assert find_labels([f"{k:03d}" for k in range(12)], info).notes == ()
    assert of(["ant", "bee", "cat"], colour) == {"ant": 0, "bee": 1, "cat": 2}
    assert find_labels(["ant", "bee", "cat"], colour).notes == ()


def test_capitals_make_an_order_of_their_own(colour: ModelInfo) -> None:
    labels = find_labels(["Zebra", "ant", "bee"], colour)
    assert labels.of == {"ant": 0, "bee": 1, "Zebra": 2}
    assert "natural order" in labels.notes[0]


@pytest.mark.parametrize(
    "names", [["10", "9", "2b", "2a", "a10", "a9"], ["class 2", "class 11", "Class 3"], ["n02", "n01", "x1y20", "x1y3"]]
)
def test_natural_order_is_that_of_timm(names: list[str]) -> None:
    assert natural(names) == sorted(names, key=natural_key)


def test_odd_names_have_an_order_too(colour: ModelInfo) -> None:
    """Digits that are none for `int`, and names that differ in zeros alone."""
    assert sorted(natural(["1²2", "²", "½", "1"])) == sorted(["1²2", "²", "½", "1"])
    labels = find_labels(["01", "1", "2"], colour)
    assert labels.of == {"01": 0, "1": 1, "2": 2}
    assert any("several differ in case or zeros alone" in note for note in labels.notes)
    assert natural(["9" * 6000, "a"])[1] == "a"


def test_fewer_folders_than_classes_are_noted(colour: ModelInfo) -> None:
    (note,) = find_labels(["a", "b"], colour).notes
    assert note.startswith("2 class folders for 3 classes: their ranks were taken as classes 0 to 1;")


def test_more_folders_than_classes_are_refused(colour: ModelInfo) -> None:
    with pytest.raises(UserError, match="4 class folders, the model has 3 classes: expected one folder a class, or a"):
        find_labels(["a", "b", "c", "d"], colour)


# --- names that are known ---


def test_the_models_own_names(colour: ModelInfo) -> None:
    info = replace(colour, class_names=("zebra", "polar bear", "cat"))
    labels = find_labels(["Polar_Bear", "cat", "zebra"], info)
    assert labels.of == {"Polar_Bear": 1, "cat": 2, "zebra": 0}
    assert labels.notes == ("class folders have the classes that the model names so",)
    assert find_labels(["cat"], info).notes[1] == "images of 1 of the model's 3 classes"
    assert of(["ant", "cat", "zebra"], info) == {"ant": 0, "cat": 1, "zebra": 2}


def test_names_that_are_not_unique_say_nothing(colour: ModelInfo) -> None:
    info = replace(colour, class_names=("cat", "Cat", "dog"))
    assert of(["cat", "dog"], info) == {"cat": 0, "dog": 1}


def test_synsets_have_the_classes_of_imagenet(colour: ModelInfo) -> None:
    info = replace(colour, classes=1000)
    labels = find_labels(["n01440764", "n02123045", "n15075141"], info)
    assert labels.of == {"n01440764": 0, "n02123045": 281, "n15075141": 999}
    assert "synsets of imagenet-1k" in labels.notes[0]
    assert of(["n01440764", "n02123045"], replace(info, classes=2)) == {"n01440764": 0, "n02123045": 1}
    assert of(["n01440764", "n99999999"], info) == {"n01440764": 0, "n99999999": 1}


# --- class maps ---


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("map.txt", "zebra\napple\ncat\n"),
        ("map.txt", "zebra\r\napple\r\ncat"),
        ("map", "\ufeffzebra\napple\ncat\n\n"),
        ("map.json", '{"zebra": 0, "apple": 1, "cat": 2}'),
        ("map.json", '{"0": "zebra", "1": "apple", "2": "cat"}'),
        ("map.json", '["zebra", "apple", "cat"]'),
        ("map.JSON", '{"zebra": "0", "apple": "1", "cat": "2"}'),
    ],
)
def test_kinds_of_class_maps(tmp_path: Path, name: str, content: str) -> None:
    assert read_class_map(written(tmp_path, name, content)) == {"zebra": 0, "apple": 1, "cat": 2}


def test_a_list_of_synsets_with_their_words(tmp_path: Path) -> None:
    path = written(tmp_path, "words.txt", "n01440764 tench, Tinca tinca\nn01443537 goldfish\n")
    assert read_class_map(path) == {"n01440764": 0, "n01443537": 1}


def test_an_empty_line_keeps_its_number_as_in_timm(tmp_path: Path) -> None:
    assert read_class_map(written(tmp_path, "map.txt", "zebra\n\ncat\n")) == {"zebra": 0, "cat": 2}


def test_a_map_beside_the_images(tmp_path: Path) -> None:
    written(tmp_path, "map.txt", "cat\n")
    assert read_class_map("map.txt", tmp_path) == {"cat": 0}


def test_folders_have_the_classes_of_the_map(colour: ModelInfo) -> None:
    info = replace(colour, class_names=("a", "b", "c"))
    assert of(["a", "b"], info, class_map={"b": 0, "a": 2, "x": 1}) == {"a": 2, "b": 0}


def test_folders_that_are_not_in_the_map_are_left_out_and_said(colour: ModelInfo) -> None:
    labels = find_labels(["a", "b", "c", "d"], colour, {"a": 2})
    assert labels.of == {"a": 2}
    assert labels.notes == (
        "class folders left out, as the class map lacks them: 3 (first b)",
        "images of 1 of the model's 3 classes",
    )


def test_maps_that_do_not_fit(colour: ModelInfo) -> None:
    with pytest.raises(UserError, match=r"has none of the 2 class folders \(such as a\); it names x and others"):
        find_labels(["a", "b"], colour, {"x": 0})
    for label in (3, -1):
        with pytest.raises(UserError, match=f"gives a the class {label}: the model has 3, from 0"):
            find_labels(["a"], colour, {"a": label})


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("map.txt", "", "is empty"),
        ("map.txt", "cat\ndog\ncat\n", "cat stands in it twice"),
        ("map.txt", b"\xff\xfe\xff", "is not UTF-8"),
        ("map.json", "{", "cannot be read"),
        ("map.json", "[" * 100_000, "cannot be read"),
        ("map.json", '{"cat": 1.5}', "neither names with numbers nor a list of names"),
        ("map.json", '{"cat": true}', "neither names with numbers"),
        ("map.json", '{"cat": ' + "9" * 5000 + "}", "cannot be read"),
        ("map.json", '{"0": "cat", "1": "cat"}', "a name stands in it twice"),
        ("map.json", "3", "neither names with numbers"),
    ],
)
def test_bad_class_maps(tmp_path: Path, name: str, content: Any, reason: str) -> None:
    path = written(tmp_path, name, content)
    with pytest.raises(UserError, match=reason) as caught:
        read_class_map(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["absent.txt", "", "x" * 300, ".", "/dev/zero"])
def test_no_class_map(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError):
        read_class_map(name, tmp_path)


def test_json_of_label_names_is_what_transformers_writes(tmp_path: Path) -> None:
    path = written(tmp_path, "id2label.json", json.dumps({str(k): f"name {k}" for k in range(12)}))
    assert read_class_map(path)["name 11"] == 11
