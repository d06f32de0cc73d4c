"""Directional convergence measured along a trajectory near a sparse saddle.

docs/theory.md, section 4: along the escape |w_z| = O(delta) and |w_n - wbar_n| = O(delta), while
w_z turns towards a KKT point of the NCF.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from gfsim.arrays import positive
from gfsim.errors import InvalidInput
from gfsim.flow.result import FlowResult
from gfsim.models.feedforward import FeedForward
from gfsim.saddles.saddle import SparseSaddle


@dataclass(frozen=True)
class DirectionTrack:
    """Measurements at the m + 1 recorded states of a flow.

    Attributes
    ----------
    t, s : (m + 1,)
        Physical time and clock.
    small : (m + 1,)
        |w_z| / delta.
    shift : (m + 1,)
        |w_n - wbar_n| / delta.
    cosine : (m + 1,) or None
        Between the whole of w_z and the target direction; None when no target was given.
    neuron_norms : list of (m + 1, width)
        sqrt(|incoming|^2 + |outgoing|^2) of every neuron, a hidden layer each.
    """

    delta: float
    t: np.ndarray = field(repr=False)
    s: np.ndarray = field(repr=False)
    small: np.ndarray = field(repr=False)
    shift: np.ndarray = field(repr=False)
    cosine: np.ndarray | None = field(repr=False)
    neuron_norms: list[np.ndarray] = field(repr=False)

    def sparsity(self, threshold: float) -> list[np.ndarray]:
        """Which neurons have a norm above ``threshold``: a list of (m + 1, width) of bool."""
        return [norms > threshold for norms in self.neuron_norms]


def neuron_directions(model: FeedForward, w: np.ndarray) -> list[np.ndarray]:
    """Unit vectors (incoming, outgoing) of every hidden neuron at weights (..., P).

    One array (..., width, inputs of the layer + outputs of the next) a hidden layer; a neuron whose
    weights all vanish has no direction and gets zeros.
    """
    out = []
    for into, away in pairwise(model.unpack(w)):
        joined = np.concatenate([into, np.swapaxes(away, -1, -2)], axis=-1)
        length = np.linalg.norm(joined, axis=-1, keepdims=True)
        out.append(joined / np.where(length > 0, length, 1.0))
    return out


def cosine(u: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Cosine of the angle of ``u`` (..., m) with ``target`` (m,): (...)."""
    return (u @ target) / (np.linalg.norm(u, axis=-1) * np.linalg.norm(target))


def cosine_deficit(u: np.ndarray, target: np.ndarray) -> float:
    """1 - cos(u, target), accurate even where the cosine rounds to one."""
    a, b = u / np.linalg.norm(u), target / np.linalg.norm(target)
    return float(0.5 * np.sum((a - b) ** 2))


def track(result: FlowResult, saddle: SparseSaddle, delta: float, target: np.ndarray | None = None) -> DirectionTrack:
    """Measure ``result`` against ``saddle``.

    Parameters
    ----------
    result : FlowResult of the saddle's own objective
    delta : float
        The scale of the start; norms are given in units of it.
    target : (size of w_z,), optional
        The KKT point predicted for this start, e.g. ``gfsim.ncf.phi.limit(ncf, z).point.u``.

    Raises
    ------
    InvalidInput
        If the trajectory is not one of the saddle's net.
    """
    scale = positive(delta, "delta")
    w = result.w
    if w.shape[-1] != saddle.w.size:
        raise InvalidInput(f"the trajectory has {w.shape[-1]} weights and the saddle {saddle.w.size}")
    w_z = w[:, saddle.index_z]
    return DirectionTrack(
        delta=scale,
        t=result.t,
        s=result.s,
        small=np.linalg.norm(w_z, axis=-1) / scale,
        shift=np.linalg.norm(w[:, saddle.index_n] - saddle.w_n, axis=-1) / scale,
        cosine=None if target is None else cosine(w_z, target),
        neuron_norms=saddle.model.neuron_norms(w),
    )
