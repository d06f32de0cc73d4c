"""Neuron Pursuit for use: grow a network from nothing, path by path, until the data ask for no more.

docs/pursuit.md explains every part and what each is worth; :mod:`gfsim.pursuit.algorithm` is the
algorithm as published.  One turn of the loop:

1. propose directions: NCF maxima of single neurons and paths (:mod:`gfsim.pursuit.candidates`);
2. choose one and let it enter (:mod:`gfsim.pursuit.selection`); if none lowers the loss, split a
   neuron (:mod:`gfsim.pursuit.tidy`); if that does not either, stop;
3. minimise (:mod:`gfsim.pursuit.fit`), prune, balance; a step that does not lower the loss is not taken;
4. stop by one of the rules of :mod:`gfsim.pursuit.stopping`.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gfsim.arrays import whole_number
from gfsim.errors import InvalidInput, NotHomogeneous
from gfsim.models.activation import Activation, HomogeneousActivation, make_activation
from gfsim.pursuit.cancellation import cancellation
from gfsim.pursuit.candidates import Candidate, Candidates, Paths
from gfsim.pursuit.fit import Fit, Fitter, make_fitter
from gfsim.pursuit.network import Kept, Network
from gfsim.pursuit.null import noise_null
from gfsim.pursuit.problem import Problem
from gfsim.pursuit.restart import Restart
from gfsim.pursuit.retreat import Retreat
from gfsim.pursuit.selection import Entered, Entry, LineSearch, Selection, Trials
from gfsim.pursuit.stopping import Ending, NoiseOnly, Rule, State, declined, default_rules
from gfsim.pursuit.tidy import Prune, Splitting, Thin

Callback = Callable[[dict[str, Any], Network], object]

Strays = Callable[[float, int], bool]

EXPLAINED = 1e-6
"""A validation loss below this part of a constant's counts as no noise."""

FREED_STEPS, FREED_FALL = 12, 1e-2
"""Steps of a fit without the penalty, and the part of its loss below which it must end to be continued."""

MOST_CANCELLATION = 1e6
"""A network whose terms are larger than their sum by more than this fits the samples and nothing else."""


@dataclass(frozen=True)
class GrowthConfig:
    """What a growth depends on besides data and random numbers; each part can be exchanged for another.

    Parameters
    ----------
    hidden_layers : int >= 1
    activation : str or HomogeneousActivation
        ``relu``, ``square``, ``leaky``, ``linear`` with ``p`` and ``alpha``, or an object.
    fit_intercept : bool
        Train an output intercept with the weights.
    candidates : Candidates
    entry : Entry
    selection : Selection
    fitter : str or Fitter
    rules : tuple of Rule
    loss_rtol : float
        The task counts as solved when the loss is this part of that of the best constant.
    prune : Prune or None
    rescue : Splitting or None
    retreat : Retreat or None
        Go back to the best network when additions do not validate.
    restart : Restart or None
        Where nearly all is explained, set growths aside that do not go on, and try others first
        (:func:`gfsim.pursuit.penalties.grow_over_l2`).
    thin : Thin or None
        Take out superfluous neurons at the end.
    caution : float >= 0
        A larger network is the better one only if its validation loss is lower by more than this many standard errors
        of the difference; once more as many after each retreat.
    """

    hidden_layers: int = 1
    activation: str | Activation = "relu"
    p: int | None = None
    alpha: float | None = None
    fit_intercept: bool = True
    candidates: Candidates = field(default_factory=Paths)
    entry: Entry = field(default_factory=LineSearch)
    selection: Selection = field(default_factory=Trials)
    fitter: str | Fitter = "auto"
    rules: tuple[Rule, ...] = field(default_factory=lambda: default_rules(50, 8, 19))
    loss_rtol: float = 1e-14
    prune: Prune | None = field(default_factory=Prune)
    rescue: Splitting | None = field(default_factory=Splitting)
    retreat: Retreat | None = field(default_factory=Retreat)
    restart: Restart | None = field(default_factory=Restart)
    thin: Thin | None = field(default_factory=Thin)
    caution: float = 1.0

    def __post_init__(self) -> None:
        whole_number(self.hidden_layers, "hidden_layers")
        if not (isinstance(self.caution, (int, float, np.floating)) and 0 <= self.caution < np.inf):
            raise InvalidInput(f"caution = {self.caution!r}; it must be a finite number >= 0")
        if not (isinstance(self.loss_rtol, (int, float, np.floating)) and 0 <= self.loss_rtol < 1):
            raise InvalidInput(f"loss_rtol = {self.loss_rtol!r}; it must be a number in [0, 1)")
        for name, verb in (("candidates", "propose"), ("entry", "enter"), ("selection", "choose")):
            _able(name, getattr(self, name), verb, "")
        optional = {"prune": "apply", "rescue": "apply", "thin": "apply", "retreat": "search", "restart": "strays"}
        for name, verb in optional.items():
            if getattr(self, name) is not None:
                _able(name, getattr(self, name), verb, ", or None")
        if not isinstance(self.rules, (tuple, list)) or not all(callable(rule) for rule in self.rules):
            raise InvalidInput(f"rules = {self.rules!r}; it must be a tuple of rules (gfsim.pursuit.stopping)")
        make_fitter(self.fitter)
        self.resolved_activation()

    def resolved_activation(self) -> HomogeneousActivation:
        activation = make_activation(self.activation, self.p, self.alpha)
        if not isinstance(activation, HomogeneousActivation):
            raise NotHomogeneous(
                f"Neuron Pursuit follows NCFs, which need an activation max(z, alpha z)^p; {activation.name} is not one"
            )
        return activation


