"""Many saddle starts at once: one library a process.

    python -m benchmarks.batch LIBRARY STARTS SECONDS THREADS

prints one line of JSON.  Every start is near the 390-weight ReLU^2 saddle (delta x seed) and is followed up to its own
time 20/delta of the MEAN square loss, most of the way to its escape: K = 3, so times scale like 1/delta.

As in the sweeps, gfsim and scipy run at their loosest tolerance of RTOLS whose error is at most GOAL, found beforehand
on SAMPLE of the starts: the largest relative error of the small block or of the rest, against scipy's BDF at a
tolerance of 1e-10.  torchode and diffrax get FREE.  A library that is still at work after SECONDS is stopped, and its
time is then a lower bound.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from gfsim.compare.measure import OutOfTime, time_limit
from gfsim.compare.problems import SEEDS, saddle_start, small_net_saddle
from gfsim.saddles.saddle import SparseSaddle

DELTAS = (1e-1, 3e-2, 1e-2, 3e-3)
RTOLS = (1e-4, 3e-5, 1e-5, 3e-6, 1e-6, 3e-7)
GOAL = 1e-3
SAMPLE = 32
FREE = 1e-5
"""Tolerance of the libraries that have not come to the end at any."""
HORIZON = 20.0
"""Physical time times delta."""


def starts(saddle: SparseSaddle, count: int) -> np.ndarray:
    """delta x seed: (count, P)."""
    rows = [
        saddle_start(saddle, DELTAS[k % len(DELTAS)], SEEDS["relu2"] + 100 + k // len(DELTAS)) for k in range(count)
    ]
    return np.array(rows)


def end_times(count: int) -> np.ndarray:
    """Physical time up to which each start is followed: (count,)."""
    return np.array([HORIZON / DELTAS[k % len(DELTAS)] for k in range(count)])


def loop_of_bdf(saddle: SparseSaddle, W0: np.ndarray, times: np.ndarray, rtol: float) -> np.ndarray:
    """scipy's BDF with the exact Hessian, one start after the other, in physical time."""
    from scipy.integrate import solve_ivp

    from gfsim.flow.scipy_stepper import block_tolerances

    o = saddle.objective
    out = []
    for w0, t_end in zip(W0, times, strict=True):
        solution = solve_ivp(
            lambda _, w: -o.gradient(w),
            (0.0, float(t_end)),
            w0,
            method="BDF",
            rtol=rtol,
            atol=block_tolerances(w0, rtol, saddle.blocks),
            jac=lambda _, w: -o.hessian(w),
        )
        out.append(solution.y[:, -1])
    return np.array(out)


def one_batch(saddle: SparseSaddle, W0: np.ndarray, times: np.ndarray, rtol: float, threads: int) -> np.ndarray:
    """gfsim's own batched integrator."""
    from gfsim.flow.batch import simulate_batch

    result = simulate_batch(
        saddle.objective, W0, t_end=times, rtol=rtol, clock=saddle.clock, blocks=saddle.blocks,
        threads=threads,
    )  # fmt: skip
    if not result.ok.all():
        raise RuntimeError(result.summary())
    return result.final


def error(saddle: SparseSaddle, end: np.ndarray, exact: np.ndarray) -> float:
    """Largest relative error of the small block or of the rest, over all starts (B, P)."""
    small = np.zeros(end.shape[1], dtype=bool)
    small[saddle.index_z] = True
    parts = [
        np.linalg.norm((end - exact)[:, part], axis=1) / np.linalg.norm(exact[:, part], axis=1)
        for part in (small, ~small)
    ]
    return float(np.max(parts))


