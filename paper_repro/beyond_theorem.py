"""Where the near-saddle theorem's hypotheses fail: plain ReLU, GELU, and w_n that is not at a minimum.

[NP], Theorem 7 (our reading, docs/theory.md, section 4), asks for a homogeneous activation that is differentiable at
the active preactivations, and for a minimum of the active net's loss.  Beside the case that it covers, z^2, stand
three that it does not, or only in part (set-up and predictions ours):

* ReLU (K = 2).  Off the active neuron's kinks the expansion holds, but the NCF is quadratic in a neuron's size: all
  neurons on one hill grow at the rate 2 N*, side by side, and N itself has kinks, along which the flow slides.
* GELU has no degree.  Near zero it is z/2 + O(z^2), so small neurons follow the flow of N(a, b) = a' M b, M =
  (1/2) sum_i x_i ybar_i: they all turn to one pair of singular vectors and grow at the rate |M|, whatever GELU's
  curvature.
* wbar_n critical but no minimum: w_n leaves at the rate lambda, -lambda the lowest eigenvalue of the active Hessian,
  long before the small weights have moved.

In these three the time is logarithmic in 1/delta, and after the escape of ReLU and GELU nets several neurons are
active, not one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from gfsim.errors import SaddleNotFound
from gfsim.flow.clock import PhysicalTime
from gfsim.flow.events import departure, norm_level, stationarity
from gfsim.flow.result import FlowResult
from gfsim.flow.simulate import simulate
from gfsim.models.feedforward import FeedForward
from gfsim.ncf.directions import cosine_deficit
from gfsim.ncf.phi import limit
from gfsim.ncf.saddle import SaddleNCF
from gfsim.objective import Objective
from gfsim.saddles.find import embed, find_saddle, newton, rounding_level
from gfsim.saddles.neurons import ActiveNeurons
from gfsim.saddles.saddle import SparseSaddle
from paper_repro.claims import OURS, READING, Claim
from paper_repro.figure import Context, Outcome

SAMPLES, INPUTS, WIDTH = 40, 5, 8
DELTAS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
ESCAPED = 0.1
GROWN = 0.01
"""An inactive neuron has grown when its norm is at least this share of the largest one's at the next stop."""

CLEAR = 0.02
"""Distance of the active neuron's ReLU from its kinks at the saddle, relative to the largest preactivation."""

FIRST_DRAW = {"square": 0, "relu": 0, "gelu": 2}
"""Where the search for a saddle begins: the minima of one GELU neuron on the draws before are far out, or at infinity,
and take long to be found so."""

RELU_STEP = 0.01
"""Of Heun's method; steps that adapt shrink without end while the flow slides along a kink."""


def objective(activation: str, draw: int) -> tuple[Objective, np.random.Generator]:
    """A two-layer net with labels from three neurons of its own kind; MEAN square loss."""
    rng = np.random.default_rng(draw)
    X = rng.normal(size=(SAMPLES, INPUTS))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    teacher = FeedForward((INPUTS, 3, 1), activation)
    y = teacher.forward(3 * rng.normal(size=teacher.n_params), X)
    y /= np.sqrt(np.mean(y**2))
    return Objective(FeedForward((INPUTS, WIDTH, 1), activation), X, y, reduction="mean"), rng


def saddle_of(activation: str) -> tuple[SparseSaddle, int]:
    """One active neuron: the first draw of the data that has such a saddle, of moderate size and off the kinks."""
    for draw in range(FIRST_DRAW[activation], 40):
        problem, rng = objective(activation, draw)
        try:
            saddle = find_saddle(problem, (1,), rng=rng, starts=6)
        except SaddleNotFound:
            continue  # a minimum on kinks, or at infinity
        z = np.abs(problem.X @ saddle.w_n[:INPUTS])
        if np.linalg.norm(saddle.w_n) < 4.0 and (activation != "relu" or z.min() > CLEAR * z.max()):
            return saddle, draw
    raise RuntimeError(f"no suitable saddle of a {activation} net in 40 draws")


def not_a_minimum() -> tuple[SparseSaddle, int]:
    """A critical point of one z^2 neuron's loss that is no minimum, by Newton's method from random starts.

    Its lowest eigenvalue stands apart from the next, so that one rate decides within the decades used.
    """
    for draw in range(40):
        problem, rng = objective("square", draw)
        active = ActiveNeurons.of(problem.model, [1])  # type: ignore[arg-type]
        small = problem.with_model(active.subnet(problem.model))  # type: ignore[arg-type]
        for _ in range(20):
            w = newton(small, rng.normal(size=small.model.n_params))
            live = min(np.linalg.norm(w[:INPUTS]), abs(w[INPUTS])) > 0.3 and np.linalg.norm(w) < 4.0
            if live and np.linalg.norm(small.gradient(w)) < 100 * rounding_level(small, w):
                e = np.linalg.eigvalsh(small.hessian(w))
                if e[0] < -0.02 * e[-1] and e[1] > 0.5 * e[0]:
                    return embed(problem, active, w), draw
    raise RuntimeError("no critical point of index >= 1 in 40 draws")