def _able(name: str, part: object, verb: str, also: str) -> None:
    """Refuse what is no object with this method: a class, a number, a name."""
    if isinstance(part, type) or not callable(getattr(part, verb, None)):
        default = type(getattr(GrowthConfig(), name)).__name__
        raise InvalidInput(f"{name} = {part!r}; it must be an object with a method '{verb}', as {default}() is{also}")


@dataclass(frozen=True)
class Growth:
    """A grown network and how it grew.

    Attributes
    ----------
    net : Network
        The best on validation data if there are any, else the last.
    history : list of dict
        One row an addition; see :meth:`Grower._row`.
    ending, message : str
        Why growth stopped.
    loss, validation : float
        Of ``net``, without penalty; ``validation`` is NaN without validation data.
    l2, grown_l2 : float
        The penalty of ``net``, and that with which it grew; they differ where fitting on without one was better.
    solved : bool
        Whether the loss goal was reached.
    null_loss, loss_goal : float
        Of the best constant, and ``loss_rtol`` times that.
    """

    net: Network
    history: list[dict[str, Any]] = field(repr=False)
    ending: Ending
    message: str
    loss: float
    validation: float
    l2: float
    grown_l2: float
    solved: bool
    null_loss: float
    loss_goal: float

    @property
    def explained(self) -> bool:
        """Whether the network explains the validation data to :data:`EXPLAINED`: there is no noise."""
        return self.validation <= EXPLAINED * self.null_loss


def grow(
    problem: Problem,
    config: GrowthConfig,
    *,
    rng: np.random.Generator,
    validation: Problem | None = None,
    start: Network | None = None,
    callback: Callback | None = None,
    verbose: bool = False,
    relax: bool = False,
) -> Growth:
    """Grow a network on ``problem``.

    Parameters
    ----------
    validation : Problem, optional
        Growth stops and the returned network is chosen by its loss.
    start : Network, optional
        Grow on from this network instead of from nothing.
    callback : function of (row, network), optional
        After every addition; growth ends when it returns False.  If it raises, growth ends too, a warning
        says so and the best network so far is returned.
    verbose : bool
        One line an addition on standard error.
    relax : bool
        End growth with a penalty when its best network, fitted on without one, reaches the goal and explains the
        validation data.

    Ctrl-C ends growth in the same way.
    """
    return Grower(problem, config, rng, validation, start, callback, verbose, relax).go()


