"""A field's evaluations on a GPU as recorded graphs: one launch each instead of one for every matrix product.

A small net's velocity is a dozen kernels of a few microseconds; started one by one from Python they wait for their
launches.  CUDA can record them once, for arrays of one shape at fixed places, and replay them together.  A batch that
loses rows changes its shape, and recording costs as much as some dozen evaluations, so a shape is recorded only when it
comes back.

The recorder is a parameter: what is done with shapes and buffers is the same whatever records, and is tested without a
GPU.  :class:`CudaGraphs` itself has not been run on a device yet.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from gfsim.arrays import Array
from gfsim.errors import InvalidInput
from gfsim.flow.field import Field

AFTER = 20
"""Evaluations of one shape before it is recorded."""

KEPT = 16
"""Recordings kept; the one that was not used for longest gives way."""


class Recorder(Protocol):
    """Makes of a function and arrays that stay in place a replay, which computes it anew from what is in them."""

    def __call__(self, function: Callable[..., Array], inputs: tuple[Array, ...]) -> tuple[Callable[[], None], Array]:
        """(replay, output): after ``replay()`` the array ``output`` holds ``function(*inputs)``."""
        ...


class CudaGraphs:
    """``torch.cuda.CUDAGraph``."""

    WARM_UP = 3
    """Runs on a side stream before the recording, in which libraries make their work spaces."""

    def __call__(self, function: Callable[..., Array], inputs: tuple[Array, ...]) -> tuple[Callable[[], None], Array]:
        import torch

        with torch.cuda.device(inputs[0].device):  # which need not be the current one
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(self.WARM_UP):
                    function(*inputs)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                output = function(*inputs)
        return graph.replay, output


@dataclass
class _Recording:
    inputs: tuple[Array, ...]
    replay: Callable[[], None]
    output: Array

    def __call__(self, arrays: tuple[Array, ...]) -> Array:
        for place, array in zip(self.inputs, arrays, strict=True):
            place.copy_(array)
        self.replay()
        return self.output.clone()  # the next replay overwrites it


@dataclass
class Captured:
    """``of`` with the evaluations that integrators repeat (velocity, potential, Jacobian and its products) recorded.

    Parameters
    ----------
    of : Field
        On torch tensors.
    recorder : Recorder
    """

    of: Field
    recorder: Recorder = field(default_factory=CudaGraphs)
    _seen: dict[Any, int] = field(default_factory=dict, repr=False)
    _recordings: OrderedDict[Any, _Recording] = field(default_factory=OrderedDict, repr=False)

    def velocity(self, w: Array) -> Array:
        return self._evaluated("velocity", w)

    def potential(self, w: Array) -> Array:
        return self._evaluated("potential", w)

    def jacobian(self, w: Array) -> Array:
        return self._evaluated("jacobian", w)

    def jacobian_product(self, w: Array, v: Array) -> Array:
        return self._evaluated("jacobian_product", w, v)

    def __getattr__(self, name: str) -> Any:
        if name == "of":  # not there yet while a copy is made
            raise AttributeError(name)
        return getattr(self.of, name)

    def _evaluated(self, name: str, *arrays: Array) -> Array:
        key = (name, *(tuple(array.shape) for array in arrays))
        recording = self._recordings.get(key)
        if recording is not None:
            self._recordings.move_to_end(key)
            return recording(arrays)
        function = getattr(self.of, name)
        self._seen[key] = self._seen.get(key, 0) + 1
        if self._seen[key] > AFTER:
            inputs = tuple(array.clone() for array in arrays)
            replay, output = self.recorder(function, inputs)
            recording = self._recordings[key] = _Recording(inputs, replay, output)
            del self._seen[key]
            if len(self._recordings) > KEPT:
                self._recordings.popitem(last=False)
            return recording(arrays)
        return function(*arrays)


def captured(place: Field, device: str | None) -> Captured:
    """``place`` recorded on a CUDA device.

    Raises
    ------
    InvalidInput
        For another device: only CUDA records graphs.
    """
    if device is None or not device.startswith("cuda"):
        raise InvalidInput(
            f"capture=True records CUDA graphs, and device = {device!r}; pass device='cuda', or no capture"
        )
    return Captured(place)