def loosest(
    saddle: SparseSaddle, W0: np.ndarray, times: np.ndarray, run: Callable[[np.ndarray, np.ndarray, float], np.ndarray]
) -> tuple[float, float]:
    """(rtol, error) of ``run`` at its loosest tolerance that meets GOAL on a sample with every delta in it."""
    sample = np.arange(0, len(W0), max(len(W0) // SAMPLE, 1))
    sample += np.arange(len(sample)) % len(DELTAS)
    sample = sample[sample < len(W0)]
    exact = loop_of_bdf(saddle, W0[sample], times[sample], 1e-10)
    found = np.inf
    for rtol in RTOLS:
        found = error(saddle, run(W0[sample], times[sample], rtol), exact)
        if found <= GOAL:
            return rtol, found
    raise RuntimeError(f"error {found:.1e} at rtol {RTOLS[-1]:g}: above {GOAL:g}")


def torchode_batch(saddle: SparseSaddle, W0: np.ndarray) -> np.ndarray:
    import torch
    import torchode

    o = saddle.objective.to_torch("cpu")
    term = torchode.ODETerm(lambda _, w: -o.gradient(w))
    controller = torchode.IntegralController(atol=FREE * float(np.abs(W0).min(initial=1e-6)), rtol=FREE, term=term)
    solver = torchode.AutoDiffAdjoint(torchode.Dopri5(term=term), controller)
    times = torch.tensor([[0.0, t_end] for t_end in end_times(len(W0))], dtype=torch.float64)
    with torch.no_grad():
        solution = solver.solve(torchode.InitialValueProblem(y0=torch.as_tensor(W0), t_eval=times))
    if int(solution.status.max()) != 0:
        raise RuntimeError(f"status {solution.status.tolist()}")
    return solution.ys[:, -1].numpy()


def diffrax_vmap(W0: np.ndarray) -> Callable[[], np.ndarray]:
    """Compiled outside the clock; what is returned runs it."""
    import jax

    jax.config.update("jax_enable_x64", True)
    import diffrax
    import jax.numpy as jnp

    from gfsim.compare.adapters.diffrax import jax_loss
    from gfsim.compare.problems import problem

    gradient = jax.grad(jax_loss(problem("saddle-relu2-1e-2")))
    term = diffrax.ODETerm(lambda t, y, args: -gradient(y))  # noqa: ARG005 - passed by name
    controller = diffrax.PIDController(rtol=FREE, atol=FREE * 1e-3)

    def one(w0, t_end):  # type: ignore[no-untyped-def]
        solution = diffrax.diffeqsolve(
            term,
            diffrax.Kvaerno5(),
            0.0,
            t_end,
            None,
            w0,
            stepsize_controller=controller,
            max_steps=100_000,
            throw=False,
            adjoint=diffrax.ForwardMode(),
        )
        return solution.ys[-1]

    rows, times = jnp.asarray(W0), jnp.asarray(end_times(len(W0)))
    run = jax.jit(jax.vmap(one)).lower(rows, times).compile()
    return lambda: np.asarray(jax.block_until_ready(run(rows, times)))


def main() -> None:
    library, count, seconds, threads = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    saddle = small_net_saddle("relu2")
    W0, times = starts(saddle, count), end_times(count)
    tolerant: dict[str, Callable[[np.ndarray, np.ndarray, float], np.ndarray]] = {
        "scipy": lambda W, t, rtol: loop_of_bdf(saddle, W, t, rtol),
        "gfsim": lambda W, t, rtol: one_batch(saddle, W, t, rtol, threads),
    }
    answer: dict[str, object] = {
        "library": library,
        "starts": count,
        "threads": threads,
        "t_end": f"{HORIZON:g} / delta",
    }
    try:
        run: Callable[[], np.ndarray]
        if library in tolerant:
            rtol, answer["error"] = loosest(saddle, W0, times, tolerant[library])
            run = partial(tolerant[library], W0, times, rtol)
        else:
            rtol = FREE
            run = diffrax_vmap(W0) if library == "diffrax" else partial(torchode_batch, saddle, W0)
        answer["rtol"] = rtol
        began = time.perf_counter()
        with time_limit(seconds):
            end = run()
        answer["wall"] = time.perf_counter() - began
        answer["finite"] = bool(np.isfinite(end).all())
        answer["norms"] = np.linalg.norm(end[:, saddle.index_z], axis=1).tolist()
    except OutOfTime:
        answer |= {"wall": seconds, "stopped": True}
    except Exception as exc:
        answer["failure"] = f"{type(exc).__name__}: {' '.join(str(exc).split())[:200]}"
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
