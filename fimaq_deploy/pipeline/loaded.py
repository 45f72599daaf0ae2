"""What a build starts from: a model, what is around its encoder, images, and how its answers are judged."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import nn

from fimaq_deploy.calibration import parallel
from fimaq_deploy.calibration.quantization import quantize
from fimaq_deploy.data.choose import calibration_source
from fimaq_deploy.data.source import ImageSource
from fimaq_deploy.models.describe import ModelInfo
from fimaq_deploy.models.load import open_model
from fimaq_deploy.pipeline.measures import Measures, choose_measures
from fimaq_deploy.pipeline.normalisation import Normalisation
from fimaq_deploy.pipeline.request import Request
from fimaq_deploy.pipeline.sources import evaluation_and_bank
from fimaq_deploy.pipeline.whole import Whole, how_read


@dataclass(frozen=True)
class Loaded:
    """What a build starts from."""

    whole: Whole
    info: ModelInfo
    calibration: ImageSource
    evaluation: ImageSource
    measures: Measures
    notes: tuple[str, ...] = ()

    @property
    def encoder(self) -> nn.Module:
        return self.whole.encoder

    def shown(self, images: ImageSource) -> ImageSource:
        """What the encoder gets of them."""
        return self.whole.encoder_images(images)

    @cached_property
    def how_read(self) -> Normalisation | str:
        """How that comes of the images, or why a file that reads images cannot do it."""
        channels = self.info.input_shape[0]
        if self.whole.is_encoder:
            return Normalisation((0.0,) * channels, (1.0,) * channels)
        return how_read(self.whole, self.calibration)

    @property
    def reads(self) -> Normalisation | None:
        """What is done to images on their way to the encoder; None where that is more than a normalisation."""
        return self.how_read if isinstance(self.how_read, Normalisation) else None

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.whole.model.parameters())


def load(request: Request) -> Loaded:
    """Everything that a request names.

    Raises:
        UserError: a model or images that are refused.
    """
    whole, info, notes = _opened(request)
    calibration = _calibration(request, info)
    evaluation, bank = evaluation_and_bank(request, info, calibration)
    measures = choose_measures(request, whole.original, evaluation, bank)
    return Loaded(whole, info, calibration, evaluation, measures, notes)


def _opened(request: Request) -> tuple[Whole, ModelInfo, tuple[str, ...]]:
    """The model, what is known of it, and what is to be said about its weights."""
    device = parallel.own_device(request.device)
    opened = open_model(request.model, request.weights, device=device, seed=request.seed, sizes=request.sizes)
    whole = Whole.of(opened.model, request.backbone)
    info = whole.describe(request.model, request.preprocessing, request.sizes.image_size)
    return whole, info, opened.notes


def _calibration(request: Request, info: ModelInfo) -> ImageSource:
    count = request.recipe.reconstruction.images
    return calibration_source(
        request.model, info, count, images=request.images, weights=request.weights, seed=request.seed
    )


def assist(request: Request) -> None:
    """Learn with the first process and write nothing."""
    whole, info, _ = _opened(request)
    quantize(
        whole.model,
        _calibration(request, info),
        request.recipe,
        request.targets,
        seed=request.seed,
        device=parallel.own_device(request.device),
        sm=request.sm,
        backbone=request.backbone,
        divergence=request.divergence,
        accept=request.accept,
    )
