"""Initial scales, before anything is learned.

Weights: per output channel (or block) the scale, out of a range of candidates, whose rounding changes the layer's
output least, with the output error approximated by the second moments of the inputs: sum_k E[x_k²] (w_k - ŵ_k)².
Activations: the bounds that minimise the squared error of a sample of the tensor, lower and upper bound in turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor, nn

from fimaq_deploy.calibration.device import is_host, of
from fimaq_deploy.calibration.learning.grid_errors import WORTH_SORTING, Sorted
from fimaq_deploy.calibration.quantizers.fake_quant import ActivationQuantizer, alike
from fimaq_deploy.calibration.quantizers.grid import ActivationGrid, AnyWeightGrid
from fimaq_deploy.calibration.quantizers.layers import (
    QuantizedLayer,
    activation_quantizers,
    enable_quantization,
    quantized_layers,
)
from fimaq_deploy.calibration.quantizers.observer import Observer
from fimaq_deploy.calibration.quantizers.of_grid import on_grid, shrunken, storable_scale, widest_scale

# Weights times candidates that are tried at once: what a CPU's cache holds, and what keeps a GPU busy.
_HOST_VALUES, _DEVICE_VALUES = 2**18, 2**26


@torch.no_grad()
def search_stage(stage: nn.Module, batches: Sequence[Tensor], candidates: int, together: int = 1) -> None:
    """Set every scale below a stage from the stage's inputs; it computes in full precision meanwhile.

    together: how many batches may be computed as one; what is found is the same but for the order of sums.
    """
    enable_quantization(stage, False)
    observed = observe(stage, batches, together)
    names = {quantizer: name for name, quantizer in activation_quantizers(stage)}
    for group in alike(names):
        search_activations(group, [observed[names[quantizer]].sample() for quantizer in group], candidates)
    found = {layer: f"{name}.input_quantizer" if name else "input_quantizer" for name, layer in quantized_layers(stage)}
    for layers in _of_one_form(found, candidates):
        search_weights(layers, [observed[found[layer]] for layer in layers], candidates)


@torch.no_grad()
def observe(stage: nn.Module, batches: Sequence[Tensor], together: int = 1) -> dict[str, Observer]:
    """What reaches each activation quantizer below a stage, by the quantizer's name."""
    found = {name: m for name, m in stage.named_modules() if isinstance(m, ActivationQuantizer)}
    weighted = {layer.input_quantizer for _, layer in quantized_layers(stage) if layer.weight.ndim == 2}
    observers = {name: Observer(batches=len(batches), moments=m in weighted) for name, m in found.items()}
    for name, quantizer in found.items():
        quantizer.observer = observers[name]
    try:
        for joined in _joined(batches, together):
            for observer in observers.values():
                observer.together = len(joined)
            stage(joined[0] if len(joined) == 1 else torch.cat(joined))
    finally:
        for quantizer in found.values():
            quantizer.observer = None
    return observers


def _joined(batches: Sequence[Tensor], together: int) -> Iterator[list[Tensor]]:
    """Batches of one size, at most so many at a time, in order."""
    for _, alike_ones in groupby(batches, len):
        rest = list(alike_ones)
        yield from (rest[start : start + together] for start in range(0, len(rest), together))


def search_activations(quantizers: Sequence[ActivationQuantizer], values: Sequence[Tensor], candidates: int) -> None:
    """Bounds of least squared error, each on values (n,) of its own: coordinate descent over shrunken lower and upper
    bounds. Quantizers of one grid, as many at once as memory is meant for.
    """
    # On the host only what is equally long goes together, so that sums are added up in one order, however they go.
    lengths = [len(x) if is_host(x.device) else max(map(len, values)) for x in values]
    for length in dict.fromkeys(lengths):
        own = [n for n, other in enumerate(lengths) if other == length]
        size = max(1, _together(quantizers[own[0]], length, candidates, values[0].device))
        for some in (own[start : start + size] for start in range(0, len(own), size)):
            # A zero is on every grid: it adds nothing to an error.
            rows = nn.utils.rnn.pad_sequence([values[n] for n in some], batch_first=True)
            _search_rows([quantizers[n] for n in some], rows, candidates)


def _search_rows(quantizers: Sequence[ActivationQuantizer], x: Tensor, candidates: int) -> None:
    """x: (quantizers, values). Everything in between is (quantizers, candidates)."""
    one, trial = quantizers[0], _Trial(quantizers[0], x)
    shrink = one.shrunken(candidates, x.device)
    lows, highs = x.amin(1, keepdim=True).clamp(max=0) * shrink, x.amax(1, keepdim=True).clamp(min=0) * shrink
    low, high = trial.best(lows, highs)
    if one.offset_is_free:
        # A search beside a bound that has not moved since the last one would find the same again.
        low, high = trial.best(low.expand_as(highs), highs)
        first, (low, high) = low, trial.best(lows, high.expand_as(lows))
        if not _same(low, first):
            second, (low, high) = high, trial.best(low.expand_as(highs), highs)
            if not _same(high, second):
                low, high = trial.best(lows, high.expand_as(lows))
    scales, offsets = one.fit_bounds(low[:, 0], high[:, 0])
    torch._foreach_copy_([each.scale for each in quantizers], list(scales.unbind()))
    torch._foreach_copy_([each.offset for each in quantizers], list(offsets.unbind()))


def _same(bounds: Tensor, before: Tensor) -> bool:
    """Whether nothing has moved; a device would be waited for to be asked."""
    return is_host(bounds.device) and torch.equal(bounds, before)


