"""Penalty and size of a network for few samples, chosen on all of them: each fold is held out in turn.

The loss on one held-out part of few samples is mostly luck, and with it the penalty and the number of neurons that do
best there.  Here one network for every fold grows on the samples outside it, all of them one addition at a time, and
their losses on the samples that each has not seen are pooled: every sample takes part, and the standard error of a
difference is smaller by the root of the number of folds.  What is chosen is a penalty and a number of additions; the
network then grows on all samples, with that penalty and so far.

That is for noisy samples.  Classes are, or look so.  Numbers may follow a target without noise, which short growths
miss: a search for it comes first (:func:`gfsim.pursuit.penalties.grow_over_l2`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gfsim.arrays import whole_number
from gfsim.pursuit.fit import Automatic, LevenbergMarquardt
from gfsim.pursuit.growth import Callback, Grower, Growth, GrowthConfig, grow
from gfsim.pursuit.network import Network
from gfsim.pursuit.problem import Problem
from gfsim.pursuit.selection import LargestDecrease, Trials
from gfsim.pursuit.stopping import BY_USER, Crowded, Ending, NoiseOnly, Patience, Rule, State

LARGEST_TABLE = 1e5
"""Samples x inputs x outputs up to which folds are held out in turn: growing on all parts of a larger table takes too
long, and of more samples one part says more."""

MOST_FOLDS = 10
"""The time that choosing takes grows with them."""

L2_LADDER_CLASSES = (1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2)
"""Penalties for classes, met from the middle."""

L2_LADDER = (0.0, 1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
"""The same for noisy numbers."""

LENIENCE = 0.5
"""Part of ``caution`` standard errors by which a smaller network may do worse than the best."""

TRIFLE = 1e-3
"""Part of a constant's loss that no addition is made for."""

CROWDED = 1.0
"""Parameters for every noisy number at which its growths end; a step costs the square of the number of parameters."""

HOPELESS = 2.0
"""Times ``caution`` standard errors of the difference by which a penalty has fallen behind the best if it is given up
with fewer neurons than that has; with as many, one standard error will do."""

A_FEW = 3
"""Additions before any penalty is given up: all penalties find the first neurons."""


@dataclass(frozen=True)
class Enough:
    """As many additions as did best on samples held out in turn."""

    additions: int

    def __post_init__(self) -> None:
        whole_number(self.additions, "additions", least=0)

    def __call__(self, state: State) -> tuple[Ending, str] | None:
        if len(state.falls) >= self.additions:
            return "validation", f"{self.additions} additions, as many as did best on samples held out in turn"
        return None


@dataclass(frozen=True, eq=False)
class Curve:
    """What the folds say of one penalty.

    Attributes
    ----------
    l2 : float
    first, history : list of Network, list of dict
        Of the first fold, against the number of additions; and its growth, one row an addition.
    losses : list of list of (n_held,)
        Of every fold, against the number of additions, of the samples that it does without.
    ended : (Ending, str) or None
        If the user wants an end.
    """

    l2: float
    first: list[Network] = field(repr=False)
    history: list[dict[str, Any]] = field(repr=False)
    losses: list[list[np.ndarray]] = field(repr=False)
    ended: tuple[Ending, str] | None

    def at(self, additions: int) -> np.ndarray:
        """Losses of all samples after so many additions."""
        return np.concatenate([fold[additions] for fold in self.losses])


@dataclass(frozen=True)
class Choice:
    """A penalty, a number of additions, and the pooled loss with this penalty against the number of additions."""

    curve: Curve
    additions: int
    pooled: Sequence[float]
    ended: tuple[Ending, str] | None


