"""The suite: flows on which integrators are compared, each fixed by a name and a seed.

Every entry says its loss convention (through its objective), the clock that fits it, the places along the flow at
which states are compared, and how good its reference must be.  Sources: docs/theory.md; the four data sets are the
authors' own arrays (``paper_repro/data/README.md``); the 390-weight nets are ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from gfsim.compare.section import LossLevel, Section, SizeLevel
from gfsim.errors import InvalidInput, unknown_name
from gfsim.flow.clock import Clock
from gfsim.models.feedforward import FeedForward
from gfsim.models.linear import DiagonalLinear
from gfsim.objective import Objective
from gfsim.saddles.find import find_saddle
from gfsim.saddles.saddle import SparseSaddle

SMOOTH_AGREEMENT = 1e-6
"""Largest difference of the two reference solutions of a smooth flow."""

KINKED_AGREEMENT = 2e-2
"""Of a plain-ReLU flow, whose velocity jumps at kinks: every method is then of first order at best."""


@dataclass(frozen=True)
class Problem:
    """A flow with its start and the places at which states are compared.

    Attributes
    ----------
    name, title : str
    objective : Objective
        Its ``reduction`` is the convention of every time that is reported.
    w0 : (P,)
    sections : tuple of Section
        Places along the flow, in order; the last one ends it.
    clock : Clock or str
        The rescaled clock that fits the start, as ``gfsim.simulate`` takes it.
    blocks : tuple of index arrays
        Blocks with error scales of their own, as ``gfsim.simulate`` takes them.
    agreement : float
        The reference is refused when its two solutions differ by more than this, relatively.
    step : float
        0 for a smooth flow.  Where the activation has kinks, the fixed step, in physical time, of the reference.
    note : str
        What the reader of a table must know.
    """

    name: str
    title: str
    objective: Objective = field(repr=False)
    w0: np.ndarray = field(repr=False)
    sections: tuple[Section, ...] = field(repr=False)
    clock: Clock | str = field(default="rescaled", repr=False)
    blocks: tuple[np.ndarray, ...] = field(default=(), repr=False)
    agreement: float = SMOOTH_AGREEMENT
    step: float = 0.0
    note: str = ""

    def __post_init__(self) -> None:
        if not self.sections:
            raise InvalidInput(f"problem {self.name!r} has no section; name a place along the flow that ends it")
        for section in self.sections:
            now = section.value(self.objective, self.w0)
            if section.direction * (now - section.level) >= 0:
                raise InvalidInput(
                    f"problem {self.name!r}: the start is already past {section.name} (it has {now:.6g}); "
                    "choose a place that the flow reaches later"
                )

    @property
    def kinked(self) -> bool:
        return self.step > 0

    @property
    def size(self) -> int:
        return self.objective.model.n_params

    @property
    def convention(self) -> str:
        return self.objective.reduction

    @property
    def end(self) -> Section:
        return self.sections[-1]


@dataclass(frozen=True)
class Entry:
    """A problem of the suite before it is built; ``quick`` marks those of the quick form."""

    name: str
    title: str
    build: Callable[[], Problem]
    quick: bool = False


# -- data that several problems share -------------------------------------------------------------------

SEEDS = {"relu2": 6, "z2": 3}
"""Draws whose one-neuron saddle has a loss of about 0.2: at most others one neuron nearly fits the labels."""


def _activation(kind: str) -> tuple[str, int]:
    return ("relu", 2) if kind == "relu2" else ("square", 2)


def _teacher_data(kind: str, inputs: int, samples: int, hidden: int, seed: int) -> tuple[Objective, FeedForward]:
    """Unit-sphere inputs and unit-rms labels of a teacher with two neurons a layer, MEAN square loss."""
    rng = np.random.default_rng([seed, 1])
    name, p = _activation(kind)
    model = FeedForward((inputs, hidden, hidden, 1), name, p=p)
    X = rng.standard_normal((samples, inputs))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    teacher = model.with_hidden_widths((2, 2))
    w = teacher.pack([rng.standard_normal(shape) / np.sqrt(shape[1]) for shape in teacher.shapes])
    y = teacher.forward(w, X)
    y /= np.sqrt(np.mean(y**2))
    return Objective(model, X, y, reduction="mean"), model


def _noise(model: FeedForward, seed: int) -> np.ndarray:
    """A Gaussian of variance 1/fan_in in every weight: (P,)."""
    rng = np.random.default_rng([seed, 2])
    return model.pack([rng.standard_normal(shape) / np.sqrt(shape[1]) for shape in model.shapes])


def small_net(kind: str) -> tuple[Objective, FeedForward]:
    """The 10-15-15-1 net with 390 weights and 100 samples."""
    return _teacher_data(kind, 10, 100, 15, SEEDS[kind])


def small_net_saddle(kind: str) -> SparseSaddle:
    """Its sparse saddle with one active neuron a layer."""
    objective, _ = small_net(kind)
    return find_saddle(objective, (1, 1), rng=np.random.default_rng([SEEDS[kind], 3]), starts=12)


def saddle_start(saddle: SparseSaddle, delta: float, seed: int) -> np.ndarray:
    """wbar_n as it is, and delta times a Gaussian of variance 1/fan_in in w_z: (P,)."""
    return saddle.start(delta, _noise(saddle.model, seed)[saddle.index_z])


def _published(name: str) -> tuple[Objective, np.ndarray]:
    """The authors' data and initial weights, in their own loss convention."""
    from paper_repro.figure import load_data

    widths, activation, reduction = {
        "two_layer_square": ((20, 50, 1), "square", "mean"),
        "two_layer_relu": ((20, 50, 1), "relu", "mean"),
        "three_layer_square": ((20, 20, 20, 1), "square", "sum"),
        "three_layer_relu": ((20, 20, 30, 1), "relu", "sum"),
    }[name]
    arrays = load_data(name)
    model = FeedForward(widths, activation)
    w = model.pack([arrays[f"W{l}"] for l in range(1, model.depth + 1)])
    return Objective(model, arrays["X"].T, arrays["y"], reduction="sum" if reduction == "sum" else "mean"), w


