"""Neuron Pursuit with the habits of scikit-learn: ``fit``, ``predict``, fitted attributes ending in ``_``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_is_fitted, validate_data

from gfsim.errors import InvalidInput
from gfsim.pursuit.algorithm import PursuitConfig, PursuitResult, pursue
from gfsim.pursuit.minimise import Minimiser


class _NeuronPursuit(BaseEstimator):
    """What regressor and classifier share."""

    _loss = "square"

    def __init__(
        self,
        hidden_layers: int = 1,
        activation: Any = "relu",
        p: int | None = None,
        alpha: float | None = None,
        reduction: str = "mean",
        delta0: float = 0.2,
        delta: float = 0.03,
        minimiser: str | Minimiser = "descent",
        polish: bool = True,
        starts: int = 64,
        tie_rtol: float = 1e-4,
        mirror_rtol: float = 5e-2,
        trials: int = 1,
        trial_sigmas: float = 1.0,
        max_neurons: int = 20,
        loss_rtol: float = 1e-8,
        ncf_tol: float = 1e-9,
        patience: int = 6,
        on_worse: str = "keep",
        bias: bool = False,
        random_state: Any = None,
        progress: bool = False,
        callback: Callable[..., object] | None = None,
    ) -> None:
        self.hidden_layers = hidden_layers
        self.activation = activation
        self.p = p
        self.alpha = alpha
        self.reduction = reduction
        self.delta0 = delta0
        self.delta = delta
        self.minimiser = minimiser
        self.polish = polish
        self.starts = starts
        self.tie_rtol = tie_rtol
        self.mirror_rtol = mirror_rtol
        self.trials = trials
        self.trial_sigmas = trial_sigmas
        self.max_neurons = max_neurons
        self.loss_rtol = loss_rtol
        self.ncf_tol = ncf_tol
        self.patience = patience
        self.on_worse = on_worse
        self.bias = bias
        self.random_state = random_state
        self.progress = progress
        self.callback = callback

    def _config(self) -> PursuitConfig:
        names = PursuitConfig.__dataclass_fields__
        return PursuitConfig(loss=self._loss, **{name: getattr(self, name) for name in names if name != "loss"})

    def _inputs(self, X: np.ndarray) -> np.ndarray:
        return np.column_stack([X, np.ones(len(X))]) if self.bias else X

    def _pursue(self, X: np.ndarray, y: np.ndarray, X_val: np.ndarray | None, y_val: np.ndarray | None) -> None:
        result = pursue(
            self._inputs(X),
            y,
            self._config(),
            rng=_generator(self.random_state),
            X_val=None if X_val is None else self._inputs(X_val),
            y_val=y_val,
            progress=self.progress,
            callback=self.callback,
        )
        self.result_: PursuitResult = result
        self.model_ = result.model
        self.weights_ = result.weights
        self.history_ = result.record.rows()
        self.n_iter_ = len(result.record.minimisations)

    def _outputs(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return self.result_.predict(self._inputs(validate_data(self, X, reset=False, dtype=np.float64)))


class NeuronPursuitRegressor(RegressorMixin, _NeuronPursuit):
    """Regression by Neuron Pursuit with the square loss.

    Parameters
    ----------
    hidden_layers, activation, p, alpha, reduction, delta0, delta, minimiser, polish, starts, tie_rtol, mirror_rtol, \
trials, trial_sigmas, max_neurons, loss_rtol, ncf_tol, patience, on_worse
        As in :class:`gfsim.pursuit.algorithm.PursuitConfig`.
    bias : bool
        Append a constant input 1; the networks themselves have no biases.
    random_state : None, int, numpy RandomState or Generator
        Starts of the NCF maximisations.
    progress : bool
        Progress bars on standard error.
    callback : function of (step, model, weights), optional
        See :func:`gfsim.pursuit.algorithm.pursue`; it sees the network while it grows.

    Attributes
    ----------
    result_ : PursuitResult
    model_ : FeedForward
    weights_ : (P,)
    history_ : list of dict
        One row a minimisation: widths, layer of the new neuron, NCF values, losses, ...
    n_iter_ : int
        Number of minimisations.
    n_features_in_ : int
    """

    def fit(self, X: Any, y: Any, X_val: Any = None, y_val: Any = None) -> NeuronPursuitRegressor:
        """Grow a network on X (n_samples, n_features) and y (n_samples,) or (n_samples, n_outputs).

        With ``X_val`` and ``y_val`` growth stops when the validation loss does, and the best network is kept.
        """
        inputs, labels = validate_data(self, X, y, multi_output=True, y_numeric=True, dtype=np.float64)
        self._flat = np.ndim(labels) == 1
        val = None if X_val is None else validate_data(self, X_val, reset=False, dtype=np.float64)
        self._pursue(inputs, labels, val, y_val)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Predictions: (n_samples,), or (n_samples, n_outputs) when y had two axes."""
        out = self._outputs(X)
        return out[:, 0] if self._flat else out

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class NeuronPursuitClassifier(ClassifierMixin, _NeuronPursuit):
    """Two-class classification by Neuron Pursuit with the logistic loss.

    Parameters as for :class:`NeuronPursuitRegressor`; further fitted attribute ``classes_`` (2,).
    """

    _loss = "logistic"

    def fit(self, X: Any, y: Any, X_val: Any = None, y_val: Any = None) -> NeuronPursuitClassifier:
        """Grow a network on X (n_samples, n_features) and two-class labels y (n_samples,)."""
        inputs, labels = validate_data(self, X, y, dtype=np.float64)
        self.classes_ = np.unique(labels)
        if len(self.classes_) != 2:
            raise InvalidInput(
                f"y holds {len(self.classes_)} class(es), {type_of_target(labels)}. Only binary classification is "
                "supported: the logistic loss separates exactly two classes; encode one-against-rest problems"
            )
        val = None if X_val is None else validate_data(self, X_val, reset=False, dtype=np.float64)
        self._pursue(inputs, self._signs(labels), val, None if y_val is None else self._signs(np.asarray(y_val)))
        return self

    def _signs(self, labels: np.ndarray) -> np.ndarray:
        unknown = ~np.isin(labels, self.classes_)
        if unknown.any():
            raise InvalidInput(f"label {labels[unknown][0]!r} is not one of the classes {list(self.classes_)}")
        return np.where(labels == self.classes_[1], 1.0, -1.0)

    def decision_function(self, X: Any) -> np.ndarray:
        """H(x; w), positive for ``classes_[1]``: (n_samples,)."""
        return self._outputs(X)[:, 0]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the two classes: (n_samples, 2)."""
        margin = self.decision_function(X)
        return np.column_stack([expit(-margin), expit(margin)])

    def predict(self, X: Any) -> np.ndarray:
        """Predicted classes: (n_samples,)."""
        positive = self.decision_function(X) > 0
        return self.classes_[positive.astype(int)]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags


def _generator(random_state: Any) -> np.random.Generator:
    if isinstance(random_state, np.random.Generator):
        return random_state
    if random_state is None or isinstance(random_state, (int, np.integer)):
        return np.random.default_rng(random_state)
    return np.random.default_rng(check_random_state(random_state).randint(0, 2**31 - 1, size=4))
