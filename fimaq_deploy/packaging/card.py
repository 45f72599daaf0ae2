"""A folder for a model hub: the build with a card as Hugging Face reads it (README.md with YAML before it)."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fimaq_deploy.packaging.facts import Facts

CARD = "README.md"
_TASKS = {
    "classes": "image-classification",
    "multilabel": "image-classification",
    "embedding": "image-feature-extraction",
    "detection": "object-detection",
    "segmentation": "image-segmentation",
    "depth": "depth-estimation",
}
# What runs a build of a kind, and its one call.
_PREDICTORS = {
    "classes": 'Classifier(".").predict("image.jpg")',
    "embedding": 'Encoder(".").encode("image.jpg")',
    "detection": 'Detector(".").predict("image.jpg")',
    "segmentation": 'Segmenter(".").predict("image.jpg").shares()',
}
_OTHER = 'Predictor(".").outputs("image.jpg")'


def write_hub_folder(facts: Facts, folder: Path, *, base_model: str | None = None) -> list[str]:
    """Write it into a folder. base_model: the hub's name of the original; None leaves it out. Returns notes."""
    for name in facts.names:
        shutil.copyfile(facts.artifact.path / name, folder / name)
    (folder / CARD).write_text(card(facts, base_model), encoding="utf-8")
    return [] if base_model else ["the card names no base model: give --base-model OWNER/NAME, as the hub calls it"]


def card(facts: Facts, base_model: str | None) -> str:
    """Metadata and a page."""
    return "\n".join(["---", *_yaml(_metadata(facts, base_model)), "---", "", *_page(facts), ""])


def _metadata(facts: Facts, base_model: str | None) -> dict[str, Any]:
    task = next((_TASKS[kind] for kind in _kinds(facts) if kind in _TASKS), None)
    relation = {"base_model": base_model, "base_model_relation": "quantized"} if base_model else {}
    index = {"model-index": [_evaluated(facts, task)]} if task and facts.figures else {}
    tags = ["quantized", "onnx", "fimaq-deploy", "vision-transformer"]
    return {"library_name": "onnx", "tags": tags, **({"pipeline_tag": task} if task else {}), **relation, **index}


def _kinds(facts: Facts) -> list[str]:
    """Of what the model answers: its head's, where it has one, else its file's."""
    contract = facts.artifact.contract
    return [contract.head.kind] if contract.head else [one.kind for one in contract.outputs]


def _evaluated(facts: Facts, task: str) -> dict[str, Any]:
    data = {"name": facts.evaluation or "images of the build", "type": "custom"}
    metrics = [
        {"type": name, "value": one["value"], "name": f"{name}, {one['of']}"} for name, one in facts.figures.items()
    ]
    return {"name": facts.name, "results": [{"task": {"type": task}, "dataset": data, "metrics": metrics}]}


def _yaml(document: Mapping[str, Any]) -> Iterator[str]:
    """A mapping whose values are JSON, which is YAML, and cannot be read as anything else whatever a name holds."""
    return (f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in document.items())


def _page(facts: Facts) -> Iterator[str]:
    contract = facts.artifact.contract
    yield f"# {_cell(facts.model)}, quantized\n"
    yield f"Made by fimaq-deploy with recipe {_cell(facts.recipe)}."
    yield f"Measured on {facts.images} images: {_cell(facts.evaluation)}.\n"
    if facts.figures:
        yield "| figure | value | 95 % interval | |\n| --- | ---: | --- | --- |"
        for name, one in facts.figures.items():
            low, high = one["interval"] or (float("nan"),) * 2
            yield f"| {_cell(name)} | {one['value']:.5g} | {low:.5g} to {high:.5g} | {_cell(one['of'])} |"
        yield ""
    yield "## What it reads\n"
    size = " × ".join(map(str, contract.shape))
    yield f"{_cell(contract.input_name)}: {size}, {contract.colour or 'arrays'}; {contract.interpolation} to"
    yield f"{list(contract.resize)}, crop {contract.crop_mode}; mean {list(contract.mean)}, std {list(contract.std)}."
    if contract.head:
        names = _cell(", ".join(contract.head.classes)) or "without names"
        yield f"It is an encoder. Behind it stands `head.onnx`, in floats: {contract.head.kind}, classes {names}."
    yield "All of it is in `manifest.json` under `contract`.\n"
    yield "## How to run it\n"
    if contract.part and not contract.direct:
        yield f"The files are the encoder `{_cell(contract.part)}` of a model, which prepares its images: put an engine"
        yield "into that model with `fimaq_deploy.splice(model, fimaq_deploy.load_engine(FILE))`.\n"
        return
    call = next((_PREDICTORS[kind] for kind in _kinds(facts) if kind in _PREDICTORS), _OTHER)
    yield f"```python\nfrom fimaq_deploy import {call.partition('(')[0]}\n\nprint({call})\n```\n"
    yield "`fimaq-deploy verify .` says whether it is what was built and computes on your machine what was measured."


def _cell(text: str) -> str:
    """Text of which nothing is read as markup, HTML or another cell."""
    return re.sub(r"([\\`*_\[\]<>|~#&$!])", r"\\\1", " ".join(text.split()))
