"""After the escape from the origin the flow comes close to a sparse saddle, and stays sparse up to there.

Hypotheses.  A two-layer net of degree D = p + 1 > 2 with a finite minimum of every subnet's loss; w(0) = delta w0, w0
in the stable set of a second-order positive KKT point w*, whose zero neurons are Z.

Conclusion.  As delta -> 0, the flow comes within any eps of a critical point at which the weights of Z vanish, and
|grad L| <= eps there.  On the whole way the weights of Z go to 0 with delta.

Source.  [BEYOND], Corollaries 5 and 11, Theorem 18.  The papers' exponents are lower bounds; here they are asked to be
positive and are reported.

Control.  Z with its neurons exchanged: the neuron that grows is counted as one of Z.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gfsim.errors import SaddleNotFound
from gfsim.flow.events import Event, Probe, norm_level
from gfsim.flow.simulate import simulate
from gfsim.models.feedforward import FeedForward
from gfsim.saddles.find import nearby_saddle
from gfsim.saddles.neurons import ActiveNeurons
from proofs_checks.origin_escape import Start, draw
from proofs_checks.statement import Context, Ledger

CASES = (((3, 3, 1), "square", 2), ((3, 3, 2), "square", 2), ((3, 2, 1), "linear", 3))
DELTAS = np.logspace(-2, -6, 5)
GROWN = 0.3
"""A second neuron of this share of |w| has left the neighbourhood of the first saddle."""


@dataclass(frozen=True)
class Visit:
    """Least |grad L| after the escape (relative to the largest), where it is attained the relative distance from a
    saddle with the one predicted neuron, and the largest |w_z| up to there, for the right and for the wrong Z."""

    gradient: float
    distance: float
    small: float
    wrong: float


def check(ctx: Context, ledger: Ledger) -> None:
    gradients, distances, rates, distance_rates, wrong = [], [], [], [], []
    for rng in ctx.draws("starts", 1, 4):
        for widths, name, p in CASES:
            model = FeedForward(widths, name, p=p)
            start, unit = one_neuron_start(model, rng)
            visits = [visit(start, model, unit, float(d)) for d in DELTAS]
            gradients.append(visits[-1].gradient)
            distances.append(visits[-1].distance)
            rates.append(_rate([v.small for v in visits]))
            distance_rates.append(_rate([v.distance for v in visits]))
            wrong.append(_rate([v.wrong for v in visits]))
            label = f"{'-'.join(map(str, widths))} {name}, p = {p}"
            ledger.curve("relative distance from the saddle", label, DELTAS, [v.distance for v in visits])
            ledger.curve("largest |w_z| on the way", label, DELTAS, [v.small for v in visits])
            ledger.curve("least |grad L| over its peak", label, DELTAS, [v.gradient for v in visits])
    ledger.at_most("least |grad L| on the plateau over its peak, delta = 1e-6", gradients, 1e-4, "eps")
    ledger.at_most("relative distance from the saddle there, delta = 1e-6", distances, 1e-4, "eps")
    positive = "positive: the quantity goes to 0 with delta; 0.1 is beyond any error of a fit over four decades"
    ledger.at_least("exponent of that distance in delta", distance_rates, 0.1, positive)
    ledger.at_least("exponent of the largest |w_z| on the way in delta", rates, 0.1, positive)
    ledger.control("exponent of the largest |w_z| on the way", wrong, 0.1, "another neuron than that of w*", "at least")


def _rate(sizes: list[float]) -> float:
    slope = float(np.polyfit(np.log(DELTAS), np.log(sizes), 1)[0])
    return max(0.0, slope) if math.isfinite(slope) else math.nan


def one_neuron_start(model: FeedForward, rng: np.random.Generator) -> tuple[Start, int]:
    """A start whose NCF flow goes to one neuron with a second-order gap that is not small, and that neuron."""
    while True:
        start = draw(model, rng)
        norms = model.neuron_norms(start.target)[0]
        point = start.phi.point
        if point is not None and point.gap > 0.5 * point.value and np.sort(norms)[-2] < 1e-6:
            return start, int(np.argmax(norms))


def visit(start: Start, model: FeedForward, unit: int, delta: float) -> Visit:
    o = start.objective

    def second(p: Probe) -> float:
        norms = np.sort(model.neuron_norms(p.w)[0])
        return float(norms[-2] - GROWN * norms[-1])

    escape = norm_level(GROWN, name="escape", terminal=0)
    run = simulate(
        o,
        delta * start.w0,
        t_end=100.0 * start.phi.time / delta ** ((model.degree or 2.0) - 2.0),
        method="LSODA",
        rtol=1e-9,
        events=[escape, Event("second", second, 1, 1, after=escape.name)],
        max_steps=5000,
    )
    if not run.events:
        return Visit(*[math.nan] * 4)
    escaped = run.events[0].row or 0
    speed = run.speed
    best = escaped + int(np.argmin(speed[escaped:]))
    active = ActiveNeurons.of(model, [[unit]])
    other = ActiveNeurons.of(model, [[(unit + 1) % model.widths[1]]])
    try:
        saddle = nearby_saddle(o, run.w[best], active)
        distance = float(np.linalg.norm(run.w[best] - saddle.w) / np.linalg.norm(saddle.w))
    except SaddleNotFound:
        distance = math.nan
    return Visit(
        float(speed[best] / speed[: best + 1].max()),
        distance,
        *(float(np.linalg.norm(run.w[: best + 1, z.index_z(model)], axis=1).max()) for z in (active, other)),
    )
