"""The checks at the door and the words of the errors."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from gfsim import errors
from gfsim.arrays import finite_array, identity, namespace, positive, whole_number, zeros
from gfsim.errors import GfsimError, InvalidInput, UnknownName, unknown_name


def test_namespace_tells_arrays_from_tensors() -> None:
    assert namespace(np.zeros(1)) is np
    assert namespace(torch.zeros(1)) is torch
    for other in ([1.0], 1.0, None, "x"):
        with pytest.raises(InvalidInput, match=f"got {type(other).__name__}; convert it with numpy.asarray"):
            namespace(other)


def test_arrays_does_not_load_torch() -> None:
    """`import gfsim` must stay fast; a fresh interpreter, because this one has torch already."""
    code = "import sys, gfsim.arrays, gfsim.objective, gfsim.models.custom; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("like", [np.zeros(2), np.zeros(2, dtype=np.float32), torch.zeros(2), torch.zeros(2).double()])
def test_identity_and_zeros_take_type_and_precision_from_their_model(like: object) -> None:
    for made, wanted in ((identity(3, like=like), np.eye(3)), (zeros((2, 3), like=like), np.zeros((2, 3)))):
        assert type(made) is type(like)
        assert made.dtype == like.dtype  # type: ignore[attr-defined]
        np.testing.assert_array_equal(np.asarray(made), wanted)


def test_finite_array_gives_float64() -> None:
    out = finite_array([[1, 2], [3, 4]], "X", ndim=2)
    assert out.dtype == np.float64
    assert out.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert finite_array(torch.tensor([1.0]), "y", ndim=(1, 2)).tolist() == [1.0]
    assert finite_array(3, "level").shape == ()


@pytest.mark.parametrize(
    ("value", "ndim", "message"),
    [
        ([1.0], 2, r"v has 1 dimension\(s\), shape \(1,\); it must have 2"),
        (1.0, (1, 2), "v has 0 dimension.* it must have 1 or 2"),
        ([], None, r"v is empty \(shape \(0,\)\)"),
        ([[1.0, math.nan]], 2, r"v holds nan at index \(0, 1\); every entry must be finite: drop or impute"),
        ([math.inf], 1, r"v holds inf at index \(0,\)"),
        ([-math.inf], 1, "v holds -inf"),
        (["a"], 1, "v is not numeric"),
        ([[1.0], [1.0, 2.0]], None, "v is not numeric"),
        (None, None, "v holds nan|v is not numeric"),
        (object(), None, "v is not numeric"),
    ],
)
def test_finite_array_names_the_fault(value: object, ndim: object, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        finite_array(value, "v", ndim=ndim)  # type: ignore[arg-type]


def test_positive() -> None:
    assert positive(2, "delta") == 2.0
    assert positive(1e-300, "delta") == 1e-300
    for value in (0.0, -1.0, math.nan, math.inf, -0.0):
        with pytest.raises(InvalidInput, match=r"delta = .*; it must be a finite number > 0"):
            positive(value, "delta")
    for other in ("x", None, [1.0, 2.0]):
        with pytest.raises(InvalidInput, match="is not a number; it must be a finite number > 0"):
            positive(other, "delta")  # type: ignore[arg-type]


def test_whole_number() -> None:
    assert whole_number(3, "rank") == 3
    assert type(whole_number(np.int64(3), "rank")) is int
    assert whole_number(0, "seed", least=0) == 0
    for value in (0, -1, 1.0, "1", None, True):
        with pytest.raises(InvalidInput, match=r"rank = .*; it must be a whole number >= 1"):
            whole_number(value, "rank")


def test_every_error_is_caught_by_one_name_and_by_its_builtin() -> None:
    """The command line catches GfsimError; a library's user may catch ValueError, as for any other library."""
    kinds = {
        errors.InvalidInput: ValueError,
        errors.UnknownName: KeyError,
        errors.NotHomogeneous: TypeError,
        errors.SaddleNotFound: RuntimeError,
        errors.OutputError: OSError,
    }
    for kind, builtin in kinds.items():
        assert issubclass(kind, GfsimError)
        assert issubclass(kind, builtin)
        assert str(kind("a message")) == "a message"  # KeyError alone would print its repr


def test_unknown_name_suggests_the_nearest_and_lists_all() -> None:
    near = unknown_name("figure", "pursiut", ["toy", "pursuit"])
    assert isinstance(near, UnknownName)
    assert str(near) == "unknown figure 'pursiut'. Did you mean 'pursuit'? Known: pursuit, toy."
    far = unknown_name("figure", "zzzz", ["toy", "pursuit"])
    assert str(far) == "unknown figure 'zzzz'. Known: pursuit, toy."


def test_complex_data_are_refused_not_truncated() -> None:
    with pytest.raises(InvalidInput, match="X is complex"):
        finite_array(np.ones((2, 2)) * 1j, "X")
