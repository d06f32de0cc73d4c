"""What candidates would predict if the network were right and only noise were left.

The test behind :class:`gfsim.pursuit.stopping.NoiseOnly` needs residuals that are noise, and that went through the
same fit as the true ones:

- noise: for the square loss the residuals, exchanged between the samples; for classes labels drawn from the
  network's own probabilities.  (Exchanged residuals of classes would put the large ones where the loss has no
  curvature, and predict decreases that no noise can give.)
- the same fit: the true residuals are orthogonal to all that the present weights can do, so the part of the noise that
  a Gauss-Newton step of the weights would take away is taken away.  Without this noise looks like more than it is, the
  more so the more parameters there are.

Of many samples a random part is enough.  With weights v_i that add up to one, <H1, ybar> is a sum of independent terms
of mean zero on noise, of the variance sum_i v_i^2 |H1_i . noise_i|^2, while H1' l'' H1 is a mean: what noise predicts
falls with the number of samples as sum_i v_i^2 does, by which what a part of them predicts is brought to all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from gfsim.pursuit.candidates import Candidates, Paths
from gfsim.pursuit.network import Kept, Network
from gfsim.pursuit.problem import Problem

LARGEST_FIT = 3e8
"""Most multiplications, samples x outputs x parameters^2, for which the noise is fitted; above only its mean is."""

NULL_SAMPLES = 20_000
"""With more samples than this, and noise that is not fitted, the noise is that of a random part of this size."""


LEAST_DRAWS, CLEAR = 7, 5.0
"""A comparison with the mean of the noise is clear when it is so many standard errors away, after so many draws."""


def noise_null(
    candidates: Candidates,
    problem: Problem,
    net: Network,
    kept: Kept,
    draws: int,
    rng: np.random.Generator,
    *,
    against: float = float("nan"),
) -> float:
    """The mean, over ``draws`` of the noise, of the largest predicted decrease.

    The search is made again each time, with a quarter of the starts.  With a number to be held ``against`` the mean,
    draws end when it is clear on which side it lies (:data:`CLEAR`).
    """
    fewer = 1.0
    if problem.n_samples > NULL_SAMPLES and not _fits(problem, net):
        part = problem.rows(np.sort(rng.choice(problem.n_samples, NULL_SAMPLES, replace=False)))
        fewer = float(problem.weights @ problem.weights) / float(part.weights @ part.weights)
        problem, kept = part, part.forward(net)
    if isinstance(candidates, Paths):
        candidates = replace(candidates.with_starts(0.25), keep=1)
    best = []
    for slopes in noise_slopes(problem, net, kept, draws, rng):
        found = candidates.propose(problem, net, kept, -problem.weights[:, None] * slopes, rng)
        best.append(fewer * max((c.predicted for c in found), default=0.0))
        error = float(np.std(best, ddof=1)) / np.sqrt(len(best)) if len(best) >= LEAST_DRAWS else np.inf
        if abs(against - np.mean(best)) > CLEAR * error:
            break
    return float(np.mean(best))


def noise_slopes(
    problem: Problem, net: Network, kept: Kept, draws: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """dl/dq (n, K) of noise, ``draws`` times, after the fit of the present weights."""
    q, Y, risk, copies = kept.output, problem.Y, problem.risk, problem.copies
    if _fits(problem, net):
        S = np.stack([risk.noise(q, Y, copies, rng) for _ in range(draws)], axis=2)
        yield from np.moveaxis(fitted_away(problem, net, kept, S), 2, 0)
        return
    for _ in range(draws):
        slopes = risk.noise(q, Y, copies, rng)
        yield slopes - problem.weights @ slopes if net.intercept.size else slopes


def _fits(problem: Problem, net: Network) -> bool:
    """Whether the noise goes through a fit of the weights."""
    return problem.Y.size * float(net.n_params) ** 2 <= LARGEST_FIT


def fitted_away(problem: Problem, net: Network, kept: Kept, S: np.ndarray) -> np.ndarray:
    """Slopes S (n, K, m) after a Gauss-Newton step of all weights against each: S + l'' J step, (n, K, m)."""
    if not net.n_params:
        return S
    P, v = net.n_params, problem.weights
    A = problem.gauss_newton(net)[2]
    G = np.zeros((P, S.shape[2]))
    parts = list(problem.chunks(P * problem.n_outputs))
    for part in parts:
        J = net.jacobian(net.run(problem.X[part])).reshape(-1, P)
        G += J.T @ (v[part, None, None] * S[part]).reshape(len(J), -1)
    # neurons that do the same make A singular: any of the least-squares steps will do
    step = np.linalg.lstsq(A, -G, rcond=1e-12)[0]
    out = np.empty_like(S)
    for part in parts:
        J = net.jacobian(net.run(problem.X[part]))
        out[part] = S[part] + problem.risk.bend(kept.output[part], J @ step)
    return out
