"""Neuron Pursuit: minimise, add the neuron that the NCFs ask for, minimise again.

docs/theory.md, section 6.

1. One neuron in every hidden layer: maximise the NCF at the origin, start at delta0 u*, minimise.
2. Repeat: maximise the one-neuron NCF of every hidden layer at the current weights; in the layer with
   the largest value append the neuron delta (a, b); keep all old weights; minimise.
3. Stop: the loss is below its tolerance, every NCF vanishes, validation stops improving, or the neuron
   budget is spent.

Three details are ours, not the paper's.

*Ties.*  Where maxima of a layer agree, rounding would decide.  Among those equal within ``tie_rtol`` we
take the one whose incoming weights have the largest cosine with those of a neuron already in the
layer.  One tie is systematic: after the first iteration of a deep ReLU net every sample that pulls
passes through the only neuron of a layer, whose stationarity, sum_i G_i H_i = 0, makes
N(a, b) - N(-a, b) = sum_i (G_i.b)(a.H_i) vanish for every a.  If the minimum lies on kinks the descent
leaves a small remainder, whose sign depends on the parity of its last step; such mirror images
therefore count as tied within the wider ``mirror_rtol``.

*Trials.*  Maxima may also differ by less than their sampling error, so that the draw of the data, and
not the target, orders them (:mod:`gfsim.pursuit.contest`).  With ``trials`` > 1 such maxima, of the
origin or of any layer, are each added and minimised, and the one with the smallest loss is kept.  With
``trials`` = 1, as published, the largest value decides.

*Polish.*  A second-order refinement may follow the last minimisation; it is a step of its own in the
record and never hides the value reached before it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from gfsim.arrays import finite_array, generator, positive
from gfsim.errors import InvalidInput, NotHomogeneous
from gfsim.losses import Loss
from gfsim.models.activation import Activation, HomogeneousActivation, make_activation
from gfsim.models.feedforward import FeedForward
from gfsim.ncf import neuron, origin
from gfsim.ncf.kkt import KKTPoint
from gfsim.ncf.neuron import NeuronNCF
from gfsim.objective import Objective, Reduction
from gfsim.pursuit.contest import rivals, winner
from gfsim.pursuit.grow import append_neuron
from gfsim.pursuit.minimise import Descent, Minimiser, Outcome, Polish, make_minimiser
from gfsim.pursuit.record import (
    Addition,
    Maxima,
    Minimisation,
    Record,
    Start,
    Step,
    Stop,
    StopReason,
    Trial,
    fingerprint,
    total_neurons,
)

OnWorse = Literal["keep", "refuse"]

MIRROR_COSINE = 0.99
"""(a, b) and (a', b') are mirror images if a' is this close to -a and b' to b."""


@dataclass(frozen=True)
class PursuitConfig:
    """Everything that a pursuit depends on besides data and random numbers.

    Parameters
    ----------
    hidden_layers : int >= 1
        L - 1.
    activation : str or Activation
        ``relu``, ``square``, ... or an object; ``p`` and ``alpha`` go with a name.
    loss, reduction
        As for :class:`gfsim.objective.Objective`; the reduction sets the clock of the descent.
    delta0, delta : float
        Norm of the start and of every later neuron's (a, b).
    minimiser : str or Minimiser
        ``"descent"``, ``"flow"`` or an object of :mod:`gfsim.pursuit.minimise`.
    polish : bool
        Refine the final weights by :class:`gfsim.pursuit.minimise.Polish`.
    starts : int
        Random starts of every NCF maximisation.
    tie_rtol : float
        Maxima of a layer within this relative distance of its best count as tied.
    mirror_rtol : float
        The same for mirror images in a layer with one gate (see "Ties" above); 0 for none.
    trials : int
        At most so many maxima that the data cannot tell apart are tried (see "Trials" above); 1 for none.
    trial_sigmas : float
        Maxima closer to the largest than so many standard errors of the difference are not told apart.
    max_neurons : int
        Hidden neurons in all; at least one a layer.
    loss_rtol : float
        Stop when L <= loss_rtol L(0), L(0) the loss of the zero function.
    ncf_tol : float
        Stop when in every layer the best neuron's first-order effect has a correlation <= ncf_tol with
        what the data ask for (see ``Addition.correlation``): no neuron escapes this way.
    patience : int
        With validation data: stop after this many additions without a better validation loss, and
        return the best network.
    on_worse : "keep" or "refuse"
        What to do when a minimisation ends with a larger loss than before the addition (the step was too
        large, or the flow was followed too shortly).  ``"keep"``, as published, goes on from there and
        says so in the record; ``"refuse"`` takes the neuron out again and stops.

    Raises
    ------
    InvalidInput, UnknownName
        For a value out of its range, or a name that is not known.
    NotHomogeneous
        For an activation that is not max(z, alpha z)^p.
    """

    hidden_layers: int = 2
    activation: str | Activation = "relu"
    p: int | None = None
    alpha: float | None = None
    loss: str | Loss = "square"
    reduction: Reduction = "mean"
    delta0: float = 0.2
    delta: float = 0.03
    minimiser: str | Minimiser = field(default_factory=Descent)
    polish: bool = True
    starts: int = 64
    tie_rtol: float = 1e-4
    mirror_rtol: float = 5e-2
    trials: int = 1
    trial_sigmas: float = 1.0
    max_neurons: int = 20
    loss_rtol: float = 1e-8
    ncf_tol: float = 1e-9
    patience: int = 6
    on_worse: OnWorse = "keep"

    def __post_init__(self) -> None:
        for name in ("hidden_layers", "starts", "trials", "max_neurons", "patience"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
                raise InvalidInput(f"{name} = {value!r}; it must be a whole number >= 1")
        for name in ("delta0", "delta"):
            positive(getattr(self, name), name)
        if not (isinstance(self.trial_sigmas, (int, float, np.floating)) and 0 <= self.trial_sigmas < np.inf):
            raise InvalidInput(f"trial_sigmas = {self.trial_sigmas!r}; it must be a finite number >= 0")
        for name in ("tie_rtol", "mirror_rtol", "loss_rtol", "ncf_tol"):
            value = getattr(self, name)
            if not (isinstance(value, (int, float, np.floating)) and 0 <= value < 1):
                raise InvalidInput(f"{name} = {value!r}; it must be a number in [0, 1)")
        if self.on_worse not in get_args(OnWorse):
            raise InvalidInput(f"on_worse = {self.on_worse!r}; choose 'keep' (as published) or 'refuse'")
        if self.max_neurons < self.hidden_layers:
            raise InvalidInput(
                f"max_neurons = {self.max_neurons} for {self.hidden_layers} hidden layers; the start alone has one "
                "neuron in each: raise max_neurons"
            )
        make_minimiser(self.minimiser)
        activation = make_activation(self.activation, self.p, self.alpha)
        if activation.power is None:
            raise NotHomogeneous(
                f"Neuron Pursuit follows NCFs, which need an activation max(z, alpha z)^p; {activation.name} is not one"
            )

    def model(self, n_inputs: int, n_outputs: int) -> FeedForward:
        """The first network: one neuron in every hidden layer."""
        activation = make_activation(self.activation, self.p, self.alpha)
        return FeedForward((n_inputs, *[1] * self.hidden_layers, n_outputs), activation)


@dataclass(frozen=True)
class Neuron:
    """The neuron that the NCFs ask for at some weights, and how it was chosen."""

    layer: int
    point: KKTPoint
    a: np.ndarray = field(repr=False)
    b: np.ndarray = field(repr=False)
    maxima: tuple[Maxima, ...]
    correlation: float
    tied: int
    cosines: tuple[float, ...]
    chosen: int
    error: float = 0.0
    """Standard error of this neuron's distance in NCF value from the best one's."""


@dataclass(frozen=True)
class PursuitResult:
    """The grown network and the record of its growth.

    Attributes
    ----------
    model : FeedForward
    weights : (P,)
        With validation data, of the network with the smallest validation loss; else of the last one.
    loss : float
        Training loss at ``weights``, in the objective's reduction.
    record : Record
    """

    model: FeedForward
    weights: np.ndarray = field(repr=False)
    loss: float
    record: Record = field(repr=False)

    @property
    def stop(self) -> Stop:
        """The last step of the record: why the pursuit ended."""
        stop = self.record.stop
        if stop is None:
            raise InvalidInput("this record has no stop: it is not that of a finished pursuit")
        return stop

    @property
    def hidden_widths(self) -> list[tuple[int, ...]]:
        """Widths of the hidden layers at every minimisation."""
        return self.record.hidden_widths

    def predict(self, X: object) -> np.ndarray:
        """H(x_i; weights): (n, n_outputs)."""
        inputs = finite_array(X, "X", ndim=2)
        if inputs.shape[1] != self.model.n_inputs:
            raise InvalidInput(f"X has shape {inputs.shape}; {self.model.name} takes {self.model.n_inputs} inputs")
        return self.model.forward(self.weights, inputs)

    def save(self, folder: str | Path) -> Path:
        """Write the record (which holds all weights) to ``folder``."""
        return self.record.save(folder)

    def summary(self) -> str:
        """A few lines, one an iteration."""
        lines = []
        for row in self.record.rows():
            origin_or_layer = f"layer {row['layer']}" if row["layer"] else "origin"
            lines.append(
                f"{row['kind']:8s} {row['hidden']!s:12s} NCF {row['ncf']:.4g} ({origin_or_layer}), loss "
                f"{row['loss_before']:.4g} -> {row['loss_after']:.4g}, |grad| {row['gradient_norm']:.1e}, "
                f"{row['steps']} steps ({row['reason']})"
                + (f", best of {row['trials']} trials" if row["trials"] > 1 and row["kind"] == "minimise" else "")
                + ("" if row["kept"] else ", refused")
                + (f": {row['message']}" if row["reason"] in ("failed", "diverged") else "")
            )
        return "\n".join([*lines, f"stopped: {self.stop.reason}: {self.stop.message}"])


def pursue(
    X: object,
    y: object,
    config: PursuitConfig | None = None,
    *,
    rng: np.random.Generator,
    X_val: object = None,
    y_val: object = None,
    progress: bool = False,
    callback: Callable[[Step, FeedForward, np.ndarray], object] | None = None,
) -> PursuitResult:
    """Run Neuron Pursuit.

    Parameters
    ----------
    X : (n_samples, n_features), n_samples >= 2
    y : (n_samples,) or (n_samples, n_outputs)
    config : PursuitConfig
    rng : numpy.random.Generator
        For the starts of the NCF maximisations; nothing else is random.
    X_val, y_val : optional
        Validation data, both or neither.
    progress : bool
        Progress bars on standard error.
    callback : function of (step, model, weights), optional
        Called after every recorded step; it may look at the growing network, and ends the pursuit by
        returning False.

    Returns
    -------
    PursuitResult
        Also after Ctrl-C (``stop.reason == "interrupted"``): the best network so far.

    Raises
    ------
    InvalidInput, UnknownName, NotHomogeneous
        For data or settings that make no sense.

    Notes
    -----
    A target without any correlation with what a neuron can compute, such as y = 0, makes the NCF at
    the origin vanish; the result is then the zero function, with ``stop.reason == "no_escape"``.
    """
    return _Pursuit(X, y, PursuitConfig() if config is None else config, rng, X_val, y_val, progress, callback).go()


def choose_neuron(
    objective: Objective, w: np.ndarray, *, starts: int, tie_rtol: float, mirror_rtol: float, rng: np.random.Generator
) -> Neuron | None:
    """The neuron of docs/theory.md, section 6, step 2, at weights ``w`` (P,).

    None when every NCF vanishes.  Between layers the first of the largest value wins; within the layer
    ties are broken as said at the top of this module; ``tie_rtol`` and ``mirror_rtol`` as in
    :class:`PursuitConfig`.
    """
    found = contenders(objective, w, starts=starts, tie_rtol=tie_rtol, mirror_rtol=mirror_rtol, rng=rng)
    return found[0] if found else None


def contenders(
    objective: Objective,
    w: np.ndarray,
    *,
    starts: int,
    tie_rtol: float,
    mirror_rtol: float,
    rng: np.random.Generator,
    sigmas: float = 0.0,
    most: int = 1,
) -> list[Neuron]:
    """:func:`choose_neuron`'s neuron, and after it up to ``most`` - 1 others whose NCF values, in whatever
    layer, lie within ``sigmas`` standard errors of its own; one of each group of ties.  Empty when every
    NCF vanishes."""
    model = objective.model
    ncfs = neuron.neuron_ncfs(objective, w)
    points = [neuron.maximise(ncf, starts=starts, rng=rng) for ncf in ncfs]
    maxima = tuple(_maxima(ncf.layer, found, starts) for ncf, found in zip(ncfs, points, strict=True))
    if not isinstance(model, FeedForward):
        return []
    matrices = model.unpack(w)
    groups: list[tuple[NeuronNCF, list[KKTPoint]]] = []
    for ncf, found, rows in zip(ncfs, points, matrices, strict=False):
        groups += [
            (ncf, tied) for tied in _tie_groups(ncf, found, tie_rtol, mirror_rtol if _one_gate(ncf, rows) else 0.0)
        ]
    groups.sort(key=lambda group: -group[1][0].value)  # stable: of equal layers the first comes first
    shares = [ncf.contributions(tied[0].u) for ncf, tied in groups]
    out = []
    for place, error in rivals(shares, sigmas, most):
        ncf, tied = groups[place]
        rows = matrices[ncf.layer - 1]
        cosines = [_closest(rows, ncf.split(point.u)[0], bool(ncf.activation.flips_sign)) for point in tied]
        chosen = int(np.argmax(cosines))
        a, b = ncf.split(tied[chosen].u)
        out.append(
            Neuron(
                layer=ncf.layer,
                point=tied[chosen],
                a=a,
                b=b,
                maxima=maxima,
                correlation=correlation(objective, w, ncf.layer, a, b),
                tied=len(tied),
                cosines=tuple(cosines),
                chosen=chosen,
                error=error,
            )
        )
    return out


def _tie_groups(ncf: NeuronNCF, points: list[KKTPoint], tie_rtol: float, mirror_rtol: float) -> list[list[KKTPoint]]:
    """Positive maxima, best first, each with those that count as tied with it."""
    left = [point for point in points if point.value > 0]
    groups = []
    while left:
        tied = [point for point in left if _is_tied(ncf, point, left[0], tie_rtol, mirror_rtol)]
        groups.append(tied)
        left = [point for point in left if not any(point is member for member in tied)]
    return groups


def _one_gate(ncf: NeuronNCF, rows: np.ndarray) -> bool:
    """Whether every sample that pulls passes through the layer's only neuron (see "Ties" above)."""
    if len(rows) != 1 or ncf.activation.name != "relu":
        return False
    pulls = np.any(ncf.pull != 0, axis=1)
    return bool((ncf.inputs[pulls] @ rows[0] >= 0).all())


