"""Measurements that are no sweep of the suite: imports, overhead of a step, figure 1, degree 7, batches, size."""

from __future__ import annotations

import json
import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.rounds import say
from gfsim.compare.methods import known_to_simulate
from gfsim.compare.peers import environment
from gfsim.compare.problems import problem
from gfsim.flow.events import loss_level
from gfsim.flow.result import FlowResult
from gfsim.flow.simulate import simulate
from gfsim.models.feedforward import FeedForward
from gfsim.objective import Objective

Extra = dict[str, Any]

LIMIT = 900.0
"""Seconds for one extra; the implicit step of a million weights takes minutes."""


def preferred() -> str:
    """The library's own choice of method: ``auto`` where it exists."""
    return "auto" if "auto" in known_to_simulate() else "LSODA"


def imports(threads: int) -> Extra:
    """Median seconds of fresh interpreters."""
    commands = {
        "torch": [sys.executable, "-c", "import torch"],
        "gfsim_and_torch": [sys.executable, "-c", "import gfsim, torch"],
        "gfsim": [sys.executable, "-c", "import gfsim"],
        "command_line": [sys.executable, "-m", "gfsim", "--version"],
    }
    found: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(5):
        for name, command in commands.items():
            began = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment(threads))
            found[name].append(time.perf_counter() - began)
    return {name: statistics.median(times) for name, times in found.items()}


def step_overhead(threads: int) -> Extra:
    """Milliseconds a step beyond its right-hand sides, unbatched, in torch on the CPU."""
    import torch

    torch.set_num_threads(threads)
    task = problem("saddle-relu2-1e-2")
    steps, step = 4000, 1e-3
    twin = task.objective.to_torch("cpu")
    w = torch.as_tensor(task.w0)
    bare = _median(lambda: [twin.gradient(w) for _ in range(500)], 5) / 500
    whole = (
        _median(
            lambda: simulate(
                task.objective,
                task.w0,
                t_end=steps * step,
                method="euler",
                step=step,
                device="cpu",
                t_eval=[steps * step],
            ),
            5,
        )
        / steps
    )
    return {"bare_rhs_ms": 1e3 * bare, "step_ms": 1e3 * whole, "overhead_ms": 1e3 * (whole - bare)}


def figure1(threads: int) -> Extra:
    """t = 0 .. 1250 by the authors' 250,000 steps of descent in numpy, and by the library."""
    del threads
    task = problem("figure1")
    method, t_end, step = preferred(), 1250.0, 0.005
    ours = _median(lambda: simulate(task.objective, task.w0, t_end=t_end, method=method, rtol=1e-6), 3)
    sample = 20_000

    def descent() -> None:
        w = task.w0.copy()
        for _ in range(sample):
            _, g = task.objective.value_and_gradient(w)
            w = w - step * g

    loop = _median(descent, 3) * (t_end / step) / sample
    return {"method": method, "ours_s": ours, "descent_s": loop, "descent_steps_timed": sample, "ratio": ours / loop}


DEPTH_TOLERANCES = [10.0 ** (-2 - k / 8) for k in range(25)]
"""Eight a decade: the error of a run is not a smooth function of its tolerance, so on a coarse grid luck decides."""


def depth(threads: int) -> Extra:
    """Seconds to the first escape from far from and near to the 390-weight saddle, at many tolerances, and the errors.

    An error is that of the small block or of the rest, whichever is larger, against ``ndf`` at a tolerance of 1e-9:
    ``escape`` at L = 0.99 of the saddle's, ``doubling`` where |w_z| has doubled.  Seconds are CPU seconds, the least of
    nine rounds, from near and from far in turn.
    """
    del threads
    method, rounds = preferred(), 9
    tasks = {delta: problem(f"escape-relu2-{delta}") for delta in ("1e-2", "1e-6")}

    def run(delta: str, how: str, tolerance: float) -> FlowResult:
        task = tasks[delta]
        early, end = task.sections
        marks = [early.event("doubling", terminal=False), end.event("escape", terminal=True)]
        return simulate(
            task.objective, task.w0, t_end=math.inf, method=how, rtol=tolerance, clock=task.clock,
            blocks=list(task.blocks), events=marks,
        )  # fmt: skip

    def errors(flow: FlowResult, sharp: FlowResult, blocks: Sequence[np.ndarray]) -> dict[str, float]:
        return {
            mark.name: max(float(np.linalg.norm((mark.w - true.w)[b]) / np.linalg.norm(true.w[b])) for b in blocks)
            for mark, true in zip(flow.events, sharp.events, strict=True)
        }

    found: dict[str, list[Extra]] = {delta: [] for delta in tasks}
    for delta, task in tasks.items():
        sharp = run(delta, "ndf", 1e-9)
        for tolerance in DEPTH_TOLERANCES:
            flow = run(delta, method, tolerance)
            counts = flow.counts
            found[delta].append(
                {
                    "rtol": tolerance,
                    "errors": errors(flow, sharp, task.blocks),
                    "steps": counts.accepted + counts.rejected,
                    "velocities": counts.velocity,
                    "products": counts.hessian_product,
                    "seconds": math.inf,
                }
            )
    for _ in range(rounds):
        for k, tolerance in enumerate(DEPTH_TOLERANCES):
            for delta in tasks:
                began = time.process_time()
                run(delta, method, tolerance)
                row = found[delta][k]
                row["seconds"] = min(row["seconds"], time.process_time() - began)
    return {"method": method, "runs": found}


