"""The Hessian of the loss at a sparse saddle is block diagonal.

Hypotheses.  A feed-forward net with s(z) = max(z, alpha z)^p, s differentiable at the active preactivations, at
(w_n, 0); for the last part w_n a local minimum of the active net's loss.

Conclusion.  Its block of w_n is the Hessian of the active net's loss, its cross block vanishes, and its block of w_z is
-Hess N(0), N the NCF there: zero for K = p + 1 > 2.  So the saddle is degenerate: no negative eigenvalue, a kernel of
at least the size of w_z, and yet the loss falls along u with N(u) > 0, by delta^K N(u).  (For p = 1 with a kink,
inactive neurons sit on it; both sides then hold with the same one-sided derivatives.)

Source.  [NP], section 3, in our reading; docs/theory.md, section 4.

Control.  A point at which w_z does not vanish.
"""

from __future__ import annotations

import numpy as np

from gfsim.errors import SaddleNotFound
from gfsim.models.feedforward import FeedForward
from gfsim.ncf.saddle import SaddleNCF
from gfsim.objective import Objective
from gfsim.saddles.certificate import certify
from gfsim.saddles.find import find_saddle
from gfsim.saddles.saddle import SparseSaddle
from proofs_checks.expansion import Expansion
from proofs_checks.instances import ROUNDING, ROUNDING_WHY, Search, relative
from proofs_checks.partial_homogeneity import Case, draw
from proofs_checks.statement import Context, Ledger

CASES: tuple[Case, ...] = (
    ((3, 4, 1), (1,), "square", 2, -1.0),
    ((3, 3, 3, 2), (1, 2), "relu", 2, 0.0),
    ((2, 3, 3, 2), (2, 1), "leaky", 3, 0.3),
    ((3, 3, 2, 2), (1, 1), "linear", 1, 1.0),
    ((3, 4, 2), (2,), "leaky", 1, 0.2),
)


def check(ctx: Context, ledger: Ledger) -> None:
    cross, small, active, zero, differences, control = [], [], [], [], [], []
    for rng in ctx.draws("blocks", 3):
        for case in CASES:
            e = draw(case, rng)
            point, o = e.point, e.objective
            n, z = point.index_n, point.index_z
            H = o.hessian(e.w)
            cross.append(relative(H[np.ix_(n, z)], H))
            small.append(relative(H[np.ix_(z, z)] + SaddleNCF(point).hessian(np.zeros(z.size)), H))
            active.append(relative(H[np.ix_(n, n)] - point.active_objective.hessian(point.w_n), H))
            if case[3] > 1 or case[4] == 1.0:  # inactive neurons sit on the kink of the others
                differences.append(relative(_differences(o, e.w) - H, H))
            if case[3] > 1:
                zero.append(relative(H[np.ix_(z, z)], H))
            if case[2] != "relu":  # whose inactive neurons may be dead on the few samples
                control.append(_away(e))
    ledger.at_most("cross block, relative to the Hessian", cross, ROUNDING, ROUNDING_WHY)
    ledger.at_most("block of w_z plus Hess N(0), relative", small, ROUNDING, ROUNDING_WHY)
    ledger.at_most("block of w_z for K > 2, relative", zero, ROUNDING, ROUNDING_WHY)
    ledger.at_most("block of w_n against the active net's Hessian, relative", active, ROUNDING, ROUNDING_WHY)
    ledger.at_most(
        "the Hessian against differences of gradients, relative",
        differences,
        1e-3,
        "central differences at 1e-5 of gradients whose third derivative jumps (ReLU^2) or is large",
    )
    _saddles(ctx, ledger)
    ledger.control("cross block, relative to the Hessian", control, ROUNDING, "w_z is not zero")


def _differences(o: Objective, w: np.ndarray) -> np.ndarray:
    steps = 1e-5 * np.eye(w.size)
    return (o.gradient(w + steps) - o.gradient(w - steps)) / 2e-5


def _away(e: Expansion) -> float:
    w = e.w.copy()
    n, z = e.point.index_n, e.point.index_z
    w[z] = e.u
    H = e.objective.hessian(w)
    return relative(H[np.ix_(n, z)], H)


def teacher_saddle(rng: np.random.Generator, widths: tuple[int, ...], active: tuple[int, ...]) -> SparseSaddle:
    """A saddle of a square net on a wider teacher's labels; draws again where the active net has no live minimum."""
    model = FeedForward(widths, "square")
    search = Search("a saddle of a square net")
    while True:
        search.draw()
        X = rng.standard_normal((20, widths[0]))
        X /= np.linalg.norm(X, axis=1, keepdims=True)
        y = FeedForward((widths[0], *[2] * (len(widths) - 2), widths[-1]), "square")
        labels = y.forward(rng.standard_normal(y.n_params), X)
        labels /= np.sqrt(np.mean(labels**2))
        try:
            return find_saddle(Objective(model, X, labels, reduction="mean"), active, rng=rng, starts=6)
        except SaddleNotFound:
            continue


def _saddles(ctx: Context, ledger: Ledger) -> None:
    negative, kernels, drops, verdicts = [], [], [], []
    for rng in ctx.draws("saddles", 2):
        for widths, active in (((3, 4, 1), (1,)), ((3, 3, 3, 1), (1, 1))):
            saddle = teacher_saddle(rng, widths, active)
            found = certify(saddle, rng=rng, starts=16)
            below, flat, _ = found.inertia
            negative.append(float(below))
            kernels.append(flat / saddle.index_z.size)
            drops.append(abs(found.measured_drop / found.predicted_drop - 1.0))
            verdicts.append(float(found.verdict != "saddle"))
    ledger.at_most("points found that are not certified as saddles", verdicts, 0.0, "a count")
    ledger.at_most("negative eigenvalues at saddles with K = 3", negative, 0.0, "a count")
    ledger.at_least("size of the kernel over the number of weights in w_z", kernels, 1.0, "a count")
    ledger.at_most("fall of the loss along u against delta^K N(u), relative", drops, 0.02, "its limit as delta -> 0")