def _is_tied(ncf: NeuronNCF, point: KKTPoint, best: KKTPoint, tie_rtol: float, mirror_rtol: float) -> bool:
    if point.value >= (1 - tie_rtol) * best.value:
        return True
    (a, b), (a_best, b_best) = ncf.split(point.u), ncf.split(best.u)
    opposite = a @ a_best <= -MIRROR_COSINE * (a_best @ a_best) and b @ b_best >= MIRROR_COSINE * (b_best @ b_best)
    return bool(opposite and point.value >= (1 - mirror_rtol) * best.value)


def _closest(rows: np.ndarray, a: np.ndarray, either_sign: bool) -> float:
    """Largest cosine of ``a`` with a row that is not zero (-1 if all are zero)."""
    norms = np.linalg.norm(rows, axis=1)
    if not norms.any():
        return -1.0
    live = norms > 0
    cosines = (rows[live] @ a) / (norms[live] * np.linalg.norm(a))
    return float(np.abs(cosines).max() if either_sign else cosines.max())


def correlation(objective: Objective, w: np.ndarray, layer: int, a: np.ndarray, b: np.ndarray) -> float:
    """<H1, ybar> / (|H1| |ybar|) of a neuron (a, b) of ``layer``: scale-free, in [-1, 1].

    H1_ik = (g_{l+1,i}[k, :] . b) s(a . h_{l-1,i}) is its first-order effect on the outputs; zero when
    either vanishes.
    """
    model = objective.model
    if not isinstance(model, FeedForward):
        raise InvalidInput(f"correlations of neurons need a feed-forward net, not {model.name}")
    kept = model.run(w, objective.X)
    ybar = objective.pull(kept.output)
    response = model.activation.value(kept.hidden[layer - 1] @ a)
    H1 = np.empty_like(ybar)
    for k in range(model.n_outputs):
        C = np.zeros_like(ybar)
        C[:, k] = 1.0
        H1[:, k] = (model.backpropagate(w, kept, C)[layer] @ b) * response
    scale = float(np.linalg.norm(H1) * np.linalg.norm(ybar))
    return float((H1 * ybar).sum()) / scale if scale > 0 else 0.0


