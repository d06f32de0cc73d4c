"""Replay a recorded pursuit: redo every step from the record and compare.

A step is redone from the weights that the record holds before it, so one step that differs does not
hide the others.  On the same machine the differences of descent are zero; another BLAS may round otherwise, and
tens of thousands of steps next to a saddle can amplify that.  A polish calls MINPACK, which given the same numbers
again may end elsewhere in the flat directions of a minimum: its loss repeats to about 1e-11.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gfsim.arrays import finite_array
from gfsim.errors import InvalidInput
from gfsim.models.activation import HomogeneousActivation
from gfsim.models.feedforward import FeedForward
from gfsim.ncf.neuron import neuron_ncfs
from gfsim.ncf.origin import OriginNCF
from gfsim.objective import Objective
from gfsim.pursuit.grow import append_neuron
from gfsim.pursuit.minimise import make_minimiser
from gfsim.pursuit.record import Addition, Minimisation, Record, Start, fingerprint


@dataclass(frozen=True)
class Replayed:
    """One step redone: ``difference`` is the largest deviation of a weight, ``value_difference`` that of
    the NCF value (start, addition) or of the final loss (minimisation), relative to the recorded one."""

    step: int
    kind: str
    difference: float
    value_difference: float


def replay(record: Record, X: object, y: object) -> list[Replayed]:
    """Redo every step of ``record`` on the same data.

    Parameters
    ----------
    record : Record
    X : (n_samples, n_features)
    y : (n_samples,) or (n_samples, n_outputs)

    Raises
    ------
    InvalidInput
        If the data are not those of the record, or a step does not start where the last one ended.
    UnknownName
        If the record used a minimiser that this version does not have.
    """
    inputs, labels = finite_array(X, "X", ndim=2), finite_array(y, "y", ndim=(1, 2))
    labels = labels if labels.ndim == 2 else labels[:, None]
    found = fingerprint(inputs, labels)
    if found != record.data:
        raise InvalidInput(f"these are not the data of the record: got {found}, recorded {record.data}")
    activation = HomogeneousActivation(record.problem["p"], record.problem["alpha"])
    loss, reduction = record.problem["loss"], record.problem["reduction"]
    out: list[Replayed] = []
    w = np.zeros(0)
    model: FeedForward | None = None
    for k, step in enumerate(record.steps):
        if isinstance(step, Start):
            model = FeedForward(step.widths, activation)
            ncf = OriginNCF(Objective(model, inputs, labels, loss=loss, reduction=reduction))
            value = float(ncf.value(step.u))
            redone = step.delta0 * step.u
            out.append(_compare(k, "start", redone, step.weights, value, step.maxima.best))
            w = step.weights
        elif isinstance(step, Addition) and model is not None:
            objective = Objective(model, inputs, labels, loss=loss, reduction=reduction)
            one = neuron_ncfs(objective, w)[step.layer - 1]
            a, b = one.split(step.u)
            model, redone = append_neuron(model, w, step.layer, step.delta * a, step.delta * b)
            out.append(_compare(k, "addition", redone, step.weights, float(one.value(step.u)), step.value))
            w = step.weights
        elif isinstance(step, Minimisation) and model is not None:
            if not np.array_equal(w, step.weights_before):
                raise InvalidInput(f"step {k} of the record does not start at the weights where step {k - 1} ended")
            objective = Objective(model, inputs, labels, loss=loss, reduction=reduction)
            outcome = make_minimiser(step.minimiser, **step.settings).run(objective, w, loss_goal=step.loss_goal)
            out.append(_compare(k, step.kind, outcome.w, step.weights_after, outcome.loss_after, step.loss_after))
            w = step.weights_after
            if not step.kept:
                break  # the network before the refused step is the result; nothing follows but the stop
    return out


def _compare(k: int, kind: str, got: np.ndarray, recorded: np.ndarray, value: float, wanted: float) -> Replayed:
    if got.shape != recorded.shape:
        raise InvalidInput(f"step {k} of the record holds {recorded.size} weights where {got.size} belong")
    scale = abs(wanted) if wanted else 1.0
    difference = float(np.abs(got - recorded).max()) if got.size else 0.0
    return Replayed(k, kind, difference, abs(value - wanted) / scale)
