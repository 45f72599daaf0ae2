"""What was decided and learned on calibration images: rewrites, formats of layers, blocks, grids."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fimaq_deploy.report.schema.values import Count, Part


class Block(Part):
    """Reconstruction of one block. Losses are squared output errors relative to the output's power."""

    name: str
    loss_before: float
    loss_after: float
    iterations: Count
    seconds: float
    curve: list[tuple[int, float]] = Field(
        default=[], description="Loss of a minibatch while learning, partly in full precision, as (iteration, loss)."
    )
    stopped: str = Field(
        default="ceiling", description="Why no more iterations: ceiling, converged or nothing to learn."
    )


class GridUse(Part):
    """How one tensor fills the integers that it may take, on calibration images."""

    name: str
    kind: Literal["weight", "activation"]
    bits: Count
    used_levels: Count = Field(description="Integers that occur.")
    levels: Count = Field(description="Integers that the grid has.")
    clipped: float = Field(description="Share of the values, in percent, that lie beyond the grid.")
    evaluated: float | None = Field(
        default=None, description="The same share on evaluation images; null where nobody looked, and of weights."
    )


class Sensitivity(Part):
    """What quantizing one block or layer costs, as the Fisher loss of the logits, which needs no labels."""

    name: str
    kind: Literal["block", "layer"]
    alone: float = Field(description="Loss with only this one quantized.")
    spared: float = Field(description="By how much the loss falls when everything but this one is quantized.")


class RewriteTrial(Part):
    """A setting that was tried beside those that were taken before it."""

    setting: str = Field(description='As of --set, such as "rewrites.values=true".')
    beside: list[str] = Field(default=[])
    loss: float = Field(description="Divergence of the outputs, mean over images that set none of the scales.")
    gain: float = Field(description="By how much it is lower.")
    noise: float = Field(description="Three standard errors of the gain, image by image.")
    taken: bool


class RewriteChoice(Part):
    """What a recipe of `rewrites: auto` rests on. Nothing had learned."""

    images: int
    loss: float = Field(description="With the rewrites of the model's family.")
    trials: list[RewriteTrial]


class MixPoint(Part):
    """One mix of formats of the layers."""

    megabytes: float = Field(description="What model.onnx takes.")
    speed: float = Field(
        description="How many times as fast its matrix products are as in floats (16 bits on GPUs, 32 on CPUs)."
    )
    loss: float = Field(description="Sum of the Fisher losses of its layers, each measured alone.")


class MixProbe(Part):
    """A mix that learned and was measured."""

    point: MixPoint
    loss: float | None = Field(default=None, description="Divergence of the outputs on calibration images.")
    drop: float | None = Field(default=None, description="What it lost on the evaluation images, as of max_drop.")


class MixTime(Part):
    """How fast the products of the chosen layers are in what was built, together."""

    target: str
    speed: float = Field(description="How many times as fast as in floats, each at its best of several rounds.")
    interval: tuple[float, float] = Field(description="Its 95 % interval over groups of rounds.")


class MixBuilt(Part):
    """What was built of a mix, beside what was foreseen."""

    megabytes: float = Field(description="What model.onnx takes.")
    times: list[MixTime] = Field(default=[], description="Of targets that were timed on this machine.")


class Mix(Part):
    """Which format each layer got under a budget."""

    size_budget: float | None = Field(default=None, description="In megabytes.")
    speed_budget: float | None = None
    costs: str = Field(default="", description="What times of products rest on: a measurement, a roofline, types.")
    formats: dict[str, str] = Field(description="w4a8, w8a8, fp8, nvfp4 or floats, by layer.")
    losses: dict[str, dict[str, float]] = Field(description="Fisher loss of each layer alone, by format.")
    chosen: MixPoint
    front: list[MixPoint] = Field(description="Some of the best mixes for every budget, the cheapest first.")
    probes: list[MixProbe] = Field(default=[], description="What learned before it was chosen.")
    built: MixBuilt | None = Field(default=None, description="What came of it.")