@dataclass(frozen=True)
class Prediction:
    """Direction u* (size of w_z,) of the small weights; ``rate`` of |w_z| (K = 2), or the blow-up time (K > 2)."""

    u: np.ndarray
    rate: float
    blow_up: float


def predicted(saddle: SparseSaddle, z: np.ndarray, rng: np.random.Generator) -> Prediction:
    model = saddle.model
    if model.activation.power is None:
        M = 0.5 * saddle.objective.X.T @ saddle.objective.pull(model.forward(saddle.w, saddle.objective.X))[:, 0]
        rate = float(np.linalg.norm(M))
        pair = np.append(M / rate, 1.0) / math.sqrt(2)
        u = np.zeros(saddle.index_z.size)
        for place in neurons(saddle):
            u[place] = (z[place] @ pair) * pair
        return Prediction(u / np.linalg.norm(u), rate, math.nan)
    ncf = SaddleNCF(saddle)
    if ncf.degree > 2:
        phi = limit(ncf, z)
        if phi.point is None:
            raise RuntimeError(f"the start does not escape ({phi.fate}): try another seed")
        return Prediction(phi.point.u, math.nan, phi.time)
    # plain ReLU: phi slides along kinks, so it is followed with the training flow's own fixed steps
    u = z / np.linalg.norm(z)
    growth, best = 0.0, ncf.neuron_maxima(rng=rng)[0].value
    while growth < math.log(1e6):
        first = ncf.gradient(u)
        u = u + 0.5 * RELU_STEP * (first + ncf.gradient(u + RELU_STEP * first))
        size = float(np.linalg.norm(u))
        growth += math.log(size)
        u /= size
    return Prediction(u, 2.0 * best, math.nan)


def neurons(saddle: SparseSaddle) -> np.ndarray:
    """Places of every inactive neuron's (a, b) in w_z: (count, INPUTS + 1)."""
    where = {int(flat): k for k, flat in enumerate(saddle.index_z)}
    index = saddle.model.index
    return np.array(
        [
            [where[int(i)] for i in [*index[0][j], index[1][0, j]]]
            for j in saddle.active.inactive(saddle.model)[0]
        ]
    )  # fmt: skip


def follow(saddle: SparseSaddle, start: np.ndarray, delta: float, *, on: bool) -> FlowResult:
    """Until |w_z| = ESCAPED; with ``on``, until the flow has slowed down again."""
    half = norm_level(max(math.sqrt(delta), 1.5 * delta), saddle.index_z, name="turned", terminal=0)
    gone = norm_level(ESCAPED, saddle.index_z, name="escape", terminal=0 if on else 1)
    events = [half, gone, stationarity(1e-2, after=gone.name)] if on else [half, gone]
    common: dict[str, Any] = {"t_end": math.inf, "events": events}
    if saddle.model.activation.name == "relu":
        result = simulate(saddle.objective, start, method="heun", step=RELU_STEP, **common)
    else:
        clock = saddle.clock if saddle.model.degree is not None else PhysicalTime()
        result = simulate(saddle.objective, start, method="BDF", clock=clock, blocks=saddle.blocks, rtol=1e-8, **common)
    if not result.ok:
        raise RuntimeError(f"delta = {delta:.0e}: {result.message}")
    return result


def measure(ctx: Context, activation: str) -> dict[str, Any]:
    """Escape times, directions and what has grown, for one activation."""
    saddle, draw = saddle_of(activation)
    n, z = saddle.directions(ctx.rng("start", activation))
    told = predicted(saddle, z, ctx.rng("maxima", activation))
    times, deficits, counts = [], [], []
    norms = np.zeros(0)
    for delta in DELTAS:
        ctx.note(f"{activation}, delta = {delta:.0e}")
        result = follow(saddle, saddle.start(delta, z, n), delta, on=True)
        times.append(result.event("escape").t)
        deficits.append(cosine_deficit(result.event("turned").w[saddle.index_z], told.u))
        final = result.final[saddle.index_z]
        norms = np.sort([float(np.linalg.norm(final[place])) for place in neurons(saddle)])[::-1]
        counts.append(int((norms >= GROWN * norms[0]).sum()))
    return {
        "draw": draw,
        "loss": saddle.loss,
        "time": times,
        "rate": told.rate,
        "blow_up": told.blow_up,
        "deficit": deficits,
        "grown": counts,
        "norms": norms,
    }


