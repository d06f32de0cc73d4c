"""Many saddle starts at once: one library a process.

    python -m benchmarks.batch LIBRARY STARTS SECONDS THREADS

prints one line of JSON.  Every start is near the 390-weight ReLU^2 saddle (delta x seed) and is followed up to its own
time 20/delta of the MEAN square loss, most of the way to its escape: K = 3, so times scale like 1/delta.
A library that is still at work after SECONDS is stopped, and its time is then a lower bound.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import numpy as np

from gfsim.compare.measure import OutOfTime, time_limit
from gfsim.compare.problems import SEEDS, saddle_start, small_net_saddle
from gfsim.saddles.saddle import SparseSaddle

DELTAS = (1e-1, 3e-2, 1e-2, 3e-3)
RTOL = 1e-5
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


def loop_of_bdf(saddle: SparseSaddle, W0: np.ndarray) -> np.ndarray:
    """scipy's BDF with the exact Hessian, one start after the other, in physical time."""
    from scipy.integrate import solve_ivp

    from gfsim.flow.scipy_stepper import block_tolerances

    o = saddle.objective
    out = []
    for w0, t_end in zip(W0, end_times(len(W0)), strict=True):
        solution = solve_ivp(
            lambda _, w: -o.gradient(w),
            (0.0, float(t_end)),
            w0,
            method="BDF",
            rtol=RTOL,
            atol=block_tolerances(w0, RTOL, saddle.blocks),
            jac=lambda _, w: -o.hessian(w),
        )
        out.append(solution.y[:, -1])
    return np.array(out)


def one_batch(saddle: SparseSaddle, W0: np.ndarray, threads: int) -> np.ndarray:
    """gfsim's own batched integrator."""
    from gfsim.flow.batch import simulate_batch

    result = simulate_batch(
        saddle.objective, W0, t_end=end_times(len(W0)), rtol=RTOL, clock=saddle.clock, blocks=saddle.blocks,
        threads=threads,
    )  # fmt: skip
    if not result.ok.all():
        raise RuntimeError(result.summary())
    return result.final


def torchode_batch(saddle: SparseSaddle, W0: np.ndarray) -> np.ndarray:
    import torch
    import torchode

    o = saddle.objective.to_torch("cpu")
    term = torchode.ODETerm(lambda _, w: -o.gradient(w))
    controller = torchode.IntegralController(atol=RTOL * float(np.abs(W0).min(initial=1e-6)), rtol=RTOL, term=term)
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
    controller = diffrax.PIDController(rtol=RTOL, atol=RTOL * 1e-3)

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
    W0 = starts(saddle, count)
    runners: dict[str, Callable[[], np.ndarray]] = {
        "scipy": lambda: loop_of_bdf(saddle, W0),
        "gfsim": lambda: one_batch(saddle, W0, threads),
        "torchode": lambda: torchode_batch(saddle, W0),
    }
    answer: dict[str, object] = {
        "library": library,
        "starts": count,
        "threads": threads,
        "t_end": f"{HORIZON:g} / delta",
    }
    try:
        run = diffrax_vmap(W0) if library == "diffrax" else runners[library]
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
