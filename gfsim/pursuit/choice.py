"""Which neuron the NCFs ask for at given weights: docs/theory.md, section 6, step 2, with two details of ours.

*Ties.*  Where maxima of a layer agree, rounding would decide.  Among those equal within ``tie_rtol`` we
take the one whose incoming weights have the largest cosine with those of a neuron already in the
layer.  One tie is systematic: after the first iteration of a deep ReLU net every sample that pulls
passes through the only neuron of a layer, whose stationarity, sum_i G_i H_i = 0, makes
N(a, b) - N(-a, b) = sum_i (G_i.b)(a.H_i) vanish for every a.  If the minimum lies on kinks the descent
leaves a small remainder, whose sign depends on the parity of its last step; such mirror images
therefore count as tied within the wider ``mirror_rtol``.

*Trials.*  Maxima may also differ by less than their sampling error, so that the draw of the data, and
not the target, orders them (:mod:`gfsim.pursuit.contest`).  With ``trials`` > 1 such maxima, of the
origin or of any layer, are each added and minimised, and the one with the smallest loss is kept.  With
``trials`` = 1, as published, the largest value decides.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from gfsim.errors import InvalidInput
from gfsim.models.feedforward import FeedForward
from gfsim.ncf import neuron
from gfsim.ncf.kkt import KKTPoint
from gfsim.ncf.neuron import NeuronNCF
from gfsim.objective import Objective
from gfsim.pursuit.contest import rivals
from gfsim.pursuit.record import Maxima

MIRROR_COSINE = 0.99
"""(a, b) and (a', b') are mirror images if a' is this close to -a and b' to b."""


@dataclass(frozen=True)
class Neuron:
    """The neuron that the NCFs ask for at some weights, and how it was chosen."""

    layer: int
    point: KKTPoint
    a: np.ndarray = field(repr=False)
    b: np.ndarray = field(repr=False)
    maxima: tuple[Maxima, ...]
    correlation: float
    tied: int
    cosines: tuple[float, ...]
    chosen: int
    error: float = 0.0
    """Standard error of this neuron's distance in NCF value from the best one's."""


def choose_neuron(
    objective: Objective, w: np.ndarray, *, starts: int, tie_rtol: float, mirror_rtol: float, rng: np.random.Generator
) -> Neuron | None:
    """The neuron of docs/theory.md, section 6, step 2, at weights ``w`` (P,).

    None when every NCF vanishes.  Between layers the first of the largest value wins; within the layer
    ties are broken as said at the top of this module; ``tie_rtol`` and ``mirror_rtol`` as in
    :class:`gfsim.pursuit.config.PursuitConfig`.
    """
    found = contenders(objective, w, starts=starts, tie_rtol=tie_rtol, mirror_rtol=mirror_rtol, rng=rng)
    return found[0] if found else None


def contenders(
    objective: Objective,
    w: np.ndarray,
    *,
    starts: int,
    tie_rtol: float,
    mirror_rtol: float,
    rng: np.random.Generator,
    sigmas: float = 0.0,
    most: int = 1,
) -> list[Neuron]:
    """:func:`choose_neuron`'s neuron, and after it up to ``most`` - 1 others whose NCF values, in whatever
    layer, lie within ``sigmas`` standard errors of its own; one of each group of ties.  Empty when every
    NCF vanishes."""
    model = objective.model
    ncfs = neuron.neuron_ncfs(objective, w)
    points = [neuron.maximise(ncf, starts=starts, rng=rng) for ncf in ncfs]
    maxima = tuple(maxima_of(ncf.layer, found, starts) for ncf, found in zip(ncfs, points, strict=True))
    if not isinstance(model, FeedForward):
        return []
    matrices = model.unpack(w)
    groups: list[tuple[NeuronNCF, list[KKTPoint]]] = []
    for ncf, found, rows in zip(ncfs, points, matrices, strict=False):
        groups += [
            (ncf, tied) for tied in _tie_groups(ncf, found, tie_rtol, mirror_rtol if _one_gate(ncf, rows) else 0.0)
        ]
    groups.sort(key=lambda group: -group[1][0].value)  # stable: of equal layers the first comes first
    shares = [ncf.contributions(tied[0].u) for ncf, tied in groups]
    out = []
    for place, error in rivals(shares, sigmas, most):
        ncf, tied = groups[place]
        rows = matrices[ncf.layer - 1]
        cosines = [_closest(rows, ncf.split(point.u)[0], bool(ncf.activation.flips_sign)) for point in tied]
        chosen = int(np.argmax(cosines))
        a, b = ncf.split(tied[chosen].u)
        out.append(
            Neuron(
                layer=ncf.layer,
                point=tied[chosen],
                a=a,
                b=b,
                maxima=maxima,
                correlation=correlation(objective, w, ncf.layer, a, b),
                tied=len(tied),
                cosines=tuple(cosines),
                chosen=chosen,
                error=error,
            )
        )
    return out


def _tie_groups(ncf: NeuronNCF, points: list[KKTPoint], tie_rtol: float, mirror_rtol: float) -> list[list[KKTPoint]]:
    """Positive maxima, best first, each with those that count as tied with it."""
    left = [point for point in points if point.value > 0]
    groups = []
    while left:
        tied = [point for point in left if _is_tied(ncf, point, left[0], tie_rtol, mirror_rtol)]
        groups.append(tied)
        left = [point for point in left if not any(point is member for member in tied)]
    return groups


def _one_gate(ncf: NeuronNCF, rows: np.ndarray) -> bool:
    """Whether every sample that pulls passes through the layer's only neuron (see "Ties" above)."""
    if len(rows) != 1 or ncf.activation.name != "relu":
        return False
    pulls = np.any(ncf.pull != 0, axis=1)
    return bool((ncf.inputs[pulls] @ rows[0] >= 0).all())


