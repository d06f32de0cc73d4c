"""The author's public example of Neuron Pursuit, on a fresh draw of its data.

f(x) = 2 s( s(2 x1 + x3) - s(x3 - x2) ) - s( s(2 x2 + x4) + s(x4 + x3) ) on {-1, +1}^20 with s = ReLU, 1000 uniform
samples, MEAN square loss.  The hidden widths after each addition, the scales of the start and of later
neurons, and the weights at the end of each iteration are published; details in between are ours (steps of
0.004, at most 40,000 of them an iteration, six neurons as published, a last second-order polish that is
recorded apart).  The published draw of the samples is not known, so weights are shown beside the published
ones and are not claimed to agree.

Two rules of ours were made after draws had failed; both are in :mod:`gfsim.pursuit.algorithm`.  The rule for tied
maxima came first; the first default draw (``ctx.rng("data")`` at seed 0), in whose place the present one was put, is
solved under it too.  With it 28 of 30 draws (seeds 101..112, 201..218) were solved: in the other two, 102 and 210,
two hills of an NCF differ by less than the standard error that 1000 samples leave, and the draw put the wrong one
first.  Hence the trials: with them those 30 draws and 40 of 40 fresh ones (seeds 301..340) are solved.  Not every
draw is: ``ctx.rng("data")`` at seed 58 is one that adds a third neuron to layer 2.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from gfsim.models.feedforward import FeedForward
from gfsim.pursuit.algorithm import PursuitConfig, PursuitResult, pursue
from gfsim.pursuit.record import Addition, Start
from paper_repro.claims import OURS, PRINTED, Claim
from paper_repro.figure import Context, Outcome
from paper_repro.pursuit_animation import animation, architecture, new_units

DIMENSION, SAMPLES = 20, 1000

WIDTHS = [[1, 1], [2, 1], [2, 2], [3, 2], [4, 2]]
"""Hidden widths of the published iterations."""

PUBLISHED: list[tuple[list[list[float]], list[float]]] = [
    ([[1.28]], [-1.28]),
    ([[1.38, -1.08]], [-1.75]),
    ([[1.17, -2.00], [-1.48, 0.58]], [-2.31, 1.59]),
    ([[1.13, -2.02, 0.17], [-1.53, 0.47, 1.15]], [-2.32, 1.97]),
    ([[1.11, -1.98, 0.09, 0.59], [-1.54, 0.53, 1.16, -0.37]], [-2.35, 2.04]),
]
"""(W2, W3) at the end of each published iteration, up to the order of neurons."""

TRIALS = 3
"""Maxima of an NCF that 1000 samples cannot tell apart are tried, at most so many at an addition."""

CHUNK = 1 << 16

FRAMES = {"quick": 14, "full": 30}
"""Pictures of the animation, an iteration."""

DRAWS = 20
"""Draws of the samples that ``--full`` tries, to see how often the published path is followed."""


def target(X: np.ndarray) -> np.ndarray:
    """f at (n, >= 4) points: (n,)."""

    def s(z: np.ndarray) -> np.ndarray:
        return np.maximum(z, 0.0)

    x1, x2, x3, x4 = X[:, 0], X[:, 1], X[:, 2], X[:, 3]
    return 2 * s(s(2 * x1 + x3) - s(x3 - x2)) - s(s(2 * x2 + x4) + s(x4 + x3))


def cube(first: int, last: int) -> np.ndarray:
    """Points first..last-1 of {-1, +1}^20 in lexicographic order (x1 slowest): (last - first, 20)."""
    k = np.arange(first, last)
    bits = (k[:, None] >> np.arange(DIMENSION - 1, -1, -1)) & 1
    return 2.0 * bits - 1.0


def on_the_cube(
    ctx: Context, model: FeedForward, weights: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean square errors of several weight vectors over all 2^20 points, and f and the last one's values."""
    sums = np.zeros(len(weights))
    truth, learned = [], []
    for first in range(0, 1 << DIMENSION, CHUNK):
        ctx.note(f"all 2^20 points, {100 * first >> DIMENSION} %")
        X = cube(first, first + CHUNK)
        y = target(X)
        for k, w in enumerate(weights):
            out = model.forward(w, X)[:, 0]
            sums[k] += ((out - y) ** 2).sum()
        truth.append(y)
        learned.append(out)
    return sums / (1 << DIMENSION), np.concatenate(truth), np.concatenate(learned)


