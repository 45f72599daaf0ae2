"""What will be measured of every row of a build, decided and tried on the original before anything takes long."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fimaq_deploy.data.batches import images_at_once
from fimaq_deploy.data.source import ImageSource
from fimaq_deploy.errors import UserError
from fimaq_deploy.measure.accuracy import Pass, Predict, labels_of
from fimaq_deploy.measure.banks import OpenBank, open_bank
from fimaq_deploy.measure.outputs import Outputs, running
from fimaq_deploy.measure.own import OwnFunction, own_figures
from fimaq_deploy.measure.tasks import Tasks, Traits, find_tasks, nothing_told, traits_of
from fimaq_deploy.models.factory import current_directory_importable, find_function
from fimaq_deploy.pipeline.request import Request

_IMAGES = 32


@dataclass(frozen=True, eq=False)
class Measures:
    """How each output of the original is measured, by its name, the user's own function, and the bank."""

    tasks: Tasks
    own: OwnFunction | None = None
    bank: OpenBank | None = None
    notes: tuple[str, ...] = ()

    def of(self, predict: Predict, title: str) -> Tasks:
        """How the outputs of another way to run the model are measured, which may see the bank first."""
        return self.tasks if self.bank is None else self.bank.tasks_of(predict, title)


def choose_measures(
    request: Request,
    original: Predict,
    images: ImageSource,
    bank: ImageSource | None = None,
    traits: Traits | None = None,
) -> Measures:
    """From a first look at a few images, and at the whole bank. traits: what is known of an original that is no module.

    Raises:
        UserError: an output is not of the kind that was asked for, a threshold applies to none of them, or the user's
            function is not found or returns no numbers.
    """
    batch = next(iter(images.batches(_IMAGES)))
    opened = None
    with running(original) as run:
        outputs = run(batch.images)
        labels = labels_of(batch) if bank is None else None  # with a bank they are no classes that the model outputs
        traits = traits or traits_of(original)
        tasks = find_tasks(outputs, traits, request.task, labels)
        doubts = tuple(_doubts(outputs, traits, labels, request)) if bank is None else ()
        if bank is not None:
            opened = open_bank(bank, run, tasks, images_at_once(bank.take(1).shape, _IMAGES))
            tasks = opened.tasks
    own = load_function(request.evaluate)
    seen = Pass(tasks)
    seen.add(outputs, labels=labels_of(batch))
    labelled = any(one.figure.headline for one in seen.finish().figures if one.figure.of == "labels")
    for problem in _without_meaning(request, tasks, labelled):
        raise UserError(problem)
    if own is not None:
        own_figures(own, original)
    return Measures(tasks, own, opened, doubts)


def _doubts(outputs: Outputs, traits: Traits, labels: Any, request: Request) -> Iterator[str]:
    """What was taken for no classes although it may be."""
    asked = request.task or {}
    for name, found in outputs.items():
        if not asked and nothing_told(name, found, traits, labels):
            yield (
                f"nothing says that the {found.shape[1]:,} numbers of output {name} are classes, so they are compared "
                "as vectors: give --task classes if they are, for agreement and accuracy"
            )


def load_function(evaluate: str | OwnFunction | None) -> OwnFunction | None:
    """The user's own function, given itself or by its name."""
    if not isinstance(evaluate, str):
        return evaluate
    with current_directory_importable():
        return find_function(evaluate, "--evaluate", "package.module:function, for example my_metrics:recall")


def _without_meaning(request: Request, tasks: Tasks, labelled: bool) -> Iterator[str]:
    """Thresholds that nothing would be held to."""
    kinds = ", ".join(f"{name} is measured as {task.kind}" for name, task in tasks.items())
    asked = {"agreement": request.min_agreement, "cosine": request.min_cosine}
    for gate, least in asked.items():
        if least is not None and not any(figure.gate == gate for task in tasks.values() for figure in task.figures):
            yield f"--min-{gate}: {kinds}, which has none; {_instead(tasks)}"
    if request.max_drop is not None and not labelled and request.evaluate is None:
        main = next(iter(tasks.values()))
        wanted, how = ("the classes", _FOLDERS) if main.kind == "classes" else (f"what is right ({kinds})", _LABELS)
        how = _BESIDE.get(main.kind, how)
        yield f"--max-drop needs to know {wanted}: {how}, or a figure of your own as --evaluate"


_FOLDERS = "give a folder with one sub-folder each as --eval-images"
_LABELS = "give a file of images and fitting labels as --eval-images"
_BESIDE = {
    "detection": "give a folder of images as --eval-images and their COCO annotations as --eval-coco",
    "embedding": "give labelled images as --bank, and others as --eval-images",
    "dense": "give images and their maps of classes as --bank and --bank-maps, others as --eval-images and --eval-maps",
    "segmentation": "give a folder of images as --eval-images and their maps of classes as --eval-maps",
}


def _instead(tasks: Tasks) -> str:
    gates = dict.fromkeys(figure.gate for task in tasks.values() for figure in task.figures if figure.gate)
    return f"use {' or '.join(f'--min-{gate}' for gate in gates)}"
