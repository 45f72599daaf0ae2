"""What a mix of formats takes in model.onnx, foretold from the files of models that are quantized in one format.

Beside its weights a layer has nodes and numbers in the file, more in one format than in another: a weight of four bits
takes an operator or two that one of eight does without. What two files differ by beside weights is divided by the
layers. Numbers that are equal are stored once, which a model that has learned has fewer of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from fimaq_deploy.calibration.mixing.options import FORMATS, Options
from fimaq_deploy.calibration.quantized_model import QuantizedModel
from fimaq_deploy.graph.saving import size_of
from fimaq_deploy.measure.products import Piece, pieces_of

Write = Callable[[QuantizedModel, Path], object]


@dataclass(frozen=True)
class Weighed:
    """Options with all that each takes. rest: bits of what is no layer's. pieces: the products of the file."""

    options: Options
    rest: int
    pieces: list[Piece]


def weigh(models: Mapping[str, QuantizedModel], options: Options, write: Write) -> Weighed:
    """Adds what layers take beside their weights.

    models: by format, each quantized whole in it. options: with the bits of weights alone. write: a model's file, at a
    path. Files are written for formats of integers alone, or for the first one: 8-bit floats are counted as the
    smallest of those, and 4-bit floats, which save no bytes, too.
    """
    beside, pieces = dict[str, int](), list[Piece]()
    for name, model in models.items():
        if FORMATS[name].format is not None and beside:
            continue
        with TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            write(model, path)
            beside[name] = 8 * size_of(path) - bits_of(options, dict.fromkeys(options, name))
            pieces = pieces or [piece for piece in pieces_of(path) if piece.layer in options]
    rest = min(beside.values())
    more = {name: (bits - rest) // len(options) for name, bits in beside.items()}
    weighed = {
        name: tuple(replace(one, bits=one.bits + more.get(one.format, 0)) for one in each)
        for name, each in options.items()
    }
    return Weighed(weighed, rest, pieces)


def bits_of(options: Options, formats: Mapping[str, str]) -> int:
    """Of all layers, each in its format."""
    return sum(one.bits for name, each in options.items() for one in each if one.format == formats[name])


def file_bits(model: QuantizedModel, write: Write) -> int:
    """Of a model's file, and of what lies beside it."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        write(model, path)
        return 8 * size_of(path)
