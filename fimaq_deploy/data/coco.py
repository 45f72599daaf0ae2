"""Objects as COCO annotates them: a JSON file with images, categories and, for each object, a box and maybe a mask.

Boxes and masks are resized, and cropped, with the image. A polygon is filled by Pillow in the image's own pixels, which
differs from COCO's own filling along the edge; masks as run lengths, compressed or not, are exact before they are
resized.
https://cocodataset.org/#format-data
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from fimaq_deploy.contract import Contract
from fimaq_deploy.data.annotated import Annotated, as_tensor
from fimaq_deploy.data.objects import pack_objects
from fimaq_deploy.data.places import fitted, place
from fimaq_deploy.data.prepare import Preparation
from fimaq_deploy.data.source import ImageSource
from fimaq_deploy.errors import UserError, shown
from fimaq_deploy.files.reading import read_text
from fimaq_deploy.models.describe import ModelInfo
from fimaq_deploy.models.paths import kind_of

_MOST_MB = 2048
_ENDLESS = (1 << 30, 1 << 30)  # an input that no image reaches beyond
_WANTED = "a file of COCO annotations: JSON with images, annotations and categories"


@dataclass(frozen=True)
class _Picture:
    file: Path
    width: int
    height: int
    objects: tuple[Mapping[str, Any], ...]


def coco_images(folder: str | Path, annotations: str | Path, info: ModelInfo) -> ImageSource:
    """The images of an annotation file, in its order, labelled with their objects as `data.objects` packs them.

    folder: where the files lie that it names. info: what the model reads; its class names say which label a category
    is, by name. A model without names is one whose labels are the ids of the categories.

    Raises:
        UserError: it is no such file, names images that are not there or have other sizes, or categories that the model
            does not know, or no object that could be found.
    """
    document = _document(Path(annotations))
    labels, remarks = _labels(document["categories"], info.class_names, str(annotations))
    pictures = _pictures(document, Path(folder), labels, str(annotations))
    _require_possible(pictures, labels, info, str(annotations))
    remarks = (*remarks, *_unchecked(info), *_resizing(pictures, info), *_cutting(pictures, info, str(annotations)))
    truth = _Truth(pictures, labels, info.contract())
    files = [picture.file for picture in pictures]
    source = Annotated(files, Preparation(info), truth, f"{len(files)} images of {annotations}", remarks)
    source.take(1)
    return source


def _document(path: Path) -> dict[str, Any]:
    name = f"annotations {shown(str(path))}"
    try:
        found = json.loads(read_text(path, "annotations", wanted=_WANTED, most_mb=_MOST_MB))
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{name} are not JSON: {shown(str(error))}; expected {_WANTED}") from None
    for key in ("images", "annotations", "categories"):
        entries = found.get(key) if isinstance(found, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise UserError(f"{name} have no list of {key}: expected {_WANTED}")
    return found


def _labels(
    categories: Sequence[Mapping[str, Any]], names: Sequence[str], where: str
) -> tuple[dict[Any, int], tuple[str, ...]]:
    """The model's label of each category, by its id."""
    named = {_field(one, "id", int, where, "category"): str(one.get("name", "")) for one in categories}
    if not names:
        return {number: number for number in named}, (
            f"{where}: the model does not name its labels, so they are taken to be the ids of the categories",
        )
    known = {name.casefold(): label for label, name in enumerate(names)}
    unknown = [name for name in named.values() if name.casefold() not in known]
    if unknown:
        raise UserError(
            f"{where}: category '{shown(unknown[0])}' ({len(unknown)} of {len(named)}) is none of the model's "
            f"{len(names)} classes, such as '{shown(names[-1])}': rename it, or annotate for this model"
        )
    return {number: known[name.casefold()] for number, name in named.items()}, ()


def _require_possible(pictures: Sequence[_Picture], labels: Mapping[Any, int], info: ModelInfo, where: str) -> None:
    """Refuse what a model could never be right about. Categories that no object is of may be any."""
    objects = [one for picture in pictures for one in picture.objects]
    if all(one.get("iscrowd") for one in objects):
        what = f"only crowds ({len(objects)})" if objects else "no object"
        raise UserError(
            f"{where} annotates {what} in its {len(pictures)} images, so that nothing could be found in them: expected "
            "annotations with boxes; leave --eval-coco out to compare with the original's own answers"
        )
    known = info.labels
    wrong = sorted({labels[one["category_id"]] for one in objects if known and labels[one["category_id"]] not in known})
    if known and wrong and info.class_names:
        raise UserError(
            f"{where} has objects that are label {_some(wrong)} by the model's {len(info.class_names)} names, but its "
            f"labels are {known[0]} to {known[-1]}: name them in their order, the background first where it is counted"
        )
    if known and wrong:
        raise UserError(
            f"{where} has objects of category {_some(wrong)}, but the model has {len(known)} classes, {known[0]} "
            f"to {known[-1]}, and does not name them: number the categories as the model does, or name its classes as "
            "they are called there (`config.id2label` in transformers, or `pretrained_cfg = {'label_names': [...]}`)"
        )


