"""What a build of a shipped detector or segmenter answers without torch, judged as its report judges the whole model.

    fimaq-deploy build --model maskrcnn_shapes --recipe w8a8 --target onnxruntime-cpu --out build/maskrcnn
    python benchmarks/runtime_answers.py build/maskrcnn --count 500

`Detector` or `Segmenter` gets the test pictures as 8-bit pixels, encoder and head run in ONNX Runtime, and what comes
out is packed and measured as any other row. Prints the figures beside those of the report, and one JSON line.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fimaq_deploy as fd
from fimaq_deploy.data.bundled import shipped_images
from fimaq_deploy.data.objects import OBJECTS, pack_objects
from fimaq_deploy.report.load import load_report
from fimaq_deploy.runtime.objects import Found

Array = NDArray[Any]
TARGET = "onnxruntime-cpu"
MOST = 300  # objects of a picture


def pixels_of(images: Array) -> list[Array]:
    """uint8 (H, W, 3) of images in [-1, 1], which were pixels."""
    return list(np.rint((images.transpose(0, 2, 3, 1) + 1) * 127.5).astype(np.uint8))


def packed(answers: list[list[Found]], size: tuple[int, int]) -> Array:
    """As `data.objects` packs them; places that an image leaves empty have the label -1."""
    shape = (len(answers), MOST)
    found: dict[str, Array] = {
        "boxes": np.zeros((*shape, 4), np.float32),
        "scores": np.zeros(shape, np.float32),
        "labels": np.full(shape, -1),
    }
    if any(one.mask is not None for answer in answers for one in answer):
        found["masks"] = np.zeros((*shape, *size), bool)
    for image, answer in enumerate(answers):
        for place, one in enumerate(answer):
            found["boxes"][image, place] = one.box
            found["scores"][image, place], found["labels"][image, place] = one.score, one.label
            if one.mask is not None:
                found["masks"][image, place] = one.mask
    return pack_objects(found)


def figures(build: Path, count: int) -> dict[str, float]:
    """By name, of the first `count` test pictures."""
    report = load_report(build)
    source = shipped_images(report.model.name, "test", count)
    if report.model.name == "segmenter_shapes":
        segmenter = fd.Segmenter(build, target=TARGET)

        def segment(images: Array) -> Array:
            labels = [segmenter.predict(one).labels for one in pixels_of(images)]
            return np.eye(len(segmenter.head.classes), dtype=np.float32)[np.stack(labels)].transpose(0, 3, 1, 2)

        done = fd.evaluate(segment, source, task="segmentation")
    else:
        detector = fd.Detector(build, target=TARGET)

        def detect(images: Array) -> dict[str, Array]:
            return {OBJECTS: packed(detector.predict_all(pixels_of(images), score=0.0), images.shape[2:])}

        done = fd.evaluate(detect, source, task="detection")
    return {one.figure.name: round(one.value, 3) for one in done.figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path)
    parser.add_argument("--count", type=int, default=500)
    arguments = parser.parse_args()
    report = load_report(arguments.build)
    row = next(one for one in report.rows if one.id == TARGET)
    own = figures(arguments.build, arguments.count)
    told = {one.name: round(one.value, 3) for one in row.labelled if one.value is not None}
    print(f"{'':<12}{'report':>10}{'without torch':>15}")
    for name, value in own.items():
        print(f"{name:<12}{told.get(name, float('nan')):>10.2f}{value:>15.2f}")
    print(json.dumps({"build": str(arguments.build), "images": arguments.count, "report": told, "runtime": own}))


if __name__ == "__main__":
    main()
