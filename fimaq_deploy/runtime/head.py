"""The rest of a model behind its encoder, where a build holds it as a file: encoder outputs in, the model's answer out.

It runs in ONNX Runtime on the CPU, whatever runs the encoder, image by image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fimaq_deploy.contract import Output
from fimaq_deploy.engines.onnxruntime import open_session
from fimaq_deploy.manifest import check_file
from fimaq_deploy.runtime.artifact import Artifact

HEAD = "head.onnx"
SURE = 0.05  # objects with a lower score are nobody's
_KEPT = 4096  # numbers of another answer that a replay keeps

# As ONNX Runtime calls NumPy's types.
_DTYPES = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16"}
_DTYPES |= {f"tensor({name})": name for name in ("int64", "int32", "int16", "int8", "uint8", "bool")}

Array: TypeAlias = "NDArray[Any]"
Answer: TypeAlias = "dict[str, Array]"


class HeadRunner:
    """A loaded head. Raises UserError where ONNX Runtime is missing, or the file is not what its build wrote.

    inputs, outputs: of one image, with all of their dimensions.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        check_file(path)
        self._session = open_session(path, threads=threads)
        self.inputs, self.outputs = (
            tuple(Output(one.name, _DTYPES.get(one.type, one.type), _shape(one.shape)) for one in every)
            for every in (self._session.get_inputs(), self._session.get_outputs())
        )

    def __call__(self, maps: Mapping[str, Array]) -> list[Answer]:
        """maps: encoder outputs (N, ...). Returns the answer about each image."""
        ordered = _ordered(maps, [one.name for one in self.inputs])
        return [self._one([one[row : row + 1] for one in ordered]) for row in range(len(ordered[0]))]

    def _one(self, maps: Sequence[Array]) -> Answer:
        names = [one.name for one in self.outputs]
        found = self._session.run(names, {one.name: each for one, each in zip(self.inputs, maps, strict=True)})
        return dict(zip(names, found, strict=True))


def _shape(sides: Sequence[Any]) -> tuple[int | None, ...]:
    return tuple(side if isinstance(side, int) else None for side in sides)


def load_head(artifact: Artifact, threads: int | None = None) -> HeadRunner:
    """The head of a build that has one. Errors as of `HeadRunner`."""
    assert artifact.contract.head is not None
    return HeadRunner(artifact.folder / artifact.contract.head.file, threads)


def _ordered(maps: Mapping[str, Array], names: Sequence[str]) -> list[Array]:
    return [maps[given] for given in matched(list(maps), names).values()]


def matched(maps: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """By input of a head, the map that it reads: of its name where all have one, else of its place.

    An engine may answer its maps in another order, or by other names.
    """
    return dict(zip(names, names if {*names} <= {*maps} else maps, strict=True))


def is_about_objects(answer: Mapping[str, Array]) -> bool:
    return {"boxes", "scores", "labels"} <= answer.keys()


def remembered(answer: Mapping[str, Array]) -> Answer:
    """What a replay keeps of an answer: objects without their masks, or some numbers of it, evenly taken."""
    if is_about_objects(answer):
        sure = answer["scores"] >= SURE
        return {name: answer[name][sure] for name in ("boxes", "scores", "labels")}
    return {name: one.ravel()[:: max(1, one.size // _KEPT)] for name, one in answer.items()}


def differences(own: Sequence[Mapping[str, Array]], built: Sequence[Mapping[str, Array]]) -> Iterator[str]:
    """What two rows of remembered answers differ in that is more than rounding, a line an image."""
    for number, (here, there) in enumerate(zip(own, built, strict=True)):
        line = _objects(here, there) if is_about_objects(there) else _numbers(here, there)
        if line:
            yield f"image {number}: {line}"


_PIXELS, _SCORE, _SHARE = 0.1, 2e-3, 1e-3


def _objects(own: Mapping[str, Array], built: Mapping[str, Array]) -> str | None:
    """Every object has one of the same label, box and score on the other side; those at the edge of SURE need none."""
    for here, there, where in ((own, built, "only here"), (built, own, "only in the build")):
        for box, score, label in zip(here["boxes"], here["scores"], here["labels"], strict=True):
            near = np.abs(there["boxes"] - box).max(axis=1, initial=0) <= _PIXELS
            near &= (np.abs(there["scores"] - score) <= _SCORE) & (there["labels"] == label)
            if not near.any() and score >= SURE + _SCORE:
                return f"an object of label {label} and score {score:.3f} at {np.round(box, 1).tolist()} is {where}"
    return None


def _numbers(own: Mapping[str, Array], built: Mapping[str, Array]) -> str | None:
    for name, there in built.items():
        here = own.get(name)
        if here is None or here.shape != there.shape:
            return f"{name} has another shape"
        if not np.issubdtype(there.dtype, np.floating):
            share = float((here != there).mean()) if there.size else 0.0
        else:
            spread = max(float(there.astype(np.float64).std()), 1e-12)
            share = float(np.sqrt(((here.astype(np.float64) - there) ** 2).mean())) / spread
        if not share <= _SHARE:
            return f"{name} is {share:.3g} away, at most {_SHARE:g} is allowed"
    return None