def samples(ctx: Context, draw: int = 0) -> np.ndarray:
    """Uniform points of the cube: (SAMPLES, DIMENSION)."""
    return ctx.rng("samples", draw).choice([-1.0, 1.0], size=(SAMPLES, DIMENSION))


def grow(ctx: Context, draw: int = 0) -> PursuitResult:
    """Neuron Pursuit on one draw of the samples."""
    X = samples(ctx, draw)

    def told(step: object, model: FeedForward, _w: np.ndarray) -> None:
        ctx.note(f"hidden widths {model.hidden_widths}: {type(step).__name__.lower()}")

    # no loss is small enough to stop: the published run has six neurons, and some draws are solved by five
    config = PursuitConfig(
        hidden_layers=2, activation="relu", max_neurons=len(WIDTHS) + 1, loss_rtol=0.0, trials=TRIALS
    )
    return pursue(X, target(X), config, rng=ctx.rng("pursuit", draw), callback=told)


def beside_published(model: FeedForward, w: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, float] | None:
    """(W2, W3) in the order of neurons closest to the published iteration ``k``, and the distance.

    None when the widths differ.
    """
    W2, W3 = model.unpack(w)[1:]
    P2, P3 = (np.array(values) for values in PUBLISHED[k])
    if W2.shape != P2.shape:
        return None
    best: tuple[float, np.ndarray, np.ndarray] | None = None
    for rows in itertools.permutations(range(len(W2))):
        for columns in itertools.permutations(range(W2.shape[1])):
            M, v = W2[np.ix_(rows, columns)], W3[0, list(rows)]
            distance = float(np.sqrt(((M - P2) ** 2).sum() + ((v - P3) ** 2).sum()))
            if best is None or distance < best[0]:
                best = (distance, M, v)
    return None if best is None else (best[1], best[2], best[0])


def other_draws(ctx: Context) -> dict[str, Any]:
    """Final widths and errors of further draws, each on 2^14 fresh points of the cube."""
    X = ctx.rng("test").choice([-1.0, 1.0], size=(1 << 14, DIMENSION))
    rows: dict[str, Any] = {"draw": [], "draw_widths": [], "draw_error": [], "draw_solved": []}
    for draw in range(1, DRAWS):
        result = grow(ctx, draw)
        error = float(np.mean((result.predict(X)[:, 0] - target(X)) ** 2))
        widths = [list(w) for w in result.hidden_widths]
        rows["draw"].append(draw)
        rows["draw_widths"].append(widths)
        rows["draw_error"].append(error)
        rows["draw_solved"].append(error <= 1e-6 and widths == WIDTHS)
    rows["share_solved"] = float(np.mean(rows["draw_solved"]))
    return rows


