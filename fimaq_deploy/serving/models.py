"""The builds that a server serves, by name."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from fimaq_deploy.contract import Contract
from fimaq_deploy.engines.load import load_engine
from fimaq_deploy.errors import UserError, shown
from fimaq_deploy.runtime.head import HeadRunner, load_head
from fimaq_deploy.runtime.predictor import Array, Predictor, ranked
from fimaq_deploy.runtime.preprocessing import Place, Preparation
from fimaq_deploy.serving.answers import shown_answer
from fimaq_deploy.serving.batching import Batcher
from fimaq_deploy.serving.limits import Limits
from fimaq_deploy.serving.metrics import Metrics
from fimaq_deploy.serving.tensors import datatype

ORIGINAL = "model.fp32.onnx"
VERSION = "1"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Served:
    """One build. original: its full-precision file, where that is loaded too.

    head: what stands behind its encoder, where the build holds it; then a request is about one image.
    """

    name: str
    predictor: Predictor
    batcher: Batcher
    prepare: Preparation
    original: Any = None
    head: HeadRunner | None = None

    @property
    def contract(self) -> Contract:
        """Of what is answered: with the head's outputs, where there is one."""
        own = self.predictor.contract
        return own if self.head is None else replace(own, outputs=self.head.outputs)

    def metadata(self) -> dict[str, Any]:
        """As the protocol has it."""
        contract, batch = self.contract, [-1] if self.head is None else []
        kind = "uint8" if contract.pixels else "float32"
        shape = [-1 if self.head is None else 1, *contract.input_shape[1:]]
        return {
            "name": self.name,
            "versions": [VERSION],
            "platform": f"fimaq_{self.predictor.choice.runtime.name}",
            "inputs": [{"name": contract.input_name, "datatype": datatype(kind), "shape": shape}],
            "outputs": [
                {
                    "name": one.name,
                    "datatype": datatype(one.dtype),
                    "shape": [*batch, *(-1 if side is None else side for side in one.shape)],
                }
                for one in contract.outputs
            ],
        }

    def whole(self, outputs: dict[str, Array]) -> dict[str, Array]:
        """What the model answers, of what its file does: the head's answer about one image, where there is a head."""
        return outputs if self.head is None else self.head(outputs)[0]

    def answer(self, outputs: dict[str, Array], place: Place, top: int = 5) -> dict[str, Any]:
        """What the model answers about one image as the page shows it: classes, objects, a map of classes, else shapes.

        place: where the image lies in the input.
        """
        facts = self.predictor.contract.head
        if self.head is not None and facts is not None:
            return shown_answer(outputs, place, self.predictor.contract.shape[1:], facts)
        main = self.predictor.contract.outputs[0]
        logits = outputs[main.name]
        if main.kind not in ("classes", "") or logits.ndim != 2:
            return {"outputs": {name: list(one.shape[1:]) for name, one in outputs.items()}}
        best = ranked(self.predictor.contract, logits, top)[0].top
        return {"top": [{"class": number, "name": name, "probability": share} for number, name, share in best]}


def open_models(
    artifacts: Sequence[str | Path],
    metrics: Metrics,
    limits: Limits,
    *,
    target: str | None = None,
    threads: int | None = None,
    batch: int = 16,
    delay_s: float = 0.001,
    original: bool = False,
) -> dict[str, Served]:
    """Load builds, each under the name before `=`, or that of its model. Arguments as of `server.serve`.

    Raises:
        UserError: two of one name, a name that cannot stand in an address, or as `Predictor`.
    """
    found: dict[str, Served] = {}
    for given in artifacts:
        name, path = _named(given)
        predictor = Predictor(path, target=target, threads=threads, batch=batch)
        if predictor.contract.resizing is not None:
            raise UserError(
                f"{shown(path)} resizes images itself, one at a time: serve the build's folder, which batches"
            )
        head = load_head(predictor.artifact, threads) if predictor.contract.head else None
        name = name or re.sub(r"[^A-Za-z0-9._-]", "_", predictor.artifact.name).lstrip("._-") or "model"
        if not _NAME.fullmatch(name):
            raise UserError(f"model name {shown(name)}: expected letters, digits, dots, dashes and underscores")
        if name in found:
            raise UserError(f"two builds are called {name}: give one another name, as OTHER={path}")
        batcher = Batcher(predictor.run, batch, delay_s, limits.queued, partial(metrics.batch, name))
        prepare = replace(Preparation(predictor.contract), most_pixels=limits.most_pixels)
        found[name] = Served(name, predictor, batcher, prepare, _original(predictor) if original else None, head)
    return found


def _named(given: str | Path) -> tuple[str, str]:
    name, separator, path = str(given).partition("=")
    return (name, path) if separator and not Path(given).exists() else ("", str(given))


def _original(predictor: Predictor) -> Any:
    """The original's file of a build, whose input is the same."""
    if ORIGINAL not in predictor.artifact.files or predictor.contract.pixels:
        return None
    return load_engine(predictor.artifact.folder / ORIGINAL).outputs


async def run_whole(served: Served, outputs: dict[str, Array]) -> dict[str, Array]:
    """`Served.whole`, outside of the event loop where there is something to compute."""
    if served.head is None:
        return outputs
    return await asyncio.get_running_loop().run_in_executor(None, served.whole, outputs)


async def run_original(served: Served, images: Array) -> dict[str, Array]:
    """What the original makes of images, outside of the event loop."""
    return await asyncio.get_running_loop().run_in_executor(None, served.original, images)
