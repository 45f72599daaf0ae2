"""Answers of detectors as arrays, beside what their own libraries make of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fimaq_deploy.errors import UserError
from fimaq_deploy.models.detectors import Arranged, arranged, is_detection, label_range, objects_of


def one_image(count: int, masks: bool = True, seed: int = 0) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(seed)
    found = {
        "boxes": torch.rand(count, 4, generator=random) * 30,
        "scores": torch.rand(count, generator=random),
        "labels": torch.randint(1, 9, (count,), generator=random),
    }
    return {**found, "masks": torch.rand(count, 1, 8, 8, generator=random)} if masks else found


def test_lists_are_filled_up_and_sorted() -> None:
    answer = [one_image(3), one_image(0), one_image(7, seed=1)]
    found = arranged(answer, (8, 8), most=5)
    assert {name: (tuple(each.shape), each.dtype) for name, each in found.items()} == {
        "boxes": ((3, 5, 4), torch.float32),
        "scores": ((3, 5), torch.float32),
        "labels": ((3, 5), torch.int64),
        "masks": ((3, 5, 8, 8), torch.bool),
    }
    assert (found["labels"][1] == -1).all() and (found["scores"][1] == 0).all()
    assert (found["labels"][0] == -1).tolist() == [False] * 3 + [True] * 2
    assert found["scores"][2].tolist() == answer[2]["scores"].sort(descending=True).values[:5].tolist()
    best = answer[2]["scores"].argmax()
    assert torch.equal(found["boxes"][2, 0], answer[2]["boxes"][best])
    assert torch.equal(found["masks"][2, 0], answer[2]["masks"][best, 0] > 0.5)


def test_without_masks_there_are_none() -> None:
    assert "masks" not in arranged([one_image(2, masks=False)], (8, 8))


@pytest.mark.parametrize("no_object", [False, True])
def test_queries_are_read_as_transformers_reads_them(no_object: bool) -> None:
    library = pytest.importorskip("transformers")
    torch.manual_seed(0)
    answer = SimpleNamespace(logits=torch.randn(2, 6, 5), pred_boxes=torch.rand(2, 6, 4))
    found = arranged(answer, (40, 60), labels=4 if no_object else 5)
    processor = library.DetrImageProcessorFast if no_object else library.RTDetrImageProcessorFast
    expected = processor().post_process_object_detection(answer, threshold=0.0, target_sizes=[(40, 60)] * 2)
    for image, theirs in enumerate(expected):
        order = theirs["scores"].argsort(descending=True)
        assert torch.allclose(found["scores"][image], theirs["scores"][order])
        assert torch.equal(found["labels"][image], theirs["labels"][order])
        assert torch.allclose(found["boxes"][image], theirs["boxes"][order], atol=1e-4)


def test_arrays_stay_what_they_are() -> None:
    given = arranged([one_image(2)], (8, 8), most=3)
    again = arranged({name: each.numpy() for name, each in given.items()}, (8, 8))
    assert all(torch.equal(again[name], given[name]) for name in given)


@pytest.mark.parametrize("answer", [torch.zeros(2, 3), [], {"logits": torch.zeros(2, 3)}, [torch.zeros(2)]])
def test_other_answers_are_refused(answer: Any) -> None:
    assert not is_detection(answer)
    with pytest.raises(UserError, match="expected a list of dictionaries"):
        arranged(answer, (8, 8))


class Fixed(nn.Module):
    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer
        self.roi_heads = nn.Identity()
        self.roi_heads.detections_per_img = 4  # type: ignore[assignment]

    def forward(self, images: Tensor) -> Any:
        return self.answer


def test_the_labels_that_objects_can_get() -> None:
    from torchvision.models import detection

    bare = {"weights": None, "weights_backbone": None, "num_classes": 5}
    with torch.device("meta"):
        roi, ssd = detection.fasterrcnn_mobilenet_v3_large_320_fpn, detection.ssdlite320_mobilenet_v3_large
        behind = [roi(**bare), ssd(**bare)]
        first = [detection.retinanet_resnet50_fpn(**bare)]
    assert [label_range(model) for model in behind] == [range(1, 5)] * 2, "behind the background"
    assert [label_range(model) for model in first] == [range(5)]
    assert label_range(nn.Identity()) is None


def test_a_model_is_wrapped() -> None:
    images = torch.zeros(1, 3, 8, 8)
    assert objects_of(Fixed(None)) == 4
    assert Arranged(Fixed([one_image(2)]))(images)["boxes"].shape == (1, 4, 4)
    scores = torch.zeros(1, 9)
    assert Arranged(Fixed(scores))(images) is scores