class Grower:
    """State of one growth: ``net`` is the present network, ``go`` grows to the end, ``turn`` by one addition."""

    def __init__(
        self,
        problem: Problem,
        config: GrowthConfig,
        rng: np.random.Generator,
        validation: Problem | None = None,
        start: Network | None = None,
        callback: Callback | None = None,
        verbose: bool = False,
        relax: bool = False,
    ) -> None:
        self.problem, self.config, self.rng, self.validation = problem, config, rng, validation
        self.callback, self.verbose, self.relax = callback, verbose, relax
        self.fitter = make_fitter(config.fitter)
        c = problem.risk.constant(problem.Y, problem.weights)
        empty = Network.empty(
            problem.X.shape[1],
            problem.n_outputs,
            config.hidden_layers,
            config.resolved_activation(),
            c if config.fit_intercept else np.zeros(0),
        )
        self.net = empty if start is None else start
        self.null_loss = problem.data_loss(empty)
        self.goal = config.loss_rtol * self.null_loss
        self.loss = problem.loss(self.net)
        self.history: list[dict[str, Any]] = []
        self.best = self.net
        self.best_losses = np.zeros(0) if validation is None else validation.sample_losses(self.net)
        self.waited = 0
        self.retreated = False
        self.retreats = 0
        self.l2 = problem.l2
        self.began, self.spent = time.perf_counter(), 0.0

    def go(self) -> Growth:
        """Grow to the end."""
        found = self.look(None)
        return self.so_far() if found is None else found

    def look(self, strays: Strays | None) -> Growth | None:
        """Grow on to the end, or until ``strays(left, waited)`` wants this growth to be set aside: None."""
        self.began = time.perf_counter() - self.spent
        try:
            stop = self._grow(strays)
        except KeyboardInterrupt:
            stop = "interrupted", "interrupted; the best network so far is returned"
        self.spent = time.perf_counter() - self.began
        return None if stop is None else self._growth(*stop)

    @property
    def left(self) -> float:
        """The part of a constant's loss that the best network leaves on the validation data."""
        if self.validation is None or self.null_loss == 0.0:
            return 1.0
        return float(self.validation.weights @ self.best_losses) / self.null_loss

    def so_far(self) -> Growth:
        """What a growth that was set aside has come to."""
        return self._growth("validation", f"{self.waited} addition(s) without a better validation loss, and set aside")

    def _growth(self, ending: Ending, message: str) -> Growth:
        net = self.best if self.validation is not None else self.net
        validation = float("nan") if self.validation is None else float(self.validation.weights @ self.best_losses)
        loss = self.problem.data_loss(net)
        return Growth(
            net,
            self.history,
            ending,
            message,
            loss,
            validation,
            self.l2,
            self.problem.l2,
            loss <= self.goal,
            self.null_loss,
            self.goal,
        )

    def _grow(self, strays: Strays | None) -> tuple[Ending, str] | None:
        while True:
            if strays is not None and self.left > EXPLAINED and strays(self.left, self.waited):
                return None
            stop = self.turn()
            if stop is not None:
                return stop

    def turn(self) -> tuple[Ending, str] | None:
        """One addition to ``net``, or the reason for none; after the last one the reason to stop."""
        stop = self._ask(float("nan"), None)
        if stop is not None:
            return stop
        candidates = self._retreat() or self.config.candidates
        kept = self.problem.forward(self.net)
        pull = self.problem.pull(kept.output)
        found = candidates.propose(self.problem, self.net, kept, pull, self.rng)
        null = _Null(self, kept)
        stop = self._ask(found[0].predicted if found else 0.0, null) if found else None
        if stop is not None:
            return stop
        entered = self._choose(found)
        fit = None if entered is None else self._minimise(entered.net)
        split_layer = 0
        if fit is None and self.config.rescue is not None and self.net.n_neurons:
            rescued = self.config.rescue.apply(
                self.problem, self.net, kept, pull, loss=self.loss, fitter=self.fitter, goal=self.goal
            )
            if rescued is not None:
                split_layer = rescued[0]
                fit = self._minimise(rescued[1])
        if fit is None:
            if not found:
                return "no_escape", f"every NCF vanishes at loss {self.loss:.4g}, and no split of a neuron helps"
            return "no_improvement", f"no new neuron, path or split lowers the loss {self.loss:.6g}"
        return self._take(fit, entered, split_layer, null)

    # -- the steps ---------------------------------------------------------------------------------

    def _ask(self, predicted: float, null: _Null | None) -> tuple[Ending, str] | None:
        state = State(
            loss=self.loss - self.problem.penalty(self.net),
            goal=self.goal,
            neurons=self.net.n_neurons,
            crowding=self.net.n_params / self.problem.Y.size,
            validated=self.validation is not None,
            waited=self.waited,
            falls=[row["decrease"] / (row["loss"] + row["decrease"]) for row in self.history],
            predicted=predicted,
            null=null if null is not None else _unknown,
        )
        for rule in self.config.rules:
            stop = rule(state)
            if stop is not None:
                return stop
        return None

    def _retreat(self) -> Candidates | None:
        """If it is time, go back to the best network; the search to be made there."""
        retreat = self.config.retreat
        if retreat is None or self.validation is None or self.retreated or self.waited < retreat.after:
            return None
        self.retreated = True
        self.retreats += 1
        self.net, self.loss = self.best, self.problem.loss(self.best)
        return retreat.search(self.config.candidates)

    def _choose(self, found: list[Candidate]) -> Entered | None:
        if not found:
            return None
        return self.config.selection.choose(
            self.problem,
            self.net,
            found,
            loss=self.loss,
            entry=self.config.entry,
            fitter=self.fitter,
            goal=self.goal,
        )

    def _minimise(self, net: Network) -> Fit | None:
        """The fit from ``net``, or None if it does not end below the present loss by more than rounding."""
        fit = self.fitter.run(self.problem, net, goal=self.goal)
        return fit if fit.loss < self.loss * (1 - 1e-9) - 1e-16 * self.null_loss else None

    def _take(self, fit: Fit, entered: Entered | None, split_layer: int, null: _Null) -> tuple[Ending, str] | None:
        before, self.loss = self.loss, fit.loss
        net = fit.net
        if self.config.prune is not None:
            net = self.config.prune.apply(self.problem, net)
        self.net = net.balanced()
        self.loss = self.problem.loss(self.net)
        value = self._judge(self.net)
        row = self._row(fit, entered if not split_layer else None, split_layer, before, value, null.value)
        self.history.append(row)
        if self.verbose:
            print(_line(row), file=sys.stderr)
        return self._tell(row) or self._freed()

    def _freed(self) -> tuple[Ending, str] | None:
        """The end of a growth that only its penalty keeps from the goal.

        Looked for where the network has just become the best and its penalty exceeds its loss on the data: the penalty
        then is what is left of the loss, or will be.  Most fits without it that are to reach the goal are close to it
        after a few steps, and the others are not waited for.
        """
        problem, validation = self.problem.with_l2(0.0), self.validation
        penalty = self.problem.penalty(self.net)
        if not self.relax or validation is None or self.waited or not self.loss < 2.0 * penalty:
            return None
        fit = self.fitter.run(problem, self.net, goal=self.goal, steps=FREED_STEPS)
        if fit.loss > self.goal and fit.loss < FREED_FALL * (self.loss - penalty):
            fit = self.fitter.run(problem, fit.net, goal=self.goal)
        losses = validation.sample_losses(fit.net)
        if fit.loss > self.goal or validation.weights @ losses > EXPLAINED * self.null_loss:
            return None
        self.best, self.best_losses, self.l2 = fit.net.balanced(), losses, 0.0
        return "loss", f"without the penalty loss {fit.loss:.3g} <= {self.goal:.3g}, loss_rtol times that of a constant"

    def _tell(self, row: dict[str, Any]) -> tuple[Ending, str] | None:
        if self.callback is None:
            return None
        try:
            answer = self.callback(dict(row), self.net)
        except Exception as exc:
            message = f"the callback raised {type(exc).__name__}: {exc}; the best network so far is returned"
            warnings.warn(message, RuntimeWarning, stacklevel=2)
            return "callback", message
        return ("callback", "the callback returned False") if declined(answer) else None

    def _judge(self, net: Network) -> float:
        """The validation loss of ``net``, which becomes the best network if it is better beyond chance.

        Beyond chance: by more than ``caution`` standard errors of the difference over the validation samples.  A
        larger network that is better by luck only would be preferred otherwise, and patience never end.  Every way
        back is one more look at the same samples, and asks for as much again.  A network that fits by cancellation is
        never the best.
        """
        if self.validation is None:
            return float("nan")
        v = self.validation.weights
        losses = self.validation.sample_losses(net)
        difference = losses - self.best_losses
        caution = self.config.caution * (1 + self.retreats)
        better = float(v @ difference) < -caution * self.validation.standard_error(difference)
        if better and cancellation(self.problem, net) <= MOST_CANCELLATION:
            self.best, self.best_losses, self.waited, self.retreated = net, losses, 0, False
        else:
            self.waited += 1
        return float(v @ losses)

    def _row(
        self,
        fit: Fit,
        entered: Entered | None,
        split_layer: int,
        before: float,
        validation: float,
        null: float,
    ) -> dict[str, Any]:
        """Losses include the penalty, except ``train``; decreases are of the loss with it."""
        c = None if entered is None else entered.candidate
        nan = float("nan")
        return {
            "addition": len(self.history) + 1,
            "kind": "split" if c is None else "path" if c.n_neurons > 1 else "neuron",
            "layers": (split_layer, split_layer) if c is None else (c.first, c.last),
            "hidden": self.net.hidden_widths,
            "neurons": self.net.n_neurons,
            "parameters": self.net.n_params,
            "ncf": nan if c is None else c.ncf,
            "share": nan if c is None else c.share,
            "null": null,
            "predicted": nan if c is None else c.predicted,
            "entered": nan if entered is None else before - entered.loss_entered,
            "decrease": before - self.loss,
            "loss": self.loss,
            "train": self.loss - self.problem.penalty(self.net),
            "validation": validation,
            "l2": self.problem.l2,
            "steps": fit.steps,
            "reason": fit.reason,
            "seconds": time.perf_counter() - self.began,
        }


class _Null:
    """What noise would give at one network, computed at most once and only when a rule asks."""

    def __init__(self, grower: Grower, kept: Kept) -> None:
        self.grower, self.kept, self.value = grower, kept, float("nan")

    def __call__(self, predicted: float) -> float:
        g = self.grower
        if np.isnan(self.value):
            permutations = next((r.permutations for r in g.config.rules if isinstance(r, NoiseOnly)), 19)
            self.value = noise_null(
                g.config.candidates, g.problem, g.net, self.kept, permutations, g.rng, against=predicted
            )
        return self.value


def _unknown(predicted: float) -> float:
    """What noise would give before there are candidates to compare with it."""
    del predicted
    return float("nan")


def _line(row: dict[str, Any]) -> str:
    first, last = row["layers"]
    where = f"layer {first}" if first == last else f"layers {first}-{last}"
    text = f"{row['kind']} in {where}: hidden {row['hidden']}, loss {row['loss']:.4g}"
    return text + (f", validation {row['validation']:.4g}" if np.isfinite(row["validation"]) else "")
