"""What each layer takes of the time in each format, for `--speed-budget`.

Of a target that loads ONNX files and runs here each product is timed (`measure.products`); of one on a GPU it is the
roofline of the card that the user names (`measure.gpus`); of others it goes by the type of the product, as tensor cores
since Turing multiply eight bits twice as fast as sixteen.

What is counted is a share of the time that all of these products take in floats (of 16 bits on GPUs, of 32 on CPUs), so
that targets of any speed can be held beside each other: a layer costs what it costs on the target where its share is
largest, and a budget that is kept so is kept on all of them.

Weights of four bits save time only where kernels read them packed, which are NVFP4's. INT4 is unpacked when a file is
loaded, or by a kernel of its own in every run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from fimaq_deploy.calibration.mixing.options import FLOATS, Option, Options
from fimaq_deploy.engines.runtimes import Runtime, find_runtime
from fimaq_deploy.measure.gpus import Gpu, find_gpu
from fimaq_deploy.measure.products import Piece, time_products
from fimaq_deploy.measure.roofline import FLOAT4, FLOAT8, FLOAT16, INT8, Rates, Work, floor_ms
from fimaq_deploy.target import Target, WeightStorage

WHOLE = 10**9  # the time of all products in floats
_SLOWER_IN_FLOATS = 2  # tensor cores since Turing multiply eight bits twice as fast as sixteen
_KINDS = {"w4a8": INT8, "w8a8": INT8, "fp8": FLOAT8, "nvfp4": FLOAT4, FLOATS: FLOAT16}
_BYTES = {INT8: 1.0, FLOAT8: 1.0, FLOAT4: 9 / 16, FLOAT16: 2.0}  # a number: blocks of 16 have a scale of a byte

# Of each layer in each format, in any unit.
Times = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Costs:
    """What each layer takes in each format, in billionths of the time of all products in floats.

    source: where that is from. measured: the targets that were timed here.
    """

    work: Mapping[str, Mapping[str, int]]
    source: str
    measured: tuple[str, ...]

    def into(self, options: Options) -> dict[str, tuple[Option, ...]]:
        """Options with these costs; a layer that is no product of the file costs no time."""
        return {
            name: tuple(replace(one, work=self.work.get(name, {}).get(one.format, 0)) for one in each)
            for name, each in options.items()
        }

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Costs:
        fields = json.loads(text)
        return cls(fields["work"], fields["source"], tuple(fields["measured"]))


def costs_of(
    pieces: Sequence[Piece],
    formats: Sequence[str],
    targets: Sequence[str],
    gpu: str | None = None,
    storage: WeightStorage = "auto",
) -> Costs:
    """Of every product of a file in each format, and in floats.

    pieces: of the file in integers. gpu: the card of those targets that run on one. storage: of weights of 4 bits.
    """
    runtimes, card = [find_runtime(name) for name in targets], None if gpu is None else find_gpu(gpu)
    found: dict[str, Times] = {}
    for runtime in runtimes:
        source, times = _of(runtime, pieces, [*formats, FLOATS], card, storage)
        found[source] = _largest(found[source], times) if source in found else times
    shares = [_shares(times) for times in found.values()]
    work = {
        name: {form: max(int(WHOLE * each[name][form]) for each in shares) for form in (*formats, FLOATS)}
        for name in shares[0]
    }
    measured = tuple(runtime.name for runtime in runtimes if is_measured(runtime))
    return Costs(work, "; ".join(found), measured)


def is_measured(runtime: Runtime) -> bool:
    """Whether its products are timed: it loads ONNX files on this machine's CPU."""
    return runtime.has_floor and runtime.availability()[1] is None


def _of(
    runtime: Runtime, pieces: Sequence[Piece], formats: Sequence[str], card: Gpu | None, storage: WeightStorage
) -> tuple[str, Times]:
    if is_measured(runtime):
        return f"measured on this CPU with {runtime.name}", _measured(runtime, pieces, formats)
    if card is not None and runtime.device == "gpu":
        return f"roofline of {card.name}", _each(
            pieces, formats, lambda piece, form: roofline(piece, form, card.rates, runtime.target, storage)
        )
    return "types of products, 8 bits twice as fast as 16", _each(
        pieces, formats, lambda piece, form: piece.operations * (_SLOWER_IN_FLOATS if form == FLOATS else 1.0)
    )


def _each(pieces: Sequence[Piece], formats: Sequence[str], time: Callable[[Piece, str], float]) -> Times:
    found: Times = {piece.layer: dict.fromkeys(formats, 0.0) for piece in pieces}
    for piece in pieces:
        for form in formats:
            found[piece.layer][form] += time(piece, form)
    return found


def _measured(runtime: Runtime, pieces: Sequence[Piece], formats: Sequence[str]) -> Times:
    """Every format of integers is the same kernel: INT4 is unpacked when the file is loaded."""
    timed = time_products(pieces, runtime)
    return {
        name: {form: float((timed.floats if form == FLOATS else timed.own)[name].min()) for form in formats}
        for name in timed.own
    }


def roofline(piece: Piece, form: str, rates: Rates, target: Target, storage: WeightStorage = "auto") -> float:
    """The least milliseconds of a product in a format on a GPU, whose result has 16 bits in any.

    Beside the product counts what takes a kernel of its own: unpacking INT4 weights, and quantizing to NVFP4, which
    reads 16 bits, writes four and lays the scales out.
    """
    kind = _KINDS[form] if target.integers.native else FLOAT16
    size = _BYTES[kind]
    product = Work({kind: piece.operations}, round(size * piece.weights), round(size * piece.reads + 2 * piece.writes))
    aside = 0.0
    if form == "w4a8" and kind == INT8 and storage == "int4" and target.int4_channels == "unpacked":
        aside = 1.5 * piece.weights
    elif kind == FLOAT4:
        aside = (_BYTES[FLOAT16] + size + 2 / 16) * piece.reads
    return floor_ms(product, rates) + floor_ms(Work({}, 0, round(aside)), rates)


def _largest(one: Times, other: Times) -> Times:
    return {name: {form: max(time, other[name][form]) for form, time in each.items()} for name, each in one.items()}


def _shares(times: Times) -> Times:
    whole = sum(each[FLOATS] for each in times.values())
    return {name: {form: time / whole for form, time in each.items()} for name, each in times.items()}
