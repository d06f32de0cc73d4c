"""Neuron Pursuit with the habits of scikit-learn: ``fit``, ``predict``, fitted attributes ending in ``_``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from gfsim.arrays import whole_number
from gfsim.errors import InvalidInput, unknown_name
from gfsim.models.activation import HomogeneousActivation
from gfsim.pursuit.algorithm import PursuitResult, pursue
from gfsim.pursuit.average import mean_network
from gfsim.pursuit.cancellation import cancellation
from gfsim.pursuit.candidates import Candidates, Paths, RandomDirections, SingleNeurons
from gfsim.pursuit.config import PursuitConfig
from gfsim.pursuit.fit import Fitter, make_fitter
from gfsim.pursuit.folds import L2_LADDER, L2_LADDER_CLASSES, LARGEST_TABLE, MOST_FOLDS, Folds
from gfsim.pursuit.growth import MOST_CANCELLATION, Growth, GrowthConfig
from gfsim.pursuit.network import Network
from gfsim.pursuit.penalties import L2_GRID, L2_GRID_CLASSES, grow_over_l2
from gfsim.pursuit.preparation import CHUNK_ENTRIES, Scaling, Split, counts, fold_parts, merged, split_rows
from gfsim.pursuit.problem import Problem
from gfsim.pursuit.risk import make_risk
from gfsim.pursuit.selection import LargestDecrease, LargestNCF, Selection, Trials
from gfsim.pursuit.stopping import BY_USER, default_rules
from gfsim.threads import alone

if TYPE_CHECKING:
    import torch

REFIT_RUNS = 5
"""Runs of the fitter that the refit on all samples may take."""

MODES = ("pursuit", "paper")
CANDIDATES: dict[str, type[Paths]] = {"paths": Paths, "neurons": SingleNeurons, "random": RandomDirections}
SELECTIONS: dict[str, Any] = {"trials": Trials, "decrease": LargestDecrease, "ncf": LargestNCF}


@dataclass(frozen=True)
class _Data:
    """Checked arrays: X (n, d), Y (n, K) as the risk wants it, weights (n,), groups to split by (or None)."""

    X: np.ndarray
    Y: np.ndarray
    weights: np.ndarray


class _NeuronPursuit(BaseEstimator):
    """What regressor and classifier share."""

    def __init__(
        self,
        hidden_layers: int = 1,
        activation: Any = "relu",
        p: int | None = None,
        alpha: float | None = None,
        mode: str = "pursuit",
        max_neurons: int | None = None,
        l2: str | float = "auto",
        validation_fraction: float = 0.2,
        patience: int | None = None,
        permutations: int = 19,
        refit: bool = True,
        networks: int = 1,
        candidates: str | Candidates = "paths",
        selection: str | Selection = "trials",
        fitter: str | Fitter = "auto",
        standardise: bool | None = None,
        bias: bool | None = None,
        warm_start: bool = False,
        random_state: Any = None,
        progress: bool = False,
        callback: Callable[..., object] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.hidden_layers = hidden_layers
        self.activation = activation
        self.p = p
        self.alpha = alpha
        self.mode = mode
        self.max_neurons = max_neurons
        self.l2 = l2
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.permutations = permutations
        self.refit = refit
        self.networks = networks
        self.candidates = candidates
        self.selection = selection
        self.fitter = fitter
        self.standardise = standardise
        self.bias = bias
        self.warm_start = warm_start
        self.random_state = random_state
        self.progress = progress
        self.callback = callback
        self.settings = settings

    # -- fitting -----------------------------------------------------------------------------------

    def _grow(self, data: _Data, validation: _Data | None, risk: str, groups: np.ndarray | None) -> None:
        """The default mode: grow, choose, refit; sets the fitted attributes."""
        config, grid = self._config(), self._grid(risk)
        warm = self.network_ if self.warm_start and hasattr(self, "network_") else None
        if warm is not None:
            self._check_warm(warm, data, config)
            scaling = self._scaling
        else:
            scaling = Scaling.of(
                data.X,
                data.Y,
                data.weights,
                standardise=self._chosen("standardise"),
                targets=risk == "square",
                bias=self._chosen("bias"),
            )
        rng = _generator(self.random_state)
        several = whole_number(self.networks, "networks") if warm is None else 1
        relax = 0.0 in grid
        growths: list[Growth] = []
        nets: list[Network] = []
        held: Problem | None
        if validation is not None:
            held = _problem(validation, scaling, risk)
            growths.append(self._grown(_problem(data, scaling, risk), held, config, grid, relax, rng, warm))
            nets.append(growths[0].net)
        else:
            while not growths or (len(growths) < several and _noisy(growths)):
                split = split_rows(counts(data.weights), self._fraction(), rng, groups)
                # training rows first: both parts are then views, and a million rows are not held twice
                full = _problem(data, scaling, risk, split)
                parted = len(split.validation) > 0
                train = full.rows(slice(0, len(split.train))) if parted else full
                held = full.rows(slice(len(split.train), None)) if parted else None
                chosen = (growths[0].grown_l2,) if growths else grid
                in_turn: Callable[[Growth | None], Growth | None] | None = None
                if parted and not growths and warm is None and self._holds_out_in_turn(data, risk, config):
                    whole, copies = _problem(data, scaling, risk), counts(data.weights)
                    in_turn = partial(self._grown_over_folds, whole, copies, split, config, rng, groups)
                # numbers may have no noise, which a search tells; classes have it, or look so
                at_once = in_turn(None) if in_turn is not None and risk != "square" else None
                growth = at_once or self._grown(train, held, config, chosen, relax, rng, warm, in_turn)
                if growths and growth.ending in BY_USER:
                    break
                net = growth.net
                if self.refit and parted and growth.ending != "interrupted":
                    # a network without neurons has nothing to fit but its constant
                    net = _refitted(net, full.with_l2(growth.l2), make_fitter(self.fitter), growth.loss_goal)
                growths.append(growth)
                nets.append(net)
        first = growths[0]
        self.growth_: Growth = first
        self.growths_: list[Growth] = growths
        self.history_ = first.history
        self.stop_: str = first.ending
        self.message_ = first.message
        self.l2_ = first.l2
        self.validation_loss_ = first.validation
        self._set_network(mean_network(nets), scaling)

    def _grown(
        self,
        train: Problem,
        held: Problem | None,
        config: GrowthConfig,
        grid: tuple[float, ...],
        relax: bool,
        rng: np.random.Generator,
        warm: Network | None,
        noisy: Callable[[Growth], Growth | None] | None = None,
    ) -> Growth:
        return grow_over_l2(
            train,
            config,
            grid,
            relax=relax,
            seed=int(rng.integers(2**31)),
            validation=held,
            start=warm,
            callback=self.callback,
            verbose=self.progress,
            noisy=noisy,
        )

    def _grown_over_folds(
        self,
        whole: Problem,
        copies: np.ndarray,
        split: Split,
        config: GrowthConfig,
        rng: np.random.Generator,
        groups: np.ndarray | None,
        rival: Growth | None,
    ) -> Growth | None:
        """Penalty and size chosen on all samples, each held out once; None where ``rival`` does better."""
        parts = fold_parts(copies, split, self._folds(), rng, groups)
        folds = Folds(whole, parts, config, seed=int(rng.integers(2**31)), callback=self.callback)
        ladder = L2_LADDER if whole.risk.name == "square" else L2_LADDER_CLASSES
        grid = ladder if self.l2 == "auto" else self._grid(whole.risk.name)
        choice = folds.choose(grid, grid[len(grid) // 2], verbose=self.progress)
        if rival is not None and choice.ended is not None and folds.loses(choice, rival.net, 0.0):
            return replace(rival, ending=choice.ended[0], message=choice.ended[1])
        if rival is not None and choice.ended is None and folds.loses(choice, rival.net):
            return None
        return folds.grown(choice, verbose=self.progress)

    def _holds_out_in_turn(self, data: _Data, risk: str, config: GrowthConfig) -> bool:
        """A small table, and a network that is fitted to all of it at last.

        Numbers only with one hidden layer: where paths of several lengths compete, the trials that many growths have no
        time for are worth more than the folds.  And only if no row comes twice: its noise would be in the samples that
        train and in those that are held out, and whatever follows it would look right.
        """
        copies = counts(data.weights)
        entries = int(copies.sum()) * data.X.shape[1] * data.Y.shape[1]
        fit = risk != "square" or (config.hidden_layers == 1 and int(copies.max()) == 1)
        return fit and self.refit and entries <= LARGEST_TABLE and self._folds() > 1

    def _folds(self) -> int:
        return min(round(1.0 / self._fraction()), MOST_FOLDS)

    def _follow_paper(self, data: _Data, validation: _Data | None, loss: str) -> None:
        """``mode="paper"``: the published algorithm on the data as they are."""
        if float(np.ptp(data.weights)) > 0:
            raise InvalidInput("mode = 'paper' knows no sample weights; leave them out, or take mode = 'pursuit'")
        if data.Y.shape[1] > 1 and loss == "logistic":
            raise InvalidInput("mode = 'paper' separates two classes only; take mode = 'pursuit' for more")
        given = {"max_neurons": self.max_neurons, "patience": self.patience}
        config = PursuitConfig(
            **{
                "hidden_layers": self.hidden_layers,
                "activation": self.activation,
                "p": self.p,
                "alpha": self.alpha,
                "loss": loss,
                **{name: value for name, value in given.items() if value is not None},
                **self._settings(),
            }
        )
        scaling = Scaling.of(
            data.X,
            data.Y,
            data.weights,
            standardise=self._chosen("standardise"),
            targets=loss == "square",
            bias=self._chosen("bias"),
        )

        def labels(Y: np.ndarray) -> np.ndarray:
            return 2.0 * Y - 1.0 if loss == "logistic" else scaling.targets(Y)

        result = pursue(
            scaling.inputs(data.X),
            labels(data.Y),
            config,
            rng=_generator(self.random_state),
            X_val=None if validation is None else scaling.inputs(validation.X),
            y_val=None if validation is None else labels(validation.Y),
            progress=self.progress,
            callback=self.callback,
        )
        self.result_: PursuitResult = result
        self.history_ = result.record.rows()
        self.stop_, self.message_ = result.stop.reason, result.stop.message
        activation = result.model.activation
        if not isinstance(activation, HomogeneousActivation):
            raise InvalidInput(f"{activation.name} is not homogeneous")
        net = Network(tuple(result.model.unpack(result.weights)), np.zeros(0), activation)
        self._set_network(net, scaling)

    def _set_network(self, net: Network, scaling: Scaling) -> None:
        self.network_ = net
        self._scaling = scaling
        self.model_, self.weights_ = net.feed_forward()
        self.n_neurons_ = net.n_neurons
        self.n_iter_ = max(1, len(self.history_))

    def _config(self) -> GrowthConfig:
        candidates, selection = self.candidates, self.selection
        if isinstance(candidates, str):
            if candidates not in CANDIDATES:
                raise unknown_name("candidates", candidates, CANDIDATES)
            candidates = CANDIDATES[candidates]()
        if isinstance(selection, str):
            if selection not in SELECTIONS:
                raise unknown_name("selection", selection, SELECTIONS)
            selection = SELECTIONS[selection]()
        max_neurons = 50 if self.max_neurons is None else self.max_neurons
        patience = 8 if self.patience is None else self.patience
        values: dict[str, Any] = {
            "hidden_layers": self.hidden_layers,
            "activation": self.activation,
            "p": self.p,
            "alpha": self.alpha,
            "fit_intercept": self._chosen("bias"),
            "candidates": candidates,
            "selection": selection,
            "fitter": self.fitter,
            "rules": default_rules(max_neurons, patience, self.permutations),
        }
        known = GrowthConfig.__dataclass_fields__
        for name in self._settings():
            if name not in known:
                raise unknown_name("setting of mode 'pursuit'", name, known)
        return GrowthConfig(**(values | self._settings()))

    def _settings(self) -> dict[str, Any]:
        if self.settings is not None and not isinstance(self.settings, Mapping):
            raise InvalidInput(f"settings = {self.settings!r}; give a mapping from names to values, or None")
        return dict(self.settings or {})

    def _grid(self, risk: str) -> tuple[float, ...]:
        if isinstance(self.l2, str):
            if self.l2 != "auto":
                raise InvalidInput(f"l2 = {self.l2!r}; give a number >= 0, or 'auto' to choose on validation data")
            return L2_GRID if risk == "square" else L2_GRID_CLASSES
        if isinstance(self.l2, bool) or not isinstance(self.l2, Real) or not 0 <= self.l2 < np.inf:
            raise InvalidInput(f"l2 = {self.l2!r}; give a number >= 0, or 'auto' to choose on validation data")
        return (float(self.l2),)

    def _fraction(self) -> float:
        fraction = self.validation_fraction
        if isinstance(fraction, bool) or not isinstance(fraction, Real) or not 0 <= fraction < 1:
            raise InvalidInput(f"validation_fraction = {fraction!r}; it must be >= 0 (0: no validation) and < 1")
        return float(fraction)

    def _chosen(self, name: str) -> bool:
        """``bias`` or ``standardise``, by default as the mode has it."""
        value = getattr(self, name)
        if value is None:
            return bool(self.mode == "pursuit")
        return bool(value)

    def _check_warm(self, net: Network, data: _Data, config: GrowthConfig) -> None:
        wanted = (data.X.shape[1] + self._scaling.bias, config.hidden_layers, data.Y.shape[1])
        found = (net.widths[0], net.depth - 1, net.n_outputs)
        if wanted != found or config.resolved_activation() != net.activation:
            raise InvalidInput(
                f"warm_start goes on from a network of {found[0]} inputs, {found[1]} hidden layers, {found[2]} outputs "
                f"({net.activation.name}); these data and settings need {wanted[0]}, {wanted[1]}, {wanted[2]} "
                f"({config.resolved_activation().name}): set warm_start = False"
            )

    def _check_mode(self) -> None:
        if self.mode not in MODES:
            raise unknown_name("mode", self.mode, MODES)

    def _checked(self, X: Any, y: Any, sample_weight: Any, **options: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        _refuse_categories(X)
        inputs, labels = validate_data(self, X, y, dtype=np.float64, **options)
        weights = _check_sample_weight(sample_weight, inputs, dtype=np.float64, ensure_non_negative=True)
        if len(inputs) < 2:
            raise InvalidInput(f"n_samples={len(inputs)}: growing a network needs at least 2 samples")
        return inputs, labels, weights

    # -- using -------------------------------------------------------------------------------------

    def _outputs(self, X: Any) -> np.ndarray:
        """Network outputs in the target's units: (n, K)."""
        check_is_fitted(self)
        _refuse_categories(X)
        inputs = validate_data(self, X, reset=False, dtype=np.float64)
        step = max(1, CHUNK_ENTRIES // max(inputs.shape[1], 1))
        parts = [self.network_.outputs(self._scaling.inputs(inputs[k : k + step])) for k in range(0, len(inputs), step)]
        return self._scaling.outputs(np.concatenate(parts))

    def to_torch(self) -> torch.nn.Module:
        """A plain float64 module of ``torch.nn.Linear`` layers from raw X to the target's units (classes: logits).

        Its ``config`` holds what its class needs to be made again before ``load_state_dict``; see
        :class:`gfsim.pursuit.torch_module.GrownNetwork`.
        """
        check_is_fitted(self)
        from gfsim.pursuit.torch_module import GrownNetwork

        return GrownNetwork.of(self._scaling, self.network_)

    def to_onnx(self, path: str | Path) -> Path:
        """Write the same map as :meth:`to_torch` to an ONNX file (``pip install 'gfsim[onnx]'``); returns the path."""
        check_is_fitted(self)
        from gfsim.pursuit.onnx_model import write_onnx

        return write_onnx(self._scaling, self.network_, path)

    def plot_history(self, ax: Any = None) -> Any:
        """Loss and validation loss against neurons; returns the matplotlib axes."""
        check_is_fitted(self)
        from gfsim.pursuit.plots import plot_history

        return plot_history(self.history_, ax)

    def plot_network(self, ax: Any = None) -> Any:
        """Units and weights of the grown network; returns the matplotlib axes."""
        check_is_fitted(self)
        from gfsim.pursuit.plots import plot_network

        return plot_network(self.network_, getattr(self, "feature_names_in_", None), bias=self._scaling.bias, ax=ax)


class NeuronPursuitRegressor(RegressorMixin, _NeuronPursuit):
    """Regression by Neuron Pursuit with the square loss; one or several outputs.

    Parameters
    ----------
    hidden_layers : int
    activation, p, alpha
        s(z) = max(z, alpha z)^p: ``"relu"``, ``"square"``, ``"leaky"``, ``"linear"`` or an activation object.
    mode : "pursuit" or "paper"
        ``"paper"`` is the published algorithm (:func:`gfsim.pursuit.algorithm.pursue`): no scaling, no
        intercept, no penalty, no validation unless given to ``fit``; the parameters from ``l2`` to
        ``fitter`` do not apply there.
    max_neurons : int, optional
        Hidden neurons in all.  None: 50, in paper mode 20.
    l2 : float or "auto"
        Penalty on the squared weights; ``"auto"`` chooses among numbers from 0 to 1e-2 (classes: 1e-5 to 3e-2, as
        separated classes have no minimum without a penalty) on validation data: the largest that does as well as the
        best, as far as chance allows to tell.
    validation_fraction : float
        Part of the samples held out to stop growth and to choose ``l2``; none if that makes fewer than ten.  Of small
        tables with classes, or with noisy numbers and one hidden layer, every such part is held out in turn
        (:mod:`gfsim.pursuit.folds`) if ``refit``, except to go on from a warm start.
    patience : int, optional
        Additions without a better validation loss.  None: 8, in paper mode 6.
    permutations : int
        Of the residuals, for the test whether the best candidate beats noise; 0 for no such test.
    refit : bool
        Fit the chosen network's weights on all samples at the end.
    networks : int
        Where the first network leaves noise unexplained, grow so many, each with another random part of the samples
        held out and with the penalty chosen for the first; their mean is the model, one network of as many blocks.
        More accurate on noisy data, and that much larger; ``max_neurons`` bounds each.  One with validation data
        given, and one on a warm start.
    candidates : "paths", "neurons", "random" or an object of :mod:`gfsim.pursuit.candidates`
    selection : "trials", "decrease", "ncf" or an object of :mod:`gfsim.pursuit.selection`
    fitter : "auto", "lm", "lbfgs", "flow" or an object of :mod:`gfsim.pursuit.fit`
    standardise : bool, optional
        Inputs and targets to mean 0 and deviation 1 inside.  None: as the mode has it (paper: no).
    bias : bool, optional
        A constant input and an output intercept (paper mode: the input only, and by default neither).
    warm_start : bool
        ``fit`` goes on from the present network, with the present scaling.
    random_state : None, int, numpy RandomState or Generator
    progress : bool
        Lines (paper mode: bars) on standard error.
    callback : callable, optional
        ``callback(row, network)`` after every addition (paper mode: see ``pursue``), to the network of any penalty
        and any part held out; growth ends when it returns False.  If it raises, the best network so far is kept and
        a warning says so.
    settings : mapping, optional
        Further fields of :class:`gfsim.pursuit.growth.GrowthConfig`, or in paper mode of
        :class:`gfsim.pursuit.config.PursuitConfig`.

    Attributes
    ----------
    network_ : Network
    model_, weights_ : FeedForward and its weights (P,), without the output intercept
    history_ : list of dict
        One row an addition (paper mode: a minimisation).
    stop_, message_ : str
        Why growth ended.
    n_neurons_, n_iter_, n_features_in_ : int
    l2_, validation_loss_ : float
        Of the network before the refit (default mode).
    growth_ or result_ : Growth or PursuitResult
        Of the first network, as are ``history_``, ``stop_``, ``message_``, ``l2_`` and ``validation_loss_``.
    growths_ : list of Growth
        Of all ``networks`` (default mode).
    """

    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, X_val: Any = None, y_val: Any = None
    ) -> NeuronPursuitRegressor:
        """Grow a network on X (n_samples, n_features) and y (n_samples,) or (n_samples, n_outputs).

        ``X_val`` and ``y_val`` take the place of a random part of the samples as validation data.
        """
        self._check_mode()
        inputs, labels, weights = self._checked(X, y, sample_weight, multi_output=True, y_numeric=True)
        self._flat = np.ndim(labels) == 1
        Y = np.asarray(labels, dtype=np.float64).reshape(len(inputs), -1)
        held = None
        if _both(X_val, y_val):
            X_held = validate_data(self, X_val, reset=False, dtype=np.float64)
            Y_held = np.asarray(y_val, dtype=np.float64).reshape(len(X_held), -1)
            held = _Data(X_held, _finite(Y_held, "y_val"), np.ones(len(X_held)))
        with alone(inputs.size):
            if self.mode == "paper":
                self._follow_paper(_Data(inputs, Y, weights), held, "square")
            else:
                self._grow(_Data(*merged(inputs, Y, weights)), held, "square", None)
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
    """Classification by Neuron Pursuit.

    Two classes: the logistic loss, one output.  More: the softmax, the likelihood of all classes at
    once, rather than one against the rest, whose separate models give no probabilities.

    Parameters
    ----------
    hidden_layers, activation, p, alpha, mode, max_neurons, l2, validation_fraction, patience, permutations, refit
        As for :class:`NeuronPursuitRegressor`.
    networks, candidates, selection, fitter, standardise, bias, warm_start, random_state, progress, callback, settings
        As there.

    Attributes
    ----------
    classes_ : (n_classes,)
        The labels met, sorted; further those of :class:`NeuronPursuitRegressor`.
    """

    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, X_val: Any = None, y_val: Any = None
    ) -> NeuronPursuitClassifier:
        """Grow a network on X (n_samples, n_features) and labels y (n_samples,); validation data as for regression."""
        self._check_mode()
        check_classification_targets(y)
        inputs, labels, weights = self._checked(X, y, sample_weight)
        check_classification_targets(labels)
        seen = np.unique(labels[weights > 0])
        if len(seen) < 2:
            raise InvalidInput(f"y holds {len(seen)} class: {list(seen)}; a classifier needs at least two classes")
        self.classes_ = seen
        live = weights > 0
        data = _Data(inputs[live], self._codes(labels[live]), weights[live])
        held = None
        if _both(X_val, y_val):
            X_held = validate_data(self, X_val, reset=False, dtype=np.float64)
            held = _Data(X_held, self._codes(np.asarray(y_val)), np.ones(len(X_held)))
        with alone(inputs.size):
            if self.mode == "paper":
                self._follow_paper(data, held, "logistic")
            else:
                data = _Data(*merged(data.X, data.Y, data.weights))
                groups = data.Y.argmax(axis=1) if data.Y.shape[1] > 1 else data.Y[:, 0]
                self._grow(data, held, "logistic" if len(self.classes_) == 2 else "softmax", groups)
        return self

    def _codes(self, labels: np.ndarray) -> np.ndarray:
        """0 and 1 for two classes (n, 1), else one-hot (n, K)."""
        unknown = ~np.isin(labels, self.classes_)
        if unknown.any():
            raise InvalidInput(f"label {labels[unknown][0]!r} is not one of the classes {list(self.classes_)}")
        place = np.searchsorted(self.classes_, labels)
        return place[:, None].astype(float) if len(self.classes_) == 2 else np.eye(len(self.classes_))[place]

    def decision_function(self, X: Any) -> np.ndarray:
        """Log-odds of ``classes_[1]``: (n_samples,); with more classes one score each: (n_samples, n_classes)."""
        out = self._outputs(X)
        return out[:, 0] if len(self.classes_) == 2 else out

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities: (n_samples, n_classes)."""
        score = self.decision_function(X)
        return np.column_stack([expit(-score), expit(score)]) if score.ndim == 1 else softmax(score, axis=1)

    def predict(self, X: Any) -> np.ndarray:
        """Predicted classes: (n_samples,)."""
        score = self.decision_function(X)
        return self.classes_[(score > 0).astype(int) if score.ndim == 1 else score.argmax(axis=1)]


def _noisy(growths: list[Growth]) -> bool:
    """Whether another network could better the mean: nobody wants an end, and validation data are not explained."""
    return growths[-1].ending not in BY_USER and np.isfinite(growths[0].validation) and not growths[0].explained


def _problem(data: _Data, scaling: Scaling, risk: str, split: Split | None = None) -> Problem:
    """Scaled data, with the training rows first if there is a split."""
    weights = data.weights / data.weights.sum()
    # weights count copies; where they are no counts (all below one) each row still is a sample
    size = max(float(data.weights.sum()), 1.0 / float(weights @ weights))
    Y = scaling.targets(data.Y)
    if split is None:
        return Problem(scaling.inputs(data.X), Y, weights, make_risk(risk), size=size)
    order = split.order
    return Problem(scaling.inputs(data.X, order), Y[order], weights[order] * split.shares, make_risk(risk), size=size)


def _refitted(net: Network, problem: Problem, fitter: Fitter, goal: float) -> Network:
    """``net`` fitted to all samples; runs that their budget cut short are continued while they pay.

    A fit that ends in cancellation is not taken.
    """
    before, loss = net, problem.loss(net)
    for _ in range(REFIT_RUNS):
        fit = fitter.run(problem, net, goal=goal)
        paid = fit.reason == "budget" and fit.loss < (1 - 1e-3) * loss
        net, loss = fit.net, fit.loss
        if not paid:
            break
    return (net if cancellation(problem, net) <= MOST_CANCELLATION else before).balanced()


def _both(X_val: Any, y_val: Any) -> bool:
    if (X_val is None) != (y_val is None):
        raise InvalidInput("X_val and y_val go together: pass both or neither")
    return X_val is not None


def _finite(Y: np.ndarray, name: str) -> np.ndarray:
    if not np.isfinite(Y).all():
        raise InvalidInput(f"{name} holds NaN or infinity; drop such rows first")
    return Y


def _refuse_categories(X: Any) -> None:
    """Columns of a DataFrame that hold no numbers, named, with a remedy."""
    kinds = getattr(X, "dtypes", None)
    if kinds is None or not hasattr(kinds, "items"):
        return
    words = [str(name) for name, kind in kinds.items() if getattr(kind, "kind", "O") not in "biuf"]
    words = [name for name in words if not _numeric(X[name])]
    if words:
        raise InvalidInput(
            f"column(s) {', '.join(map(repr, words[:5]))} hold categories; encode them first, for instance by "
            "sklearn.preprocessing.OneHotEncoder in a pipeline, or drop them"
        )


def _numeric(column: Any) -> bool:
    try:
        np.asarray(column, dtype=np.float64)
    except (TypeError, ValueError):
        return False
    return str(getattr(column, "dtype", "")) != "category"


def _generator(random_state: Any) -> np.random.Generator:
    if isinstance(random_state, np.random.Generator):
        return random_state
    if random_state is None or isinstance(random_state, (int, np.integer)):
        return np.random.default_rng(random_state)
    return np.random.default_rng(check_random_state(random_state).randint(0, 2**31 - 1, size=4))