def degree_seven(threads: int) -> Extra:
    """T delta^5 at delta = 1e-2 and 1e-6."""
    del threads
    task = problem("degree7-1e-2")
    method = preferred()
    found = {}
    for delta in (1e-2, 1e-6):
        w0 = task.w0 * (delta / 1e-2)
        level = 0.5 * float(task.objective.value(task.w0))
        result = simulate(
            task.objective, w0, t_end=math.inf, method=method, rtol=1e-9, events=[loss_level(level)], max_steps=50_000
        )
        found[f"{delta:g}"] = float(result.t[-1]) * delta**5 if result.ok else math.nan
    small, large = found["1e-06"], found["0.01"]
    return {"method": method, "T_delta5": found, "relative_difference": abs(small / large - 1.0)}


def batch(threads: int, *, starts: int, limit: float, rounds: int = 3) -> Extra:
    """Wall seconds of every library for the same starts: medians of interleaved rounds."""
    out: Extra = {"starts": starts, "threads": threads}
    answers: dict[str, list[Extra]] = {library: [] for library in ("scipy", "gfsim", "torchode", "diffrax")}
    for number in range(rounds):
        for library, found in answers.items():
            if found and ("wall" not in found[-1] or found[-1].get("stopped")):
                continue  # it failed or ran out of time, and would again
            say(f"batch of {starts} starts, round {number + 1} of {rounds}: {library}")
            found.append(_one_batch(library, starts, limit, threads))
    for library, found in answers.items():
        walls = [answer["wall"] for answer in found if "wall" in answer]
        out[library] = found[-1] | ({"wall": statistics.median(walls), "walls": walls} if walls else {})
    return out


def _one_batch(library: str, starts: int, limit: float, threads: int) -> Extra:
    # gfsim's threads are its own, each with a BLAS of one; scipy's loop on 390 weights is three times slower with two
    inner = 1 if library in ("gfsim", "scipy") else threads
    try:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.batch", library, str(starts), str(limit), str(threads)],
            capture_output=True,
            text=True,
            timeout=2.0 * limit + 120.0,
            env=environment(inner),
        )
    except subprocess.TimeoutExpired:
        return {"wall": limit, "stopped": True}
    lines = done.stdout.strip().splitlines()
    answer: Extra = json.loads(lines[-1]) if lines else {"failure": f"ended with code {done.returncode}"}
    return answer


def million(threads: int) -> Extra:
    """A net of a million weights on 4096 samples: a step of descent against a bare forward and backward pass."""
    import torch

    torch.set_num_threads(threads)
    rng = np.random.default_rng(0)
    model = FeedForward((64, 960, 960, 1), "relu", p=2)
    X = rng.standard_normal((4096, 64))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    objective = Objective(model, X, rng.standard_normal(4096), reduction="mean")
    w = 0.1 * model.pack([rng.standard_normal(shape) / np.sqrt(shape[1]) for shape in model.shapes])
    twin = objective.to_torch("cpu")
    at = torch.as_tensor(w)
    steps, step = 4, 1e-3

    def several() -> None:
        simulate(objective, w, t_end=steps * step, method="euler", step=step, device="cpu", t_eval=[steps * step])

    # alternating, so that a busy machine weighs on both; a run computes one gradient more than it takes steps
    pairs = [(_median(lambda: twin.gradient(at), 3), _median(several, 1) / (steps + 1)) for _ in range(3)]
    bare, whole = (statistics.median(column) for column in zip(*pairs, strict=True))
    out: Extra = {"weights": model.n_params, "samples": 4096, "bare_s": bare, "step_s": whole, "ratio": whole / bare}
    began = time.perf_counter()
    result = simulate(objective, w, t_end=10.0, method="ndf", rtol=1e-3, max_steps=1)
    out |= {
        "matrix_free": "ndf",
        "matrix_free_s": time.perf_counter() - began,
        "matrix_free_steps": result.counts.accepted,
        "matrix_free_hvp": result.counts.hessian_product,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }
    return out


def cuda(threads: int) -> Extra:
    del threads
    import torch

    if not torch.cuda.is_available():
        return {"absent": "torch sees no CUDA device here"}
    return {"device": torch.cuda.get_device_name(0)}


EXTRAS: dict[str, Callable[[int], Extra]] = {
    "imports": imports,
    "step_overhead": step_overhead,
    "figure1": figure1,
    "depth": depth,
    "degree7": degree_seven,
    "million": million,
    "cuda": cuda,
}
"""Each runs in a process of its own: ``python -m benchmarks.extras NAME THREADS``."""


def measured(name: str, threads: int) -> Extra:
    """One extra in its own process."""
    say(f"extra: {name}")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.extras", name, str(threads)],
            capture_output=True,
            text=True,
            timeout=LIMIT,
            env=environment(threads),
        )
    except subprocess.TimeoutExpired:
        return {"failure": f"stopped after {LIMIT:g} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        said = done.stderr.strip().splitlines()
        return {"failure": said[-1][:300] if said else f"ended with code {done.returncode}"}
    answer: Extra = json.loads(lines[-1])
    return answer


def _median(call: Callable[[], object], times: int) -> float:
    call()
    found = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return statistics.median(found)


if __name__ == "__main__":
    print(json.dumps(EXTRAS[sys.argv[1]](int(sys.argv[2]))))
