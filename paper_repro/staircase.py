"""The saddle-to-saddle staircase, with the sequence that Neuron Pursuit predicts laid over it (observed, unproved).

From small random weights the flow is followed from saddle to saddle until the loss is small: two, three and four
layers, activation z^2, labels from a narrow teacher.  Three things are compared at every saddle (docs/theory.md,
sections 5 and 6): the neuron that the flow grows; the neuron at which the NCF flow phi ends, started from the
flow's own small weights; the neuron that Neuron Pursuit adds, the largest NCF value of all.  Beside this, step
by step, stands NP's own sequence: from the origin, each time its neuron, each time the minimum behind it.

The three nets that are shown were chosen among the first fourteen draws of the data for a staircase with well
separated steps, and with neurons growing in every layer.  What is typical stands in the last panel: fresh draws, the
same prediction at each of their saddles.  There NP's neuron is often not the flow's: phi from the actual small weights
knows in which layer they are large, NP does not.

Time is counted in e-folds of the small weights' predicted growth, dx = K N* |w_z|^(K-2) dt, K and N* those of the
saddle that is being left (of the origin: D and its N*): every escape then takes about ln(1/delta), though in
physical time the origin of the four-layer net, of degree 15, holds the flow for 1e48 units.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gfsim.errors import SaddleNotFound
from gfsim.flow.events import loss_level, norm_level, stationarity
from gfsim.flow.result import FlowResult
from gfsim.flow.simulate import simulate
from gfsim.models.feedforward import FeedForward
from gfsim.ncf.origin import OriginNCF, maximise
from gfsim.ncf.phi import limit
from gfsim.ncf.saddle import NeuronDirection, SaddleNCF
from gfsim.objective import Objective
from gfsim.saddles.find import nearby_saddle
from gfsim.saddles.neurons import ActiveNeurons, split_by_norm
from gfsim.saddles.saddle import SparseSaddle, origin
from paper_repro.claims import OURS, Claim
from paper_repro.figure import Context, Outcome

DELTA = 1e-3
"""Norm of the start, and of NP's neurons."""

SAMPLES = 100
SOLVED = 1e-6
MOST_STEPS = 10
APART = 2.0
"""Least ratio of the losses at which two labels of Neuron Pursuit's widths are readable one above the other."""

COSINE = 0.99
"""A neuron with at least this cosine to another, up to the sign symmetry of z^2, counts as the same."""


@dataclass(frozen=True)
class Net:
    """Widths d-width-..-1, a teacher d-teacher-..-1 of the same depth, and the draw of the data that is shown."""

    layers: int
    inputs: int
    width: int
    teacher: int
    shown: int

    @property
    def key(self) -> str:
        return f"layers_{self.layers}"


NETS = (Net(2, 8, 10, 4, 1), Net(3, 8, 8, 2, 3), Net(4, 5, 6, 2, 10))


def problem(net: Net, rng: np.random.Generator) -> tuple[Objective, np.ndarray]:
    """Inputs on the sphere, labels of unit root mean square, MEAN square loss; and a start of norm DELTA."""
    X = rng.normal(size=(SAMPLES, net.inputs))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    hidden = net.layers - 1
    teacher = FeedForward((net.inputs, *[net.teacher] * hidden, 1), "square")
    y = teacher.forward(rng.normal(size=teacher.n_params), X)
    y /= np.sqrt(np.mean(y**2))
    model = FeedForward((net.inputs, *[net.width] * hidden, 1), "square")
    w0 = rng.normal(size=model.n_params)
    return Objective(model, X, y, reduction="mean"), DELTA * w0 / np.linalg.norm(w0)


def to_the_next(saddle: SparseSaddle, w: np.ndarray) -> FlowResult:
    """From ``w`` near ``saddle`` until the flow has slowed down again after its escape, or has solved the task."""
    block = saddle.index_z
    level = max(0.5 if saddle.active.origin else 0.1, 3.0 * float(np.linalg.norm(w[block])))
    gone = norm_level(level, block, name="escape", terminal=0)
    result = simulate(
        saddle.objective,
        w,
        t_end=math.inf,
        method="BDF",
        rtol=1e-7,
        clock=saddle.clock,
        blocks=saddle.blocks,
        events=[gone, stationarity(1e-3, after=gone.name), loss_level(0.1 * SOLVED)],
        max_steps=10_000,
    )
    if not result.ok:
        raise RuntimeError(f"the flow did not reach the next saddle: {result.message}")
    return result


def grown(before: ActiveNeurons, now: ActiveNeurons) -> list[tuple[int, int]]:
    """(layer, unit) of the neurons active ``now`` and not ``before``."""
    return [
        (layer, unit)
        for layer, (new, old) in enumerate(zip(now.units, before.units, strict=True), start=1)
        for unit in new
        if unit not in old
    ]


