"""Average precision beside COCO's own evaluation, and what two detectors agree on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fixtures.figures import value
from fixtures.objects import found_objects, packed, true_objects

from fimaq_deploy.data.objects import pack_objects
from fimaq_deploy.measure.resampling import measured
from fimaq_deploy.measure.tasks.detection import DETECTION

IMAGES = 24


def of_coco(found: dict[str, Any], truth: dict[str, Any], kind: str) -> tuple[float, float]:
    """AP and AP50 in percent, by the library."""
    library = pytest.importorskip("faster_coco_eval")
    mask_api = pytest.importorskip("faster_coco_eval.core.mask")
    images, places = truth["labels"].shape
    crowd = truth.get("crowd", np.zeros((images, places), bool))
    entries: dict[str, list[Any]] = {"true": [], "found": []}
    for which, objects in (("true", truth), ("found", found)):
        for image, place in np.argwhere(objects["labels"] >= 0).tolist():
            left, top, right, bottom = objects["boxes"][image, place].tolist()
            entry = {
                "id": len(entries[which]) + 1,
                "image_id": image,
                "category_id": int(objects["labels"][image, place]),
                "bbox": [left, top, right - left, bottom - top],
                "area": (right - left) * (bottom - top),
                "segmentation": mask_api.encode(np.asfortranarray(objects["masks"][image, place].astype(np.uint8))),
                "iscrowd": int(which == "true" and crowd[image, place]),
            }
            if which == "found":
                entry["score"] = float(objects["scores"][image, place])
            entries[which].append(entry)
    size = truth["masks"].shape[-1]
    known = library.COCO(
        {
            "images": [{"id": i, "height": size, "width": size} for i in range(images)],
            "annotations": entries["true"],
            "categories": [{"id": i, "name": str(i)} for i in range(8)],
        }
    )
    run = library.COCOeval_faster(known, known.loadRes(entries["found"]), kind)
    run.params.areaRng, run.params.areaRngLbl = [[0, 1e10]], ["all"]
    run.evaluate()
    run.accumulate()
    precision = run.eval["precision"][..., 0, -1]
    known_labels = precision[0, 0] > -1
    return 100 * precision[..., known_labels].mean(), 100 * precision[0][..., known_labels].mean()


@pytest.mark.parametrize("crowds", [False, True])
def test_average_precision_is_that_of_coco(crowds: bool) -> None:
    truth = true_objects(IMAGES, crowds)
    found = found_objects(truth)
    own, true = packed(found), packed(truth)
    boxes, masks = of_coco(found, truth, "bbox"), of_coco(found, truth, "segm")
    assert value(DETECTION, "ap", own, true) == pytest.approx(boxes[0], abs=1e-6)
    assert value(DETECTION, "ap50", own, true) == pytest.approx(boxes[1], abs=1e-6)
    assert value(DETECTION, "mask_ap", own, true) == pytest.approx(masks[0], abs=1e-6)
    assert value(DETECTION, "mask_ap50", own, true) == pytest.approx(masks[1], abs=1e-6)
    assert 5 < boxes[0] < 95


def test_what_is_true_is_found_and_nothing_is_not() -> None:
    truth = true_objects(IMAGES)
    perfect, nothing = packed(truth), packed({**truth, "labels": np.full_like(truth["labels"], -1)})
    assert value(DETECTION, "ap", perfect, perfect) == pytest.approx(100)
    assert value(DETECTION, "mask_ap", perfect, perfect) == pytest.approx(100)
    assert value(DETECTION, "ap", nothing, perfect) == 0
    assert np.isnan(value(DETECTION, "ap", perfect, nothing))
    assert value(DETECTION, "agreement", nothing, perfect) == 0
    assert value(DETECTION, "agreement", nothing, nothing) == 100


def test_masks_are_judged_beside_boxes_and_half_overlaps_only_between_builds() -> None:
    drops = {figure.name: figure.drop for figure in DETECTION.figures}
    assert drops == {
        "ap": None,
        "ap50": "comparison",
        "mask_ap": "build",
        "mask_ap50": "comparison",
        "agreement": None,
    }
    truth = true_objects(2)
    boxes = packed({name: found for name, found in truth.items() if name != "masks"})
    applying = [one.name for one in DETECTION.figures if one.of == "labels" and one.applies(boxes, packed(truth))]
    assert applying == ["ap", "ap50"]


def test_agreement_counts_what_both_are_sure_of() -> None:
    box = [10.0, 10.0, 30.0, 30.0]
    far = [60.0, 60.0, 80.0, 80.0]

    def objects(*rows: tuple[list[float], float, int]) -> Any:
        boxes, scores, labels = (np.array(column)[None] for column in zip(*rows, strict=True))
        return pack_objects({"boxes": boxes, "scores": scores, "labels": labels})

    original = objects((box, 0.9, 1), (far, 0.6, 2))
    assert value(DETECTION, "agreement", original, original) == 100
    assert value(DETECTION, "agreement", objects((box, 0.9, 1), (far, 0.4, 2)), original) == pytest.approx(100 * 2 / 3)
    assert value(DETECTION, "agreement", objects((box, 0.9, 1), (far, 0.6, 3)), original) == 50
    assert value(DETECTION, "agreement", objects((box, 0.9, 1), (box, 0.8, 1)), original) == 50


def test_precision_has_an_interval_by_images() -> None:
    truth = true_objects(IMAGES)
    figure = DETECTION.figure("ap")
    found = measured("objects", figure, figure.parts(packed(found_objects(truth)), packed(truth)))
    assert found.interval is not None and found.replicates is not None
    assert found.interval[0] < found.value < found.interval[1]
    assert len(found.replicates) == 400


def test_a_resample_is_the_images_that_it_names() -> None:
    truth = true_objects(IMAGES)
    own, true = packed(found_objects(truth)), packed(truth)
    figure = DETECTION.figure("ap")
    weights = np.bincount(np.random.default_rng(0).integers(0, IMAGES, IMAGES), minlength=IMAGES)
    rows = np.repeat(np.arange(IMAGES), weights)
    drawn = figure.value(figure.state(figure.parts(own, true)), weights.astype(float))
    assert 100 * drawn == pytest.approx(value(DETECTION, "ap", own[rows], true[rows]), abs=0.2)  # ties are ordered anew


def test_labels_that_are_no_objects_are_refused() -> None:
    own = np.zeros((2, 3, 6), np.float32)
    assert DETECTION.refuse_labels(own, np.zeros((2, 5, 6), np.float32)) is None
    assert "expected the objects" in str(DETECTION.refuse_labels(own, np.zeros(2, np.int64)))
