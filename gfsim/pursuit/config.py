"""The settings of Neuron Pursuit as published (:mod:`gfsim.pursuit.algorithm`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from gfsim.arrays import positive
from gfsim.errors import InvalidInput, NotHomogeneous
from gfsim.losses import Loss
from gfsim.models.activation import Activation, HomogeneousActivation, make_activation
from gfsim.models.feedforward import FeedForward
from gfsim.objective import Reduction
from gfsim.pursuit.minimise import Descent, Minimiser, make_minimiser

OnWorse = Literal["keep", "refuse"]


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
        The same for mirror images in a layer with one gate (see :mod:`gfsim.pursuit.choice`); 0 for none.
    trials : int
        At most so many maxima that the data cannot tell apart are tried ; 1 for none (see :mod:`gfsim.pursuit.choice`).
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


def alpha_of(activation: Activation) -> float:
    return activation.alpha if isinstance(activation, HomogeneousActivation) else float("nan")


def plain(config: PursuitConfig, minimiser: Minimiser) -> dict[str, Any]:
    """The settings as JSON-ready values."""
    plain: dict[str, Any] = {name: getattr(config, name) for name in PursuitConfig.__dataclass_fields__}
    plain["minimiser"], plain["minimiser_settings"] = minimiser.name, minimiser.settings()
    plain["loss"] = config.loss if isinstance(config.loss, str) else config.loss.name
    activation = make_activation(config.activation, config.p, config.alpha)
    plain |= {"activation": activation.name, "p": activation.power, "alpha": alpha_of(activation)}
    return plain