def _halfway(objective: Objective, w0: np.ndarray, *fractions: float) -> tuple[LossLevel, ...]:
    start = float(objective.value(w0))
    return tuple(LossLevel(fraction * start) for fraction in fractions)


# -- the problems ---------------------------------------------------------------------------------------


def _toy() -> Problem:
    # [BEYOND] Example 1, seen when the escape is half done and again beyond the saddle (2, 0), whose loss is 1
    delta = 0.01
    objective = Objective(DiagonalLinear(2, 2, tied=True), np.eye(2), np.array([4.0, 1.0]))
    return Problem(
        "toy",
        "closed-form toy (w1^2 - 4)^2 + (w2^2 - 1)^2 from delta = 0.01, past its saddle",
        objective,
        delta * np.array([1.0, 1.0]) / math.sqrt(2),
        (LossLevel(9.0), LossLevel(0.5), LossLevel(1e-3)),
        blocks=(np.array([0]), np.array([1])),
    )


def _origin(name: str, step: float, fractions: Sequence[float]) -> Problem:
    objective, w = _published(name)
    note = ""
    if name == "three_layer_square":
        from gfsim.ncf.origin import OriginNCF, maximise

        # the authors ascend the NCF first and start at 0.1 times its maximum
        point = maximise(OriginNCF(objective), starts=4, rng=np.random.default_rng(0))[0]
        # (an ascent that is not carried to the end leaves some of the random direction in it)
        w = 0.1 * (point.u + 1e-3 * w)
        note = "start: 0.1 (u + 1e-3 r), u a KKT point of the NCF, r the authors' random direction"
    return Problem(
        f"origin-{name.replace('_', '-')}",
        f"escape from the origin, the authors' {name} arrays",
        objective,
        w,
        _halfway(objective, w, *fractions),
        agreement=KINKED_AGREEMENT if step else SMOOTH_AGREEMENT,
        step=step,
        note=note,
    )


def _saddle(kind: str, delta: float, name: str = "saddle", until: float = 0.5) -> Problem:
    """From near the saddle to ``until`` times its loss: 0.99 is the first escape, further plateaus lie beyond it."""
    saddle = small_net_saddle(kind)
    w0 = saddle_start(saddle, delta, SEEDS[kind])
    size = float(np.linalg.norm(w0[saddle.index_z]))
    early = SizeLevel(2.0 * size, saddle.index_z)
    return Problem(
        f"{name}-{kind}-{_short(delta)}",
        f"sparse saddle of a 390-weight net ({_words(kind)}), delta = {delta:g}: until L = {until:g} of the saddle's",
        saddle.objective,
        w0,
        (early, LossLevel(until * saddle.loss, 1.3 if until < 0.7 else 1.003)),
        clock=saddle.clock,
        blocks=tuple(saddle.blocks),
        note=f"K = {saddle.escape_degree:g}, loss at the saddle {saddle.loss:.4g}",
    )