def _is_tied(ncf: NeuronNCF, point: KKTPoint, best: KKTPoint, tie_rtol: float, mirror_rtol: float) -> bool:
    if point.value >= (1 - tie_rtol) * best.value:
        return True
    (a, b), (a_best, b_best) = ncf.split(point.u), ncf.split(best.u)
    opposite = a @ a_best <= -MIRROR_COSINE * (a_best @ a_best) and b @ b_best >= MIRROR_COSINE * (b_best @ b_best)
    return bool(opposite and point.value >= (1 - mirror_rtol) * best.value)


def _closest(rows: np.ndarray, a: np.ndarray, either_sign: bool) -> float:
    """Largest cosine of ``a`` with a row that is not zero (-1 if all are zero)."""
    norms = np.linalg.norm(rows, axis=1)
    if not norms.any():
        return -1.0
    live = norms > 0
    cosines = (rows[live] @ a) / (norms[live] * np.linalg.norm(a))
    return float(np.abs(cosines).max() if either_sign else cosines.max())


def correlation(objective: Objective, w: np.ndarray, layer: int, a: np.ndarray, b: np.ndarray) -> float:
    """<H1, ybar> / (|H1| |ybar|) of a neuron (a, b) of ``layer``: scale-free, in [-1, 1].

    H1_ik = (g_{l+1,i}[k, :] . b) s(a . h_{l-1,i}) is its first-order effect on the outputs; zero when
    either vanishes.
    """
    model = objective.model
    if not isinstance(model, FeedForward):
        raise InvalidInput(f"correlations of neurons need a feed-forward net, not {model.name}")
    kept = model.run(w, objective.X)
    ybar = objective.pull(kept.output)
    response = model.activation.value(kept.hidden[layer - 1] @ a)
    H1 = np.empty_like(ybar)
    for k in range(model.n_outputs):
        C = np.zeros_like(ybar)
        C[:, k] = 1.0
        H1[:, k] = (model.backpropagate(w, kept, C)[layer] @ b) * response
    scale = float(np.linalg.norm(H1) * np.linalg.norm(ybar))
    return float((H1 * ybar).sum()) / scale if scale > 0 else 0.0


def maxima_of(layer: int, points: list[KKTPoint], starts: int) -> Maxima:
    """What the record keeps of the maxima of one layer (0: the origin)."""
    return Maxima(
        layer=layer,
        values=tuple(point.value for point in points),
        residuals=tuple(point.residual for point in points),
        hits=tuple(point.hits for point in points),
        starts=starts,
    )
