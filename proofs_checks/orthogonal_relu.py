"""Two-layer ReLU nets on orthogonal inputs: first the labels of one sign, then those of the other.

Hypotheses.  H = V relu(W x), orthogonal inputs, sum of squares (q - y)^2, labels of both signs; a balanced start of
size delta, |a_j| = |b_j|, with a neuron b > 0 that is active on every sample with y > 0, and a neuron b < 0 active
on every sample with y < 0.

Conclusion.  Let D+ = |sum over y_i > 0 of y_i x_i| and D- likewise.  Early on the first neuron turns to sum y_i x_i
over y > 0, the second to its counterpart; the positive labels are fitted at a time t+ with t+/ln(1/delta) -> 1/(2
D+), the negative ones with 1/(2 D-), whichever is first, and in between the net rests at a saddle that fits the
labels of one sign and is zero on the others.  At the end it interpolates with the least norm, |w|^2 = 2 (D'+ + D'-),
D' with y_i/|x_i|^2 for y_i.

Source.  Boursier, Pillaud-Vivien and Flammarion 2022, Theorem 1; docs/theory.md, section 7.

Control.  No neuron is active on all samples with y > 0.  (Inputs that are not orthogonal make the flow slide along
kinks, which no adaptive method follows well.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gfsim.flow.events import Event, Probe
from gfsim.flow.simulate import simulate
from gfsim.models.feedforward import FeedForward
from gfsim.objective import Objective
from proofs_checks.fitting import EQUAL
from proofs_checks.instances import Search
from proofs_checks.statement import Context, Ledger

SAMPLES, INPUTS, WIDTH = 4, 6, 5
DELTAS = np.logspace(-3, -7, 5)


@dataclass(frozen=True)
class Problem:
    """An objective, a start of unit scale, and the rows of the samples of each sign, the sign fitted first first."""

    objective: Objective
    w0: np.ndarray
    groups: tuple[np.ndarray, np.ndarray]

    def strength(self, k: int) -> float:
        """D of group k."""
        o, rows = self.objective, self.groups[k]
        return float(np.linalg.norm(o.y[rows, 0] @ o.X[rows]))

    def norm2(self) -> float:
        """The least |w|^2 of an interpolator, if the inputs are orthogonal."""
        o = self.objective
        scaled = o.y[:, 0] / (o.X**2).sum(1)
        return float(sum(2 * np.linalg.norm(scaled[rows] @ o.X[rows]) for rows in self.groups))


def check(ctx: Context, ledger: Ledger) -> None:
    _symbols(ledger)
    times, rests, turned, norms, losses, wrong, order = ([] for _ in range(7))
    for rng in ctx.draws("problems", 4):
        good = problem(rng)
        rows = [follow(good, float(d)) for d in DELTAS]
        times += _slopes(good, rows)
        order.append(float(not rows[-1].times[0] < rows[-1].times[1]))
        rests.append(rows[-1].rest)
        turned.append(rows[-1].turned)
        norms.append(abs(rows[-1].norm2 / good.norm2() - 1.0))
        losses.append(rows[-1].loss)
        partial = without(good)
        wrong.append(max(_slopes(partial, [follow(partial, float(d)) for d in DELTAS])))
    ledger.at_most(
        "times of the two signs per ln(1/delta) against 1/(2 D), relative",
        times,
        EQUAL,
        "limits; slopes over four decades",
    )
    ledger.at_most("problems whose signs come out of order", order, 0.0, "a count")
    ledger.at_most(
        "least distance of the outputs from (labels of the first sign, 0) in between, relative, delta = 1e-7",
        rests,
        0.02,
        "the other sign is still of order delta^(1 - D2/D1), 1e-2 or less",
    )
    ledger.at_most(
        "1 - cos between the growing neuron and sum y_i x_i of its sign at |w| = sqrt(delta), delta = 1e-7",
        turned,
        1e-3,
        "a share of order sqrt(delta) of the start is left",
    )
    ledger.at_most("loss at the end over that of 0", losses, 1e-6, "interpolation")
    ledger.at_most(
        "|w|^2 at the end against the least norm, relative", norms, 0.02, "the other neurons' share, delta^2"
    )
    ledger.control(
        "times of the two signs per ln(1/delta)", wrong, EQUAL, "no neuron is active on all of the first sign"
    )


def problem(rng: np.random.Generator) -> Problem:
    """Random labels whose two strengths are 1.5 to 3 apart, and a random start with the two neurons of the statement.

    No sample has less than a third of its sign's strength, squared: a neuron that is active on the others alone would
    lag behind the one that sees all by delta^(1 - D_others/D) only, and the laws set in late.
    """
    model = FeedForward((INPUTS, WIDTH, 1), "relu")
    search = Search("a start with a neuron for each sign")
    while True:
        search.draw()
        X = np.linalg.qr(rng.standard_normal((INPUTS, INPUTS)))[0][:SAMPLES] * rng.uniform(0.7, 1.3, (SAMPLES, 1))
        y = rng.uniform(0.5, 1.5, SAMPLES) * np.where(np.arange(SAMPLES) < SAMPLES // 2, 1.0, -1.0)
        y[y > 0] *= rng.uniform(1.0, 4.0)
        groups = (np.flatnonzero(y > 0), np.flatnonzero(y < 0))
        W, b = rng.standard_normal((WIDTH, INPUTS)), np.where(np.arange(WIDTH) % 2 == 0, 1.0, -1.0)
        for j, rows in enumerate(groups):  # active on all of its own sign
            signs = np.sign(W[j] @ X.T)
            signs[rows] = 1.0
            W[j] += np.linalg.pinv(X) @ (signs * np.abs(W[j] @ X.T) - W[j] @ X.T)
        V = (b * np.linalg.norm(W, axis=1))[None]
        w0 = model.pack([W, V])
        found = Problem(Objective(model, X, y), w0 / np.linalg.norm(w0), groups)
        sizes = y**2 * (X**2).sum(1)
        even = all(sizes[rows].min() > sizes[rows].sum() / 3 for rows in groups)
        if even and 1.5 < found.strength(0) / found.strength(1) < 3:
            return found


def without(problem: Problem) -> Problem:
    """The same problem with a start at which every neuron with b > 0 is inactive on the smallest label of its sign."""
    o, rows = problem.objective, problem.groups[0]
    x = o.X[rows[int(np.argmin(o.y[rows, 0]))]]
    w0 = problem.w0.copy()
    W, b = w0[: WIDTH * INPUTS].reshape(WIDTH, INPUTS), w0[WIDTH * INPUTS :]
    along = W @ x
    W[b > 0] -= np.outer((along + np.abs(along))[b > 0], x) / float(x @ x)  # reflected: its size is kept
    return Problem(o, w0, problem.groups)


@dataclass(frozen=True)
class Measured:
    """When half of each sign's labels is reached, and what :func:`check` asks of the way there and of the end."""

    times: tuple[float, float]
    rest: float
    turned: float
    norm2: float
    loss: float