def _unchecked(info: ModelInfo) -> tuple[str, ...]:
    if info.labels is not None or info.class_names:
        return ()
    return (
        "nothing shows how many labels the model has, so that ids which it cannot have were not looked for: look at "
        "the AP of the original",
    )


def _some(numbers: Sequence[int], most: int = 8) -> str:
    told = ", ".join(map(str, numbers[:most]))
    return told if len(numbers) <= most else f"{told}, … ({len(numbers)} of them, up to {numbers[-1]})"


def _resizing(pictures: Sequence[_Picture], info: ModelInfo) -> tuple[str, ...]:
    """What is said of images of several shapes: a model has one."""
    height, width = info.input_shape[1:]
    sizes = {(picture.height, picture.width) for picture in pictures}
    stretched = sum(picture.width * height != picture.height * width for picture in pictures)
    if len(sizes) == 1 and not stretched:
        return ()
    told = f"{len(sizes)} sizes" if len(sizes) > 1 else "one size"
    told = f"images of {told} (height {_span(h for h, _ in sizes)}, width {_span(w for _, w in sizes)})"
    if info.crop_mode != "squash":
        how = "filled up to" if info.crop_mode == "border" else "cropped to"
        return (f"{told} are resized in proportion and {how} {height}×{width}, with their objects",)
    return (
        f"{told} are resized "
        f"as a whole to {height}×{width}, with their objects: {stretched} of {len(pictures)} change their proportions",
    )


def _cutting(pictures: Sequence[_Picture], info: ModelInfo, where: str) -> tuple[str, ...]:
    """What a crop takes of the objects: none of it where images are resized as a whole.

    Raises:
        UserError: it takes all of them.
    """
    contract, lost, cut, every = info.contract(), 0, 0, 0
    size = (info.input_shape[1], info.input_shape[2])
    for picture in pictures:
        there = place((picture.height, picture.width), contract)
        boxes = _boxes(picture.objects)
        found, kept = there.shown(boxes, size)
        whole, _ = there.shown(boxes, _ENDLESS)
        every, lost = every + len(boxes), lost + int((~kept).sum())
        cut += int((found != whole)[kept].any(1).sum())
    if lost == every:
        raise UserError(f"{where}: the crop ({_crop(info)}) leaves none of {every} objects: give --crop-mode squash")
    if not (lost or cut):
        return ()
    return (
        f"of the {every} objects of {where} the crop that the model asks for ({_crop(info)}) leaves {lost} out and "
        f"cuts {cut}: --crop 1 --crop-mode squash shows it whole images",
    )


def _crop(info: ModelInfo) -> str:
    return f"{info.crop_mode}, {info.crop_pct:.3g} of the side"


def _boxes(objects: Sequence[Mapping[str, Any]]) -> NDArray[np.float32]:
    """(objects, 4): left, top, right and bottom in the image's pixels."""
    found = np.array([one["bbox"] for one in objects], np.float64).reshape(-1, 4)
    return np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], 1).astype(np.float32)


def _span(values: Iterable[int]) -> str:
    found = sorted(set(values))
    return str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"


def _pictures(document: Mapping[str, Any], folder: Path, labels: Mapping[Any, int], where: str) -> tuple[_Picture, ...]:
    if kind_of(folder) != "folder":
        raise UserError(f"no image folder {shown(str(folder))}: expected the folder of the images that {where} names")
    objects = _objects(document, labels, where)
    found = []
    for one in document["images"]:
        file = folder / _field(one, "file_name", str, where, "image")
        width, height = (_field(one, side, int, where, "image") for side in ("width", "height"))
        found.append(_Picture(file, width, height, tuple(objects[one["id"]])))
    if not found:
        raise UserError(f"{where} lists no image: expected {_WANTED}")
    missing = [picture.file for picture in found if kind_of(picture.file) != "file"]
    if missing:
        raise UserError(
            f"{len(missing)} of the {len(found)} images of {where} are not in {shown(str(folder))} "
            f"(first {shown(missing[0].name)}): name the folder that their file names start from"
        )
    for picture in found:
        _check_size(picture, where)
    return tuple(found)


