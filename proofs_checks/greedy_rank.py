"""Matrix factorisation from small starts is greedy low-rank learning.

Hypotheses.  W = U U' with U square, f(W) = sum of squares of linear measurements <A_i, W> - y_i; a random start of
size delta.

Conclusion.  As delta -> 0 the flow passes near the points W_1, W_2, ... of this procedure: W_0 = 0; W_(r+1) is the
end of the flow from W_r with a small multiple of the top eigenvector of -grad f(W_r) added as one more column of U.
W_r has rank r.  The first departure is at ln(1/delta)/(2 N*) with N* the top eigenvalue of -grad f(0).

Source.  Li, Luo and Lyu 2021, Theorems 5.1 and 5.3; docs/theory.md, section 7.

Control.  The best approximation of rank one of the target, which is not where the loss is least on that rank.
"""

from __future__ import annotations

import math

import numpy as np

from gfsim.flow.events import norm_level, stationarity
from gfsim.flow.simulate import simulate
from gfsim.models.linear import MatrixFactorisation
from gfsim.objective import Objective
from proofs_checks.first_saddle import positive
from proofs_checks.fitting import EQUAL, power_law
from proofs_checks.instances import Search
from proofs_checks.statement import Context, Ledger

SIZE = 4
DELTAS = np.logspace(-3, -7, 5)
SEED = 1e-6
"""Size of the column that the procedure adds: its own limit is that of 0."""


def check(ctx: Context, ledger: Ledger) -> None:
    near, rates, wrong, leaves, ranks = ([] for _ in range(5))
    for rng in ctx.draws("problems", 2):
        o, stages = problem(rng)
        ranks += [float(np.linalg.svd(W)[1][r + 1] / np.linalg.svd(W)[1][0]) for r, W in enumerate(stages)]
        U0 = rng.standard_normal((SIZE, SIZE))
        U0 /= np.linalg.norm(U0)
        flows = [distances(o, d * U0, [*stages, truncated(o)]) for d in DELTAS]
        for k in range(len(stages)):
            near.append(flows[-1][1][k])
            rates.append(positive(power_law(DELTAS, [f[1][k] for f in flows]).slope))
        wrong.append(flows[-1][1][-1])
        top = float(np.linalg.eigvalsh(_slope(o, np.zeros((SIZE, SIZE))))[-1])
        slope = float(np.polyfit(np.log(1 / DELTAS), [f[0] for f in flows], 1)[0])
        leaves.append(abs(slope * 2 * top - 1.0))
    ledger.at_most("singular value r + 1 of W_r over its largest", ranks, 1e-6, "rank r, to the size of the seed")
    ledger.at_most("least relative distance of the flow from W_1 and W_2, delta = 1e-7", near, 0.02, "eps")
    ledger.at_least(
        "exponent of that distance in delta",
        rates,
        0.05,
        "positive: it goes to 0 with delta; 0.05 is beyond any error of a fit over four decades",
    )
    ledger.at_most(
        "slope of the departure time over ln(1/delta) against 1/(2 N*)", leaves, EQUAL, "a limit; over four decades"
    )
    ledger.control(
        "least relative distance from a matrix of rank one",
        wrong,
        0.02,
        "the target's best approximation, not the loss's",
    )


def problem(rng: np.random.Generator) -> tuple[Objective, list[np.ndarray]]:
    """Random measurements of a positive matrix with a falling spectrum, and W_1, W_2.

    At 0 and at W_1 the top eigenvalue of -grad f is 2.5 times the next at least, and at W_1 the flow settles three
    times as fast as it leaves: with less the passages blur at deltas that can be run.  W_1 is 10 per cent off the
    control.
    """
    model = MatrixFactorisation(SIZE, SIZE, SIZE, symmetric=True)
    search = Search("a matrix whose stages come apart")
    while True:
        search.draw()
        basis = np.linalg.qr(rng.standard_normal((SIZE, SIZE)))[0]
        target = (basis * np.array([3.0, 1.0, 0.3, 0.05])) @ basis.T
        A = np.eye(SIZE * SIZE) + 0.4 * rng.standard_normal((SIZE * SIZE, SIZE * SIZE)) / math.sqrt(SIZE)
        o = Objective(model, A, A @ target.ravel())
        first = stage(o, np.zeros((SIZE, SIZE)), 0)
        W = first @ first.T
        tops = [np.linalg.eigvalsh(_slope(o, at))[::-1] for at in (np.zeros((SIZE, SIZE)), W)]
        column = np.arange(SIZE) * SIZE  # the entries of U's first column
        settles = float(np.linalg.eigvalsh(o.hessian(first.ravel())[np.ix_(column, column)])[0])
        apart = float(np.linalg.norm(W - truncated(o))) > 0.1 * float(np.linalg.norm(W))
        if all(e[0] > 2.5 * max(e[1], 0.0) and e[0] > 0 for e in tops) and settles > 6.0 * tops[1][0] and apart:
            second = stage(o, first, 1)
            return o, [W, second @ second.T]


def truncated(o: Objective) -> np.ndarray:
    """The best approximation of rank one of the matrix that the measurements determine."""
    target = np.linalg.solve(o.X, o.y[:, 0]).reshape(SIZE, SIZE)
    values, vectors = np.linalg.eigh(0.5 * (target + target.T))
    return float(values[-1]) * np.outer(vectors[:, -1], vectors[:, -1])


def _slope(o: Objective, W: np.ndarray) -> np.ndarray:
    """-grad f(W), symmetric: (SIZE, SIZE)."""
    g = 2 * o.X.T @ (o.X @ W.ravel() - o.y[:, 0])
    G = g.reshape(SIZE, SIZE)
    return -0.5 * (G + G.T)


def stage(o: Objective, U: np.ndarray, columns: int) -> np.ndarray:
    """One step of the procedure from U, whose first ``columns`` are in use: the next U."""
    values, vectors = np.linalg.eigh(_slope(o, U @ U.T))
    start = U.copy()
    start[:, columns] = SEED * vectors[:, -1]
    escape = norm_level(float(np.linalg.norm(start)) + 0.1, name="escape", terminal=0)
    end = simulate(
        o,
        start.ravel(),
        t_end=6.0 * math.log(1 / SEED) / float(values[-1]),
        method="LSODA",
        rtol=1e-10,
        events=[escape, stationarity(1e-7, after=escape.name)],
        max_steps=20_000,
    )
    return end.final.reshape(SIZE, SIZE) if end.ok else np.full((SIZE, SIZE), math.nan)


def distances(o: Objective, start: np.ndarray, points: list[np.ndarray]) -> tuple[float, list[float]]:
    """When |U| passes 0.1 on its way out, and the least relative distance of U U' from each of the points."""
    run = simulate(
        o,
        start.ravel(),
        t_end=4.0 * math.log(1 / float(np.linalg.norm(start))) / float(np.linalg.eigvalsh(_slope(o, points[0]))[-1]),
        method="LSODA",
        rtol=1e-9,
        events=[norm_level(0.1, name="out", terminal=0)],
        max_steps=20_000,
    )
    if not run.ok or not run.events:
        return math.nan, [math.nan] * len(points)
    U = run.w.reshape(-1, SIZE, SIZE)
    W = U @ U.mT
    return run.events[0].t, [float(np.linalg.norm(W - P, axis=(1, 2)).min() / np.linalg.norm(P)) for P in points]