class Folds:
    """The folds of a table.

    Parameters
    ----------
    problem : Problem
        All samples.
    parts : (folds, n)
        What part of each row is held out, as of :func:`gfsim.pursuit.preparation.fold_parts`.
    config : GrowthConfig
        How networks grow; see :func:`swift`.
    seed : int
    callback : function of (row, network), optional
        As for :func:`gfsim.pursuit.growth.grow`, after every addition to the network of any fold.
    """

    def __init__(
        self, problem: Problem, parts: np.ndarray, config: GrowthConfig, *, seed: int, callback: Callback | None = None
    ) -> None:
        self.problem, self.seed, self.callback = problem, seed, callback
        numbers = problem.risk.name == "square"
        self.config = swift(config, CROWDED if numbers else np.inf)
        patience = min(
            (rule.additions for rule in config.rules if isinstance(rule, Patience)), default=Patience().additions
        )
        # numbers rest on plateaus that later additions leave; the loss of classes that are told apart only rises
        self.patience = patience if numbers else -(-patience // 2)
        constant = problem.risk.constant(problem.Y, problem.weights)
        self.trifle = TRIFLE * float(
            problem.weights @ problem.risk.value(np.broadcast_to(constant, problem.Y.shape), problem.Y)
        )
        self.train = [_share(problem, 1.0 - part) for part in parts]
        self.held = [_share(problem, part) for part in parts]
        pooled = np.concatenate([(problem.weights * part)[part > 0] for part in parts])
        self.weights = pooled / pooled.sum()
        self.size = float(problem.copies.sum() * pooled.sum())

    def choose(self, grid: Sequence[float], start: float, *, verbose: bool = False) -> Choice:
        """What does best on all samples, each held out once.

        Of what does as well as the best, to :data:`LENIENCE` times ``caution`` standard errors of the difference, the
        fewest additions are taken, and with them the largest penalty.
        Penalties are met from ``start`` upwards, or else downwards, while the smallest pooled loss falls; if
        ``verbose``, with a line each on standard error.
        """
        ladder = sorted(grid)
        place = ladder.index(start)
        curves: list[Curve] = []

        def meet(l2: float, rival: Curve | None = None) -> None:
            curves.append(self.curve(l2, rival))
            if verbose:
                most, least = len(curves[-1].first) - 1, self._least(curves[-1])
                what = f"l2 = {l2:g}, {len(self.train)} parts held out in turn: up to {most} additions"
                print(f"{what}, smallest pooled loss {least:.4g}", file=sys.stderr)

        meet(start)
        for others in (ladder[place + 1 :], ladder[:place][::-1]):
            met = len(curves)
            for l2 in others:
                if curves[-1].ended is not None:
                    break
                best = min(curves, key=self._least)
                meet(l2, best)
                if self._least(curves[-1]) > self._least(best) - self.trifle:
                    break
            if len(curves) > met + 1:
                break
        return self._best(curves)

    def curve(self, l2: float, rival: Curve | None = None) -> Curve:
        """Networks that grow with this penalty, an addition to each in turn.

        Until ``patience`` additions did not help, beyond chance, or the penalty has fallen behind ``rival``: after as
        many additions as did best there the pooled loss is larger beyond chance, or it is :data:`HOPELESS` before.
        """
        mark = 0 if rival is None else min(range(len(rival.first)), key=lambda t: self.weights @ rival.at(t))
        growers = [
            Grower(train.with_l2(l2), self.config, np.random.default_rng([self.seed, k]), callback=self.callback)
            for k, train in enumerate(self.train)
        ]
        first = [growers[0].net]
        losses = [[held.sample_losses(grower.net)] for grower, held in zip(growers, self.held, strict=True)]
        live = [True] * len(growers)
        waited, best, ended = 0, np.concatenate([fold[0] for fold in losses]), None
        while ended is None and any(live) and waited < self.patience:
            try:
                for k, grower in enumerate(growers):
                    stop = grower.turn() if live[k] else None
                    live[k] = live[k] and stop is None
                    if stop is not None and stop[0] in BY_USER:
                        ended = stop
                        break
            except KeyboardInterrupt:
                ended = "interrupted", "interrupted; the best network so far is returned"
            if ended is None:
                first.append(growers[0].net)
                for fold, grower, held in zip(losses, growers, self.held, strict=True):
                    fold.append(held.sample_losses(grower.net))
                now = np.concatenate([fold[-1] for fold in losses])
                waited, best = (0, now) if self._matters(best - now) else (waited + 1, best)
                t = len(first) - 1
                part = 1.0 if t == mark else HOPELESS if A_FEW <= t < mark else np.inf
                if rival is not None and part < np.inf and self._matters(now - rival.at(t), part):
                    break
        return Curve(l2, first, growers[0].history, losses, ended)

    def grown(self, choice: Choice, *, verbose: bool = False) -> Growth:
        """A network that grows on all samples as chosen; where the user wants an end before, that of the first fold.

        Validation losses are the pooled ones.
        """
        problem, additions = self.problem.with_l2(choice.curve.l2), choice.additions
        config = replace(self.config, rules=(*self.config.rules, Enough(additions)))
        rng, ended = np.random.default_rng([self.seed, len(self.train)]), choice.ended
        if ended is None:
            found = grow(problem, config, rng=rng, callback=self.callback, verbose=verbose)
            ended = (found.ending, found.message) if found.ending in BY_USER else None
        if ended is not None:
            as_it_is = replace(config, rules=(Enough(0),))
            found = grow(problem, as_it_is, rng=rng, start=choice.curve.first[additions])
            found = replace(found, history=choice.curve.history[:additions], ending=ended[0], message=ended[1])
        history = [row | {"validation": value} for row, value in zip(found.history, choice.pooled[1:], strict=False)]
        return replace(found, history=history, validation=choice.pooled[additions])

    def loses(self, choice: Choice, net: Network, part: float = 1.0) -> bool:
        """Whether ``net``, chosen on the samples of the first fold and grown on all others, does better there than the
        network that grew on the same samples as chosen by all folds: by ``part`` of ``caution`` standard errors."""
        held = self.held[0]
        difference = choice.curve.losses[0][choice.additions] - held.sample_losses(net)
        return float(held.weights @ difference) > part * self.config.caution * held.standard_error(difference)

    def _matters(self, difference: np.ndarray, part: float = 1.0) -> bool:
        """Whether the mean of ``difference``, one a sample, is above zero by more than ``part`` of ``caution`` standard
        errors, and by more than a trifle."""
        mean = float(self.weights @ difference)
        error = float(np.sqrt(self.weights @ (difference - mean) ** 2 / self.size))
        return mean > max(part * self.config.caution * error, self.trifle)

    def _least(self, curve: Curve) -> float:
        return min(float(self.weights @ curve.at(t)) for t in range(len(curve.first)))

    def _best(self, curves: Sequence[Curve]) -> Choice:
        met = {(c, t): curves[c].at(t) for c in range(len(curves)) for t in range(len(curves[c].first))}
        value = {key: float(self.weights @ losses) for key, losses in met.items()}
        best = min(value, key=value.__getitem__)

        def good(key: tuple[int, int]) -> bool:
            return not self._matters(met[key] - met[best], LENIENCE)

        c, additions = min(filter(good, met), key=lambda key: (key[1], -curves[key[0]].l2))
        pooled = [value[c, t] for t in range(len(curves[c].first))]
        return Choice(curves[c], additions, pooled, curves[-1].ended)


def swift(config: GrowthConfig, crowded: float = np.inf) -> GrowthConfig:
    """``config`` for many growths on noisy data, of which the last digits of a fit and trials say no more than noise.

    The largest predicted decrease enters untried, fits end early, and pooled losses are there in place of patience, the
    way back and the test against noise.  No more than ``crowded`` parameters for every residual.
    """

    def still(rule: Rule) -> Rule:
        return replace(rule, ratio=min(rule.ratio, crowded)) if isinstance(rule, Crowded) else rule

    rules = tuple(still(rule) for rule in config.rules if not isinstance(rule, (Patience, NoiseOnly)))
    if not any(isinstance(rule, Crowded) for rule in rules):  # something must end the growths
        rules = (*rules, still(Crowded()))
    return replace(
        config,
        selection=LargestDecrease() if isinstance(config.selection, Trials) else config.selection,
        fitter=Automatic(second_order=LevenbergMarquardt(rtol=1e-3, flat=2))
        if config.fitter == "auto"
        else config.fitter,
        rules=rules,
        retreat=None,
        restart=None,
        thin=None,
    )


def _share(problem: Problem, part: np.ndarray) -> Problem:
    """The problem of so much of each row."""
    return replace(problem, weights=problem.weights * part).rows(np.flatnonzero(part > 0))