def run(ctx: Context) -> Outcome:
    result = grow(ctx)
    if result.stop.reason == "interrupted":
        raise KeyboardInterrupt
    steps = result.record.minimisations
    last = steps[-1]
    unpolished = last.weights_after
    errors, truth, learned = on_the_cube(ctx, result.model, [unpolished, result.weights])
    compared = []
    for k, step in enumerate(steps[: len(PUBLISHED)]):
        found = beside_published(FeedForward(step.widths, result.model.activation), step.weights_after, k)
        compared.append(
            None
            if found is None
            else {
                "W2": found[0],
                "W3": found[1],
                "published_W2": PUBLISHED[k][0],
                "published_W3": PUBLISHED[k][1],
                "distance": found[2],
            }
        )
    widths = [list(w) for w in result.hidden_widths]
    before = [step.loss_after for step in steps[:-1]]
    after = [step.loss_after for step in steps[1:]]
    W = result.model.unpack(result.weights)
    numbers: dict[str, Any] = {
        "widths": widths,
        "loss_after": [step.loss_after for step in steps],
        "loss_ratio": [b / a for a, b in zip(before, after, strict=True)],
        "gradient_norm": [step.gradient_norm for step in steps],
        "steps": [step.steps for step in steps],
        "layer": [addition.layer for addition in result.record.additions],
        "ncf": [addition.layer_values for addition in result.record.additions],
        "tied": [addition.tied for addition in result.record.additions],
        "trials": [
            [[trial.layer, trial.value, trial.error, trial.loss] for trial in step.trials]
            for step in result.record.steps
            if isinstance(step, (Start, Addition))
        ],
        "test_error_descent": float(errors[0]),
        "test_error": float(errors[1]),
        "points": 1 << DIMENSION,
        "train_loss": result.loss,
        "stop": result.stop.reason,
        "beside_published": compared,
        "irrelevant_weights": float(np.abs(W[0][:, 4:]).max()),
        "final_W1": W[0],
        "final_W2": W[1],
        "final_W3": W[2],
    }
    claims = [
        Claim.equal("hidden widths, iteration by iteration", widths, WIDTHS, of="widths", source=PRINTED),
        Claim.at_most(
            "mean square error over all 2^20 points", float(errors[1]), 1e-6, of="test_error", source=PRINTED
        ),
        Claim.at_most(
            "loss after each addition over the loss before it", numbers["loss_ratio"], 1.0, of="loss_ratio", source=OURS
        ),
        Claim.at_most(
            "largest weight on the 16 inputs that f ignores",
            numbers["irrelevant_weights"],
            1e-3,
            of="irrelevant_weights",
            source=OURS,
        ),
    ]
    if ctx.full:
        numbers |= other_draws(ctx)
        claims.append(
            Claim.at_least(
                "share of further draws that follow the published widths to an error <= 1e-6",
                numbers["share_solved"],
                0.8,
                of="share_solved",
                source=OURS,
            )
        )
    X = samples(ctx)
    return Outcome(
        figure=_draw(ctx, result, numbers, truth, learned),
        animation=animation(ctx, result, X, target(X), truth, FRAMES["full" if ctx.full else "quick"]),
        claims=claims,
        numbers=numbers,
        caption=(
            "Neuron Pursuit on 1000 samples of f(x) = 2 s(s(2 x1 + x3) - s(x3 - x2)) - s(s(2 x2 + x4) + s(x4 + "
            "x3)), s = ReLU, x in {-1, +1}^20, mean square loss; gradient descent with step 0.004, at most 40,000 "
            "steps an iteration; start of norm 0.2, later neurons of norm 0.03; of NCF maxima within one standard "
            "error of the largest, the one that minimises to the lowest loss is taken. Top: the network at the end of "
            "each iteration, its newest neuron dashed (inputs 7 to 20 as one dot, with the largest of their weights). "
            "Below, left: training loss; "
            "dashed: a neuron is added; beside it, the hidden widths from then on. Right: the largest NCF value "
            "of each hidden layer when a neuron is added (the larger decides). Below: f and the grown network on "
            "all 2^20 points in lexicographic order, below them the largest error among 1024 neighbours (1e-17: "
            "none), and the rows of W1 with all 20 inputs. Bottom: W2 and W3 at the end of the fifth iteration, "
            "ours (this draw) and the published ones (another draw). Mean square error over all points "
            f"{errors[0]:.1e} after the descent, {errors[1]:.1e} after the second-order polish."
        ),
        convention="mean",
    )