def _passage(kind: str, delta: float = 0.01) -> Problem:
    objective, model = small_net(kind)
    w0 = delta * _noise(model, SEEDS[kind])
    return Problem(
        f"passage-{kind}",
        f"origin, first saddle, and on until L < 1e-4 L0: 390 weights ({_words(kind)}), delta = {delta:g}",
        objective,
        w0,
        _halfway(objective, w0, 0.5, 1e-2, 1e-4),
    )


def _degree7(factor: float) -> Problem:
    objective, unit = _published("three_layer_square")
    w0 = factor * unit
    return Problem(
        f"degree7-{_short(factor)}",
        f"three-layer z^2 net (degree 7) from {factor:g} times a random unit direction, the authors' arrays",
        objective,
        w0,
        _halfway(objective, w0, 0.9, 0.5),
        note="escape time of order 1/delta^5; the authors had to ascend the NCF first",
    )


def deep_linear_target(seed: int = 0) -> tuple[Objective, np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """A balanced, aligned 4-4-4 linear net, its start, and the SVD of its target.

    Mode k then obeys du/dt = 4 u (s_k - u) exactly (Saxe et al. 2014; docs/theory.md, section 7).
    """
    rng = np.random.default_rng([seed, 1])
    left, right = (np.linalg.qr(rng.standard_normal((4, 4)))[0] for _ in range(2))
    s = np.array([3.0, 2.0, 1.2, 0.7])
    X = np.linalg.qr(rng.standard_normal((12, 4)))[0]
    model = FeedForward((4, 4, 4), "linear")
    objective = Objective(model, X, X @ ((left * s) @ right.T).T)
    w0 = model.pack([math.sqrt(1e-4) * right.T, math.sqrt(1e-4) * left])
    return objective, w0, (left, s, right)


def _deep_linear() -> Problem:
    objective, w0, (_, s, _) = deep_linear_target()
    # half of each mode that is still to be learned: 1/2 of s_1^2 + ..., the last one to a thousandth
    left = [float((s[k:] ** 2).sum()) for k in range(len(s))]
    levels = [left[k] - 0.75 * float(s[k] ** 2) for k in range(len(s))]
    return Problem(
        "deep-linear",
        "two-layer linear net whose singular modes 3, 2, 1.2, 0.7 are learned one after the other",
        objective,
        w0,
        tuple(LossLevel(level, spread=1.02) for level in [*levels, 1e-3]),
        note="aligned, balanced start of size 1e-4: closed form",
    )


def _logistic() -> Problem:
    rng = np.random.default_rng([4, 1])
    model = FeedForward((8, 12, 1), "relu", p=2)
    X = rng.standard_normal((60, 8))
    teacher = rng.standard_normal((3, 8))
    score = ((X @ teacher.T).clip(min=0) ** 2) @ np.array([1.0, -1.0, 0.5]) + 0.5 * rng.standard_normal(60)
    y = np.where(score > np.median(score), 1.0, -1.0)
    objective = Objective(model, X, y, loss="logistic")
    w0 = 0.01 * _noise(model, 4)
    return Problem(
        "logistic",
        "logistic loss, 8-12-1 ReLU^2 net from delta = 0.01, until L < 1e-2 L0",
        objective,
        w0,
        _halfway(objective, w0, 0.5, 0.1, 1e-2),
        note="separable labels: the weights grow for ever, the flow slows down",
    )


def _relu() -> Problem:
    rng = np.random.default_rng([5, 1])
    model = FeedForward((6, 10, 1), "relu")
    X = rng.standard_normal((40, 6))
    teacher = FeedForward((6, 3, 1), "relu")
    y = teacher.forward(rng.standard_normal(teacher.n_params), X)
    objective = Objective(model, X, y / np.sqrt(np.mean(y**2)), reduction="mean")
    w0 = 0.01 * _noise(model, 5)
    return Problem(
        "relu",
        "plain ReLU, 6-10-1 net from delta = 0.01: the velocity jumps at kinks",
        objective,
        w0,
        _halfway(objective, w0, 0.5, 0.1),
        agreement=KINKED_AGREEMENT,
        step=1e-3,
    )


def _large() -> Problem:
    seed = 6
    objective, model = _teacher_data("relu2", 20, 1000, 53, seed)
    w0 = 0.1 * _noise(model, seed)
    return Problem(
        "large",
        f"n = 1000 samples, {model.n_params} weights (ReLU^2): from the origin, delta = 0.1, down to the first plateau",
        objective,
        w0,
        _halfway(objective, w0, 0.5, 0.03, 0.012),
        note="a dense Hessian here has 1.5e7 entries; the plateau of one neuron a layer is at 0.0082 L0",
    )


def _figure1() -> Problem:
    objective, w = _published("two_layer_square")
    return Problem(
        "figure1",
        "figure 1: the authors' two_layer_square run, through both saddles to a loss of 1e-6",
        objective,
        w,
        (LossLevel(5.0), LossLevel(0.5), LossLevel(1e-3), LossLevel(1e-6)),
        note="1050 weights; the authors took 250,000 steps of 0.005 of gradient descent, to t = 1250",
    )


def _words(kind: str) -> str:
    return "ReLU^2" if kind == "relu2" else "z^2"


def _short(x: float) -> str:
    mantissa, exponent = f"{x:e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


DELTAS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)

