"""`--recipe auto`: which format each layer gets under a budget of bytes, of time or of accuracy.

A budget of bytes or time names a mix of the front, which learns and is looked at once more (`calibration.mixing`). A
budget of accuracy alone is met by trying: mixes of the front learn and are measured on the evaluation images, in a
binary search for the smallest that keeps the figure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fimaq_deploy.calibration import parallel
from fimaq_deploy.calibration.mixing.front import Mix, front
from fimaq_deploy.calibration.mixing.mixes import Tried, outputs_loss, settled
from fimaq_deploy.calibration.mixing.options import (
    FLOATS,
    NVFP4,
    Option,
    Options,
    formats_for,
    mixed,
    options_of,
    uniform,
)
from fimaq_deploy.calibration.quantization import quantize
from fimaq_deploy.calibration.quantized_model import QuantizedModel
from fimaq_deploy.calibration.state import fingerprint
from fimaq_deploy.contract import Contract
from fimaq_deploy.data.batches import images_at_once
from fimaq_deploy.data.source import ImageSource
from fimaq_deploy.errors import UserError
from fimaq_deploy.export import trace
from fimaq_deploy.export.opset import DEFAULT_OPSET, FLOAT4_OPSET, check_storage
from fimaq_deploy.files import write_whole
from fimaq_deploy.measure.accuracy import evaluate
from fimaq_deploy.measure.own import own_figures
from fimaq_deploy.measure.products import Piece
from fimaq_deploy.models.families import family_of
from fimaq_deploy.pipeline.arguments import Budget
from fimaq_deploy.pipeline.costs import WHOLE, Costs, costs_of
from fimaq_deploy.pipeline.measures import Measures
from fimaq_deploy.pipeline.request import Request
from fimaq_deploy.pipeline.steps import Counter
from fimaq_deploy.pipeline.weighing import bits_of, file_bits, weigh
from fimaq_deploy.pipeline.whole import Whole
from fimaq_deploy.recipe import Recipe
from fimaq_deploy.report import schema
from fimaq_deploy.target import combine, find_target, since

IMAGES = 64  # on which layers are compared
_APART, _JUDGED = 4, 256  # one calibration image of four is kept to judge by, as far as that many
_PROBES = 4
_TRIES = 2  # of a budget of bytes: again where what learned takes more than what has not
_SPARE = 300  # bytes: equal scales are stored once, and which ones are equal is known when all has been learned
_POINTS = 33  # of the front that are told, and among which a budget of accuracy is searched


@dataclass
class Search:
    """What a budget is kept with: `request.budget`, or --max-drop where that names none.

    model: as the user has it; of one with an encoder inside, that encoder gets the formats. images, evaluation: the
    whole model's. state: a folder that keeps what was found, for a build that goes on. contract: what the file of a
    quantized model will say of its input, which takes bytes too; None is what the model says.
    """

    request: Request
    model: nn.Module
    images: ImageSource
    evaluation: ImageSource
    measures: Measures
    state: Path
    count: Counter
    contract: Callable[[QuantizedModel], Contract | None] = field(default=lambda _: None)
    tried: int = field(default=0, init=False)

    @property
    def budget(self) -> Budget:
        assert self.request.budget is not None, "only --recipe auto has a budget to search for"
        return self.request.budget

    @cached_property
    def whole(self) -> Whole:
        return Whole.of(self.model, self.request.backbone)

    @property
    def device(self) -> str:
        return parallel.own_device(self.request.device)

    def chosen(self) -> tuple[Recipe, schema.Mix]:
        """The recipe whose `layers` keep the budget, and what it rests on.

        Raises:
            UserError: no mix keeps the budget; the message has the smallest one's.
        """
        asked = self.request
        stored = asked.opset, asked.weight_storage, self.evaluation.description
        kept = self.state / f"mix-{self._digest(asked.as_dict(), *stored)}.json"
        if not kept.is_file():
            write_whole(kept, self.run().model_dump_json().encode())
        record = schema.Mix.model_validate(json.loads(kept.read_text(encoding="utf-8")))
        return mixed(self.request.recipe, record.formats), record

    def run(self) -> schema.Mix:
        formats = self._formats()
        models = {name: self._searched(uniform(self.request.recipe, name), name) for name in formats}
        options: Options = options_of(models, self._bits())
        if not options:
            raise UserError("--recipe auto: no layer of this model can be quantized for the target, so there is no mix")
        weighed = weigh(models, options, self._write)
        costs = self._costs(weighed.pieces, formats)
        options, rest = costs.into(weighed.options), weighed.rest
        if self.budget.megabytes is None and self.budget.speed is None:
            return self._smallest_that_keeps(options, rest, costs)
        if self.budget.megabytes is not None:  # floats would take time, which nobody offered
            options = {name: tuple(one for one in each if one.format != FLOATS) for name, each in options.items()}
        for _ in range(_TRIES):
            limit, cost = self._limit(options, rest, costs)
            tries, size = self._settled(options, cost, limit)
            rest = size - bits_of(options, tries[-1].mix.formats)
            if self.budget.megabytes is None or size <= 8e6 * self.budget.megabytes:
                break
        probes = [self._probe(one.mix, options, rest, one.loss) for one in tries]
        return self._record(tries[-1].mix, options, rest, cost, probes, costs)

    def _settled(self, options: Options, cost: Callable[[Option], int], limit: float) -> tuple[list[Tried], int]:
        """Mixes that learn from the first calibration images, and are judged on the others; the bits of the best's
        file, in which what learned has no more numbers in common.
        """
        original, encoder, wanted = self.whole.encoder_original, self.whole.encoder, self.request.recipe.reconstruction
        shown = self.whole.encoder_images(self.images).take(wanted.images)
        learned = len(shown) - max(1, len(shown) // _APART)
        apart = shown[learned:][:_JUDGED].to(self.device)
        at_once = images_at_once(apart.shape, IMAGES)
        judge = outputs_loss(original, family_of(encoder).classes(encoder), apart, at_once)
        base = self.request.recipe.replace(reconstruction={"images": max(1, learned)})

        sizes = dict[tuple[str, ...], int]()

        def learn(formats: dict[str, str]) -> QuantizedModel:
            learned = self._quantized(mixed(base, formats), "part")
            sizes[tuple(formats.values())] = file_bits(learned, self._write)
            return learned

        tries = settled(options, cost, limit, self._search, learn, judge)
        return tries, sizes[tuple(tries[-1].mix.formats.values())]

    def _formats(self) -> list[str]:
        """Those of the target. NVFP4 saves time alone: model.onnx holds its values in bytes, beside its scales."""
        opset, timed = self.request.opset, self.budget.speed is not None
        few = timed and (opset is None or opset >= FLOAT4_OPSET)
        found = formats_for(since(combine(map(find_target, self.request.targets)), self.request.sm))
        return [one for one in found if few or one != NVFP4]

    def _bits(self) -> dict[str, float]:
        """What a weight takes in model.onnx, whose floats have 32 bits and blocks of 16 a scale."""
        opset = self.request.opset or DEFAULT_OPSET
        packed = check_storage(self.request.weight_storage, opset) != "int8"
        return {"w4a8": 4 if packed else 8, "w8a8": 8, "fp8": 8, NVFP4: 8.5, FLOATS: 32}

    def _write(self, model: QuantizedModel, path: Path) -> None:
        traced = trace(model, contract=self.contract(model))
        traced.write(path, opset=self.request.opset, weight_storage=self.request.weight_storage)

    def _costs(self, pieces: Sequence[Piece], formats: Sequence[str]) -> Costs:
        """Kept, so that a search that goes on chooses by what it has measured."""
        asked = self.request
        decides = asked.targets, asked.gpu, asked.weight_storage, asked.opset, list(formats)
        kept = self.state / f"costs-{self._digest(*decides)}.json"
        if not kept.is_file():
            found = costs_of(pieces, formats, asked.targets, asked.gpu, asked.weight_storage)
            write_whole(kept, found.to_json().encode())
        return Costs.from_json(kept.read_bytes())

    def _digest(self, *told: Any) -> str:
        """What a name in `state` ends with, which several searches may share: of what is told, of model and images."""
        return fingerprint(self._seen, *told)[:16]

    @cached_property
    def _seen(self) -> str:
        """Of the model, and of the images that every mix learns from."""
        left, found = self.request.recipe.reconstruction.images, list[Tensor]()
        for batch in self.images.batches():
            found.append(batch.images[:left])
            left -= len(found[-1])
            if not left:
                break
        return fingerprint(self.model, *found)

    def _searched(self, recipe: Recipe, name: str) -> QuantizedModel:
        """With searched scales, nothing learned, and what each layer costs."""
        return self._quantized(recipe.replace(reconstruction={"iterations": 0}, tuning={"iterations": 0}), name, IMAGES)

    def _quantized(self, recipe: Recipe, name: str, sensitivity: int = 0) -> QuantizedModel:
        self.count(self.tried, 0, f"trying {name}")
        self.tried += 1
        return quantize(
            self.model,
            self.images,
            recipe,
            self.request.targets,
            seed=self.request.seed,
            device=self.device,
            resume=self.state / f"{name}-{self._digest(*self._decides(recipe))}",
            sensitivity=sensitivity,
            sm=self.request.sm,
            backbone=self.request.backbone,
            divergence=self.request.divergence,
        )

    def _decides(self, recipe: Recipe) -> tuple[Any, ...]:
        """What a model learns by, beside the images."""
        asked = self.request
        guided = asked.backbone, asked.divergence_name
        return recipe.model_dump(mode="json"), asked.model, asked.weights, asked.targets, asked.seed, asked.sm, *guided

    def _search(self, formats: dict[str, str]) -> QuantizedModel:
        return self._searched(mixed(self.request.recipe, formats), "mix")

    def _learn(self, formats: dict[str, str]) -> QuantizedModel:
        return self._quantized(mixed(self.request.recipe, formats), "mix")

    def _limit(self, options: Options, rest: int, costs: Costs) -> tuple[float, Callable[[Option], int]]:
        """What the budget leaves for the layers, in units of their cost."""
        if self.budget.megabytes is not None:
            limit = 8e6 * self.budget.megabytes - 8 * _SPARE - rest
            least = sum(min(one.bits for one in each) for each in options.values())
            if limit < least:
                needed = ceil((least + rest) / 8e3 + _SPARE / 1e3) / 1e3
                raise UserError(
                    f"--size-budget {self.budget.megabytes:g}: the smallest mix takes {needed:g} MB "
                    f"({rest / 8e6:.3g} of them are no weights of layers that can be quantized); allow at least that"
                )
            return limit, _bits
        assert self.budget.speed is not None
        least = sum(min(one.work for one in each) for each in options.values())
        if WHOLE / self.budget.speed < least:
            raise UserError(
                f"--speed-budget {self.budget.speed:g}: the products of the fastest mix are {WHOLE / least:.3g} times "
                f"as fast as in floats ({costs.source}); ask for less than that"
            )
        return WHOLE / self.budget.speed, _work

    def _smallest_that_keeps(self, options: Options, rest: int, costs: Costs) -> schema.Mix:
        """The smallest of some mixes of the front that loses no more than --max-drop on the evaluation images."""
        assert self.request.max_drop is not None
        mixes = _thinned(front(options, _bits))
        before = self._figure(self.whole.original)
        low, high, kept = 0, len(mixes) - 1, len(mixes) - 1
        probes: list[schema.MixProbe] = []
        while low <= high and len(probes) < _PROBES:
            middle = low if not probes else (low + high) // 2
            learned = self._learn(mixes[middle].formats)
            drop = before - self._figure(self.whole.around(learned))
            probes.append(self._probe(mixes[middle], options, rest, drop=drop))
            if drop <= self.request.max_drop:
                kept, high = middle, middle - 1
            else:
                low = middle + 1
        return self._record(mixes[kept], options, rest, _bits, probes, costs)

    def _figure(self, model: nn.Module) -> float:
        """What --max-drop is about, higher is better."""
        if self.measures.own is not None:
            return next(iter(own_figures(self.measures.own, model).values()))
        bank = self.measures.bank
        against = None if bank is None else family_of(self.model).original(self.model)
        found = evaluate(
            model,
            self.evaluation,
            task=dict(self.request.task) or None,
            against=against,
            bank=None if bank is None else bank.images,
        )
        one = next(one for one in found.figures if one.figure.of == "labels" and one.figure.headline)
        return one.value if one.figure.higher_is_better else -one.value

    def _probe(
        self, mix: Mix, options: Options, rest: int, loss: float | None = None, drop: float | None = None
    ) -> schema.MixProbe:
        return schema.MixProbe(point=_point(mix, options, rest), loss=loss, drop=drop)

    def _record(
        self,
        mix: Mix,
        options: Options,
        rest: int,
        cost: Callable[[Option], int],
        probes: list[schema.MixProbe],
        costs: Costs,
    ) -> schema.Mix:
        return schema.Mix(
            size_budget=self.budget.megabytes,
            speed_budget=self.budget.speed,
            costs=costs.source,
            formats=mix.formats,
            losses={name: {one.format: one.loss for one in each} for name, each in options.items()},
            chosen=_point(mix, options, rest),
            front=[_point(one, options, rest) for one in _thinned(front(options, cost))],
            probes=probes,
        )


def _bits(option: Option) -> int:
    return option.bits


def _work(option: Option) -> int:
    return option.work


def _thinned(mixes: list[Mix]) -> list[Mix]:
    """At most so many of them, evenly over what they cost, both ends among them."""
    if len(mixes) <= _POINTS:
        return mixes
    first, last = mixes[0].cost, mixes[-1].cost
    wanted = [first + (last - first) * step / (_POINTS - 1) for step in range(_POINTS)]
    picked = {max((n for n, mix in enumerate(mixes) if mix.cost <= limit), default=0) for limit in wanted}
    return [mixes[number] for number in sorted(picked)]


def _point(mix: Mix, options: Options, rest: int) -> schema.MixPoint:
    work = sum(one.work for name, each in options.items() for one in each if one.format == mix.formats[name])
    return schema.MixPoint(
        megabytes=(bits_of(options, mix.formats) + rest) / 8e6, speed=WHOLE / max(1, work), loss=mix.loss
    )
