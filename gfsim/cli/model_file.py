"""``model.npz``: a grown network with all that maps the columns of a table to its inputs and back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.special import expit, softmax

from gfsim.errors import InvalidInput
from gfsim.models.feedforward import FeedForward


@dataclass(frozen=True)
class SavedModel:
    """What :func:`load` reads.

    Attributes
    ----------
    model : FeedForward
    arrays : dict
        ``w``, ``intercept``, ``input_mean``, ``input_scale``, ``bias``, ``label_mean``, ``label_scale``.
    features : column names, in the order of the inputs
    target : name of the label column
    classes : () or the classes in the order of the outputs (two classes: one output, the log-odds of the second)
    """

    model: FeedForward
    arrays: dict[str, np.ndarray] = field(repr=False)
    features: tuple[str, ...]
    target: str
    classes: tuple[str, ...]

    def outputs(self, X: np.ndarray) -> np.ndarray:
        """(n, n_outputs) for rows X (n, n_features) of the table."""
        m = self.arrays
        Z = (X - m["input_mean"]) / m["input_scale"]
        if m["bias"]:
            Z = np.column_stack([Z, np.ones(len(Z))])
        return m["label_mean"] + m["label_scale"] * (m["intercept"] + self.model.forward(m["w"], Z))

    def table(self, X: np.ndarray) -> tuple[list[str], list[list[str]]]:
        """Header and rows of predictions; for classes the class and every probability."""
        q = self.outputs(X)
        if not self.classes:
            return [self.target], [[repr(float(value))] for value in q[:, 0]]
        probability = np.column_stack([expit(-q), expit(q)]) if len(self.classes) == 2 else softmax(q, axis=1)
        header = [self.target, *(f"probability of {name}" for name in self.classes)]
        best = probability.argmax(axis=1)
        return header, [
            [self.classes[k], *(f"{value:.6g}" for value in row)] for k, row in zip(best, probability, strict=True)
        ]


def load(folder: Path) -> SavedModel:
    """The model that ``gfsim pursue --out FOLDER`` wrote."""
    path = folder / "model.npz" if folder.is_dir() else folder
    try:
        with np.load(path, allow_pickle=False) as data:
            m = {name: data[name] for name in data.files}
        model = FeedForward(m["widths"], "relu", p=int(m["p"]), alpha=float(m["alpha"]))
        names = {"w", "intercept", "input_mean", "input_scale", "bias", "label_mean", "label_scale"}
        classes = tuple(f"{c:g}" if m["classes"].dtype.kind == "f" else str(c) for c in m["classes"])
        return SavedModel(
            model, {name: m[name] for name in names}, tuple(map(str, m["features"])), str(m["target"]), classes
        )
    except FileNotFoundError:
        raise InvalidInput(f"{path} does not exist; name a directory that gfsim pursue has written") from None
    except InvalidInput:
        raise
    except Exception as exc:  # zip and key errors alike mean that this is no whole model
        what = str(exc).split(". ")[0]  # numpy goes on to advise loading pickles
        raise InvalidInput(
            f"{path} holds no model of gfsim pursue ({type(exc).__name__}: {what}); name a folder that it has written"
        ) from exc