SUITE: tuple[Entry, ...] = (
    Entry("toy", "closed-form toy, past its saddle", _toy, quick=True),
    Entry(
        "origin-two-layer-square",
        "origin escape, the authors' two_layer_square arrays",
        partial(_origin, "two_layer_square", 0.0, (0.5,)),
    ),
    Entry(
        "origin-two-layer-relu",
        "origin escape, the authors' two_layer_relu arrays (plain ReLU)",
        partial(_origin, "two_layer_relu", 4e-4, (0.95, 0.8)),
    ),
    Entry(
        "origin-three-layer-square",
        "origin escape, the authors' three_layer_square arrays from a KKT point",
        partial(_origin, "three_layer_square", 0.0, (0.5,)),
        quick=True,
    ),
    Entry(
        "origin-three-layer-relu",
        "origin escape, the authors' three_layer_relu arrays (plain ReLU)",
        partial(_origin, "three_layer_relu", 2e-4, (0.9, 0.5)),
    ),
    *(
        Entry(
            f"saddle-{kind}-{_short(delta)}",
            f"sparse saddle, 390 weights, {_words(kind)}, delta = {delta:g}",
            partial(_saddle, kind, delta),
            quick=kind == "relu2" and delta in (1e-2, 1e-6),
        )
        for kind in ("relu2", "z2")
        for delta in DELTAS
    ),
    *(
        Entry(
            f"escape-relu2-{_short(delta)}",
            f"the same, first escape only, ReLU^2, delta = {delta:g}",
            partial(_saddle, "relu2", delta, "escape", 0.99),
        )
        for delta in (1e-2, 1e-6)
    ),
    Entry("passage-relu2", "origin, first saddle, L < 1e-4 L0; ReLU^2", partial(_passage, "relu2"), quick=True),
    Entry("passage-z2", "origin, first saddle, L < 1e-4 L0; z^2", partial(_passage, "z2")),
    Entry("degree7-1e-1", "degree 7 from 0.1 times a random direction", partial(_degree7, 0.1)),
    Entry("degree7-1e-2", "degree 7 from 0.01 times a random direction", partial(_degree7, 0.01), quick=True),
    Entry("deep-linear", "deep linear net with known singular modes", _deep_linear, quick=True),
    Entry("logistic", "logistic loss, two-layer ReLU^2", _logistic, quick=True),
    Entry("relu", "plain ReLU, two layers", _relu, quick=True),
    Entry("figure1", "the authors' figure-1 run, through two saddles", _figure1),
    Entry("large", "n = 1000, 3922 weights, from the origin to the first plateau", _large),
)


def select(names: Sequence[str], *, quick: bool = False) -> list[Entry]:
    """The entries of these names, in the suite's order; none means all (of the quick form)."""
    known = [entry.name for entry in SUITE]
    for name in names:
        if name not in known:
            raise unknown_name("problem", name, known)
    if names:
        return [entry for entry in SUITE if entry.name in names]
    return [entry for entry in SUITE if entry.quick or not quick]


def problem(name: str) -> Problem:
    """The problem of the suite with this name."""
    return select([name])[0].build()
