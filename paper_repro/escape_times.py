"""Escape times from a sparse saddle against delta, for K = 2, 3 and 4 (docs/theory.md, section 4; our reading).

K = p + 1 is the degree of the NCF at the saddle.  From (wbar_n + delta n, delta z) with fixed n and z the theory says

    K > 2:  t_escape delta^(K-2) -> the blow-up time of the NCF flow from this z,
    K = 2:  t_escape / ln(1/delta) -> 1 / (2 N*).

The activations are z, z^2 and z^3, so that everything is smooth, in two layers and, for K > 2, in three.  (A linear
net of three layers with one neuron a layer has no one-neuron escape: the NCF vanishes.)

For K = 4 delta ends at 3e-5.  Below about 1e-5 no integrator of ours gets through at a reasonable cost: dt/ds =
delta^-2 turns the rounding errors of the large weights' gradient, 1e-16, into velocities above the tolerance.

The time stops where |w_z| = ESCAPED; with n and z of norm 1/2 even delta = 0.3 starts well below.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from gfsim.flow.batch import simulate_batch
from gfsim.flow.clock import RescaledTime
from gfsim.flow.events import norm_level
from gfsim.flow.simulate import simulate
from gfsim.models.activation import make_activation
from gfsim.models.feedforward import FeedForward
from gfsim.ncf.phi import ncf_field
from gfsim.ncf.saddle import SaddleNCF
from gfsim.objective import Objective
from gfsim.saddles.find import find_saddle
from gfsim.saddles.saddle import SparseSaddle
from paper_repro.claims import OURS, READING, Claim
from paper_repro.figure import Context, Outcome
from paper_repro.near_saddle import blow_up

DATA_SEED, SAMPLES, INPUTS, WIDTH = 0, 60, 8, 6
SIZE, ESCAPED = 0.5, 0.3


@dataclass(frozen=True)
class Family:
    """Nets of one activation z^p and depth; ``exponents`` are those of delta, as powers of ten."""

    key: str
    p: int
    depth: int
    exponents: tuple[float, ...]
    tail: float
    """Exponents are fitted for delta <= tail, over four decades at least."""

    @property
    def K(self) -> int:
        return self.p + 1

    @property
    def label(self) -> str:
        activation = "z" if self.p == 1 else f"z^{self.p}"
        return f"$K = {self.K}$: {self.depth} layers, ${activation}$"


DECADES = tuple(-float(k) for k in range(1, 9))
HALVES = tuple(-0.5 * k for k in range(1, 10))
FAMILIES = (
    Family("K2_two_layers", 1, 2, DECADES, 1e-2),
    Family("K3_two_layers", 2, 2, DECADES, 1e-2),
    Family("K3_three_layers", 2, 3, DECADES, 1e-2),
    Family("K4_two_layers", 3, 2, HALVES, 1.0),
    Family("K4_three_layers", 3, 3, HALVES, 1.0),
)


def saddle_of(family: Family) -> SparseSaddle:
    """The saddle with one active neuron a layer, of one fixed draw of data from a teacher of the same kind."""
    rng = np.random.default_rng(DATA_SEED)
    X = rng.normal(size=(SAMPLES, INPUTS))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    activation = make_activation("linear", p=family.p)
    hidden = family.depth - 1
    outputs = 3 if hidden == 1 else 1  # in two layers three outputs: for K = 2 the teacher then has rank three
    teacher = FeedForward((INPUTS, *[3 if hidden == 1 else 2] * hidden, outputs), activation)
    y = teacher.forward(rng.normal(size=teacher.n_params), X)
    y /= np.sqrt(np.mean(y**2))
    wide = FeedForward((INPUTS, *[WIDTH] * hidden, outputs), activation)
    return find_saddle(Objective(wide, X, y, reduction="mean"), (1,) * hidden, rng=rng)


def limits(ncf: SaddleNCF, best: float, Z: np.ndarray) -> np.ndarray:
    """What t delta^(K-2) tends to from each row of Z; for K = 2 what t / ln(1/delta) tends to: (B,)."""
    if ncf.degree == 2:
        return np.full(len(Z), 1.0 / (2.0 * best))
    run = simulate_batch(
        ncf_field(ncf),
        Z,
        t_end=math.inf,
        method="dp8",
        clock=RescaledTime(ncf.degree - 2.0),
        rtol=1e-11,
        events=[norm_level(1e5)],
    )
    gone, times = blow_up(ncf, run)
    if not gone.all():
        raise RuntimeError("a start does not escape along the NCF flow: try another seed")
    return times


def escape_time(saddle: SparseSaddle, delta: float, z: np.ndarray, n: np.ndarray) -> float:
    result = simulate(
        saddle.objective,
        saddle.start(delta, z, n),
        t_end=math.inf,
        method="Radau",
        clock=saddle.clock,
        blocks=saddle.blocks,
        rtol=1e-6,
        events=[norm_level(ESCAPED, saddle.index_z)],
        max_steps=5000,
    )
    if not result.ok:
        raise RuntimeError(f"delta = {delta:.0e}: {result.message}")
    return float(result.t[-1])


def line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope of the least-squares line and its standard error."""
    x0, y0 = x - x.mean(), y - y.mean()
    slope = float(x0 @ y0 / (x0 @ x0))
    rest = y0 - slope * x0
    return slope, float(np.sqrt(rest @ rest / (len(x) - 2) / (x0 @ x0)))


