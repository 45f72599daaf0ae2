"""What a detector or a segmenter answers about an image, as the page shows it.

Boxes are in pixels of the image as it was given. A map of classes is a picture of colours, no larger than a page needs,
with the colour, the name and the share of each class beside it.
"""

from __future__ import annotations

import base64
import colorsys
import io
from typing import Any

import numpy as np
from PIL import Image

from fimaq_deploy.contract import Head
from fimaq_deploy.runtime.head import Answer, is_about_objects
from fimaq_deploy.runtime.objects import Segmenter, named, objects_in, segments_in
from fimaq_deploy.runtime.predictor import Array
from fimaq_deploy.runtime.preprocessing import Place

_LONGEST = 640  # of a map's sides, in pixels
_MOST_OBJECTS = 100
_NOTHING = (0, 0, 0, 0)  # where the model did not see the image
_GOLDEN = 0.618034  # so that neighbouring numbers have colours far apart


def shown_answer(answer: Answer, place: Place, size: tuple[int, int], head: Head) -> dict[str, Any]:
    """For the page: `objects`, or `segments` with a `map`, and the `size` of the image; else the shapes of the outputs.

    size: (height, width) of the model's input.
    """
    if is_about_objects(answer):
        boxes = {name: one for name, one in answer.items() if name != "masks"}  # which a page does not draw
        found = objects_in(boxes, place, head.classes)[:_MOST_OBJECTS]
        return {"objects": [{**one.document(), "colour": colour(one.label)} for one in found], "size": list(place.size)}
    if head.kind in Segmenter.kinds and len(answer) == 1 and next(iter(answer.values())).ndim == 3:
        labels = segments_in(answer, _smaller(place), size, head.classes).labels
        return {"segments": _segments(labels, head), "map": _drawn(labels), "size": list(place.size)}
    return {"outputs": {name: list(one.shape) for name, one in answer.items()}}


def colour(label: int) -> str:
    """Of a class, for a page."""
    red, green, blue = _rgb(label)
    return f"#{red:02x}{green:02x}{blue:02x}"


def _rgb(label: int) -> tuple[int, int, int]:
    red, green, blue = (round(255 * part) for part in colorsys.hls_to_rgb(label * _GOLDEN % 1, 0.5, 0.8))
    return red, green, blue


def _smaller(place: Place) -> Place:
    """The same image with no side longer than a page needs."""
    ratio = min(1.0, _LONGEST / max(place.size))
    height, width = (max(1, round(ratio * side)) for side in place.size)
    scale = (place.scale[0] * place.size[1] / width, place.scale[1] * place.size[0] / height)
    return Place((height, width), scale, place.offset)


def _segments(labels: Array, head: Head) -> list[dict[str, Any]]:
    numbers, counts = np.unique(labels, return_counts=True)
    order = [n for n in np.argsort(-counts, kind="stable").tolist() if numbers[n] >= 0]
    return [
        {
            "class": int(numbers[n]),
            "name": named(head.classes, int(numbers[n])),
            "share": float(counts[n] / labels.size),
            "colour": colour(int(numbers[n])),
        }
        for n in order
    ]


def _drawn(labels: Array) -> str:
    """A PNG as an address that holds it."""
    numbers, places = np.unique(labels, return_inverse=True)
    palette = np.array([_NOTHING if n < 0 else (*_rgb(int(n)), 255) for n in numbers], np.uint8)
    data = io.BytesIO()
    Image.fromarray(palette[places.reshape(labels.shape)]).save(data, "PNG")
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
