"""A bank is run through the original and every model, and what it is about is found by its labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fimaq_deploy.data.intake import as_source
from fimaq_deploy.data.shapes import generate
from fimaq_deploy.errors import UserError
from fimaq_deploy.measure.accuracy import evaluate
from fimaq_deploy.measure.banks import open_bank
from fimaq_deploy.measure.outputs import running
from fimaq_deploy.measure.tasks import Traits, find_tasks


def pictures(count: int) -> tuple[Tensor, Tensor]:
    """Shapes, small: whether the middle is bright."""
    images = torch.from_numpy(generate("test", count)[0][:, :, ::2, ::2]).float() / 255 - 0.5
    middle = images[:, :, 6:10, 6:10].mean((1, 2, 3))
    return images, (middle > middle.median()).long()


def vectors(images: Any) -> Any:
    return np.asarray(images)[:, :, 4:12, 4:12].reshape(len(images), -1)


def patches(images: Any) -> Any:
    """(N, 16, 48): 4×4 pixels of three channels each."""
    found = np.asarray(images).reshape(len(images), 3, 4, 4, 4, 4)
    return found.transpose(0, 2, 4, 1, 3, 5).reshape(len(images), 16, 48)


IMAGES, CLASSES = pictures(120)
MAPS = (IMAGES.mean(1) > 0).long()
BANK = (IMAGES[:60], CLASSES[:60])


def test_the_model_against_itself_keeps_all_and_a_ruined_one_does_not() -> None:
    own = evaluate(vectors, IMAGES[60:], labels=CLASSES[60:], bank=BANK, against=vectors)
    assert own.tasks["output"].kind == "embedding"
    assert own.value("bank_agreement") == 100
    assert own.value("bank_knn") == own.value("kept_knn")
    assert (own.value("bank_knn") or 0) > 75 and (own.value("bank_probe") or 0) > 75
    ruined = evaluate(lambda x: vectors(x)[::-1], IMAGES[60:], labels=CLASSES[60:], bank=BANK, against=vectors)
    assert (ruined.value("bank_agreement") or 0) < 75
    assert (ruined.value("explained") or 0) < 0


def test_maps_of_classes_are_read_from_patches() -> None:
    bank = (IMAGES[:60], MAPS[:60])
    own = evaluate(patches, IMAGES[60:], labels=MAPS[60:], bank=bank, against=patches)
    assert own.tasks["output"].kind == "dense"
    assert own.value("bank_agreement") == 100
    assert (own.value("bank_miou") or 0) > 55
    ruined = evaluate(lambda x: patches(x)[:, ::-1], IMAGES[60:], labels=MAPS[60:], bank=bank, against=patches)
    assert (ruined.value("bank_miou") or 100) < (own.value("bank_miou") or 0) - 10


def test_labels_decide_which_output_a_bank_is_about() -> None:
    def both(images: Any) -> Any:
        return {"patches": patches(images), "pooled": vectors(images)}

    found = evaluate(both, IMAGES[60:], labels=CLASSES[60:], bank=BANK)
    assert found.value("bank_knn", "pooled") is not None
    assert found.value("bank_miou", "patches") is None
    maps = evaluate(both, IMAGES[60:], labels=MAPS[60:], bank=(IMAGES[:60], MAPS[:60]))
    assert maps.value("bank_miou", "patches") is not None
    assert maps.value("bank_knn", "pooled") is None


def test_a_bank_is_known_by_what_is_in_it() -> None:
    with running(vectors) as run:
        tasks = find_tasks(run(IMAGES[:8]), Traits())
        digests = {
            open_bank(as_source(IMAGES[:40], labels=labels), run, tasks, size).digest
            for labels, size in ((CLASSES[:40], 7), (CLASSES[:40], 40), (1 - CLASSES[:40], 40))
        }
        opened = open_bank(as_source(IMAGES[:40], labels=CLASSES[:40]), run, tasks, 32)
    assert len(digests) == 2
    assert opened.description.startswith("40 images of 2 classes from")


@pytest.mark.parametrize(
    ("bank", "task", "told"),
    [
        (IMAGES[:8], None, "no labels; expected a folder with one sub-folder per class"),
        ((IMAGES[:8], torch.zeros(8, dtype=torch.long)), None, "1 class: expected two or more"),
        ((IMAGES[:8], torch.zeros(8, 2)), None, r"labels are float32 \(1, 2\): expected one class an image"),
        ((IMAGES[:8], CLASSES[:8]), "regression", "output is measured as regression; say otherwise with --task OUTPUT"),
        ((IMAGES[:8], MAPS[:8]), None, "its labels are about an output that is dense"),
    ],
)
def test_a_bank_that_tells_nothing_is_refused(bank: Any, task: str | None, told: str) -> None:
    with pytest.raises(UserError, match=told):
        evaluate(vectors, IMAGES[60:], bank=bank, task=task)