@dataclass
class Step:
    """One saddle that was passed, and what was predicted there."""

    widths: tuple[int, ...]
    loss: float
    phi: tuple[int, int]
    pursuit_layer: int
    pursuit_cosine: float
    """Of the neuron that phi predicts with NP's; 0 in another layer."""
    grew: list[tuple[int, int]] = field(default_factory=list)


@dataclass
class Staircase:
    """A flow from the origin on: pieces of (x, loss), one a stage, their durations, and the saddles between them.

    Stage k has x from k to k + 1.
    """

    x: list[np.ndarray]
    loss: list[np.ndarray]
    duration: list[float]
    steps: list[Step]
    end: str


def climb_down(ctx: Context, objective: Objective, w: np.ndarray, rng: np.random.Generator) -> Staircase:
    """The flow from ``w`` near the origin, saddle by saddle."""
    saddle = origin(objective)
    model = saddle.model
    out = Staircase([], [], [], [], "")
    for stage in range(MOST_STEPS):
        ctx.note(f"{len(model.hidden_widths) + 1} layers, saddle {saddle.active.widths}")
        piece = to_the_next(saddle, w)
        out.x.append(stage + piece.s / piece.s[-1])
        out.loss.append(piece.loss)
        out.duration.append(float(piece.t[-1]))
        w = piece.final
        active = split_by_norm(model, w)
        if out.steps:
            out.steps[-1].grew = grown(saddle.active, active)
        if out.loss[-1][-1] <= SOLVED:
            out.end = "solved"
            return out
        try:
            saddle = nearby_saddle(objective, w, active)
        except SaddleNotFound:
            out.end = "the next plateau is not stationary to rounding"
            return out
        if not saddle.index_z.size or saddle.loss <= 1e-2 * SOLVED:
            out.end = "solved" if saddle.loss <= SOLVED else "all neurons active"
            return out
        ncf = SaddleNCF(saddle)
        own, best = limit(ncf, w[saddle.index_z]), ncf.neuron_maxima(starts=32, rng=rng)
        if own.point is None or not best:
            out.end = "no escape is predicted"
            return out
        neuron = ncf.neuron_of(own.point.u)
        out.steps.append(
            Step(
                saddle.active.widths,
                saddle.loss,
                neuron,
                best[0].layer,
                _cosine(ncf, own.point.u, neuron, best[0]),
            )
        )
    out.end = "longer"
    return out


def _cosine(ncf: SaddleNCF, u: np.ndarray, neuron: tuple[int, int], direction: NeuronDirection) -> float:
    """Cosine of the neuron's part of ``u`` with ``direction`` up to the sign symmetry of z^2, 0 across layers."""
    layer, unit = neuron
    if layer != direction.layer:
        return 0.0
    units = ncf.saddle.active.inactive(ncf.saddle.model)[layer - 1]
    part = u[ncf.places[layer - 1][units.index(unit)]]
    a, b = part[: direction.a.size], part[direction.a.size :]
    return float((abs(a @ direction.a) + b @ direction.b) / np.linalg.norm(part))


def pursuit_sequence(ctx: Context, objective: Objective, rng: np.random.Generator, most: int) -> list[dict[str, Any]]:
    """NP's own saddles from the origin on: widths, loss, and the layer that it chooses next (0: it stops there)."""
    saddle = origin(objective)
    model = saddle.model
    one = ActiveNeurons.of(model, [1] * len(model.hidden_widths))
    narrow = OriginNCF(objective.with_model(one.subnet(model)))
    w = np.zeros(model.n_params)
    w[one.index_n(model)] = DELTA * maximise(narrow, rng=rng)[0].u
    active = one
    out: list[dict[str, Any]] = []
    while len(out) < most:
        ctx.note(f"Neuron Pursuit, {model.depth} layers, {active.widths}")
        saddle = nearby_saddle(objective, to_the_next(saddle, w).final, active)
        row = {"widths": active.widths, "loss": saddle.loss, "next_layer": 0}
        out.append(row)
        if saddle.loss <= SOLVED:
            break
        ncf = SaddleNCF(saddle)
        best = ncf.neuron_maxima(starts=32, rng=rng)[0]
        row["next_layer"] = best.layer
        unit = active.inactive(model)[best.layer - 1][0]
        w = saddle.start(DELTA, ncf.embed(best, unit))
        active = _with(active, best.layer, unit)
    return out


def _with(active: ActiveNeurons, layer: int, unit: int) -> ActiveNeurons:
    units: list[Sequence[int]] = [list(u) for u in active.units]
    units[layer - 1] = sorted([*units[layer - 1], unit])
    return ActiveNeurons(tuple(tuple(u) for u in units))


