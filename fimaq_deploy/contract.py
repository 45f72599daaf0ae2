"""The contract of the input: how an image becomes what a file reads, and what the file returns.

One document, in `manifest.json` under `contract` and in each exported ONNX file under the key `fimaq-deploy.contract`
of its `metadata_props`:

    schema          fimaq-deploy/contract/1
    input           name, dtype, layout (NCHW or NHWC), shape (the batch is null), colour (RGB or L; null for other
                    numbers of channels), range: the least and the largest value of a channel, one pair a channel
    preprocessing   resize: size (height, width) and rule; interpolation (of Pillow, which widens its filter when it
                    shrinks); crop: size, rule and fill; scale, mean and std of a channel: an input is
                    (pixel * scale - mean) / std, in float32; bit_depth of files with more than 8 bits, where said;
                    in_file: of a file that resizes and crops itself, how far its pixels were from the exact ones
                    in its build: `levels` of 8 bits at most, and the `share` of those that differ; absent otherwise
    outputs         name, dtype, shape and kind (what a build measured it as; null where nobody said) of each
    classes         names in the order of the logits; empty where nobody said
    part            of a file that is the encoder of somebody's model: which module, and whether it reads the images
                    of that model or what the model makes of them; absent otherwise. head: the float rest behind it, a
                    file of its own that takes the encoder's outputs of one image: file, kind, outputs and classes

The rules: `shorter` resizes so that the image covers the size, its ratio kept; `longer` so that it fits inside; `both`
to the size itself. Then `center` cuts the crop out of the middle and fills with black where the image is smaller;
`border` fills with the mean. An input of uint8 takes the pixels as they are after the crop: the file does the rest.
With `in_file` it takes them as they are decoded, of any height and width (null in its shape).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from fimaq_deploy.errors import UserError, shown

SCHEMA = "fimaq-deploy/contract/1"
KEY = "fimaq-deploy.contract"  # in `metadata_props`

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
RULES = {"center": "shorter", "border": "longer", "squash": "both"}  # of timm's crop modes
COLOURS = {1: "L", 3: "RGB"}

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Output:
    """One output of a file. shape: without the batch, None where it is free. kind: "" where nobody said."""

    name: str = ""
    dtype: str = "float32"
    shape: tuple[int | None, ...] = ()
    kind: str = ""


@dataclass(frozen=True)
class Head:
    """The rest of a model behind its encoder: a file that takes what the encoder answers of one image.

    kind: of what it answers: detection, segmentation, depth, dense and the like. classes: names by label.
    """

    file: str
    kind: str
    outputs: tuple[str, ...] = ()
    classes: tuple[str, ...] = field(default=(), repr=False)

    def document(self) -> dict[str, Any]:
        return {"file": self.file, "kind": self.kind, "outputs": list(self.outputs), "classes": list(self.classes)}


@dataclass(frozen=True)
class Resizing:
    """How far the pixels that a file resizes itself are from the exact ones: levels of 8 bits at most, and the share of
    those that differ, of the build's pictures. None where nobody measured.
    """

    levels: int | None = None
    share: float | None = None


@dataclass(frozen=True)
class Contract:
    """How an image becomes an input, and what comes out.

    shape: (channels, height, width) of an image. mean, std: one number a channel, of pixels in [0, 1].
    resize: the (height, width) of the rule. crop_mode: one of RULES.
    pixels: whether the file takes uint8 pixels (N, H, W, C) and normalises them itself.
    part: which module of a model the file is; empty where it is a whole one. direct: whether that module reads the
        model's images, and not what the model makes of them. head: what stands behind it, where that is a file.
    resizing: of a file that takes pixels of any height and width, and resizes and crops them itself.
    """

    shape: Shape
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: tuple[int, int]
    interpolation: str = "bicubic"
    crop_mode: str = "center"
    bit_depth: int | None = None
    input_name: str = "images"
    pixels: bool = False
    outputs: tuple[Output, ...] = ()
    classes: tuple[str, ...] = field(default=(), repr=False)
    part: str = ""
    direct: bool = True
    head: Head | None = None
    resizing: Resizing | None = None

    @property
    def colour(self) -> str | None:
        return COLOURS.get(self.shape[0])

    @property
    def ranges(self) -> list[tuple[float, float]]:
        """The least and the largest input of each channel."""
        if self.pixels:
            return [(0.0, 255.0)] * self.shape[0]
        return [((0 - mean) / std, (1 - mean) / std) for mean, std in zip(self.mean, self.std, strict=True)]

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """Of a batch, in the file's layout."""
        channels, height, width = self.shape
        if self.resizing is not None:
            return (None, None, None, channels)
        return (None, height, width, channels) if self.pixels else (None, channels, height, width)

    def document(self) -> dict[str, Any]:
        """As the module's docstring says."""
        return {
            "schema": SCHEMA,
            "input": {
                "name": self.input_name,
                "dtype": "uint8" if self.pixels else "float32",
                "layout": "NHWC" if self.pixels else "NCHW",
                "shape": list(self.input_shape),
                "colour": self.colour,
                "range": [list(pair) for pair in self.ranges],
            },
            "preprocessing": {
                "resize": {"size": list(self.resize), "rule": RULES[self.crop_mode]},
                "interpolation": self.interpolation,
                "crop": {"size": list(self.shape[1:]), "rule": self.crop_mode, "fill": list(self.fill)},
                "scale": 1 / 255,
                "mean": list(self.mean),
                "std": list(self.std),
                "bit_depth": self.bit_depth,
                **({"in_file": asdict(self.resizing)} if self.resizing else {}),
            },
            "outputs": [
                {"name": one.name, "dtype": one.dtype, "shape": [None, *one.shape], "kind": one.kind or None}
                for one in self.outputs
            ],
            "classes": list(self.classes),
            **({"part": self._part()} if self.part else {}),
        }

    def _part(self) -> dict[str, Any]:
        head = {} if self.head is None else {"head": self.head.document()}
        return {"module": self.part, "reads_images": self.direct, **head}

    def text(self) -> str:
        """The document in one line; equal contracts have equal texts."""
        return json.dumps(self.document(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @property
    def fill(self) -> tuple[int, ...]:
        """The pixels of what a crop adds around a smaller image."""
        return tuple(round(255 * mean) for mean in self.mean) if self.crop_mode == "border" else (0,) * self.shape[0]

    def named(self, input_name: str, outputs: Sequence[Output]) -> Contract:
        """The contract of one file: what its input and outputs are called. Kinds stay, by place."""
        kinds = [one.kind for one in self.outputs] + [""] * len(outputs)
        whole = tuple(replace(one, kind=one.kind or kind) for one, kind in zip(outputs, kinds, strict=False))
        return replace(self, input_name=input_name, outputs=whole)

    def differences(self, other: Contract) -> list[str]:
        """What another contract says differently, as "part: this, not that"."""
        own, theirs = dict(_flat(self.document())), dict(_flat(other.document()))
        names = dict.fromkeys((*own, *theirs))
        return [
            f"{name}: {shown(json.dumps(own.get(name)))}, not {shown(json.dumps(theirs.get(name)))}"
            for name in names
            if own.get(name) != theirs.get(name)
        ]


def resized(shape: Shape, crop_pct: float) -> tuple[int, int]:
    """The size to resize to, of which the crop keeps `crop_pct`: as timm rounds it."""
    return math.floor(shape[1] / crop_pct), math.floor(shape[2] / crop_pct)


def parse_contract(text: str, where: str) -> Contract:
    """A contract from its JSON. where: what holds it, for messages.

    Raises:
        UserError: as `read_contract`.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: its contract of the input is not JSON ({shown(str(error))}): {_MEND}") from None
    return read_contract(document, where)


def read_contract(document: object, where: str) -> Contract:
    """A contract from its document. where: what holds it, for messages.

    Raises:
        UserError: it is none, of a later version, or something in it cannot be meant.
    """
    if not isinstance(document, Mapping) or document.get("schema") != SCHEMA:
        raise UserError(f"{where}: no contract of the input of this version: expected schema {SCHEMA}; {_MEND}")
    try:
        found = _read(document)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UserError(f"{where}: its contract of the input cannot be read ({shown(repr(error))}): {_MEND}") from None
    for problem in _problems(found):
        raise UserError(f"{where}: its contract of the input has {problem}: {_MEND}")
    return found


_MEND = "build or export again to replace it"
_LARGEST_SIDE = 65536
_MOST_CHANNELS = 1024


def _read(document: Mapping[str, Any]) -> Contract:
    reads, prepares = document["input"], document["preprocessing"]
    pixels = {"uint8": True, "float32": False}[reads["dtype"]]
    batch, first, second, third = reads["shape"]
    height, width = prepares["crop"]["size"]
    shape = (third, first, second) if pixels else (first, second, third)
    inside = prepares.get("in_file")
    sides = [height, width] if inside is None else [None, None]
    if batch is not None or list(shape[1:]) != sides or (inside is not None and not pixels):
        raise ValueError(f"an input of {reads['shape']} and a crop of {[height, width]}")
    depth, part = prepares["bit_depth"], document.get("part")
    return Contract(
        shape=(int(shape[0]), int(height), int(width)),
        mean=tuple(float(value) for value in prepares["mean"]),
        std=tuple(float(value) for value in prepares["std"]),
        resize=(int(prepares["resize"]["size"][0]), int(prepares["resize"]["size"][1])),
        interpolation=str(prepares["interpolation"]),
        crop_mode=str(prepares["crop"]["rule"]),
        bit_depth=None if depth is None else int(depth),
        input_name=str(reads["name"]),
        pixels=pixels,
        outputs=tuple(_output(one) for one in document["outputs"]),
        classes=tuple(str(name) for name in document["classes"]),
        part=str(part["module"]) if part else "",
        direct=bool(part["reads_images"]) if part else True,
        head=_head(part["head"]) if part and "head" in part else None,
        resizing=None if inside is None else _resizing(inside),
    )


def _resizing(document: Mapping[str, Any]) -> Resizing:
    levels, share = document["levels"], document["share"]
    return Resizing(None if levels is None else int(levels), None if share is None else float(share))


def _head(document: Mapping[str, Any]) -> Head:
    file = str(document["file"])
    if not file.endswith(".onnx") or {"/", "\\", "\0"} & {*file}:
        raise ValueError(f"a head in {file}")
    outputs, classes = (tuple(map(str, document[name])) for name in ("outputs", "classes"))
    return Head(file, str(document["kind"]), outputs, classes)


def _output(document: Mapping[str, Any]) -> Output:
    shape = tuple(None if side is None else int(side) for side in document["shape"][1:])
    return Output(str(document["name"]), str(document["dtype"]), shape, str(document["kind"] or ""))


def _problems(found: Contract) -> list[str]:
    channels, *sides = found.shape
    numbers = [*found.mean, *found.std]
    checks = {
        f"{channels} channels": 0 < channels <= _MOST_CHANNELS,
        f"sides of {sides} and {list(found.resize)}": all(0 < s <= _LARGEST_SIDE for s in (*sides, *found.resize)),
        "a mean or std of another number of channels": len(found.mean) == len(found.std) == channels,
        "a mean or std that is no number": all(math.isfinite(value) for value in numbers),
        "a std that is not positive": all(value > 0 for value in found.std),
        f"interpolation {shown(found.interpolation)}": found.interpolation in INTERPOLATIONS,
        f"crop rule {shown(found.crop_mode)}": found.crop_mode in RULES,
    }
    return [problem for problem, holds in checks.items() if not holds]


def _flat(document: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in document.items():
        found += _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(f"{prefix}{name}", value)]
    return found