def follow(problem: Problem, delta: float) -> Measured:
    """The flow to the end of the second sign."""
    o, groups = problem.objective, problem.groups
    y = o.y[:, 0]

    def half(k: int) -> Event:
        rows = groups[k]

        def gap(p: Probe) -> float:
            out = o.model.forward(p.w, o.X)[rows, 0]
            return float(out @ y[rows]) - 0.5 * float(y[rows] @ y[rows])

        return Event(f"sign {k}", gap, 1)

    def early(p: Probe) -> float:
        return math.log(float(np.linalg.norm(p.w)) / math.sqrt(delta))

    run = simulate(
        o,
        delta * problem.w0,
        t_end=3.0 * math.log(1 / delta) / (2 * problem.strength(1)),
        method="RK45",  # of low order: the flow has kinks
        rtol=1e-7,
        events=[half(0), half(1), Event("early", early, 1)],
        max_steps=50_000,
    )
    at = {e.name: e for e in run.events}
    if not run.ok or len(at) < 3:
        return Measured((math.nan, math.nan), math.nan, math.nan, math.nan, math.nan)
    first, second = at["sign 0"].t, at["sign 1"].t
    between = run.w[(run.t > first) & (run.t < second)]
    wanted = np.where(y > 0, y, 0.0)
    outs = o.model.forward(between, o.X)[..., 0]
    W = at["early"].w[: WIDTH * INPUTS].reshape(WIDTH, INPUTS)
    grown = W[int(np.argmax(np.linalg.norm(W, axis=1)))]
    goal = y[groups[0]] @ o.X[groups[0]]
    cos = float(grown @ goal) / (float(np.linalg.norm(grown)) * float(np.linalg.norm(goal)))
    return Measured(
        (first, second),
        float(np.linalg.norm(outs - wanted, axis=1).min(initial=math.inf) / np.linalg.norm(wanted)),
        1.0 - cos,
        float(run.final @ run.final),
        float(o.value(run.final) / o.value(np.zeros_like(run.final))),
    )


def _slopes(problem: Problem, rows: list[Measured]) -> list[float]:
    times = np.array([row.times for row in rows])
    if np.isnan(times).any():
        return [math.nan]
    slopes = np.polyfit(np.log(1 / DELTAS), times, 1)[0]
    return [abs(float(slopes[k]) * 2 * problem.strength(k) - 1.0) for k in range(2)]


def _symbols(ledger: Ledger) -> None:
    """One balanced neuron along sum y_i x_i: N* = D, and the neuron of least norm."""
    import sympy as sp

    y1, y2, b = sp.symbols("y1 y2 b", positive=True)
    a1, a2 = sp.symbols("a1 a2", positive=True)
    # orthonormal x_1, x_2, both labels positive: N(a, b) = 2 b (y1 a1 + y2 a2), the KKT equations grad N = 2 N u
    N = 2 * b * (y1 * a1 + y2 * a2)
    D = sp.sqrt(y1**2 + y2**2)
    at = {a1: y1 / (sp.sqrt(2) * D), a2: y2 / (sp.sqrt(2) * D), b: 1 / sp.sqrt(2)}
    ledger.identity(
        "(a, b) = (sum y x/D, 1)/sqrt 2 is a KKT point with N* = D",
        [*(sp.simplify((sp.diff(N, v) - 2 * N * v).subs(at)) for v in (a1, a2, b)), sp.simplify(N.subs(at) - D)],
    )
    # it interpolates with |a|^2 = |b|^2 = D: b a_i = y_i
    root = sp.sqrt(D)
    ledger.identity("b = sqrt D, a = y/sqrt D interpolates, with |a|^2 = b^2", [(y1**2 + y2**2) / D - root**2])