def leave(ctx: Context) -> dict[str, Any]:
    """w_n at a critical point that is no minimum: when it leaves, and the small weights until then."""
    saddle, draw = not_a_minimum()
    n, z = saddle.directions(ctx.rng("start", "no minimum"))
    rate = -float(np.linalg.eigvalsh(saddle.active_objective.hessian(saddle.w_n))[0])
    out: dict[str, Any] = {"draw": draw, "loss": saddle.loss, "rate": rate, "time": [], "small": [], "curves": []}
    for delta in DELTAS:
        ctx.note(f"no minimum, delta = {delta:.0e}")
        gone = departure(saddle.w, ESCAPED, name="wbar_n", terminal=0)
        run = simulate(
            saddle.objective,
            saddle.start(delta, z, n),
            t_end=1.6 * math.log(3.0 / delta) / rate,
            method="DOP853",
            clock="t",
            rtol=1e-12,  # w_n's displacement, not w_n, must be right: 1e-6 of it at first
            events=[gone],
        )
        if not run.ok:
            raise RuntimeError(f"delta = {delta:.0e}: {run.message}")
        leaving = run.event("exit").t
        away = np.linalg.norm(run.w[:, saddle.index_n] - saddle.w_n, axis=1)
        small = np.linalg.norm(run.w[:, saddle.index_z], axis=1)
        out["time"].append(leaving)
        out["small"].append(float(small[run.t <= leaving].max() / delta))
        out["curves"].append({"t": run.t, "away": away, "small": small})
    return out


def slope(times: list[float], rate: float) -> float:
    """Of rate x time against ln(1/delta) over the three smallest delta: 1 for a logarithmic law."""
    return float(np.polyfit(np.log(1 / np.array(DELTAS[-3:])), rate * np.array(times[-3:]), 1)[0])


KINDS = {"square": "$z^2$", "relu": "ReLU", "gelu": "GELU"}


def run(ctx: Context) -> Outcome:
    numbers: dict[str, Any] = {"delta": DELTAS}
    for activation in KINDS:
        numbers[activation] = measure(ctx, activation)
    numbers["no_minimum"] = leave(ctx)
    square, relu, gelu, bare = (numbers[key] for key in ("square", "relu", "gelu", "no_minimum"))
    numbers["square_limit"] = (np.array(square["time"]) * np.array(DELTAS) / square["blow_up"]).tolist()
    for key in ("relu", "gelu", "no_minimum"):
        numbers[f"{key}_slope"] = slope(numbers[key]["time"], numbers[key]["rate"])
    claims = [
        Claim.close(
            "z^2: t_escape delta over the blow-up time of phi at the smallest delta",
            numbers["square_limit"][-1],
            1.0,
            rtol=1e-3,
            of=["square_limit", "square.time", "square.blow_up"],
            source=READING,
        ),
        Claim.close(
            "ReLU: slope of 2 N* t_escape against ln(1/delta)",
            numbers["relu_slope"],
            1.0,
            rtol=0.05,
            of=["relu_slope", "relu.time", "relu.rate"],
            source=OURS,
        ),
        Claim.close(
            "GELU: slope of |M| t_escape against ln(1/delta)",
            numbers["gelu_slope"],
            1.0,
            rtol=0.02,
            of=["gelu_slope", "gelu.time", "gelu.rate"],
            source=OURS,
        ),
        Claim.close(
            "no minimum: slope of lambda t_leave against ln(1/delta)",
            numbers["no_minimum_slope"],
            1.0,
            rtol=0.02,
            of=["no_minimum_slope", "no_minimum.time", "no_minimum.rate"],
            source=OURS,
        ),
        Claim.at_most(
            "no minimum: |w_z|/delta until w_n has left",
            bare["small"],
            2.0,
            of="no_minimum.small",
            source=OURS,
        ),
        Claim.equal(
            f"z^2: neurons grown at the next stop, delta <= {GROWN**2:g} (the others stay of order delta)",
            [k for k, delta in zip(square["grown"], DELTAS, strict=True) if delta <= 1.01 * GROWN**2],
            [1] * sum(delta <= 1.01 * GROWN**2 for delta in DELTAS),
            of="square.grown",
        ),
        Claim.at_least("ReLU: neurons grown at the next stop, each delta", relu["grown"], 2, of="relu.grown"),
        Claim.at_least("GELU: neurons grown at the next stop, each delta", gelu["grown"], 2, of="gelu.grown"),
    ]
    claims += [
        Claim.at_most(
            f"{KINDS[key].strip('$')}: 1 - cosine of w_z with its prediction at |w_z| = sqrt(delta), smallest delta",
            numbers[key]["deficit"][-1],
            bound,
            of=f"{key}.deficit",
            source=source,
        )
        for key, bound, source in (("square", 1e-3, READING), ("relu", 1e-2, OURS), ("gelu", 1e-3, OURS))
    ]
    return Outcome(
        figure=_draw(ctx, numbers),
        claims=claims,
        numbers=numbers,
        caption=(
            f"Two-layer nets {INPUTS}-{WIDTH}-1, {SAMPLES} inputs on the sphere, labels from three neurons of the "
            "same kind, mean square loss, near the saddle with one active neuron, from (wbar_n + delta n, delta z), "
            "|n| = |z| = 1. Top left: time until |w_z| = 0.1 for z^2, which the theorem covers (line: blow-up time of "
            "phi over delta), for ReLU (slope 1/(2 N*)), for GELU (slope 1/|M|, M = (1/2) sum_i x_i ybar_i), and until "
            "w_n has "
            "moved by 0.1 where wbar_n is no minimum (slope 1/lambda); lines through the last point. Top right: norms "
            "of the seven neurons that were inactive, where the flow stops next (|grad L| at 1 % of its peak), "
            f"delta = {DELTAS[-1]:.0e}; above the line they count as grown. Bottom left: one minus the cosine of "
            "all of w_z with the predicted direction where |w_z| = sqrt(delta): the limit of phi from z; for GELU the "
            "singular pair of M in every neuron. Bottom right: wbar_n no minimum; displacement of the large weights "
            "(solid) and size of the small ones (dashed) for delta = 1e-2 (dark) to 1e-6 (light). BDF, rtol 1e-8 "
            "(no minimum: DOP853, 1e-12); "
            f"ReLU: Heun with step {RELU_STEP}."
        ),
        convention="mean",
    )


