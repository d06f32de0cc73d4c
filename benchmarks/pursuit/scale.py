"""What many samples cost: ``python -m benchmarks.pursuit.scale``.

One hidden ReLU layer is grown on samples of a teacher with more neurons than it may get, so that growth ends with the
budget and every run has the same additions to pay for.  Each number of samples has a process of its own, as the peak of
memory is that of a process; it holds the data too, n x d x 8 bytes of them the user's and as many the scaled copy.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np

SAMPLES = (10_000, 100_000)
TEACHER_NEURONS = 60
NOISE = 0.3
"""Standard deviation of what no network can explain."""


@dataclass(frozen=True)
class Cost:
    """One fit.

    Attributes
    ----------
    n, neurons, additions : int
    wall, cpu : float
        Seconds of ``fit``.
    late : float
        Seconds of the wall clock per addition over the last five, where they cost most.
    peak : float
        GiB of the process at its largest, data and imports included.
    excess : float
        Mean square error on fresh samples of the noiseless teacher, over the teacher's variance.
    """

    n: int
    neurons: int
    additions: int
    wall: float
    cpu: float
    late: float
    peak: float
    excess: float


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pursuit.scale", description="Cost of growth against the number of samples."
    )
    parser.add_argument("--samples", type=int, nargs="+", default=list(SAMPLES), metavar="N", help="default: 1e4 1e5")
    parser.add_argument("--inputs", type=int, default=100, metavar="D", help="default: %(default)s")
    parser.add_argument("--neurons", type=int, default=50, metavar="K", help="default: %(default)s")
    parser.add_argument("--seeds", type=int, default=1, metavar="S", help="default: %(default)s")
    args = parser.parse_args(argv)
    print(f"{args.inputs} inputs, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}, load {_load()}")
    print("samples    neurons additions   wall s    CPU s  CPU s/addition  late s/addition  peak GiB   excess")
    for n in args.samples:
        for seed in range(args.seeds):
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                cost = pool.submit(measure, n, args.inputs, args.neurons, seed).result()
            print(
                f"{cost.n:<10d} {cost.neurons:7d} {cost.additions:9d} {cost.wall:8.1f} {cost.cpu:8.1f} "
                f"{cost.cpu / max(cost.additions, 1):15.3f} {cost.late:16.3f} {cost.peak:9.2f} {cost.excess:8.2e}",
                flush=True,
            )
    print(f"load at the end {_load()}")
    return 0


def measure(n: int, d: int, neurons: int, seed: int) -> Cost:
    """Grow on ``n`` samples without a penalty, so that there is one growth; everything else as it is by default."""
    from gfsim import NeuronPursuitRegressor

    rng = np.random.default_rng([seed, d])
    V, c = rng.normal(size=(TEACHER_NEURONS, d)) / np.sqrt(d), rng.normal(size=TEACHER_NEURONS)

    def sample(m: int) -> tuple[np.ndarray, np.ndarray]:
        X, f = np.empty((m, d)), np.empty(m)
        for part in (slice(k, k + 10_000) for k in range(0, m, 10_000)):
            rng.standard_normal(out=X[part])
            f[part] = np.maximum(X[part] @ V.T, 0.0) @ c
        return X, f

    X, f = sample(n)
    y = f + NOISE * rng.standard_normal(n)
    model = NeuronPursuitRegressor(max_neurons=neurons, l2=0.0, random_state=seed)
    wall, cpu = time.perf_counter(), time.process_time()
    model.fit(X, y)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
    seconds = [row["seconds"] for row in model.history_]
    late = (seconds[-1] - seconds[-6]) / 5 if len(seconds) > 5 else float("nan")
    fresh, wanted = sample(20_000)
    excess = float(np.mean((model.predict(fresh) - wanted) ** 2) / np.var(wanted))
    return Cost(n, model.n_neurons_, len(seconds), wall, cpu, late, peak, excess)


def _load() -> str:
    return " ".join(f"{load:.1f}" for load in os.getloadavg())


if __name__ == "__main__":
    sys.exit(main())