def _objects(document: Mapping[str, Any], labels: Mapping[Any, int], where: str) -> dict[Any, list[Any]]:
    """Annotations by the id of their image."""
    found: dict[Any, list[Any]] = {_field(one, "id", int, where, "image"): [] for one in document["images"]}
    for one in document["annotations"]:
        what = f"{where}: annotation {shown(one.get('id'))}"
        if not _is_listed(one.get("image_id"), found):
            raise UserError(f"{what} is of image {shown(one.get('image_id'))}, which is not listed")
        if not _is_listed(one.get("category_id"), labels):
            raise UserError(f"{what} is of category {shown(one.get('category_id'))}, which is not listed")
        box = one.get("bbox")
        fits = isinstance(box, list) and len(box) == 4 and all(_is_number(edge) for edge in box)
        if not fits or box[2] < 0 or box[3] < 0:
            raise UserError(f"{what} has bbox {shown(box)}: expected [left, top, width, height] in pixels")
        found[one["image_id"]].append(one)
    return found


def _is_listed(number: object, known: Mapping[Any, Any]) -> bool:
    return isinstance(number, int) and number in known


def _field(entry: Mapping[str, Any], key: str, kind: type, where: str, what: str) -> Any:
    found = entry.get(key)
    if not isinstance(found, kind) or isinstance(found, bool):
        raise UserError(f"{where}: {what} {shown(entry)} has no {key}: expected {_WANTED}")
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)


def _check_size(picture: _Picture, where: str) -> None:
    """By the file's header alone."""
    try:
        with Image.open(picture.file) as image:
            size = image.size
    except Exception:  # what cannot be opened is told when it is read
        return
    if size != (picture.width, picture.height):
        raise UserError(
            f"image {shown(picture.file.name)} has {size[0]}×{size[1]} pixels, {picture.width}×{picture.height} in "
            f"{where}: expected the images that were annotated"
        )


class _Truth:
    """The objects of an image where they are in what the model reads."""

    def __init__(self, pictures: Sequence[_Picture], labels: Mapping[Any, int], contract: Contract) -> None:
        self._pictures, self._labels, self._contract = pictures, labels, contract
        self._most = max(1, *(len(picture.objects) for picture in pictures))
        self._masked = all("segmentation" in one for picture in pictures for one in picture.objects)

    def __call__(self, number: int) -> Tensor:
        picture, (_, height, width) = self._pictures[number], self._contract.shape
        most, size = self._most, (picture.height, picture.width)
        boxes, labels = np.zeros((most, 4), np.float32), np.full(most, -1)
        crowd, masks = np.zeros(most, bool), np.zeros((most, height, width), bool)
        there, shown_here = place(size, self._contract).shown(_boxes(picture.objects), (height, width))
        left = [one for one, there_still in zip(picture.objects, shown_here, strict=True) if there_still]
        boxes[: len(left)] = there[shown_here]
        for row, one in enumerate(left):
            labels[row], crowd[row] = self._labels[one["category_id"]], bool(one.get("iscrowd"))
            if self._masked:
                masks[row] = _prepared(decoded_mask(one["segmentation"], *size), self._contract)
        found = {"boxes": boxes, "labels": labels, "crowd": crowd, **({"masks": masks} if self._masked else {})}
        return as_tensor(pack_objects({name: each[None] for name, each in found.items()})[0])


def _prepared(mask: NDArray[np.bool_], contract: Contract) -> NDArray[np.bool_]:
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(fitted(image, replace(contract, interpolation="bilinear"), fill=0)) >= 128


def decoded_mask(segmentation: Any, height: int, width: int) -> NDArray[np.bool_]:
    """(height, width) from polygons, or from run lengths down the columns, as numbers or as COCO compresses them.

    Raises:
        UserError: it is none of them, or of another size.
    """
    if isinstance(segmentation, list):
        return _filled(segmentation, height, width)
    size = segmentation.get("size") if isinstance(segmentation, Mapping) else None
    if size != [height, width]:
        raise UserError(f"segmentation {shown(segmentation)}: expected polygons, or counts of size [{height}, {width}]")
    counts = segmentation.get("counts")
    runs = _uncompressed(counts) if isinstance(counts, str) else counts
    whole = isinstance(runs, list) and all(isinstance(run, int) and run >= 0 for run in runs)
    if not whole or sum(runs) != height * width:
        raise UserError(f"segmentation counts {shown(counts)}: expected runs of {height * width} pixels together")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def _filled(polygons: Sequence[Any], height: int, width: int) -> NDArray[np.bool_]:
    image = Image.new("1", (width, height))
    draw = ImageDraw.Draw(image)
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2 or not all(map(_is_number, polygon)):
            raise UserError(f"segmentation polygon {shown(polygon)}: expected x, y, x, y, … of at least 3 points")
        points = [
            (x - 0.5, y - 0.5) for x, y in zip(polygon[::2], polygon[1::2], strict=True)
        ]  # edges to pixel centres
        draw.polygon(points, fill=1)
    return np.asarray(image, bool)


def _uncompressed(text: str) -> list[int]:
    """Five bits of a number in a character, the lowest first; from the fourth on, differences from the one but last."""
    runs: list[int] = []
    value, shift = 0, 0
    for character in text:
        code = ord(character) - 48
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            if code & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value, shift = 0, 0
    return runs
