"""gfsim: gradient flow near sparse saddle points of homogeneous networks.

The names below are the public interface; each is imported from its module when first used, so that
``import gfsim`` costs nothing (and torch is never imported unless a torch function is).

    models    FeedForward, DiagonalLinear, MatrixFactorisation, TorchModel, deep_linear
    loss      Objective
    flow      simulate, resume, Checkpoint, FlowResult, Status, Phase; simulate_batch, BatchResult; clocks and events
    saddles   find_saddle, nearby_saddle, SparseSaddle, certify, find_plateaus, saddle_behind
    NCF       OriginNCF, SaddleNCF, KKTPoint, track
    pursuit   pursue, PursuitConfig, PursuitResult, NeuronPursuitRegressor, NeuronPursuitClassifier
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gfsim.errors import (
        GfsimError,
        InvalidInput,
        NotHomogeneous,
        OutputError,
        SaddleNotFound,
        UnknownName,
    )
    from gfsim.flow.batch import simulate_batch
    from gfsim.flow.batch_result import BatchResult
    from gfsim.flow.checkpoint import Checkpoint
    from gfsim.flow.clock import PhysicalTime, RescaledTime
    from gfsim.flow.events import arrival, departure, loss_level, norm_level, slow, stationarity
    from gfsim.flow.result import FlowResult, Phase, Status
    from gfsim.flow.simulate import resume, simulate
    from gfsim.models.activation import HomogeneousActivation
    from gfsim.models.custom import TorchModel
    from gfsim.models.feedforward import FeedForward
    from gfsim.models.linear import DiagonalLinear, MatrixFactorisation, deep_linear
    from gfsim.ncf.directions import track
    from gfsim.ncf.kkt import KKTPoint
    from gfsim.ncf.origin import OriginNCF
    from gfsim.ncf.saddle import SaddleNCF
    from gfsim.objective import Objective
    from gfsim.pursuit.algorithm import PursuitResult, pursue
    from gfsim.pursuit.config import PursuitConfig
    from gfsim.pursuit.estimator import NeuronPursuitClassifier, NeuronPursuitRegressor
    from gfsim.saddles.certificate import certify
    from gfsim.saddles.find import find_saddle, nearby_saddle
    from gfsim.saddles.neurons import ActiveNeurons
    from gfsim.saddles.plateaus import find_plateaus, saddle_behind
    from gfsim.saddles.saddle import SparseSaddle

__version__ = "0.1.0"

_HOME = {
    "ActiveNeurons": "gfsim.saddles.neurons",
    "BatchResult": "gfsim.flow.batch_result",
    "Checkpoint": "gfsim.flow.checkpoint",
    "DiagonalLinear": "gfsim.models.linear",
    "FeedForward": "gfsim.models.feedforward",
    "FlowResult": "gfsim.flow.result",
    "GfsimError": "gfsim.errors",
    "HomogeneousActivation": "gfsim.models.activation",
    "InvalidInput": "gfsim.errors",
    "KKTPoint": "gfsim.ncf.kkt",
    "MatrixFactorisation": "gfsim.models.linear",
    "NeuronPursuitClassifier": "gfsim.pursuit.estimator",
    "NeuronPursuitRegressor": "gfsim.pursuit.estimator",
    "NotHomogeneous": "gfsim.errors",
    "Objective": "gfsim.objective",
    "OriginNCF": "gfsim.ncf.origin",
    "OutputError": "gfsim.errors",
    "Phase": "gfsim.flow.result",
    "PhysicalTime": "gfsim.flow.clock",
    "PursuitConfig": "gfsim.pursuit.config",
    "PursuitResult": "gfsim.pursuit.algorithm",
    "RescaledTime": "gfsim.flow.clock",
    "SaddleNCF": "gfsim.ncf.saddle",
    "SaddleNotFound": "gfsim.errors",
    "SparseSaddle": "gfsim.saddles.saddle",
    "Status": "gfsim.flow.result",
    "TorchModel": "gfsim.models.custom",
    "UnknownName": "gfsim.errors",
    "arrival": "gfsim.flow.events",
    "certify": "gfsim.saddles.certificate",
    "deep_linear": "gfsim.models.linear",
    "departure": "gfsim.flow.events",
    "find_plateaus": "gfsim.saddles.plateaus",
    "find_saddle": "gfsim.saddles.find",
    "loss_level": "gfsim.flow.events",
    "nearby_saddle": "gfsim.saddles.find",
    "norm_level": "gfsim.flow.events",
    "pursue": "gfsim.pursuit.algorithm",
    "resume": "gfsim.flow.simulate",
    "saddle_behind": "gfsim.saddles.plateaus",
    "simulate": "gfsim.flow.simulate",
    "simulate_batch": "gfsim.flow.batch",
    "slow": "gfsim.flow.events",
    "stationarity": "gfsim.flow.events",
    "track": "gfsim.ncf.directions",
}

__all__ = [*sorted(_HOME), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'gfsim' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
