"""From a small start to the first saddles: what the companion paper's figures have in common.

A training run is followed twice on the same axes, by the gradient flow and by gradient descent with a fixed step,
t = step x iteration.  Two states are compared: the last before the escape from the origin, and the first saddle after
it.  A neuron's *relative size* is the norm of its incoming and outgoing weights over the largest of its layer; the
*participation number* of a layer, (sum of squared norms)^2 / (sum of their fourth powers), counts the neurons that
take part: 1 if one does, the width if all are equal.

[BEYOND], sections 4 and 6; docs/theory.md, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from gfsim.flow.clock import Clock, PhysicalTime, RescaledTime
from gfsim.flow.field import Descent
from gfsim.flow.result import FlowResult
from gfsim.flow.simulate import simulate
from gfsim.models.base import Model
from gfsim.models.feedforward import FeedForward
from gfsim.objective import Objective
from gfsim.saddles.plateaus import find_plateaus
from paper_repro.claims import OURS, PRINTED, THEOREM, Claim
from paper_repro.figure import Context, Outcome

ROWS = 1000
"""Equally spaced iterations at which both runs are recorded, besides the snapshots and the printed ones."""

ESCAPED = 1e-3
"""The escape begins where the loss has fallen by this fraction."""

FALLEN = 0.75
"""Escapes are timed where the loss has fallen to this fraction of its value at the start."""

SMALL = 0.1
"""Relative size below which a neuron counts as small."""


RTOL = 1e-8

OBSERVED = "the authors' observation"


@dataclass(frozen=True)
class Training:
    """One experiment: a loss, a start, and gradient descent with a fixed step.

    Attributes
    ----------
    w0 : (P,)
    step : float
        Of the descent, in the objective's own clock (sum or mean).
    iterations : int
    printed : iteration -> loss
        What the authors printed.
    snapshots : (before the escape, at the saddle), optional
        Iterations; None: they are read off the flow.
    coarse : int
        Iterations of the descent in one step of the flow of a net with kinks.  Heun's rule is of second order, so its
        steps may be longer than the descent's, as far as stability allows (2 over the largest curvature).
    """

    objective: Objective
    w0: np.ndarray = field(repr=False)
    step: float
    iterations: int
    printed: Mapping[int, float] = field(default_factory=dict)
    snapshots: tuple[int, int] | None = None
    coarse: int = 20

    @property
    def model(self) -> FeedForward:
        model = self.objective.model
        if not isinstance(model, FeedForward):
            raise TypeError(f"these figures train feed-forward nets; this is {model.name}")
        return model

    @property
    def kinked(self) -> bool:
        return Descent(self.objective).kinked

    @cached_property
    def grid(self) -> np.ndarray:
        """The recorded iterations, 0 first."""
        even = np.rint(np.linspace(0, self.iterations, ROWS + 1)).astype(int)
        return np.unique(np.concatenate([even, [*self.printed, *(self.snapshots or ())]]).astype(int))

    def flow(self, *, longer: int = 1) -> FlowResult:
        """The gradient flow on the grid.

        Smooth nets: the adaptive integrator.  With kinks the flow slides along them, where adaptive methods take
        endless tiny steps: Heun's rule with a fixed step, ``longer`` times that of the figure.
        """
        times = self.step * self.grid[1:]
        t_end = self.step * self.iterations
        if self.kinked:
            step = longer * self.coarse * self.step
            return simulate(self.objective, self.w0, t_end=t_end, method="heun", step=step, t_eval=times)
        return simulate(self.objective, self.w0, t_end=t_end, method="auto", clock=self._clock, rtol=RTOL, t_eval=times)

    @property
    def _clock(self) -> Clock:
        """tanh and GELU are linear at zero, so a net of depth L leaves the origin like one of degree L."""
        degree = self.model.degree or self.model.depth
        return RescaledTime(degree - 2.0) if degree > 2 else PhysicalTime()

    def descent(self) -> FlowResult:
        """Gradient descent on the grid."""
        t_end = self.step * self.iterations
        return simulate(
            self.objective, self.w0, t_end=t_end, method="euler", step=self.step, t_eval=self.step * self.grid[1:]
        )


@dataclass(frozen=True)
class Trained:
    """Both runs of an experiment, and the two rows of the record that are compared."""

    training: Training
    flow: FlowResult
    descent: FlowResult
    twin: FlowResult | None
    """The flow of a net with kinks with steps twice as long: what is left of its error."""
    before: int
    saddle: int

    @property
    def iteration(self) -> np.ndarray:
        return self.training.grid

    def row(self, iteration: int) -> int:
        return int(np.searchsorted(self.training.grid, iteration))


def train(ctx: Context, training: Training) -> Trained:
    """Follow the experiment by flow and by descent."""
    ctx.note("flow")
    flow = _whole(training.flow(), "flow")
    twin = None
    if training.kinked:
        ctx.note("flow with steps twice as long")
        twin = _whole(training.flow(longer=2), "flow with steps twice as long")
    ctx.note(f"{training.iterations:,} iterations of descent")
    descent = _whole(training.descent(), "descent")
    if training.snapshots is None:
        before, saddle = _escape_begins(flow), _first_saddle(flow)
    else:
        before, saddle = (int(np.searchsorted(training.grid, k)) for k in training.snapshots)
    return Trained(training, flow, descent, twin, before, saddle)


def _whole(result: FlowResult, what: str) -> FlowResult:
    if not result.ok:
        raise RuntimeError(f"the {what} did not reach its end: {result.message}")
    return result


def _escape_begins(flow: FlowResult) -> int:
    return max(int(np.argmax(flow.loss < (1 - ESCAPED) * flow.loss[0])) - 1, 0)


def _first_saddle(flow: FlowResult) -> int:
    for plateau in find_plateaus(flow, depth=2.0):
        if plateau.loss < 0.9 * flow.loss[0]:
            return plateau.slowest
    raise RuntimeError("the flow came to no plateau below the start's; let it run longer")


def fall_time(result: FlowResult) -> float:
    """When the loss has fallen to FALLEN times its first value, linearly between the rows; NaN if it never does."""
    level = FALLEN * result.loss[0]
    k = int(np.argmax(result.loss <= level))
    if k == 0:
        return float("nan")
    share = (result.loss[k - 1] - level) / (result.loss[k - 1] - result.loss[k])
    return float(result.t[k - 1] + share * (result.t[k] - result.t[k - 1]))


def relative_sizes(model: FeedForward, w: np.ndarray) -> list[np.ndarray]:
    """Per hidden layer, the neurons' norms over the largest of the layer: (width,)."""
    return [norms / norms.max() for norms in model.neuron_norms(w)]


