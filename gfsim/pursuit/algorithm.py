"""Neuron Pursuit: minimise, add the neuron that the NCFs ask for, minimise again.

docs/theory.md, section 6.

1. One neuron in every hidden layer: maximise the NCF at the origin, start at delta0 u*, minimise.
2. Repeat: maximise the one-neuron NCF of every hidden layer at the current weights; in the layer with
   the largest value append the neuron delta (a, b); keep all old weights; minimise.
3. Stop: the loss is below its tolerance, every NCF vanishes, validation stops improving, or the neuron
   budget is spent.

Three details are ours, not the paper's: ties between maxima and trials of several are explained in
:mod:`gfsim.pursuit.choice`.

*Polish.*  A second-order refinement may follow the last minimisation; it is a step of its own in the
record and never hides the value reached before it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from gfsim.arrays import finite_array, generator
from gfsim.errors import InvalidInput
from gfsim.models.feedforward import FeedForward
from gfsim.ncf import origin
from gfsim.objective import Objective
from gfsim.pursuit.choice import contenders, maxima_of
from gfsim.pursuit.config import PursuitConfig, alpha_of, plain
from gfsim.pursuit.contest import rivals, winner
from gfsim.pursuit.grow import append_neuron
from gfsim.pursuit.minimise import Minimiser, Outcome, Polish, make_minimiser
from gfsim.pursuit.record import (
    Addition,
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
from gfsim.pursuit.stopping import declined


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
                "alpha": alpha_of(self.model.activation),
                "loss": self.objective.loss.name,
                "reduction": config.reduction,
                "hidden_layers": config.hidden_layers,
                "null_loss": self.null_loss,
            },
            config=plain(config, self.minimiser),
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
        maxima = maxima_of(0, points, self.config.starts)
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
            if declined(self.callback(step, self.model, weights.copy())):
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