def _together(quantizer: ActivationQuantizer, length: int, candidates: int, device: torch.device) -> int:
    """How many quantizers of one grid are searched at once."""
    if _sorts(quantizer, length, device):
        return _HOST_VALUES // (candidates * quantizer.top)
    return _values_at_once(device) // (candidates * length)


def _sorts(quantizer: ActivationQuantizer, length: int, device: torch.device) -> bool:
    """Whether sorted values rule candidates out; elsewhere the host would have to wait to learn which are left."""
    few = isinstance(quantizer.grid, ActivationGrid) and quantizer.top * WORTH_SORTING <= length
    return few and is_host(device)


class _Trial:
    """Tries bounds of quantizers of one grid on a sample of what each of them sees, (quantizers, values)."""

    def __init__(self, quantizer: ActivationQuantizer, x: Tensor) -> None:
        self._quantizer, self._x = quantizer, x
        self._sorted = Sorted(x) if _sorts(quantizer, x.shape[1], x.device) else None

    def best(self, lows: Tensor, highs: Tensor) -> tuple[Tensor, Tensor]:
        """The pair of bounds of each row, out of many, with the least squared error on it; each (rows, 1)."""
        scale, offset = self._quantizer.fit_bounds(lows, highs)
        best = self._errors(scale, offset).argmin(1, keepdim=True)
        # Fetching the numbers would wait for a GPU.
        return lows.gather(1, best), highs.gather(1, best)

    def _errors(self, scale: Tensor, offset: Tensor) -> Tensor:
        """(rows, candidates), infinite for those that others are sure to beat."""
        if self._sorted is None:
            return self._tried(self._x[:, None], scale, offset)
        errors = torch.full_like(scale, torch.inf)
        near = self._sorted.near_best(scale, offset, self._quantizer.top)
        # Nothing is left that such a one would be compared with; of numbers too large for float32 the first is taken.
        alone = near & (near.sum(1, keepdim=True) == 1) & self._sorted.moderate
        errors[alone] = 0
        left = (near ^ alone).nonzero()
        for rows, which in (part.unbind(1) for part in left.split(max(1, _HOST_VALUES // self._x.shape[1]))):
            errors[rows, which] = self._tried(self._x[rows], scale[rows, which], offset[rows, which])
        return errors

    def _tried(self, x: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
        """The mean squared error of each scale and offset, beside the values that it is tried on in the last axis."""
        scale, offset = scale[..., None], offset[..., None]
        steps = self._quantizer.on_grid(x / scale, offset).mul_(scale)
        return steps.sub_(x).square_().mean(-1)


def _values_at_once(device: torch.device) -> int:
    return _HOST_VALUES if is_host(device) else _DEVICE_VALUES


def _of_one_form(layers: Iterable[QuantizedLayer], candidates: int) -> Iterator[list[QuantizedLayer]]:
    """Layers whose weights have one grid and one width, as many as are tried together."""
    forms: dict[object, list[QuantizedLayer]] = {}
    for layer in layers:
        weight = layer.matrix
        group = forms.setdefault((layer.weight_quantizer.grid, weight.shape[1]), [])
        size = sum(other.matrix.numel() for other in group) + weight.numel()
        if group and size * candidates > _values_at_once(weight.device):
            yield group.copy()
            group.clear()
        group.append(layer)
    yield from filter(None, forms.values())


def search_weights(layers: Sequence[QuantizedLayer], inputs: Sequence[Observer], candidates: int) -> None:
    """Scales of least weighted error, and the latent weights at those scales, of layers of one grid and width."""
    weights = [layer.matrix.float() for layer in layers]
    importances = [
        torch.ones_like(weight[0]) if layer.weight.ndim == 4 else seen.second_moments()
        for layer, weight, seen in zip(layers, weights, inputs, strict=True)
    ]
    importance = torch.stack(importances)
    importance = importance / importance.mean(1, keepdim=True).clamp(min=1e-12) + 1e-4
    sizes = [len(weight) for weight in weights]
    if len(layers) > 1:
        rows = torch.arange(len(layers)).repeat_interleave(torch.tensor(sizes))
        importance = importance[of(importance.device).send(rows)]
    quantizers = [layer.weight_quantizer for layer in layers]
    weight = torch.cat(weights)
    scale = best_weight_scale(quantizers[0].grid, weight, importance, candidates)
    latent = weight / quantizers[0].expand(scale)
    torch._foreach_copy_([each.scale for each in quantizers], list(scale.split(sizes)))
    torch._foreach_copy_([each.latent for each in quantizers], list(latent.split(sizes)))


def best_weight_scale(grid: AnyWeightGrid, weight: Tensor, importance: Tensor, candidates: int) -> Tensor:
    """The best scale per output channel and block, [out, blocks]. importance: [1, in] or, by row, [out, in]."""
    size = grid.block_size or weight.shape[1]
    grouped = weight.view(len(weight), -1, size)
    importance = importance.view(-1, grouped.shape[1], size)
    bound = widest_scale(grid, grouped.amin(-1), grouped.amax(-1))
    best_error = torch.full_like(bound, torch.inf)
    best = bound.clone()
    at_once = max(1, _values_at_once(weight.device) // weight.numel())
    for shrink in shrunken(grid, candidates, weight.device).split(at_once):
        scales = storable_scale(grid, bound * shrink[:, None, None])
        steps = on_grid(grid, grouped / scales[..., None]).mul_(scales[..., None])
        error, which = (steps.sub_(grouped).square_() * importance).sum(-1).min(0)
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        best = torch.where(better, scales.gather(0, which[None])[0], best)
    return best
