"""The flat weight vector of a model cut into named matrices, for pictures and files."""

from __future__ import annotations

from dataclasses import dataclass

from gfsim.models.base import Model
from gfsim.models.feedforward import FeedForward
from gfsim.models.linear import DiagonalLinear, MatrixFactorisation


@dataclass(frozen=True)
class Block:
    """``rows * columns`` consecutive weights, row by row."""

    name: str
    rows: int
    columns: int


def weight_blocks(model: Model) -> list[Block]:
    """The blocks of ``model``'s flat vector in its order; a model of unknown make is one row ``w``."""
    if isinstance(model, FeedForward):
        return [Block(f"W{l}", rows, columns) for l, (rows, columns) in enumerate(model.shapes, start=1)]
    if isinstance(model, DiagonalLinear):
        layers = 1 if model.tied else model.depth
        names = ("u", "v") if model.signed else ("w",)
        return [Block(name, layers, model.n_inputs) for name in names]
    if isinstance(model, MatrixFactorisation):
        U = Block("U", model.rows, model.rank)
        return [U] if model.symmetric else [U, Block("V", model.cols, model.rank)]
    return [Block("w", 1, model.n_params)]
