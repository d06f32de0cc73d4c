"""The NCF at a sparse saddle: a sum of one-neuron functions, one kind a layer.

docs/theory.md, section 4.  To first order in the inactive neurons' effect the network is
H(x; w_n, 0) + H1, H1 of degree K = p + 1 in w_z, and N(u) = <ybar, H1(X; wbar_n, u)> splits into

    N(u) = sum_l sum_{j in Z_l} N_l(a_{l,j}, b_{l,j}),

a the weights from active units, b those to active units.  Weights between two inactive neurons do
not enter at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from gfsim.errors import InvalidInput, NotHomogeneous
from gfsim.models.activation import HomogeneousActivation
from gfsim.ncf.kkt import KKTPoint
from gfsim.ncf.neuron import NeuronNCF, maximise, neuron_ncfs
from gfsim.saddles.saddle import SparseSaddle


@dataclass(frozen=True)
class NeuronDirection:
    """A one-neuron KKT point of the NCF: unit vector (a, b) of an inactive neuron of ``layer``."""

    layer: int
    point: KKTPoint
    a: np.ndarray = field(repr=False)
    b: np.ndarray = field(repr=False)

    @property
    def value(self) -> float:
        return self.point.value

    def balance(self, p: int) -> float:
        """|a|^2 - p |b|^2: zero at a positive KKT point ([BEYOND], Lemma 17)."""
        return float(self.a @ self.a - p * (self.b @ self.b))


class SaddleNCF:
    """N at a saddle with at least one active neuron a layer, on w_z coordinates.

    Satisfies :class:`gfsim.ncf.kkt.Correlation`; ``u`` is (..., size of w_z), in the order of
    ``saddle.index_z``.  For the origin use :class:`gfsim.ncf.origin.OriginNCF`.

    Parameters
    ----------
    saddle : SparseSaddle
        Its objective's convention (sum or mean) is that of N, and of the times of its flow.

    Raises
    ------
    InvalidInput
        At the origin.
    NotHomogeneous
        For tanh or GELU, and for p = 1 with a kink (H1 then has the degree only away from kinks) when
        an active neuron sits on its kink for some sample.
    """

    def __init__(self, saddle: SparseSaddle) -> None:
        if saddle.active.origin:
            raise InvalidInput("no neuron is active at the origin; its NCF is gfsim.ncf.origin.OriginNCF(objective)")
        model = saddle.model
        activation = model.activation
        if not isinstance(activation, HomogeneousActivation):
            raise NotHomogeneous(f"the NCF at a saddle needs an activation max(z, alpha z)^p; {model.name} has none")
        if not activation.smooth:
            _refuse_kinks(saddle)
        self.saddle = saddle
        self.degree = float(activation.p + 1)
        self.size = int(saddle.index_z.size)
        self.neurons: list[NeuronNCF] = neuron_ncfs(saddle.active_objective, saddle.w_n)
        where = {int(flat): k for k, flat in enumerate(saddle.index_z)}
        channels = saddle.active.channels(model)
        # places[l]: (inactive units, d_in + d_out) positions of (a, b) in u
        self.places: list[np.ndarray] = []
        for layer, units in enumerate(saddle.active.inactive(model), start=1):
            rows = [
                [where[int(i)] for i in model.index[layer - 1][j, list(channels[layer - 1])]]
                + [where[int(i)] for i in model.index[layer][list(channels[layer + 1]), j]]
                for j in units
            ]
            width = len(channels[layer - 1]) + len(channels[layer + 1])
            self.places.append(np.array(rows, dtype=int).reshape(len(units), width))

    def value(self, u: np.ndarray) -> np.ndarray:
        """N at (..., size): (...)."""
        total = np.zeros(u.shape[:-1])
        for ncf, place in zip(self.neurons, self.places, strict=True):
            if place.size:
                total = total + ncf.value(u[..., place]).sum(-1)
        return total

    def gradient(self, u: np.ndarray) -> np.ndarray:
        """grad N at (..., size): (..., size)."""
        out = np.zeros_like(u)
        for ncf, place in zip(self.neurons, self.places, strict=True):
            if place.size:
                out[..., place] = ncf.gradient(u[..., place])
        return out

    def hessian(self, u: np.ndarray) -> np.ndarray:
        """Hess N at one point: (size, size)."""
        out = np.zeros((self.size, self.size))
        for ncf, place in zip(self.neurons, self.places, strict=True):
            for row in place:
                out[np.ix_(row, row)] = ncf.hessian(u[row])
        return out

    @property
    def bound(self) -> float:
        """An upper bound of |N| on the unit sphere, the scale against which N counts as zero."""
        return max(ncf.bound for ncf in self.neurons)

    @cached_property
    def coupled(self) -> np.ndarray:
        """Which coordinates of u enter N at all: (size,) of bool."""
        mask = np.zeros(self.size, dtype=bool)
        for place in self.places:
            mask[place.ravel()] = True
        return mask

    # -- its KKT points ----------------------------------------------------------------------------

    def neuron_of(self, u: np.ndarray) -> tuple[int, int]:
        """(layer, unit) of the inactive neuron that carries most of ``u``'s coupled weight."""
        best = (-1.0, 0, 0)
        inactive = self.saddle.active.inactive(self.saddle.model)
        for layer, (place, units) in enumerate(zip(self.places, inactive, strict=True), start=1):
            for row, unit in zip(place, units, strict=True):
                best = max(best, (float(np.linalg.norm(u[row])), layer, unit))
        return best[1], best[2]

    def embed(self, direction: NeuronDirection, unit: int) -> np.ndarray:
        """The unit vector of w_z (size,) with ``direction`` on the given inactive unit of its layer."""
        units = self.saddle.active.inactive(self.saddle.model)[direction.layer - 1]
        if unit not in units:
            raise InvalidInput(f"unit {unit} of layer {direction.layer} is not inactive here; choose one of {units}")
        u = np.zeros(self.size)
        u[self.places[direction.layer - 1][units.index(unit)]] = direction.point.u
        return u

    def neuron_maxima(self, *, starts: int = 64, rng: np.random.Generator) -> list[NeuronDirection]:
        """Local maxima of the one-neuron functions of all layers, best first.

        For K > 2 these are, placed on any one inactive neuron of their layer, all the second-order
        KKT points with a positive value (docs/theory.md, section 4): mass on two neurons can always
        be moved to the better one.
        """
        found = []
        for ncf, place in zip(self.neurons, self.places, strict=True):
            if len(place) == 0:
                continue
            for point in maximise(ncf, starts=starts, rng=rng):
                d = ncf.inputs.shape[1]
                found.append(NeuronDirection(ncf.layer, point, point.u[:d], point.u[d:]))
        return sorted(found, key=lambda direction: -direction.value)


def _refuse_kinks(saddle: SparseSaddle) -> None:
    kept = saddle.active_objective.model.run(saddle.w_n, saddle.objective.X)  # type: ignore[attr-defined]
    for layer, z in enumerate(kept.preactivations, start=1):
        on_kink = np.abs(z) <= 1e-9 * np.abs(z).max()
        if on_kink.any():
            sample, unit = (int(k) for k in np.argwhere(on_kink)[0])
            raise NotHomogeneous(
                f"active unit {unit} of layer {layer} sits on its kink at sample {sample}; the expansion around the "
                "saddle needs a differentiable activation there: use p >= 2, a linear net, or other data"
            )
