"""The penalty, chosen on validation data: a growth for each of a few, and what becomes of them.

docs/pursuit.md, steps 8, 10 and 11.  One growth is the matter of :mod:`gfsim.pursuit.growth`; here several are
compared, those that go astray are set aside for others (:mod:`gfsim.pursuit.restart`), and the one that is taken loses
its superfluous neurons.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from gfsim.errors import InvalidInput
from gfsim.pursuit.cancellation import cancellation
from gfsim.pursuit.candidates import Candidates
from gfsim.pursuit.fit import Fitter, make_fitter
from gfsim.pursuit.growth import MOST_CANCELLATION, Callback, Grower, Growth, GrowthConfig
from gfsim.pursuit.network import Network
from gfsim.pursuit.problem import Problem
from gfsim.pursuit.restart import NEARLY
from gfsim.pursuit.stopping import BY_USER

L2_GRID = (0.0, 1e-4, 1e-3, 1e-2)
"""Penalties that validation data choose from."""

L2_GRID_CLASSES = (1e-3, 1e-2, 3e-2, 1e-5)
"""The same for classes, the likeliest first: separated ones have no minimum without a penalty."""

SEVERAL = 4
"""A network of so many neurons has got going; what it does not explain is more likely noise than a way it missed."""

STALLED = 2
"""Additions without a better validation loss that growths towards a target without noise seldom make."""

IDLE = 1e-2
"""Neurons do nothing on noisy data if without them the training loss, penalty included, is larger by less than this
part."""


def grow_over_l2(
    problem: Problem,
    config: GrowthConfig,
    grid: tuple[float, ...],
    *,
    relax: bool = True,
    seed: int,
    validation: Problem | None,
    start: Network | None = None,
    callback: Callback | None = None,
    verbose: bool = False,
    noisy: Callable[[Growth], Growth | None] | None = None,
) -> Growth:
    """Grow once for each penalty of ``grid``; the one with the largest penalty among those that do best on validation
    data, as far as chance allows to tell, is returned.

    If ``relax``, a network grown with a penalty is also fitted on without it, and what validates better is kept: a
    penalty often finds the right neurons and then only holds their sizes back.  The search ends with the first network
    that explains the validation data too (to :data:`gfsim.pursuit.growth.EXPLAINED`): there is no noise to fight.
    Growths that leave little and do not go on are set aside for others (:mod:`gfsim.pursuit.restart`).
    Without validation data only the first penalty is used.

    Where all growths leave more than ``Restart.below``, that may be noise.  Then ``noisy`` is given
    the best of them, and what it returns is the result; None lets the search go on.  As soon as the best has
    :data:`SEVERAL` neurons, other penalties are only to show whether one finds what it missed: their growths are set
    aside after :data:`STALLED` additions that do not validate better.
    """
    if not grid:
        raise InvalidInput("the grid of penalties is empty; give at least one number >= 0")

    def begin(k: int, l2: float, candidates: Candidates) -> Grower:
        """The growth number ``k`` of all."""
        rng, settings = np.random.default_rng([seed, k]), replace(config, candidates=candidates)
        return Grower(problem.with_l2(l2), settings, rng, validation, start, callback, verbose, relax)

    if validation is None:
        best = begin(0, grid[0], config.candidates).go()
        return _thinned(best, problem.with_l2(best.l2), validation, config)
    search = _Search(begin, config, problem, validation, relax, noisy)
    search.go(grid)
    if search.instead is not None:
        return search.instead
    best = _strongest_good(search.found(), validation, config.caution)
    return _thinned(best, problem.with_l2(best.l2), validation, config)


class _Search:
    """The growths of a grid of penalties, and where they go astray some more (:mod:`gfsim.pursuit.restart`)."""

    def __init__(
        self,
        begin: Callable[[int, float, Candidates], Grower],
        config: GrowthConfig,
        problem: Problem,
        validation: Problem,
        relax: bool,
        noisy: Callable[[Growth], Growth | None] | None = None,
    ) -> None:
        self.begin, self.config, self.noisy = begin, config, noisy
        self.problem, self.validation, self.relax = problem, validation, relax
        # classes that can be told apart have no smallest loss to arrive at
        self.restart = config.restart if problem.risk.name == "square" else None
        self.nearly = NEARLY if config.restart is None else config.restart.below
        self.grown: list[Growth] = []
        self.aside: list[Grower] = []
        self.instead: Growth | None = None
        self.left, self.again, self.doubtful = 1.0, False, False

    def go(self, grid: tuple[float, ...]) -> None:
        for k, l2 in enumerate(grid):
            if self._arrives(self.begin(k, l2, self.config.candidates)):
                return
            self.doubtful = self.noisy is not None and self.left > self.nearly and self._best().net.n_neurons >= SEVERAL
        if self.noisy is not None and self.left > self.nearly:
            self.instead = self.noisy(self._best())
            if self.instead is not None:
                return
        if not self.aside:
            return
        self.doubtful = False
        of_grid = sorted(self.aside, key=lambda grower: grower.left)
        if self.restart is not None and self.left < self.nearly:
            searches = self.restart.searches(self.config.candidates)
            again = [(grower.problem.l2, candidates) for grower in of_grid for candidates in searches]
            self.again = True
            for k, (l2, candidates) in enumerate(again[: self.restart.most]):
                if self._arrives(self.begin(len(grid) + k, l2, candidates)):
                    return
        ahead = min(self.aside, key=lambda grower: grower.left)
        for grower in of_grid if ahead in of_grid else [ahead, *of_grid]:
            self.aside.remove(grower)
            if self._arrives(grower, to_the_end=True):
                return

    def _best(self) -> Growth:
        """The one so far that validates best."""
        return min(self.found(), key=lambda growth: growth.validation)

    def found(self) -> list[Growth]:
        """What all growths have come to, those included that were set aside."""
        return [*self.grown, *(grower.so_far() for grower in self.aside)]

    def _strays(self, left: float, waited: int) -> bool:
        """Whether a growth that leaves so much of the validation data is set aside."""
        if self.doubtful:
            return waited >= STALLED
        return self.restart is not None and self.restart.strays(min(left, self.left), waited, self.again)

    def _arrives(self, grower: Grower, to_the_end: bool = False) -> bool:
        """Grow on; whether nothing further need be grown."""
        found = grower.go() if to_the_end else grower.look(self._strays)
        self.left = min(self.left, grower.left)
        if found is None:
            self.aside.append(grower)
            return False
        if found.l2 > 0 and self.relax:
            found = _relaxed(found, self.problem.with_l2(0.0), self.validation, make_fitter(self.config.fitter))
        self.grown.append(found)
        return found.ending in BY_USER or found.explained


def _strongest_good(grown: list[Growth], validation: Problem, caution: float) -> Growth:
    """Of the growths whose validation loss exceeds the smallest by no more than ``caution`` standard errors of the
    difference, that with the largest penalty: with few samples the smallest loss is often luck, and a penalty that does
    as well is the safer choice."""
    best = min(grown, key=lambda growth: growth.validation)
    losses = validation.sample_losses(best.net)

    def good(growth: Growth) -> bool:
        difference = validation.sample_losses(growth.net) - losses
        return growth.validation - best.validation <= caution * validation.standard_error(difference)

    # several growths may have had the same penalty
    return max((growth for growth in grown if good(growth)), key=lambda growth: (growth.grown_l2, -growth.validation))


def _relaxed(found: Growth, problem: Problem, validation: Problem, fitter: Fitter) -> Growth:
    """``found`` fitted on without a penalty, if that validates better."""
    goal = found.loss_goal
    net = fitter.run(problem, found.net, goal=goal).net.balanced()
    value = validation.data_loss(net)
    if not value < found.validation:
        return found
    loss = problem.data_loss(net)
    return replace(found, net=net, loss=loss, validation=value, l2=0.0, solved=loss <= goal)


def _thinned(found: Growth, problem: Problem, validation: Problem | None, config: GrowthConfig) -> Growth:
    """``found`` with as few neurons as do as well: that reach the goal again, or validate as well.

    With noise they must fit the training data as well too (:data:`IDLE`): of many smaller networks one or the other
    validates as well by luck, and neurons that the target needs would go.
    """
    if config.thin is None or found.ending == "interrupted" or not (found.solved or validation is not None):
        return found
    most = np.inf if found.solved or found.explained else (1.0 + IDLE) * problem.loss(found.net)

    def good(net: Network, loss: float) -> bool:
        if loss > most:
            return False
        if found.solved and loss - problem.penalty(net) > found.loss_goal:
            return False
        if cancellation(problem, net) > MOST_CANCELLATION:
            return False
        return validation is None or validation.data_loss(net) <= max(found.validation, 10.0 * found.loss_goal)

    net = config.thin.apply(problem, found.net, fitter=make_fitter(config.fitter), good=good, goal=found.loss_goal)
    if net is found.net:
        return found
    value = float("nan") if validation is None else validation.data_loss(net)
    return replace(found, net=net, loss=problem.data_loss(net), validation=value)