def participation(model: FeedForward, w: np.ndarray) -> list[float]:
    """Per hidden layer, how many neurons take part."""
    return [float((norms**2).sum() ** 2 / (norms**4).sum()) for norms in model.neuron_norms(w)]


def measure(done: Trained) -> dict[str, Any]:
    """The numbers that these figures share."""
    training, flow, descent = done.training, done.flow, done.descent
    model = training.model
    before, saddle = (relative_sizes(model, flow.w[row]) for row in (done.before, done.saddle))
    rows = [done.row(k) for k in training.printed]
    printed = np.array(list(training.printed.values()))
    small = [r < SMALL for r in before]
    first, last = (participation(model, flow.w[row]) for row in (done.before, done.saddle))
    numbers: dict[str, Any] = {
        "step": training.step,
        "iteration": training.grid,
        "flow_loss": flow.loss,
        "descent_loss": descent.loss,
        "snapshots": [int(training.grid[done.before]), int(training.grid[done.saddle])],
        "snapshot_losses": [float(flow.loss[done.before]), float(flow.loss[done.saddle])],
        "fall_time_flow": fall_time(flow),
        "fall_time_descent": fall_time(descent),
        "descent_lag": abs(fall_time(descent) / fall_time(flow) - 1),
        "sizes_before": before,
        "sizes_at_saddle": saddle,
        "size_gain": [float((s - b).max()) for s, b in zip(saddle, before, strict=True)],
        "small_neurons": int(sum(chosen.sum() for chosen in small)),
        "small_at_saddle": np.concatenate([s[chosen] for s, chosen in zip(saddle, small, strict=True)]),
        "participation_before": first,
        "participation_at_saddle": last,
        "participation_ratio": [b / a for a, b in zip(first, last, strict=True)],
        "velocity_evaluations": [flow.counts.velocity, descent.counts.velocity],
    }
    if training.printed:
        numbers |= {
            "printed_iteration": list(training.printed),
            "printed_loss": printed,
            "flow_at_printed": flow.loss[rows],
            "descent_at_printed": descent.loss[rows],
            "flow_difference": np.abs(flow.loss[rows] - printed) / printed,
            "descent_difference": np.abs(descent.loss[rows] - printed),
        }
    if model.degree is not None:
        numbers["balance_drift"] = flow.conserved_drift
    if done.twin is not None:
        numbers["fall_time_twin"] = fall_time(done.twin)
        numbers["twin_lag"] = abs(fall_time(done.twin) / fall_time(flow) - 1)
    return numbers