def _maxima(layer: int, points: list[KKTPoint], starts: int) -> Maxima:
    return Maxima(
        layer=layer,
        values=tuple(point.value for point in points),
        residuals=tuple(point.residual for point in points),
        hits=tuple(point.hits for point in points),
        starts=starts,
    )


class _Pursuit:
    """State of one pursuit."""

    def __init__(
        self,
        X: object,
        y: object,
        config: PursuitConfig,
        rng: np.random.Generator,
        X_val: object,
        y_val: object,
        progress: bool,
        callback: Callable[[Step, FeedForward, np.ndarray], object] | None,
    ) -> None:
        inputs, labels = _checked(X, y)
        if not isinstance(config, PursuitConfig):
            raise InvalidInput(
                f"config is a {type(config).__name__}; pass PursuitConfig(...) with the settings as keywords"
            )
        self.config, self.rng, self.progress, self.callback = config, generator(rng), progress, callback
        self.minimiser = make_minimiser(config.minimiser)
        self.model = config.model(inputs.shape[1], labels.shape[1])
        self.w = np.zeros(self.model.n_params)
        self.objective = Objective(self.model, inputs, labels, loss=config.loss, reduction=config.reduction)
        self.validation: Objective | None = None
        if (X_val is None) != (y_val is None):
            raise InvalidInput("X_val and y_val go together: pass both or neither")
        if X_val is not None:
            self.validation = Objective(self.model, X_val, y_val, loss=config.loss, reduction="mean")
        self.null_loss = float(self.objective.value(self.w))
        self.loss_goal = config.loss_rtol * self.null_loss
        self.record = Record(
            problem={
                "activation": self.model.activation.name,
                "p": self.model.activation.power,
                "alpha": _alpha(self.model.activation),
                "loss": self.objective.loss.name,
                "reduction": config.reduction,
                "hidden_layers": config.hidden_layers,
                "null_loss": self.null_loss,
            },
            config=_plain(config, self.minimiser),
            data=fingerprint(inputs, labels),
        )
        self.best: tuple[float, FeedForward, np.ndarray] | None = None
        self.waited = 0
        self.accepted_loss = self.null_loss
        self.before_addition = (self.model, self.w, self.null_loss)
        self.foreseen: Outcome | None = None
        self.no_escape = ""
        self.arrived = False
        self.said_stop = False

    # -- the algorithm -----------------------------------------------------------------------------

    def go(self) -> PursuitResult:
        try:
            reason, message = self._grow()
        except KeyboardInterrupt:
            reason, message = (
                "interrupted",
                f"interrupted with hidden widths {self.model.hidden_widths}; the best is kept",
            )
        if self.config.polish and reason not in ("interrupted", "diverged") and self.w.any():
            self._polish()
        self.record.steps.append(Stop(reason, message))
        if self.validation is not None and self.best is not None:
            _, self.model, self.w = self.best
        loss = float(self.objective.with_model(self.model).value(self.w))
        return PursuitResult(self.model, self.w, loss, self.record)

    def _grow(self) -> tuple[StopReason, str]:
        if not self._start():
            return "no_escape", (
                "the NCF at the origin has no positive maximum: no direction leaves the origin, and the zero function "
                f"with loss {self.null_loss:.4g} is returned"
            )
        while True:
            stop = self._minimise()
            if stop is not None:
                return stop
            if self.arrived:
                return "loss", f"loss {self.accepted_loss:.3g} reached {self.loss_goal:.3g} = loss_rtol x that of zero"
            if self.said_stop:
                return "interrupted", "the callback returned False"
            if self.waited >= self.config.patience:
                return "validation", f"no better validation loss in {self.waited} additions; the best net is returned"
            neurons = total_neurons(self.model.widths)
            if neurons >= self.config.max_neurons:
                return "budget", f"{neurons} hidden neurons = max_neurons"
            if not self._add():
                return "no_escape", self.no_escape
            if self.said_stop:
                return "interrupted", "the callback returned False"

    def _start(self) -> bool:
        ncf = origin.OriginNCF(self.objective)
        points = origin.maximise(ncf, starts=self.config.starts, rng=self.rng)
        maxima = _maxima(0, points, self.config.starts)
        u = points[0].u if points else np.zeros(ncf.size)
        trials: tuple[Trial, ...] = ()
        tried = rivals([ncf.contributions(p.u) for p in points], self.config.trial_sigmas, self.config.trials)
        if len(tried) > 1:
            starts = [(self.model, self.config.delta0 * points[place].u) for place, _ in tried]
            best, losses = self._try(starts)
            u = points[tried[best][0]].u
            trials = tuple(
                Trial(0, points[place].value, error, loss) for (place, error), loss in zip(tried, losses, strict=False)
            )
        self.w = self.config.delta0 * u
        self._note(Start(self.model.widths, maxima, self.config.delta0, u, self.w.copy(), trials))
        return bool(points)

    def _try(self, starts: list[tuple[FeedForward, np.ndarray]]) -> tuple[int, list[float]]:
        """Minimise from several networks: which one ends lowest, and the losses of those that were run
        (Ctrl-C ends the trials).  The winner's outcome is kept for the minimisation that follows."""
        outcomes: list[Outcome] = []
        for model, w in starts:
            objective = self.objective.with_model(model)
            outcomes.append(self.minimiser.run(objective, w, loss_goal=self.loss_goal, progress=self.progress))
            if outcomes[-1].reason == "interrupted":
                break
        losses = [outcome.loss_after if outcome.reason != "diverged" else np.inf for outcome in outcomes]
        best = winner(losses, self.config.tie_rtol) if np.isfinite(losses).any() else 0
        self.foreseen = outcomes[best]
        if outcomes[-1].reason == "interrupted":
            self.foreseen = replace(outcomes[best], reason="interrupted", message=outcomes[-1].message)
        return best, [outcome.loss_after for outcome in outcomes]

    def _take_back(self) -> None:
        """Return to the network before the last addition (the zero function, before the first)."""
        self.model, self.w, self.accepted_loss = self.before_addition
        self.objective = self.objective.with_model(self.model)

    def _minimise(self) -> tuple[StopReason, str] | None:
        outcome, self.foreseen = self.foreseen, None
        if outcome is None:
            outcome = self.minimiser.run(self.objective, self.w, loss_goal=self.loss_goal, progress=self.progress)
        worse = outcome.loss_after > self.accepted_loss * (1 + 1e-12)
        diverged = outcome.reason == "diverged"
        refused = diverged or (worse and self.config.on_worse == "refuse")
        validation = self._validation_loss(outcome.w)
        self._note(self._entry("minimise", self.minimiser, outcome, self.w, worse, not refused, validation))
        if refused:
            worse_loss = f"{outcome.loss_after:.6g} > {self.accepted_loss:.6g}"
            self._take_back()
            if diverged:
                return "diverged", f"the minimisation diverged: {outcome.message}"
            return "no_improvement", (
                f"the minimisation ended with a larger loss, {worse_loss}, and the neuron is taken out again; "
                "follow the flow longer or with a smaller step"
            )
        self.w, self.accepted_loss = outcome.w, outcome.loss_after
        self.arrived = outcome.reason == "loss" or outcome.loss_after <= self.loss_goal
        self._judge(validation)
        if outcome.reason == "interrupted":
            raise KeyboardInterrupt
        return None

    def _add(self) -> bool:
        candidates = contenders(
            self.objective,
            self.w,
            starts=self.config.starts,
            tie_rtol=self.config.tie_rtol,
            mirror_rtol=self.config.mirror_rtol,
            rng=self.rng,
            sigmas=self.config.trial_sigmas,
            most=self.config.trials,
        )
        found = candidates[0] if candidates else None
        if found is None or abs(found.correlation) <= self.config.ncf_tol:
            how = "has no positive maximum" if found is None else f"correlates by {found.correlation:.1e} <= ncf_tol"
            self.no_escape = (
                f"the best one-neuron NCF {how} at loss {self.accepted_loss:.4g}: to first order no single neuron helps"
            )
            return False
        delta = self.config.delta
        grown = [append_neuron(self.model, self.w, c.layer, delta * c.a, delta * c.b) for c in candidates]
        best = 0
        trials: tuple[Trial, ...] = ()
        if len(grown) > 1:
            best, losses = self._try(grown)
            found = candidates[best]
            trials = tuple(
                Trial(c.layer, c.point.value, c.error, loss) for c, loss in zip(candidates, losses, strict=False)
            )
        self.before_addition = (self.model, self.w, self.accepted_loss)
        self.model, self.w = grown[best]
        self.objective = self.objective.with_model(self.model)
        power = self.model.activation.power or 1
        self._note(
            Addition(
                layer=found.layer,
                value=found.point.value,
                maxima=found.maxima,
                correlation=found.correlation,
                predicted_decrease=delta ** (power + 1) * found.point.value,
                delta=delta,
                tied=found.tied,
                cosines=found.cosines,
                chosen=found.chosen,
                widths=self.model.widths,
                u=found.point.u,
                weights=self.w.copy(),
                trials=trials,
            )
        )
        return True

    def _polish(self) -> None:
        polish = Polish()
        outcome = polish.run(self.objective, self.w, progress=self.progress)
        validation = self._validation_loss(outcome.w)
        self._note(self._entry("polish", polish, outcome, self.w, False, True, validation))
        self.w, self.accepted_loss = outcome.w, outcome.loss_after
        self._judge(validation)

    # -- bookkeeping -------------------------------------------------------------------------------

    def _entry(
        self,
        kind: Literal["minimise", "polish"],
        minimiser: Minimiser,
        outcome: Outcome,
        start: np.ndarray,
        worse: bool,
        kept: bool,
        validation: float,
    ) -> Minimisation:
        return Minimisation(
            kind=kind,
            minimiser=minimiser.name,
            settings=minimiser.settings(),
            widths=self.model.widths,
            loss_before=outcome.loss_before,
            loss_after=outcome.loss_after,
            gradient_norm=outcome.gradient_norm,
            steps=outcome.steps,
            time=outcome.time,
            reason=outcome.reason,
            message=outcome.message,
            worse=worse,
            kept=kept,
            validation=validation,
            loss_goal=self.loss_goal,
            weights_before=start.copy(),
            weights_after=outcome.w.copy(),
            trace_time=outcome.trace_time,
            trace_loss=outcome.trace_loss,
        )

    def _note(self, step: Step) -> None:
        self.record.steps.append(step)
        if self.progress:
            self._say(step)
        if self.callback is not None:
            weights = step.weights_after if isinstance(step, Minimisation) else self.w
            if self.callback(step, self.model, weights.copy()) is False:
                self.said_stop = True

    def _say(self, step: Step) -> None:
        from tqdm import tqdm

        if isinstance(step, Addition):
            text = f"neuron {total_neurons(step.widths)} into layer {step.layer}, NCF {step.value:.4g}"
        elif isinstance(step, Minimisation):
            text = f"{step.kind} {step.widths[1:-1]}: loss {step.loss_before:.4g} -> {step.loss_after:.4g}"
        else:
            return
        tqdm.write(text, file=sys.stderr)

    def _validation_loss(self, w: np.ndarray) -> float:
        if self.validation is None:
            return float("nan")
        return float(self.validation.with_model(self.model).value(w))

    def _judge(self, validation: float) -> None:
        """Remember the network if it is the best on validation data so far."""
        if self.validation is None:
            return
        if self.best is None or validation < self.best[0]:
            self.best = (validation, self.model, self.w.copy())
            self.waited = 0
        else:
            self.waited += 1


def _checked(X: object, y: object) -> tuple[np.ndarray, np.ndarray]:
    inputs, labels = finite_array(X, "X", ndim=2), finite_array(y, "y", ndim=(1, 2))
    if len(inputs) < 2:
        raise InvalidInput(f"X has {len(inputs)} sample; a pursuit needs at least 2")
    if len(labels) != len(inputs):
        raise InvalidInput(f"X has {len(inputs)} samples and y {len(labels)}; they must agree")
    return inputs, labels if labels.ndim == 2 else labels[:, None]


def _alpha(activation: Activation) -> float:
    return activation.alpha if isinstance(activation, HomogeneousActivation) else float("nan")


def _plain(config: PursuitConfig, minimiser: Minimiser) -> dict[str, Any]:
    """The settings as JSON-ready values."""
    plain: dict[str, Any] = {name: getattr(config, name) for name in PursuitConfig.__dataclass_fields__}
    plain["minimiser"], plain["minimiser_settings"] = minimiser.name, minimiser.settings()
    plain["loss"] = config.loss if isinstance(config.loss, str) else config.loss.name
    activation = make_activation(config.activation, config.p, config.alpha)
    plain |= {"activation": activation.name, "p": activation.power, "alpha": _alpha(activation)}
    return plain
