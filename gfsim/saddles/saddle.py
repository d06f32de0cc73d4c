"""A sparse saddle (wbar_n, 0), the starts near it, and the clock and error blocks that belong to it.

docs/theory.md, section 4.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from gfsim.arrays import finite_array
from gfsim.errors import InvalidInput
from gfsim.flow.clock import Clock, PhysicalTime, RescaledTime
from gfsim.models.base import require_homogeneous
from gfsim.models.feedforward import FeedForward
from gfsim.objective import Objective
from gfsim.saddles.neurons import ActiveNeurons


@dataclass(frozen=True, eq=False)
class SparseSaddle:
    """A critical point of the wide net's loss at which the inactive neurons are exactly zero.

    Attributes
    ----------
    objective : Objective
        Of the wide net.
    active : ActiveNeurons
    w : (P,)
        The saddle in the wide net's weights.
    """

    objective: Objective
    active: ActiveNeurons
    w: np.ndarray = field(repr=False)

    @property
    def model(self) -> FeedForward:
        """The wide net."""
        model = self.objective.model
        if not isinstance(model, FeedForward):
            raise InvalidInput(f"sparse saddles are defined by hidden neurons; {model.name} has none")
        return model

    @cached_property
    def index_n(self) -> np.ndarray:
        """Flat indices of w_n, in the order of the active subnet."""
        return self.active.index_n(self.model)

    @cached_property
    def index_z(self) -> np.ndarray:
        """Flat indices of w_z."""
        return self.active.index_z(self.model)

    @property
    def w_n(self) -> np.ndarray:
        """wbar_n: (number of active weights,)."""
        return self.w[self.index_n]

    @cached_property
    def active_objective(self) -> Objective:
        """Lc(., 0): the same data, the active neurons alone."""
        return self.objective.with_model(self.active.subnet(self.model))

    @property
    def loss(self) -> float:
        """L at the saddle, in the objective's convention (sum or mean)."""
        return float(self.objective.value(self.w))

    @property
    def escape_degree(self) -> float:
        """K, the degree of the NCF in w_z: p + 1 at a sparse saddle, D at the origin."""
        degree = require_homogeneous(self.model, "the escape degree of a saddle")
        return degree if self.active.origin else float((self.model.activation.power or 1) + 1)

    @property
    def clock(self) -> Clock:
        """ds = |w_z|^(K-2) dt: the escape takes a time of order log(1/delta) in s."""
        power = self.escape_degree - 2.0
        return RescaledTime(power, None if self.active.origin else self.index_z) if power > 0 else PhysicalTime()

    @property
    def blocks(self) -> list[np.ndarray]:
        """Error blocks for an integrator: w_n and w_z, whose sizes differ by a factor 1/delta."""
        return [index for index in (self.index_n, self.index_z) if index.size]

    # -- starts ------------------------------------------------------------------------------------

    def directions(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Random unit vectors (n, z) of the two blocks."""
        n, z = rng.standard_normal(self.index_n.size), rng.standard_normal(self.index_z.size)
        return n / max(float(np.linalg.norm(n)), 1e-300), z / np.linalg.norm(z)

    def start(self, delta: float, z: np.ndarray, n: np.ndarray | None = None) -> np.ndarray:
        """(wbar_n + delta n, delta z): (P,).

        Parameters
        ----------
        delta : float != 0
        z : (size of w_z,), not zero
        n : (size of w_n,), optional
            No displacement of the active weights by default.
        """
        if not (isinstance(delta, (int, float, np.floating)) and np.isfinite(delta) and delta > 0):
            raise InvalidInput(f"delta = {delta!r}; it must be > 0: at delta = 0 the flow stays at the saddle for ever")
        if not self.index_z.size:
            raise InvalidInput(
                "every hidden neuron is active, so no small weights are left; leave one inactive at least"
            )
        z = finite_array(z, "z", ndim=1)
        n = np.zeros(self.index_n.size) if n is None else finite_array(n, "n", ndim=1) if np.size(n) else np.zeros(0)
        if z.size != self.index_z.size or n.size != self.index_n.size:
            raise InvalidInput(
                f"z has {z.size} and n {n.size} entries; this saddle needs {self.index_z.size} and {self.index_n.size}"
            )
        if not z.any():
            raise InvalidInput("z = 0: the inactive neurons would stay zero for ever (Lemma 16); give them a direction")
        w = self.w.copy()
        w[self.index_n] += delta * n
        w[self.index_z] += delta * z
        return w


def origin(objective: Objective) -> SparseSaddle:
    """The origin of a feed-forward net, as the saddle with no active neuron ([BEYOND], Lemma 1)."""
    model = objective.model
    if not isinstance(model, FeedForward):
        raise InvalidInput(f"sparse saddles are defined by hidden neurons; {model.name} has none")
    require_homogeneous(model, "the origin as a saddle", least=2)
    return SparseSaddle(objective, ActiveNeurons(tuple(() for _ in model.hidden_widths)), np.zeros(model.n_params))