# -- claims --------------------------------------------------------------------------------------------


def accuracy_claims(numbers: Mapping[str, Any]) -> list[Claim]:
    """Flow and descent agree; where the net has kinks or is homogeneous, what gauges the flow's own error."""
    claims = [
        Claim.at_most(
            "escape time of the descent against that of the flow, relative difference",
            numbers["descent_lag"],
            1e-2,
            of=["fall_time_flow", "fall_time_descent"],
            source=OURS,
        )
    ]
    if "twin_lag" in numbers:
        claims.append(
            Claim.at_most(
                "escape time of the flow with steps twice as long, relative difference",
                numbers["twin_lag"],
                1e-3,
                of=["fall_time_flow", "fall_time_twin"],
                source=OURS,
            )
        )
    if "balance_drift" in numbers:
        claims.append(
            Claim.at_most(
                "drift of the neuron balances along the flow, relative to |w|^2",
                numbers["balance_drift"],
                1e-3,
                of="balance_drift",
                source=THEOREM,
            )
        )
    return claims


def printed_claims(numbers: Mapping[str, Any], *, half_digit: float, flow_rtol: float) -> list[Claim]:
    """The authors' printed losses: to the last printed digit by descent, to ``flow_rtol`` by the flow."""
    return [
        Claim.at_most(
            "difference of the descent from the authors' printed losses (half their last digit)",
            numbers["descent_difference"],
            half_digit,
            of="descent_difference",
            source=PRINTED,
        ),
        Claim.at_most(
            "relative difference of the flow from the authors' printed losses",
            numbers["flow_difference"],
            flow_rtol,
            of="flow_difference",
            source=PRINTED,
        ),
    ]


def small_stay_small(numbers: Mapping[str, Any]) -> list[Claim]:
    """Neurons that are small when the escape begins are small at the saddle."""
    return [
        Claim.at_least(
            f"neurons smaller than {SMALL:g} of their layer's largest when the escape begins",
            numbers["small_neurons"],
            1,
            of="small_neurons",
            source=OURS,
        ),
        Claim.at_most(
            "their largest relative size at the saddle",
            numbers["small_at_saddle"],
            2 * SMALL,
            of=["small_at_saddle", "sizes_before", "sizes_at_saddle"],
            source=OBSERVED,
        ),
    ]


def shares_stay(numbers: Mapping[str, Any]) -> list[Claim]:
    """No neuron grows faster in the escape than the largest of its layer: what was small stays small."""
    return [
        Claim.at_most(
            "largest gain of a neuron's relative size from the escape's beginning to the saddle, per layer",
            numbers["size_gain"],
            0.1,
            of=["size_gain", "sizes_before", "sizes_at_saddle"],
            source=OBSERVED,
        )
    ]


SHARE = "neurons that take part at the saddle over those when the escape begins, per layer"
SHARE_OF = ("participation_ratio", "participation_before", "participation_at_saddle")


def sparsity_preserved(numbers: Mapping[str, Any]) -> list[Claim]:
    """As many neurons take part at the saddle as when the escape began."""
    name, ratio = f"{SHARE}: sparsity is preserved", numbers["participation_ratio"]
    return [Claim.between(name, ratio, 0.8, 1.25, of=SHARE_OF, source=OBSERVED)]


def sparsity_increases(numbers: Mapping[str, Any]) -> list[Claim]:
    """Fewer neurons take part at the saddle than when the escape began."""
    name = f"{SHARE}: sparsity increases"
    return [Claim.at_most(name, numbers["participation_ratio"], 0.8, of=SHARE_OF, source=OBSERVED)]


# -- data ----------------------------------------------------------------------------------------------


def authors(
    ctx: Context, name: str, activation: str, reduction: Literal["sum", "mean"]
) -> tuple[Objective, np.ndarray]:
    """Objective and initial weights (P,) of a shipped experiment."""
    data = ctx.data(name)
    matrices = [data[key] for key in sorted(key for key in data if key.startswith("W"))]
    matrices[-1] = matrices[-1].reshape(1, -1)
    X, y = data["X"].T, data["y"].ravel()
    model = FeedForward((X.shape[1], *(len(W) for W in matrices)), activation)
    return Objective(model, X, y, reduction=reduction), model.pack(matrices)