def counted(staircases: Sequence[Staircase]) -> dict[str, Any]:
    """What the flows grew at their saddles against both predictions; steps whose end was not seen are left out."""
    seen = [step for stairs in staircases for step in stairs.steps if step.grew]
    return {
        "steps": len(seen),
        "single": [len(step.grew) == 1 for step in seen],
        "phi": [step.phi in step.grew for step in seen],
        "pursuit": [step.pursuit_cosine >= COSINE and step.phi in step.grew for step in seen],
        "pursuit_layer": [step.pursuit_layer in [layer for layer, _ in step.grew] for step in seen],
        "ends": [stairs.end for stairs in staircases],
        "share_single": float(np.mean([len(step.grew) == 1 for step in seen])),
        "share_phi": float(np.mean([step.phi in step.grew for step in seen])),
        "share_pursuit": float(np.mean([step.pursuit_cosine >= COSINE and step.phi in step.grew for step in seen])),
    }


def run(ctx: Context) -> Outcome:
    draws = 30 if ctx.full else 4
    numbers: dict[str, Any] = {"delta": DELTA}
    claims = []
    for net in NETS:
        objective, w0 = problem(net, np.random.default_rng(net.shown))
        flow = climb_down(ctx, objective, w0, ctx.rng("maxima", net.key))
        pursuit = pursuit_sequence(ctx, objective, ctx.rng("pursuit", net.key), len(flow.steps) + 1)
        others = []
        for k in range(draws):
            rng = ctx.rng("draw", net.key, k)
            others.append(climb_down(ctx, *problem(net, rng), rng))
        losses = [step.loss for step in flow.steps]
        ours = [row["loss"] for row in pursuit[: len(losses)]]
        numbers[net.key] = {
            "x": flow.x,
            "loss": flow.loss,
            "duration": flow.duration,
            "end": flow.end,
            "widths": [list(step.widths) for step in flow.steps],
            "saddle_loss": losses,
            "grew": [[list(neuron) for neuron in step.grew] for step in flow.steps],
            "phi": [list(step.phi) for step in flow.steps],
            "pursuit_next_layer_at_flow": [step.pursuit_layer for step in flow.steps],
            "pursuit_widths": [list(row["widths"]) for row in pursuit],
            "pursuit_loss": [row["loss"] for row in pursuit],
            "pursuit_next_layer": [row["next_layer"] for row in pursuit],
            "loss_difference": [abs(a / b - 1) for a, b in zip(losses, ours, strict=False)],
            "draws": counted(others),
        }
        found = numbers[net.key]
        claims += [
            Claim.equal(
                f"{net.layers} layers, the net shown: active neurons at the flow's saddles against NP's sequence",
                found["widths"],
                found["pursuit_widths"][: len(losses)],
                of=[f"{net.key}.widths", f"{net.key}.pursuit_widths"],
                source=OURS,
            ),
            Claim.at_most(
                f"{net.layers} layers, the net shown: relative difference of the saddles' losses from NP's minima",
                found["loss_difference"],
                1e-6,
                of=[f"{net.key}.saddle_loss", f"{net.key}.pursuit_loss", f"{net.key}.loss_difference"],
                source=OURS,
            ),
        ]
    every = [numbers[net.key]["draws"] for net in NETS]
    for key, words, bound in (
        ("phi", "the neuron that phi predicts from the flow's own small weights has grown by the next saddle", 0.9),
        ("single", "exactly one neuron grows", 0.75),
        ("pursuit", "it is the neuron that NP adds", 0.4),
    ):
        share = float(np.mean([hit for found in every for hit in found[key]]))
        numbers[f"share_{key}"] = share
        claims.append(
            Claim.at_least(
                f"fresh draws, share of saddles: {words}",
                share,
                bound,
                of=[f"share_{key}", *[f"{net.key}.draws.{key}" for net in NETS]],
                source=OURS,
            )
        )
    total = sum(found["steps"] for found in every)
    return Outcome(
        figure=_draw(ctx, numbers),
        claims=claims,
        numbers=numbers,
        caption=(
            "Gradient flow of the mean square loss of nets "
            + ", ".join("-".join(map(str, (n.inputs, *[n.width] * (n.layers - 1), 1))) for n in NETS)
            + f" with activation z^2, from random weights of norm {DELTA:g}; {SAMPLES} inputs on the sphere, labels of "
            "unit root mean square from teachers of the same depth with 4 hidden neurons (two layers), 2 a layer "
            "(three and four). Blue: loss against the clock ds = |w_z|^(K-2) dt of the saddle that is being left, "
            "every stage one unit wide, with its duration in physical time below; BDF with exact Hessians, rtol 1e-7. "
            "Bars: the saddles that the flow passes (polished), drawn where its loss is within 2 % of theirs, with the "
            "active neurons of each hidden layer and the layer of the next neuron as predicted by the NCF flow phi "
            "from the flow's own small weights. Dashed: the minima of Neuron Pursuit's own "
            "sequence, which starts at the largest maximum of the NCF at the origin and each time adds the neuron with "
            "the largest NCF value; at the right their widths. The three draws shown were chosen for their well "
            f"separated steps. Bottom right: {draws} fresh draws of data and start for each depth, {total} saddles "
            "in all: how often exactly one neuron grew, how often it was the one that phi predicts, and how often "
            "the one that NP would add (layer, and direction with cosine at least 0.99); 95 % intervals (Wilson)."
        ),
        convention="mean",
    )


