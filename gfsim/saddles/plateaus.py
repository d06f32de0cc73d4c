"""Plateaus of a trajectory, and the saddles behind them.

docs/theory.md, section 5: the loss shows plateau, drop, plateau; on each plateau the flow is near a
sparse saddle (or, at the last, a minimum).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from scipy.signal import find_peaks

from gfsim.arrays import positive
from gfsim.errors import InvalidInput
from gfsim.flow.field import Descent
from gfsim.flow.result import FlowResult
from gfsim.models.feedforward import FeedForward
from gfsim.saddles.find import nearby_saddle
from gfsim.saddles.neurons import ActiveNeurons, split_by_norm
from gfsim.saddles.saddle import SparseSaddle


@dataclass(frozen=True, eq=False)
class Plateau:
    """A stretch of the trajectory where the flow is slow.

    Attributes
    ----------
    slowest, first, last : int
        Rows of the trajectory: least |grad L|, and the ends of the stretch.
    t_enter, t_exit : float
        Physical time of the ends.
    loss, speed : float
        L and |grad L| at the slowest row.
    active : ActiveNeurons
        The neurons that are not small there.
    """

    slowest: int
    first: int
    last: int
    t_enter: float
    t_exit: float
    loss: float
    speed: float
    active: ActiveNeurons
    w: np.ndarray = field(repr=False)


def find_plateaus(result: FlowResult, *, depth: float = 10.0, threshold: float | None = None) -> list[Plateau]:
    """Plateaus of a training flow in the order of time, the start and the end included if slow there.

    A plateau is a local minimum of |grad L| along the recorded rows that lies a factor ``depth`` below
    the peaks that part it from the next slower states (the border of the record needs no peak).  Its
    ends are where |grad L| has risen to the geometric mean of the minimum and the lower of the two peaks.

    Parameters
    ----------
    result : FlowResult
        The training flow of a FeedForward net, with its steps recorded.
    depth : float > 1
    threshold : float, optional
        Neuron size that separates active from inactive; by default the widest gap decides
        (:func:`gfsim.saddles.neurons.split_by_norm`).

    Raises
    ------
    InvalidInput
        For another flow, fewer than three recorded rows, or a depth of 1 or less.
    """
    model = _model(result)
    if positive(depth, "depth") <= 1:
        raise InvalidInput(f"depth = {depth}; a plateau must be slower than its neighbours by a factor > 1")
    speed = np.log(np.maximum(result.speed, 1e-300))
    if len(speed) < 3:
        raise InvalidInput(f"the trajectory has {len(speed)} rows; record more of them to see plateaus")
    # a wall on either side lets the ends count as minima of the inner part
    padded = np.concatenate([[speed.max() + 1e3], speed, [speed.max() + 1e3]])
    wanted = np.log(depth)
    rows, _ = find_peaks(-padded, prominence=wanted)
    out = []
    for k in rows - 1:
        left, right = _shoulder(speed, int(k), -1), _shoulder(speed, int(k), 1)
        peaks = [p for p in (left, right) if p is not None] or [float(speed.max())]
        if min(peaks) - speed[k] < wanted:
            continue
        level = 0.5 * (speed[k] + min(peaks))
        first = last = int(k)
        while first > 0 and speed[first - 1] < level:
            first -= 1
        while last < len(speed) - 1 and speed[last + 1] < level:
            last += 1
        w = result.w[k]
        out.append(
            Plateau(
                slowest=int(k),
                first=first,
                last=last,
                t_enter=float(result.t[first]),
                t_exit=float(result.t[last]),
                loss=float(result.loss[k]),
                speed=float(result.speed[k]),
                active=split_by_norm(model, w, threshold=threshold),
                w=w,
            )
        )
    return _merge(out, float(result.loss.max()))


def _merge(plateaus: list[Plateau], scale: float) -> list[Plateau]:
    """Neighbours with the same active neurons and the same loss (to 1 % of ``scale``) are one plateau.

    Near a point |grad L| may dip several times: as the active weights settle, and by rounding once the
    loss is at its floor.
    """
    out: list[Plateau] = []
    for plateau in plateaus:
        if out and out[-1].active == plateau.active and abs(out[-1].loss - plateau.loss) <= 1e-2 * scale:
            slowest = min(out[-1], plateau, key=lambda p: p.speed)
            out[-1] = replace(
                slowest, first=out[-1].first, last=plateau.last, t_enter=out[-1].t_enter, t_exit=plateau.t_exit
            )
        else:
            out.append(plateau)
    return out


def saddle_behind(result: FlowResult, plateau: Plateau) -> SparseSaddle:
    """The exact sparse saddle near a plateau of ``result`` (see :func:`gfsim.saddles.find.nearby_saddle`).

    Raises
    ------
    InvalidInput
        If the flow is no training flow.
    SaddleNotFound
        If there is no stationary point with those neurons near the plateau.
    """
    flow = result.field
    if not isinstance(flow, Descent):
        raise InvalidInput("saddles belong to a training flow; this is an NCF flow")
    return nearby_saddle(flow.objective, plateau.w, plateau.active)


def _model(result: FlowResult) -> FeedForward:
    model = result.field.objective.model if isinstance(result.field, Descent) else None
    if not isinstance(model, FeedForward):
        raise InvalidInput("plateaus are read off the training flow of a feed-forward net; this is another flow")
    return model


def _shoulder(speed: np.ndarray, k: int, step: int) -> float | None:
    """Highest log speed between row k and the next slower row; None if the border comes first."""
    best, i = -np.inf, k + step
    while 0 <= i < len(speed):
        best = max(best, float(speed[i]))
        if speed[i] < speed[k]:
            return best
        i += step
    return None