@dataclass(frozen=True)
class Recipe:
    """The authors' recipe on data of our own, where theirs are not known.

    Unit inputs, labels of a narrow teacher of the same kind with root mean square ``rms``, a Gaussian start of norm
    ``scale``.  The data are one fixed draw (``data_seed``); the seed of the figure moves the start.  The full form
    starts ``smaller`` times as small and runs ``longer`` times as long.
    """

    activation: str
    hidden: tuple[int, ...]
    teacher: tuple[int, ...]
    reduction: Literal["sum", "mean"]
    scale: float
    step: float
    iterations: int
    data_seed: int
    smaller: float = 2.0
    longer: int = 4
    coarse: int = 20
    samples: int = 100
    inputs: int = 20
    rms: float = 2.0
    notes: tuple[str, ...] = ()

    def problem(self) -> Objective:
        rng = np.random.default_rng(self.data_seed)
        X = rng.normal(size=(self.samples, self.inputs))
        X /= np.linalg.norm(X, axis=1, keepdims=True)
        narrow = FeedForward((self.inputs, *self.teacher, 1), self.activation)
        y = narrow.forward(rng.normal(size=narrow.n_params), X)
        y *= self.rms / np.sqrt(np.mean(y**2))
        return Objective(FeedForward((self.inputs, *self.hidden, 1), self.activation), X, y, reduction=self.reduction)

    def start_norm(self, ctx: Context) -> float:
        return self.scale / self.smaller if ctx.full else self.scale

    def training(self, ctx: Context) -> Training:
        objective = self.problem()
        iterations = self.iterations * (self.longer if ctx.full else 1)
        w0 = small_start(ctx, objective.model, self.start_norm(ctx))
        return Training(objective, w0, self.step, iterations, coarse=self.coarse)

    def outcome(self, ctx: Context, expected: Callable[[Mapping[str, Any]], Sequence[Claim]]) -> Outcome:
        """The figure, with the claims that ``expected`` makes of its numbers besides those on accuracy."""
        done = train(ctx, self.training(ctx))
        numbers = measure(done)
        name = {"relu": "ReLU", "gelu": "GELU"}.get(self.activation, self.activation)
        student, teacher = ("-".join(map(str, (self.inputs, *h, 1))) for h in (self.hidden, self.teacher))
        return Outcome(
            figure=draw(ctx, done),
            claims=[*accuracy_claims(numbers), *expected(numbers)],
            numbers=numbers,
            caption=caption(
                done,
                numbers,
                f"A {student} {name} net on {self.samples} unit inputs with the labels of a {teacher} {name} net (root "
                f"mean square {self.rms:g}), {self.reduction.upper()} of squared errors, from a Gaussian start of norm "
                f"{self.start_norm(ctx):g}.",
            ),
            convention=self.reduction,
            notes=self.notes,
        )


def small_start(ctx: Context, model: Model, scale: float) -> np.ndarray:
    """A Gaussian direction times ``scale``: (P,)."""
    w = ctx.rng("start").normal(size=model.n_params)
    start: np.ndarray = scale * w / np.linalg.norm(w)
    return start


# -- the picture and its caption -------------------------------------------------------------------------


def draw(ctx: Context, done: Trained, *, unit: str = "") -> Any:
    """Loss and relative sizes above, the heat maps of |W_l| at the two snapshots below."""
    training, model = done.training, done.training.model
    depth = model.depth
    fig: Any = ctx.figure(size=(9.6, 7.6))
    top, bottom = fig.subfigures(2, 1, height_ratios=[1.0, 1.25])
    curve, sizes = top.subplots(1, 2, width_ratios=[2.1, 1.0])
    _losses(curve, done, unit)
    _sizes(sizes, done)
    columns = [model.widths[l] for l in range(depth - 1)] + [1]
    ratios = [*(max(c, 5) ** 0.6 for c in columns[:-1]), 0.8]
    axes = bottom.subplots(2, depth, width_ratios=ratios, squeeze=False)
    rows = (done.before, done.saddle)
    for letter, row, line in zip("ab", rows, axes, strict=True):
        heat_maps(bottom, line, model, done.flow.w[row])
        line[0].set_ylabel(f"({letter}) {training.grid[row]:,}\nneuron")
    for ax in axes[0]:
        ax.set(xlabel="", xticks=[])
    return fig