def measure(ctx: Context, family: Family, starts: int) -> dict[str, Any]:
    """Escape times (starts, deltas) and what is fitted to them."""
    saddle = saddle_of(family)
    ncf = SaddleNCF(saddle)
    best = ncf.neuron_maxima(rng=ctx.rng("kkt", family.key))[0].value
    pairs = [saddle.directions(ctx.rng("start", family.key, k)) for k in range(starts)]
    pairs = [(SIZE * n, SIZE * z) for n, z in pairs]
    goal = limits(ncf, best, np.stack([z for _, z in pairs]))
    deltas = 10.0 ** np.array(family.exponents)
    times = np.empty((starts, len(deltas)))
    for k, (n, z) in enumerate(pairs):
        ctx.note(f"{family.key}: start {k + 1} of {starts}")
        times[k] = [escape_time(saddle, float(delta), z, n) for delta in deltas]
    x = np.log(1 / deltas)
    tail = deltas <= family.tail
    # K = 2: t against ln(1/delta) in units of the limit; else the exponent of a power law
    ordinates = times / goal[:, None] if family.K == 2 else np.log(times)
    fits = [line(x[tail], row[tail]) for row in ordinates]
    slopes = np.array([slope for slope, _ in fits])
    expected = 1.0 if family.K == 2 else family.K - 2.0
    half = np.flatnonzero(tail)[int(tail.sum()) // 2 :]
    local = np.diff(np.log(times), axis=1) / np.diff(x)
    out: dict[str, Any] = {
        "K": family.K,
        "layers": family.depth,
        "delta": deltas,
        "saddle_loss": saddle.loss,
        "largest_ncf": best,
        "limit": goal,
        "time": times,
        "fitted": slopes,
        "fitted_mean": float(slopes.mean()),
        "fitted_spread": float(slopes.std(ddof=1)),
        "fit_error": [error for _, error in fits],
        "fitted_small_half": float(np.mean([line(x[half], row[half])[0] for row in ordinates])),
        "decades": float(np.log10(deltas[tail].max() / deltas[tail].min())),
        "expected": expected,
        "local_exponent": local,
        "local_last": np.diff(ordinates, axis=1)[:, -1] / (x[-1] - x[-2]),
    }
    if family.K > 2:
        out["deviation"] = np.abs(times * deltas ** (family.K - 2) / goal[:, None] - 1.0)
        out["deviation_last"] = out["deviation"][:, -1]
    else:
        out["deviation"] = np.abs(np.diff(ordinates, axis=1) / np.diff(x) - 1.0)
    return out


def run(ctx: Context) -> Outcome:
    starts = 24 if ctx.full else 4
    numbers: dict[str, Any] = {family.key: measure(ctx, family, starts) for family in FAMILIES}
    claims = []
    for family in FAMILIES:
        found, key = numbers[family.key], family.key
        words = f"K = {family.K}, {family.depth} layers"
        law = "slope of t_escape against ln(1/delta), times 2 N*" if family.K == 2 else "fitted exponent of 1/delta"
        claims += [
            Claim.close(
                f"{words}: {law}, each start, over {found['decades']:.0f} decades",
                found["fitted"],
                [found["expected"]] * starts,
                atol=0.02 if family.K == 4 else 2e-3,
                of=[f"{key}.time", f"{key}.fitted"],
                source=READING,
            ),
            Claim.close(
                f"{words}: the same between the two smallest delta",
                found["local_last"],
                [found["expected"]] * starts,
                atol=1e-3,
                of=[f"{key}.time", f"{key}.local_last"],
                source=READING,
            ),
        ]
        if family.K > 2:
            claims.append(
                Claim.at_most(
                    f"{words}: t_escape delta^{family.K - 2} against the blow-up time of phi, at the smallest delta",
                    found["deviation_last"],
                    1e-3,
                    of=[f"{key}.time", f"{key}.limit", f"{key}.deviation_last"],
                    source=READING,
                )
            )
    claims.append(
        Claim.at_least(
            "decades of delta under each fit", [numbers[f.key]["decades"] for f in FAMILIES], 4.0 - 1e-9,
            of=[f"{f.key}.decades" for f in FAMILIES], source=OURS,
        )
    )  # fmt: skip
    fitted = "; ".join(
        f"K = {f.K}, {f.depth} layers: {numbers[f.key]['fitted_mean']:.5f} ± {numbers[f.key]['fitted_spread']:.5f}, "
        f"{numbers[f.key]['fitted_small_half']:.6f} in the smaller half of delta"
        for f in FAMILIES
    )
    return Outcome(
        figure=_draw(ctx, numbers),
        claims=claims,
        numbers=numbers,
        caption=(
            f"Flow of the mean square loss near the saddle with one active neuron a layer, from (wbar_n + delta n, "
            f"delta z), |n| = |z| = {SIZE}, until |w_z| = {ESCAPED}; {starts} random n and z for each net. Nets "
            f"{INPUTS}-{WIDTH}-3 and {INPUTS}-{WIDTH}-{WIDTH}-1 with activation z, z^2, z^3, {SAMPLES} inputs on the "
            "sphere, labels from a teacher of the same kind; Radau with exact Hessians, rtol 1e-6, in the clock ds = "
            "|w_z|^(K-2) dt. Top left: escape times and the limits that theory predicts for each start (lines: "
            "blow-up time of the NCF flow / delta^(K-2); for K = 2 only the slope is predicted). Top right: K = 2, "
            "time in units of 1/(2 N*) against ln(1/delta): slope 1. Bottom left: exponents between neighbouring "
            "delta. Bottom right: relative distance of t_escape delta^(K-2) from the blow-up time, and for K = 2 of "
            "the slope from 1. Fitted slope (K = 2, in units of 1/(2 N*)) and exponents (K = 3, 4), mean ± standard "
            f"deviation over the starts: {fitted}. The difference between the two fits is the error that finite "
            "delta leaves; it is larger than the spread."
        ),
        convention="mean",
    )


def _draw(ctx: Context, numbers: dict[str, Any]) -> Any:
    fig, ((times, log_law), (local, distance)) = ctx.subplots(2, 2, size=(9.6, 7.4))
    marks = dict(zip([f.key for f in FAMILIES], "osv^D", strict=True))
    for k, family in enumerate(FAMILIES):
        found, mark, colour = numbers[family.key], marks[family.key], f"C{k}"
        delta, t = np.array(found["delta"]), np.array(found["time"])
        for row, limit in zip(t, found["limit"], strict=True):
            times.loglog(delta, row, mark, color=colour, ms=4, mfc="none", mew=0.9)
            if family.K > 2:
                times.loglog(delta, limit * delta ** (2.0 - family.K), color=colour, lw=0.7)
        times.plot([], [], mark, color=colour, mfc="none", label=family.label)
        middle = np.sqrt(delta[1:] * delta[:-1])
        local.semilogx(middle, np.array(found["local_exponent"]).mean(0), mark + "-", color=colour, lw=1, ms=4)
        x = delta if family.K > 2 else middle
        deviation = np.maximum(found["deviation"], 1e-10)
        distance.loglog(x, deviation.T, color=colour, lw=0.6, alpha=0.6)
        distance.loglog(x, np.exp(np.log(deviation).mean(0)), mark, color=colour, ms=4.5)
    times.invert_xaxis()
    times.set(xlabel=r"$\delta$", ylabel="escape time (mean loss)", title="Escape times, and the theory's limits")
    times.set_ylim(0.3, 1e20)
    times.legend(loc="upper center", ncols=2)
    found = numbers[FAMILIES[0].key]
    x = np.log(1 / np.array(found["delta"]))
    for row in np.array(found["time"]) / np.array(found["limit"])[:, None]:
        log_law.plot(x, row, "o", color="C0", ms=4, mfc="none")
        log_law.plot(x, row[-1] + (x - x[-1]), color="C0", lw=0.7)
    log_law.set(
        xlabel=r"$\ln(1/\delta)$", ylabel=r"$2N_*\,t_{escape}$", title="$K = 2$: the logarithmic law (lines: slope 1)"
    )
    delta = np.logspace(-8, -1, 100)
    offset = float(np.mean(np.array(found["time"])[:, -1] / np.array(found["limit"]) - x[-1]))
    local.semilogx(delta, 1 / (np.log(1 / delta) + offset), ":", color="C0", lw=1.2)
    for K in (3, 4):
        local.axhline(K - 2, color="0.5", ls="--", lw=0.9)
    local.annotate(r"dotted: $1/(\ln(1/\delta)+c)$", (1e-5, 0.14), ha="center", fontsize=8.5)
    for height, K in ((0.3, 2), (1.05, 3), (2.05, 4)):
        parts = [
            f"{f.depth} layers: {numbers[f.key]['fitted_mean']:.5f} ± {numbers[f.key]['fitted_spread']:.0e}"
            for f in FAMILIES
            if f.K == K
        ]
        what = r"slope of $2N_*t$, " if K == 2 else "fitted, "
        local.annotate(what + "; ".join(parts), (1e-5, height), ha="center", va="bottom", fontsize=8)
    local.invert_xaxis()
    local.set(
        xlabel=r"$\delta$",
        ylabel=r"$d\,\ln t_{escape}\,/\,d\,\ln(1/\delta)$",
        title="Local exponents (dashed: $K-2$)",
        ylim=(-0.1, 2.35),
    )
    distance.loglog(delta, 0.3 * delta, "k--", lw=0.9, label=r"proportional to $\delta$")
    distance.legend(loc="lower left")
    distance.invert_xaxis()
    distance.set(xlabel=r"$\delta$", ylabel="relative deviation", title="Distance from the limit", ylim=(1e-11, None))
    return fig
