"""From a checked request to the objects that it names: model, data, objective, start, events."""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gfsim.arrays import finite_array
from gfsim.cli.config import DataSpec, EventSpec, ModelSpec, Simulation, StartSpec
from gfsim.errors import InvalidInput, unreadable
from gfsim.flow.clock import Clock
from gfsim.flow.events import Event, departure, loss_level, norm_level, slow, stationarity
from gfsim.models.activation import HomogeneousActivation
from gfsim.models.base import Model
from gfsim.models.feedforward import FeedForward
from gfsim.models.linear import DiagonalLinear, MatrixFactorisation
from gfsim.objective import Objective, Reduction
from gfsim.saddles.certificate import SaddleCertificate
from gfsim.saddles.saddle import SparseSaddle


@dataclass(frozen=True)
class Start:
    """Where the flow starts, and the saddle it starts near if there is one."""

    w: np.ndarray = field(repr=False)
    saddle: SparseSaddle | None
    note: str
    certificate: SaddleCertificate | None = field(default=None, repr=False)


def build_model(spec: ModelSpec) -> Model:
    if spec.kind == "diagonal":
        return DiagonalLinear(spec.widths[0], spec.depth, tied=spec.tied, signed=spec.signed)
    if spec.kind == "factorisation":
        rows, cols = spec.widths
        return MatrixFactorisation(rows, cols, spec.rank, symmetric=spec.symmetric)
    return FeedForward(spec.widths, spec.activation, p=spec.p, alpha=spec.alpha)


def build_objective(request: Simulation) -> Objective:
    model = build_model(request.model)
    X, y = build_data(request.data, model, binary=request.loss == "logistic")
    reduction: Reduction = "sum" if request.reduction == "sum" else "mean"
    return Objective(model, X, y, loss=request.loss, reduction=reduction)


def build_data(spec: DataSpec, model: Model, *, binary: bool) -> tuple[np.ndarray, np.ndarray]:
    """X (n_samples, n_inputs) and y (n_samples, n_outputs); recipes draw -1 / +1 labels when ``binary``."""
    if spec.kind == "published":
        arrays = _published(spec.name)
        return arrays["X"].T, arrays["y"]
    if spec.kind == "file" and spec.path is not None:
        return _from_file(spec, spec.path)
    rng = np.random.default_rng([spec.seed, 1])
    if spec.kind == "low_rank":
        if not isinstance(model, MatrixFactorisation):
            raise InvalidInput(f"low_rank data are for matrix factorisation, not for {model.name}")
        left, right = rng.standard_normal((model.rows, spec.rank)), rng.standard_normal((model.cols, spec.rank))
        target = left @ (left if model.symmetric else right).T
        return np.eye(model.n_inputs), _rescaled(target.ravel(), spec.label_rms)
    X = _inputs(spec, model.n_inputs, rng)
    if spec.kind == "teacher" and isinstance(model, FeedForward):
        teacher = model.with_hidden_widths(spec.teacher_hidden)
        w = teacher.pack([rng.standard_normal(shape) / np.sqrt(shape[1]) for shape in teacher.shapes])
        y = teacher.forward(w, X)
    else:
        y = rng.standard_normal((spec.samples, model.n_outputs))
    if binary:
        # the median cuts the labels in two classes whatever the teacher's range
        return X, np.where(y > np.median(y, axis=0), 1.0, -1.0)
    y = _rescaled(y, spec.label_rms)
    return X, y + spec.noise * rng.standard_normal(y.shape)


def _inputs(spec: DataSpec, width: int, rng: np.random.Generator) -> np.ndarray:
    if spec.inputs == "signs":
        return rng.choice([-1.0, 1.0], size=(spec.samples, width))
    X = rng.standard_normal((spec.samples, width))
    return X / np.linalg.norm(X, axis=1, keepdims=True) if spec.inputs == "sphere" else X


def _rescaled(y: np.ndarray, rms: float) -> np.ndarray:
    size = float(np.sqrt(np.mean(y**2)))
    if size == 0:
        raise InvalidInput("every label drawn is zero; take another seed, or a wider teacher")
    return y * (rms / size)


def _published(name: str) -> dict[str, np.ndarray]:
    from paper_repro.figure import load_data

    return load_data(name)