def _losses(ax: Any, done: Trained, unit: str) -> None:
    training, flow = done.training, done.flow
    thousands = done.iteration / 1000
    ax.plot(thousands, flow.loss, lw=2.6, alpha=0.85, label="gradient flow")
    ax.plot(thousands, done.descent.loss, "--", lw=1.4, label="gradient descent")
    if training.printed:
        ax.plot(
            np.array(list(training.printed)) / 1000,
            list(training.printed.values()),
            "x",
            color="k",
            ms=8,
            mew=1.6,
            label="printed by the authors",
        )
    for letter, row in zip("ab", (done.before, done.saddle), strict=True):
        ax.plot(thousands[row], flow.loss[row], "o", color="k", ms=5)
        ax.annotate(f"({letter})", (thousands[row], flow.loss[row]), xytext=(5, 6), textcoords="offset points")
    ax.set(
        xlabel=f"thousand iterations (one iteration: $t$ = {training.step:g}, {training.objective.reduction})",
        ylabel=f"{training.objective.reduction} of squared errors{unit}",
        ylim=(-0.04 * flow.loss[0], 1.12 * flow.loss[0]),
        title="Loss",
    )
    ax.legend(loc="lower left")


def _sizes(ax: Any, done: Trained) -> None:
    model = done.training.model
    before, saddle = (relative_sizes(model, done.flow.w[row]) for row in (done.before, done.saddle))
    for layer, (x, y) in enumerate(zip(before, saddle, strict=True), start=1):
        mark = "osD"[(layer - 1) % 3]
        ax.plot(x, y, mark, color=f"C{layer - 1}", ms=4.5, mfc="none", mew=1.2, label=f"layer {layer}")
    ax.plot([0, 1], [0, 1], color="0.6", lw=1, ls="--", zorder=0)
    at_end = done.saddle == len(done.flow.w) - 1
    ax.set(
        xlabel="before the escape (a)",
        ylabel="at the end of the run (b)" if at_end else "at the saddle (b)",
        title="Neurons: relative size",
        xlim=(-0.04, 1.06),
        ylim=(-0.04, 1.06),
        aspect="equal",
    )
    if len(before) > 1:
        ax.legend(loc="upper left", frameon=True)


def heat_maps(fig: Any, axes: Sequence[Any], model: FeedForward, w: np.ndarray) -> None:
    """|W_1|, ..., |W_L| on one grey scale, white for zero; W_L stands upright, one row a neuron of the last layer."""
    matrices = [np.abs(W) for W in model.unpack(w)]
    matrices[-1] = matrices[-1].T
    high = max(float(W.max()) for W in matrices)
    for l, (ax, W) in enumerate(zip(axes, matrices, strict=True), start=1):
        image = ax.imshow(W, vmin=0, vmax=high, cmap="gray_r", aspect="auto", interpolation="nearest")
        ax.grid(visible=False)
        ax.set_title(f"$|W_{l}|$")
        ax.set_xlabel("input" if l == 1 else f"layer {l - 1}" if l < len(matrices) else "")
        for axis in (ax.xaxis, ax.yaxis):
            axis.get_major_locator().set_params(integer=True, nbins=5)
        if l == len(matrices):
            ax.set_xticks([])
        for spine in ax.spines.values():
            spine.set_visible(True)
    fig.colorbar(image, ax=list(axes), fraction=0.04, pad=0.01)


def caption(done: Trained, numbers: Mapping[str, Any], set_up: str) -> str:
    """The full set-up in words: ``set_up`` says net, data, loss and start, the rest follows from the run."""
    training = done.training
    if done.twin is not None:
        method = (
            f"Heun's rule with step {training.coarse * training.step:g}; with steps twice as long the escape moves by "
            f"{numbers['twin_lag']:.0e} of its time"
        )
    else:
        method = f"adaptive integrator, rtol {RTOL:g}"
    a, b = numbers["snapshots"]
    if training.snapshots:
        chosen = "the authors' snapshots"
    elif b == training.iterations:  # no earlier rest: where the run ends the loss still falls
        chosen = (
            "where the escape begins and at the end of the run, the first rest after it, where the loss is "
            f"{numbers['snapshot_losses'][1] / numbers['flow_loss'][0]:.1g} of its first value"
        )
    else:
        chosen = "where the escape begins and at the first saddle"
    printed = "; crosses: losses that the authors printed" if training.printed else ""
    return (
        f"{set_up} Top left: gradient flow ({method}) and gradient descent with step {training.step:g}, "
        f"t = {training.step:g} x iteration{printed}; (a), (b): iterations {a:,} and {b:,}, {chosen}. Top right: the "
        "norm of each neuron's weights over the largest of its layer, at (a) and at (b). Bottom: |W_l| there (rows are "
        "neurons, the last matrix upright), white: 0."
    )
