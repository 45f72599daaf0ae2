"""Running an engine of the TensorRT family: buffers on the device that are kept, any batch of its profile, CUDA graphs.

What this needs of CUDA comes from torch, which brings its own libraries. Polygraphy's runner looks for them where a
toolkit lies, which Python packages of CUDA 13 do not, and records no graphs.

An execution context remembers shapes and addresses, and a recorded graph is one of them. So each batch size has a
context of its own with its buffers, and the last few are kept.

Not run on a GPU yet: tests run it with a device that computes on the CPU, and an engine that keeps TensorRT's rules.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from fimaq_deploy.engines.runner import Array
from fimaq_deploy.errors import UserError

if TYPE_CHECKING:
    import torch

_KEPT_SIZES = 4

Launch = Callable[[], None]


class Stream(Protocol):
    """A stream of a device. handle: as the driver knows it."""

    device: torch.device
    handle: int

    def active(self) -> AbstractContextManager[Any]:
        """Let torch work on this stream."""

    def wait(self) -> None:
        """Until all that was asked of it is done."""

    def record(self, launch: Launch) -> Launch:
        """Record what `launch` asks of the stream; what replays it, on the active stream."""


class CudaStream:
    """A stream of the first GPU. TensorRT waits for the whole device on the default one."""

    def __init__(self) -> None:
        import torch

        self.device = torch.device("cuda", 0)
        self._stream = torch.cuda.Stream(self.device)
        self.handle: int = self._stream.cuda_stream

    def active(self) -> AbstractContextManager[Any]:
        import torch

        return torch.cuda.stream(self._stream)

    def wait(self) -> None:
        self._stream.synchronize()

    def record(self, launch: Launch) -> Launch:
        import torch

        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            launch()
        return graph.replay


class Session:
    """A deserialised engine with one input, called with images (N, C, H, W) float32; returns its outputs by name.

    bindings: the library's Python package. contexts: makes an execution context.
    record: whether to record the kernels of each batch size and replay them.
    """

    def __init__(
        self,
        target: str,
        bindings: Any,
        engine: Any,
        stream: Stream,
        contexts: Callable[[], Any],
        *,
        record: bool = False,
    ) -> None:
        self.target, self._bindings, self._engine, self._stream = target, bindings, engine, stream
        self._contexts, self._record = contexts, record
        names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == bindings.TensorIOMode.INPUT]
        if len(inputs) != 1:
            raise UserError(f"{target}: the engine has inputs {', '.join(inputs)}: expected one batch of images")
        self._input, self._outputs = inputs[0], [name for name in names if name not in inputs]
        self._ready: OrderedDict[int, _Bound] = OrderedDict()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of the images; -1 where any size of the profile will do."""
        return tuple(self._engine.get_tensor_shape(self._input))

    def __call__(self, images: Array) -> dict[str, Array]:
        """Run one batch.

        Raises:
            UserError: a batch that is not in the engine's profile, or the device has too little memory for it.
        """
        import torch

        bound = self._bound(images.shape)
        with self._stream.active():
            bound.images.copy_(torch.from_numpy(images))
            bound.run()
            found = {name: _floats(tensor).cpu().clone() for name, tensor in bound.results.items()}
        self._stream.wait()
        return {name: tensor.numpy() for name, tensor in found.items()}

    def _bound(self, shape: tuple[int, ...]) -> _Bound:
        batch = shape[0]
        if batch not in self._ready:
            self._check(batch)
            while len(self._ready) >= _KEPT_SIZES:
                self._ready.popitem(last=False)
            self._ready[batch] = self._bind(shape)
        self._ready.move_to_end(batch)
        return self._ready[batch]

    def _check(self, batch: int) -> None:
        """Engines without a dynamic batch take the one of their shape, which the runner has checked."""
        if self.input_shape[0] != -1:
            return
        least, _, most = (shape[0] for shape in self._engine.get_tensor_profile_shape(self._input, 0))
        if not least <= batch <= most:
            raise UserError(
                f"{self.target}: a batch of {batch} images: this engine takes {least} to {most}; "
                "split the batch, or compile it again for larger ones"
            )

    def _bind(self, shape: tuple[int, ...]) -> _Bound:
        import torch

        context = self._contexts()
        if context is None:
            raise UserError(
                f"{self.target}: no room on the device to run the engine: free memory or take smaller batches"
            )
        if not context.set_input_shape(self._input, tuple(shape)):
            raise UserError(f"{self.target}: the engine takes no images of shape {tuple(shape)}")
        with self._stream.active():
            tensors = {
                name: torch.empty(
                    tuple(context.get_tensor_shape(name)), dtype=self._type(name), device=self._stream.device
                )
                for name in (self._input, *self._outputs)
            }
        for name, tensor in tensors.items():
            if not context.set_tensor_address(name, tensor.data_ptr()):
                raise UserError(f"{self.target}: the engine takes no buffer for {name}")
        images = tensors.pop(self._input)
        return _Bound(self.target, context, self._stream, images, tensors, self._record)

    def _type(self, name: str) -> torch.dtype:
        import torch

        kind = str(self._engine.get_tensor_dtype(name)).rpartition(".")[2]
        found: torch.dtype = getattr(torch, _TYPES.get(kind, ""), None) or _unknown(self.target, name, kind)
        return found


_TYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "INT64": "int64",
    "INT32": "int32",
    "INT8": "int8",
    "UINT8": "uint8",
    "BOOL": "bool",
}


def _unknown(target: str, name: str, kind: str) -> Any:
    raise UserError(f"{target}: {name} of the engine is {kind}: expected one of {', '.join(_TYPES)}")


class _Bound:
    """A context for one batch size, with the buffers that it reads and writes."""

    def __init__(
        self,
        target: str,
        context: Any,
        stream: Stream,
        images: torch.Tensor,
        results: dict[str, torch.Tensor],
        record: bool,
    ) -> None:
        self._target, self._context, self._stream = target, context, stream
        self.images, self.results = images, results
        self._run: Launch = self._first if record else self._launch

    def run(self) -> None:
        self._run()

    def _first(self) -> None:
        """The library prepares itself in the first run, which cannot be recorded. A replay follows all the same."""
        self._launch()
        self._stream.wait()
        self._run = self._stream.record(self._launch)
        self._run()

    def _launch(self) -> None:
        if not self._context.execute_async_v3(self._stream.handle):
            raise UserError(f"{self._target}: the engine stopped while it ran; the device may be out of memory")


def _floats(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