def _draw(ctx: Context, numbers: dict[str, Any]) -> Any:
    from matplotlib import colormaps

    fig, ((times, norms), (angle, bare)) = ctx.subplots(2, 2, size=(9.6, 7.4))
    deltas = np.array(DELTAS)
    fine = np.logspace(-6, -2, 100)
    rows = [*KINDS.items(), ("no_minimum", r"$z^2$, $\bar w_n$ no minimum")]
    for k, (key, label) in enumerate(rows):
        found, colour = numbers[key], f"C{k}"
        t = np.array(found["time"])
        times.loglog(deltas, t, "osv^"[k], color=colour, label=label)
        law = found["blow_up"] / fine if key == "square" else t[-1] + np.log(deltas[-1] / fine) / found["rate"]
        times.loglog(fine, law, color=colour, lw=0.9)
        if key in KINDS:
            place = np.arange(1, len(found["norms"]) + 1)
            share = np.array(found["norms"]) / found["norms"][0]
            norms.semilogy(place + 0.12 * (k - 1), share, "osv"[k], color=colour, label=label)
            angle.loglog(deltas, found["deficit"], "osv"[k] + "-", color=colour, lw=1, label=label)
    times.invert_xaxis()
    times.set(xlabel=r"$\delta$", ylabel="escape time (mean loss)", title="1/δ, or only ln(1/δ)")
    times.legend(loc="upper left")
    norms.axhline(GROWN, color="0.5", ls="--", lw=1)
    norms.set(
        xlabel="neurons that were inactive, by norm", ylabel="norm / largest", title="What has grown at the next stop"
    )
    norms.set_ylim(None, 3)
    norms.legend(loc="center left")
    angle.invert_xaxis()
    angle.loglog(deltas, 0.3 * deltas, "k--", lw=0.9, label=r"proportional to $\delta$")
    angle.set(
        xlabel=r"$\delta$", ylabel=r"$1 - \cos(w_z, \mathrm{prediction})$", title="Direction of the small weights"
    )
    angle.legend(loc="lower left")
    colours = colormaps["viridis"](np.linspace(0, 0.85, len(DELTAS)))
    for curve, colour in zip(numbers["no_minimum"]["curves"], colours, strict=True):
        bare.semilogy(curve["t"], curve["away"], color=colour)
        bare.semilogy(curve["t"], curve["small"], color=colour, ls="--", lw=1.1)
    bare.plot([], [], color="k", label=r"$|w_n - \bar w_n|$")
    bare.plot([], [], "--", color="k", lw=1.1, label=r"$|w_z|$")
    bare.set(xlabel="$t$ (mean loss)", title=r"$\bar w_n$ no minimum: the large weights leave first", ylim=(None, 60))
    bare.legend(loc="upper left", ncols=2)
    return fig
