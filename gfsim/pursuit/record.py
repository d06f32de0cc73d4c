"""What a pursuit did, step by step, complete enough to be replayed.

A record is a list of steps: one :class:`Start`, then :class:`Minimisation` and :class:`Addition` in
turn, perhaps a last :class:`Minimisation` of kind ``polish``, and one :class:`Stop`.  It is written as
``pursuit.json`` (everything but arrays) beside ``pursuit.npz`` (the arrays that the JSON names).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gfsim.errors import InvalidInput, OutputError

FORMAT = 1

StopReason = Literal["loss", "no_escape", "validation", "budget", "no_improvement", "interrupted", "diverged"]


@dataclass(frozen=True)
class Maxima:
    """Local maxima of one NCF, best first: the spread of its restarts.

    ``layer`` is the hidden layer, or 0 for the NCF at the origin; ``values``, ``residuals`` and
    ``hits`` (starts that ended there; 0 for closed forms) run in parallel; ``starts`` is the number of
    random starts.
    """

    layer: int
    values: tuple[float, ...]
    residuals: tuple[float, ...]
    hits: tuple[int, ...]
    starts: int

    @property
    def best(self) -> float:
        """The largest value; 0 when the NCF has no positive maximum."""
        return self.values[0] if self.values else 0.0


@dataclass(frozen=True)
class Trial:
    """One of several maxima that the data cannot tell apart (:mod:`gfsim.pursuit.contest`).

    ``layer`` (0: the origin) and NCF ``value``; ``error``, the standard error of its distance from the
    largest value; ``loss``, that of the minimisation that was tried from it.
    """

    layer: int
    value: float
    error: float
    loss: float


@dataclass(frozen=True)
class Start:
    """The first weights, delta0 u*, u* the best maximum of the NCF at the origin.

    ``trials`` holds the maxima that were tried, the chosen one among them; empty when the data decide.
    """

    widths: tuple[int, ...]
    maxima: Maxima
    delta0: float
    u: np.ndarray = field(repr=False)
    weights: np.ndarray = field(repr=False)
    trials: tuple[Trial, ...] = ()


@dataclass(frozen=True)
class Addition:
    """One neuron added.

    Attributes
    ----------
    layer : int
        Where; 1 .. L-1.
    value : float
        N at the chosen unit vector ``u`` = (a, b).
    maxima : tuple of Maxima
        One a hidden layer.
    correlation : float
        <H1, ybar> / (|H1| |ybar|) of the chosen neuron's first-order effect H1 on the outputs; its
        square is the share of a square loss that H1 alone could remove.
    predicted_decrease : float
        delta^(p+1) N, the first-order decrease of the loss on entering.
    tied : int
        How many maxima of this layer were equal to the best within tie_rtol; ``cosines`` are their
        largest cosines with an incoming weight vector already there, ``chosen`` the place taken.
    widths, weights
        Of the net after the addition.
    trials : tuple of Trial
        The maxima of any layer that were tried, the chosen one among them; empty when the data decide.
    """

    layer: int
    value: float
    maxima: tuple[Maxima, ...]
    correlation: float
    predicted_decrease: float
    delta: float
    tied: int
    cosines: tuple[float, ...]
    chosen: int
    widths: tuple[int, ...]
    u: np.ndarray = field(repr=False)
    weights: np.ndarray = field(repr=False)
    trials: tuple[Trial, ...] = ()

    @property
    def layer_values(self) -> tuple[float, ...]:
        """The largest N of every hidden layer."""
        return tuple(m.best for m in self.maxima)


@dataclass(frozen=True)
class Minimisation:
    """One minimisation between two additions, or the polish at the end.

    ``worse`` says that it ended with a larger loss than the accepted weights before the addition had;
    ``kept`` whether its result was kept all the same.  ``time`` is in the objective's own convention;
    NaN for a polish.  ``validation`` is the loss on validation data, NaN without any.
    """

    kind: Literal["minimise", "polish"]
    minimiser: str
    settings: dict[str, Any]
    widths: tuple[int, ...]
    loss_before: float
    loss_after: float
    gradient_norm: float
    steps: int
    time: float
    reason: str
    message: str
    worse: bool
    kept: bool
    validation: float
    loss_goal: float
    weights_before: np.ndarray = field(repr=False)
    weights_after: np.ndarray = field(repr=False)
    trace_time: np.ndarray = field(repr=False)
    trace_loss: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class Stop:
    """Why the pursuit ended, in one word and in a sentence."""

    reason: StopReason
    message: str


Step = Start | Addition | Minimisation | Stop
_KINDS: dict[str, type] = {kind.__name__: kind for kind in (Start, Addition, Minimisation, Stop, Maxima, Trial)}


@dataclass
class Record:
    """All steps of one pursuit and what they depend on.

    ``problem`` names the network family, loss and reduction; ``data`` holds shapes and a digest of X and y.
    """

    problem: dict[str, Any]
    config: dict[str, Any]
    data: dict[str, Any]
    steps: list[Step] = field(default_factory=list)

    @property
    def stop(self) -> Stop | None:
        return self.steps[-1] if self.steps and isinstance(self.steps[-1], Stop) else None

    @property
    def additions(self) -> list[Addition]:
        return [step for step in self.steps if isinstance(step, Addition)]

    @property
    def minimisations(self) -> list[Minimisation]:
        """Those between additions, without the final polish."""
        return [step for step in self.steps if isinstance(step, Minimisation) and step.kind == "minimise"]

    @property
    def polish(self) -> Minimisation | None:
        found = [step for step in self.steps if isinstance(step, Minimisation) and step.kind == "polish"]
        return found[-1] if found else None

    @property
    def hidden_widths(self) -> list[tuple[int, ...]]:
        """Widths of the hidden layers, one tuple a minimisation."""
        return [step.widths[1:-1] for step in self.minimisations]

    def rows(self) -> list[dict[str, Any]]:
        """One flat dictionary a minimisation, with the addition that led to it: for tables."""
        out: list[dict[str, Any]] = []
        added: Addition | None = None
        trials: tuple[Trial, ...] = ()
        for step in self.steps:
            if isinstance(step, (Start, Addition)):
                trials = step.trials
            if isinstance(step, Addition):
                added = step
            elif isinstance(step, Minimisation):
                out.append(
                    {
                        "kind": step.kind,
                        "hidden": step.widths[1:-1],
                        "layer": added.layer if added else 0,
                        "ncf": added.value if added else self._origin_value(),
                        "layer_ncfs": added.layer_values if added else (),
                        "tied": added.tied if added else 1,
                        "trials": max(len(trials), 1),
                        "loss_before": step.loss_before,
                        "loss_after": step.loss_after,
                        "validation": step.validation,
                        "gradient_norm": step.gradient_norm,
                        "steps": step.steps,
                        "time": step.time,
                        "reason": step.reason,
                        "message": step.message,
                        "kept": step.kept,
                    }
                )
        return out

    def _origin_value(self) -> float:
        first = self.steps[0] if self.steps else None
        return first.maxima.best if isinstance(first, Start) else math.nan

    # -- files -------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> Path:
        """Write ``pursuit.json`` and ``pursuit.npz`` into ``folder`` (made if missing); whole or not at all."""
        target = Path(folder)
        arrays: dict[str, np.ndarray] = {}
        plain = {
            "format": FORMAT,
            "problem": self.problem,
            "config": self.config,
            "data": self.data,
            "steps": [_encode(step, arrays) for step in self.steps],
        }
        try:
            target.mkdir(parents=True, exist_ok=True)
            with open(target / "pursuit.npz.part", "wb") as handle:
                np.savez_compressed(handle, **arrays)  # type: ignore[arg-type]
            (target / "pursuit.json.part").write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
            for name in ("pursuit.npz", "pursuit.json"):
                os.replace(target / f"{name}.part", target / name)
        except OSError as exc:
            raise OutputError(f"cannot write the pursuit's record to {target}: {exc}; choose another folder") from exc
        return target

    @classmethod
    def load(cls, folder: str | Path) -> Record:
        """Read what :meth:`save` wrote.

        Raises :class:`InvalidInput` for a missing, damaged or foreign record.
        """
        source = Path(folder)
        try:
            plain = json.loads((source / "pursuit.json").read_text(encoding="utf-8"))
            with np.load(source / "pursuit.npz", allow_pickle=False) as data:
                arrays = {key: data[key] for key in data.files}
            if plain["format"] != FORMAT:
                raise InvalidInput(f"{source} holds a record of format {plain['format']}; this version reads {FORMAT}")
            return cls(plain["problem"], plain["config"], plain["data"], [_decode(s, arrays) for s in plain["steps"]])
        except InvalidInput:
            raise
        except Exception as exc:  # zip, JSON and key errors alike mean that the files are not a whole record
            raise InvalidInput(f"{source} holds no readable record of a pursuit ({type(exc).__name__}: {exc})") from exc


def fingerprint(X: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """Shapes and a digest that tell one data set from another."""
    digest = hashlib.sha256(np.ascontiguousarray(X).tobytes() + np.ascontiguousarray(y).tobytes()).hexdigest()
    return {"n_samples": len(X), "n_inputs": X.shape[1], "n_outputs": y.shape[1], "sha256": digest}


def _encode(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, np.ndarray):
        key = f"a{len(arrays)}"
        arrays[key] = value
        return {"array": key}
    if type(value).__name__ in _KINDS:
        return {"kind": type(value).__name__} | {
            "fields": {f.name: _encode(getattr(value, f.name), arrays) for f in fields(value)}
        }
    if isinstance(value, (tuple, list)):
        return [_encode(item, arrays) for item in value]
    if isinstance(value, np.generic):
        return _encode(value.item(), arrays)
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}  # JSON has no NaN
    return value


def _decode(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, list):
        return tuple(_decode(item, arrays) for item in value)
    if isinstance(value, dict):
        if set(value) == {"array"}:
            return arrays[value["array"]]
        if set(value) == {"float"}:
            return float(value["float"])
        if set(value) == {"kind", "fields"}:
            return _KINDS[value["kind"]](**{k: _decode(v, arrays) for k, v in value["fields"].items()})
    return value


def total_neurons(widths: Sequence[int]) -> int:
    """Hidden neurons of a net of the given widths."""
    return int(sum(widths[1:-1]))