def _draw(ctx: Context, result: PursuitResult, numbers: dict[str, Any], truth: np.ndarray, learned: np.ndarray) -> Any:
    fig: Any = ctx.figure(size=(10.0, 11.4))
    nets, top, middle, bottom = fig.subfigures(4, 1, height_ratios=[0.72, 1.0, 1.0, 0.8])
    steps = result.record.minimisations
    for k, (ax, step) in enumerate(zip(np.atleast_1d(nets.subplots(1, len(steps))), steps, strict=True)):
        architecture(
            ax, FeedForward(step.widths, result.model.activation), step.weights_after, new_units(result, k), size=0.62
        )
        ax.set_title(f"{k + 1}: widths {', '.join(map(str, step.widths[1:-1]))}", loc="center", fontsize=9.5)
    loss, ncf = top.subplots(1, 2, width_ratios=[1.6, 1.0])
    offset = 0
    for k, step in enumerate(result.record.minimisations):
        x = offset + np.linspace(0, step.steps, len(step.trace_loss))
        loss.semilogy(x / 1000, np.maximum(step.trace_loss, 1e-16), color="C0")
        if k:
            loss.axvline(offset / 1000, color="0.6", ls="--", lw=0.8)
        # upright at the line where they begin; the first, whose iteration may be short, to the left of it
        loss.annotate(
            f"{step.widths[1:-1]}",
            (offset / 1000, 0.98),
            xycoords=("data", "axes fraction"),
            xytext=(3 if k else -2, 0),
            textcoords="offset points",
            ha="left" if k else "right",
            va="top",
            rotation=90,
            fontsize=8.5,
        )
        offset += step.steps
    loss.set_ylim(None, 1e3 * max(result.record.minimisations[0].trace_loss))  # room for the widths above the curve
    loss.set(xlabel="thousand epochs", ylabel="mean square loss (training)", title="Growth")
    values = np.array(numbers["ncf"])
    addition = np.arange(1, len(values) + 1)
    for layer, mark in zip(range(values.shape[1]), "os", strict=True):
        apart = 0.16 * (layer - 0.5)
        ncf.plot(addition + apart, np.maximum(values[:, layer], 1e-9), mark, ms=8, label=f"layer {layer + 1}")
    ncf.set(
        xlabel="addition",
        ylabel="largest NCF value",
        yscale="log",
        title="Which layer asks for the neuron",
        xticks=addition,
        xlim=(0.5, len(values) + 0.5),
    )
    ncf.set_ylim(None, 30 * values.max())
    ncf.legend(loc="upper center", ncols=2)

    panels = middle.subplot_mosaic(
        [["function", "rows"], ["error", "rows"]], width_ratios=[1.6, 1.0], height_ratios=[2.2, 1.0]
    )
    function, error, rows = panels["function"], panels["error"], panels["rows"]
    bins = 1024
    place = np.arange(bins) * (len(truth) // bins)
    function.plot(place, truth.reshape(bins, -1).mean(1), color="C1", lw=5.0, alpha=0.45, label="f")
    low, high = learned.reshape(bins, -1).min(1), learned.reshape(bins, -1).max(1)
    function.fill_between(place, low, high, color="C0", alpha=0.5, lw=0)
    function.plot(place, learned.reshape(bins, -1).mean(1), color="C0", lw=1.3, label="network, mean and range of 1024")
    function.set(ylabel="value", title="Function", ylim=(None, 1.35 * truth.max() + 0.5), xticklabels=[])
    function.legend(loc="upper left", ncols=2)
    error.semilogy(place, np.maximum(np.abs(learned - truth).reshape(bins, -1).max(1), 1e-17), color="C0", lw=1.0)
    error.set(xlabel="point of the cube, lexicographic", ylabel="largest error")
    W1 = numbers["final_W1"]
    high_w = float(np.abs(W1).max())
    image = rows.imshow(W1, cmap="RdBu_r", vmin=-high_w, vmax=high_w, aspect="auto")
    rows.grid(visible=False)
    rows.set(xlabel="input", ylabel="neuron", title="Rows of W1", xticks=[0, 3, 9, 14, 19], yticks=range(len(W1)))
    rows.set_xticklabels(["1", "4", "10", "15", "20"])
    rows.set_yticklabels([str(j + 1) for j in range(len(W1))])
    middle.colorbar(image, ax=rows)

    axes = bottom.subplots(1, 4, width_ratios=[4, 1.4, 4, 1.4])
    found = numbers["beside_published"][-1] if numbers["beside_published"] else None
    ours = (numbers["final_W2"], numbers["final_W3"][0]) if found is None else (found["W2"], found["W3"])
    published = (np.array(PUBLISHED[-1][0]), np.array(PUBLISHED[-1][1]))
    for panel, (W2, W3), name in ((axes[:2], ours, "ours"), (axes[2:], published, "published")):
        for ax, values, title in (
            (panel[0], np.asarray(W2), f"W2, {name}"),
            (panel[1], np.asarray(W3)[:, None], f"W3, {name}"),
        ):
            ax.imshow(values, cmap="RdBu_r", vmin=-2.6, vmax=2.6, aspect="auto")
            ax.grid(visible=False)
            ax.set(xticks=[], yticks=[], title=title)
            for (i, j), value in np.ndenumerate(values):
                ax.text(j, i, f"{value:.2f}", ha="center", va="center", color="white" if abs(value) > 1.7 else "black")
    return fig
