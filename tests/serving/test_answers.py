from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from fimaq_deploy.contract import Head
from fimaq_deploy.runtime.preprocessing import Place
from fimaq_deploy.serving.answers import colour, shown_answer

NAMES = ("sky", "cat")
DETECTOR, SEGMENTER = Head("head.onnx", "detection", (), NAMES), Head("head.onnx", "segmentation", (), NAMES)
TWICE = Place((16, 8), (0.5, 0.5), (0.0, 0.0))  # an input of (8, 4), of an image twice as large


def test_boxes_are_those_of_the_image_the_surest_first() -> None:
    boxes = np.array([[0, 0, 1, 1], [1, 2, 3, 4], [0, 0, 2, 2]], np.float32)
    answer = {"boxes": boxes, "scores": np.array([0.2, 0.6, 0.9], np.float32), "labels": np.array([1, 1, 0])}
    found = shown_answer({**answer, "masks": np.zeros((3, 8, 4))}, TWICE, (8, 4), DETECTOR)
    assert found["size"] == [16, 8] and [one["name"] for one in found["objects"]] == ["sky", "cat"]
    assert found["objects"][1]["box"] == [2, 4, 6, 8] and found["objects"][1]["colour"] == colour(1) != colour(0)


def test_a_map_has_the_colour_of_each_class_where_it_is() -> None:
    scores = np.zeros((2, 8, 4), np.float32)
    scores[1, :2] = 1
    scores[0, 2:] = 1
    found = shown_answer({"output": scores}, TWICE, (8, 4), SEGMENTER)
    assert [(one["name"], one["share"]) for one in found["segments"]] == [("sky", 0.75), ("cat", 0.25)]
    drawn = Image.open(io.BytesIO(base64.b64decode(found["map"].partition(",")[2])))
    assert drawn.size == (8, 16)
    assert ["#{:02x}{:02x}{:02x}".format(*drawn.getpixel((4, y))[:3]) for y in (1, 12)] == [colour(1), colour(0)]


def test_a_map_is_no_larger_than_a_page_needs() -> None:
    large = Place((4000, 2000), (4 / 2000, 8 / 4000), (0.0, 0.0))
    found = shown_answer({"output": np.ones((2, 8, 4), np.float32)}, large, (8, 4), SEGMENTER)
    drawn = Image.open(io.BytesIO(base64.b64decode(found["map"].partition(",")[2])))
    assert drawn.size == (320, 640) and found["size"] == [4000, 2000]


def test_where_the_model_saw_nothing_there_is_no_colour() -> None:
    beside = Place((8, 8), (1.0, 1.0), (-2.0, 0.0))  # a crop of the middle
    found = shown_answer({"output": np.ones((2, 8, 4), np.float32)}, beside, (8, 4), SEGMENTER)
    drawn = Image.open(io.BytesIO(base64.b64decode(found["map"].partition(",")[2])))
    assert drawn.getpixel((0, 4))[3] == 0 and drawn.getpixel((4, 4))[3] == 255
    assert [(one["class"], one["share"]) for one in found["segments"]] == [(0, 0.5)]


def test_anything_else_is_its_shapes() -> None:
    depth = Head("head.onnx", "depth", (), ())
    assert shown_answer({"d": np.zeros((8, 4))}, TWICE, (8, 4), depth) == {"outputs": {"d": [8, 4]}}