def wilson(hits: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a share."""
    z, p = 1.959964, hits / total
    middle = (p + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * math.sqrt(p * (1 - p) / total + z**2 / (4 * total**2))
    return middle - half, middle + half


def _draw(ctx: Context, numbers: dict[str, Any]) -> Any:
    fig, axes = ctx.subplots(2, 2, size=(10.0, 7.8))
    for ax, net in zip(axes.ravel(), NETS, strict=False):
        _stairs(ax, numbers[net.key], net)
    counts = axes[1, 1]
    kinds = (("single", "one neuron grows"), ("phi", r"it is $\phi$'s"), ("pursuit", "it is NP's"))
    for k, net in enumerate(NETS):
        found = numbers[net.key]["draws"]
        for place, (key, _) in enumerate(kinds):
            hits, total = int(sum(found[key])), found["steps"]
            low, high = wilson(hits, total)
            share = hits / total
            x = place + 0.24 * (k - 1)
            counts.errorbar(
                x, share, yerr=[[max(share - low, 0)], [max(high - share, 0)]], fmt="osv"[k], color=f"C{k}", capsize=3,
                ms=6, label=f"{net.layers} layers, {total} saddles" if place == 0 else None,
            )  # fmt: skip
    counts.set_xticks(range(len(kinds)), [words for _, words in kinds])
    counts.set(ylim=(0, 1.05), xlim=(-0.5, 2.5), ylabel="share of saddles", title="Fresh draws of data and start")
    counts.legend(loc="lower left")
    return fig


def _stairs(ax: Any, found: dict[str, Any], net: Net) -> None:
    for k, (x, loss) in enumerate(zip(found["x"], found["loss"], strict=True)):
        ax.semilogy(x, np.maximum(loss, 0.1 * SOLVED), color="C0", label="gradient flow" if k == 0 else None)
    x, loss = np.concatenate(found["x"]), np.concatenate(found["loss"])
    for k, (widths, level, phi) in enumerate(zip(found["widths"], found["saddle_loss"], found["phi"], strict=True)):
        near = x[np.abs(loss / level - 1) < 0.02]
        ax.plot([near.min(), near.max()], [level, level], color="k", lw=4, solid_capstyle="butt", alpha=0.65,
                label="saddle" if k == 0 else None)  # fmt: skip
        ax.annotate(
            f"active {','.join(map(str, widths))}\nnext: layer {phi[0]}",
            (max(0.5 * (near.min() + near.max()), k + 0.7), level),
            xytext=(0, 5),
            textcoords="offset points",
            fontsize=8,
            ha="left",
            va="bottom",
            bbox={"fc": "w", "ec": "none", "pad": 0.5},
        )
    shown = [(w, v) for w, v in zip(found["pursuit_widths"], found["pursuit_loss"], strict=True) if v > SOLVED]
    lowest = np.inf
    for k, (widths, loss) in enumerate(shown):
        ax.axhline(loss, color="C1", ls="--", lw=1.1, zorder=1, label="Neuron Pursuit" if k == 0 else None)
        lowest = min(loss, lowest / APART)
        ax.annotate(
            ",".join(map(str, widths)), (1.0, lowest), xycoords=("axes fraction", "data"), xytext=(3, 0),
            textcoords="offset points", color="C1", fontsize=8, va="center",
        )  # fmt: skip
    ax.set(
        xlabel="stage, and how long it takes ($t$, mean loss)",
        ylabel="mean square loss",
        title=f"{net.layers} layers",
        ylim=(0.1 * SOLVED, 30),
    )
    stages = np.arange(len(found["duration"]))
    ax.set_xticks(stages + 0.5, [f"{k + 1}\n{t:.1e}" for k, t in zip(stages, found["duration"], strict=True)])
    ax.set_xticks(np.arange(len(stages) + 1), minor=True)
    ax.tick_params(axis="x", length=0)
    ax.grid(visible=False, axis="x", which="major")
    ax.grid(visible=True, axis="x", which="minor")
    ax.legend(loc="upper right", ncols=3, fontsize=8)
