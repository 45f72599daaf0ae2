"""The rules of TensorRT's runtime, kept by an engine that computes y = max(x, 0) over raw addresses on the CPU.

There is no GPU here. What the engine refuses, TensorRT refuses: a shape outside of the profile, a run without an
address for each tensor, and recording a context that has not run yet.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from enum import Enum
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fimaq_deploy.engines.tensorrt_session import Session
from fimaq_deploy.errors import UserError

SIZES = (3, 4, 4)
BINDINGS = SimpleNamespace(TensorIOMode=Enum("TensorIOMode", "INPUT OUTPUT"))
HANDLE = 77


class Engine:
    """Two tensors, of which the first has a dynamic batch."""

    num_io_tensors = 2

    def __init__(self, kind: str = "FLOAT", first: int = -1, inputs: int = 1) -> None:
        self.kind, self.first, self.inputs = kind, first, inputs
        self.contexts: list[Context] = []

    def get_tensor_name(self, number: int) -> str:
        return ("images", "logits")[number]

    def get_tensor_mode(self, name: str) -> Any:
        is_input = name == "images" or self.inputs > 1
        return BINDINGS.TensorIOMode.INPUT if is_input else BINDINGS.TensorIOMode.OUTPUT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (self.first, *SIZES)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert (name, profile, self.first) == ("images", 0, -1)
        return [(size, *SIZES) for size in (1, 4, 6)]

    def get_tensor_dtype(self, name: str) -> str:
        return f"DataType.{self.kind}"

    def create_execution_context(self) -> Context:
        self.contexts.append(Context())
        return self.contexts[-1]


class Context:
    def __init__(self) -> None:
        self.shape: tuple[int, ...] = ()
        self.addresses: dict[str, int] = {}
        self.runs = 0

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        return name == "images" and 1 <= shape[0] <= 6 and shape[1:] == SIZES

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shape

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, handle: int) -> bool:
        if handle != HANDLE or set(self.addresses) != {"images", "logits"}:
            return False
        count = int(np.prod(self.shape))
        read, written = (
            np.ctypeslib.as_array((ctypes.c_float * count).from_address(self.addresses[name]))
            for name in ("images", "logits")
        )
        written[:] = np.maximum(read, 0)
        self.runs += 1
        return True


class Host:
    """The CPU as a stream. A record runs what it was given again, at the same addresses."""

    device, handle = torch.device("cpu"), HANDLE

    def __init__(self) -> None:
        self.recorded = 0

    def active(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def wait(self) -> None:
        return

    def record(self, launch: Callable[[], None]) -> Callable[[], None]:
        self.recorded += 1
        return launch


def session(engine: Engine, stream: Host | None = None, **options: bool) -> Session:
    return Session("tensorrt", BINDINGS, engine, stream or Host(), engine.create_execution_context, **options)


def images(batch: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((batch, *SIZES)).astype(np.float32)


@pytest.mark.parametrize("record", [False, True])
def test_any_batch_of_the_profile(record: bool) -> None:
    engine, stream = Engine(), Host()
    run = session(engine, stream, record=record)
    kept = []
    for seed, batch in enumerate((1, 4, 6, 4, 1, 4)):
        own = images(batch, seed)
        kept.append((own, run(own)["logits"]))
    for own, logits in kept:
        np.testing.assert_array_equal(logits, np.maximum(own, 0), "results are the caller's, and not a buffer")
    assert len(engine.contexts) == 3, "one for each batch size"
    assert stream.recorded == (3 if record else 0)
    assert run.input_shape == (-1, *SIZES)


def test_a_context_runs_before_it_is_recorded() -> None:
    engine, stream = Engine(), Host()
    run = session(engine, stream, record=True)
    run(images(4))
    assert (stream.recorded, engine.contexts[0].runs) == (1, 2), "once to prepare itself, and the replay"
    run(images(4))
    assert (stream.recorded, engine.contexts[0].runs) == (1, 3)


def test_only_the_last_few_batch_sizes_are_kept() -> None:
    engine = Engine()
    run = session(engine)
    for batch in (1, 2, 3, 4, 5, 5, 1):
        run(images(batch))
    assert len(engine.contexts) == 6, "the first of five was let go"


@pytest.mark.parametrize("batch", [7, 128])
def test_a_batch_outside_of_the_profile_is_one_line(batch: int) -> None:
    with pytest.raises(UserError, match=f"tensorrt: a batch of {batch} images: this engine takes 1 to 6; split"):
        session(Engine())(images(batch))


def test_an_engine_without_a_dynamic_batch_has_no_profile_to_ask() -> None:
    run = session(Engine(first=2))
    assert run(images(2))["logits"].shape == (2, *SIZES)


def test_what_cannot_be_run_says_why() -> None:
    with pytest.raises(UserError, match="inputs images, logits: expected one"):
        session(Engine(inputs=2))
    with pytest.raises(UserError, match="images of the engine is FP4: expected one of FLOAT, HALF"):
        session(Engine("FP4"))(images(1))
    engine = Engine()
    with pytest.raises(UserError, match="no room on the device"):
        Session("tensorrt", BINDINGS, engine, Host(), lambda: None)(images(1))
    other = Host()
    other.handle = 0
    with pytest.raises(UserError, match="stopped while it ran"):
        session(engine, other)(images(1))