def _from_file(spec: DataSpec, path: Path) -> tuple[np.ndarray, np.ndarray]:
    if path.suffix == ".csv" and spec.target is not None:
        from gfsim.cli.tabular import read_csv

        samples = read_csv(path, spec.target)
        return samples.X, samples.y
    arrays = load_arrays(path)
    for key in ("X", "y"):
        if key not in arrays:
            raise InvalidInput(
                f"{path} has no array {key!r} (it has {', '.join(arrays) or 'none'}); X and y are needed"
            )
    X = finite_array(arrays["X"], f"X of {path}", ndim=2)
    return X.T if spec.samples_are_columns else X, finite_array(arrays["y"], f"y of {path}", ndim=(1, 2))


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a ``.npz``; pickled objects are refused."""
    try:
        with open(path, "rb") as handle:  # numpy leaves a damaged archive open
            content = np.load(handle, allow_pickle=False)
            if isinstance(content, np.ndarray):
                raise ValueError("it holds one array, as numpy.save writes it")
            return {key: content[key] for key in content.files}
    except OSError as exc:
        raise unreadable(path, exc, "give a .npz file; its path is relative to the folder of the request") from None
    except (ValueError, EOFError, zipfile.BadZipFile, AttributeError) as exc:
        raise InvalidInput(f"{path} is not a .npz of plain arrays ({exc}); write it with numpy.savez") from None


def build_start(spec: StartSpec, data: DataSpec, objective: Objective) -> Start:
    rng = np.random.default_rng([spec.seed, 2])
    if spec.kind == "published":
        return Start(
            spec.factor * _matrices(_published(data.name), objective.model, data.name), None, "published start"
        )
    if spec.kind == "file" and spec.path is not None:
        return Start(spec.factor * _weights(spec.path, objective.model), None, f"start from {spec.path.name}")
    if spec.kind == "origin" and spec.direction == "random":
        u = rng.standard_normal(objective.model.n_params)
        return Start(spec.delta * u / np.linalg.norm(u), None, f"origin, delta = {spec.delta:g}, random direction")
    if spec.kind == "origin":
        return _start_on_kkt_point_of_origin(spec, objective, rng)
    return _start_near_saddle(spec, objective, rng)


def _start_near_saddle(spec: StartSpec, objective: Objective, rng: np.random.Generator) -> Start:
    from gfsim.saddles.certificate import certify
    from gfsim.saddles.find import find_saddle
    from gfsim.saddles.neurons import ActiveNeurons

    model = objective.model
    if isinstance(model, FeedForward) and not ActiveNeurons.of(model, spec.active).index_z(model).size:
        # said before the subnet, here the whole net, is trained
        raise InvalidInput(
            f"active = {list(spec.active)} leaves no hidden neuron of {model.name} inactive, so there are no small "
            "weights: lower a count, or widen a layer"
        )
    saddle = find_saddle(objective, spec.active, rng=rng, starts=spec.starts, rank=spec.rank)
    n, z = saddle.directions(rng)
    # the certificate, like the NCF that it rests on, exists for differentiable homogeneous activations
    activation = saddle.model.activation
    smooth = isinstance(activation, HomogeneousActivation) and activation.smooth
    evidence = certify(saddle, rng=rng) if smooth else None
    if spec.direction == "kkt":
        if evidence is None:
            raise InvalidInput(
                "direction = 'kkt' needs a differentiable activation max(z, alpha z)^p (p >= 2, or linear); "
                f"{saddle.model.name} has another: use direction = 'random'"
            )
        if evidence.escape is None:
            raise InvalidInput("the NCF of this saddle is nowhere positive: no way out; use direction = 'random'")
        n, z = np.zeros_like(n), evidence.escape.u
    counts = "-".join(map(str, saddle.active.widths))
    note = f"saddle with {counts} active neurons, loss {saddle.loss:.6g}, delta = {spec.delta:g}"
    return Start(saddle.start(spec.delta, z, n), saddle, note, evidence)


def _start_on_kkt_point_of_origin(spec: StartSpec, objective: Objective, rng: np.random.Generator) -> Start:
    from gfsim.ncf.origin import OriginNCF, maximise

    points = maximise(OriginNCF(objective), starts=spec.starts, rng=rng)
    if not points or points[0].value <= 0:
        raise InvalidInput(f"no positive KKT point of the NCF from {spec.starts} starts; raise [start] starts")
    best = points[0]
    return Start(spec.delta * best.u, None, f"origin, delta = {spec.delta:g}, KKT point with N = {best.value:.6g}")


def _weights(path: Path, model: Model) -> np.ndarray:
    arrays = load_arrays(path)
    if "w" in arrays:
        w = finite_array(arrays["w"], f"w of {path}", ndim=(1, 2))
        return model.check_weights(w[-1] if w.ndim == 2 else w, f"w of {path}")
    return _matrices(arrays, model, str(path))


def _matrices(arrays: dict[str, np.ndarray], model: Model, source: str) -> np.ndarray:
    names = sorted((key for key in arrays if re.fullmatch(r"W\d+", key)), key=lambda key: int(key[1:]))
    if not names or not isinstance(model, FeedForward):
        raise InvalidInput(f"{source} has no weights for {model.name}: give the flat vector w, or W1, W2, ... of a net")
    return model.pack([finite_array(arrays[key], f"{key} of {source}", ndim=2) for key in names])


def build_clock(request: Simulation, start: Start) -> str | Clock:
    """``auto``: the saddle's own clock near a saddle, ds = |w|^(D-2) dt otherwise."""
    if request.flow.clock == "auto":
        saddle = start.saddle
        return "rescaled" if saddle is None or saddle.model.degree is None else saddle.clock
    return request.flow.clock


def build_event(spec: EventSpec, start: Start) -> Event:
    terminal = int(spec.stop)
    if spec.kind == "loss":
        return loss_level(spec.level, terminal=terminal)
    if spec.kind == "norm" and spec.of == "small" and start.saddle is not None:
        return norm_level(spec.level, start.saddle.index_z, name="|w_z|", terminal=terminal)
    if spec.kind == "norm":
        return norm_level(spec.level, terminal=terminal)
    if spec.kind == "stationary":
        return stationarity(spec.level, terminal=terminal)
    if spec.kind == "slow":
        return slow(spec.level, terminal=terminal)
    if start.saddle is None:
        return departure(np.zeros_like(start.w), spec.level, name="the origin", terminal=terminal)
    return departure(start.saddle.w, spec.level, name="the saddle", terminal=terminal)
