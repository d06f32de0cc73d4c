"""Recorded evaluations: the handling of shapes and buffers, without a GPU; the graphs themselves where there is one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import gfsim.flow.batch as batch_module
from gfsim import FeedForward, Objective, simulate_batch
from gfsim.errors import InvalidInput
from gfsim.flow.capture import AFTER, KEPT, Captured
from gfsim.flow.field import Descent, Field
from gfsim.flow.fixed_stepper import on_device

NET = FeedForward((3, 4, 1), "relu", p=2)


class Rerun:
    """Stands in for CUDA graphs: a replay evaluates again, from the recording's inputs into its output."""

    def __init__(self) -> None:
        self.made: list[tuple[int, ...]] = []
        self.replays = 0

    def __call__(self, function: Callable[..., Any], inputs: tuple[Any, ...]) -> tuple[Callable[[], None], Any]:
        output = function(*inputs)
        self.made.append(tuple(inputs[0].shape))

        def replay() -> None:
            self.replays += 1
            output.copy_(function(*inputs))

        return replay, output


def objective() -> Objective:
    rng = np.random.default_rng(0)
    return Objective(NET, rng.normal(size=(20, 3)), rng.normal(size=20), reduction="mean")


def starts(rows: int) -> np.ndarray:
    return 0.5 * np.random.default_rng(1).normal(size=(rows, NET.n_params))


def recorded() -> tuple[Captured, Rerun, Field]:
    plain, _ = on_device(Descent(objective()), starts(1), "cpu")
    rerun = Rerun()
    return Captured(plain, rerun), rerun, plain


def test_values_are_those_of_the_field_and_stay() -> None:
    """Each result is an array of its own: a replay must not change what was returned before."""
    field, rerun, plain = recorded()
    rng = np.random.default_rng(2)
    points = [torch.as_tensor(rng.normal(size=(5, NET.n_params))) for _ in range(AFTER + 4)]
    v = torch.as_tensor(rng.normal(size=(5, NET.n_params)))
    for name in ("velocity", "potential"):
        found = [getattr(field, name)(w) for w in points]
        for w, value in zip(points, found, strict=True):
            torch.testing.assert_close(value, getattr(plain, name)(w), rtol=0, atol=0)
    found = [field.jacobian_product(w, v) for w in points]
    for w, value in zip(points, found, strict=True):
        torch.testing.assert_close(value, plain.jacobian_product(w, v), rtol=0, atol=0)
    found = [field.jacobian(w[0]) for w in points]
    for w, value in zip(points, found, strict=True):
        torch.testing.assert_close(value, plain.jacobian(w[0]), rtol=0, atol=0)
    assert rerun.made == [(5, NET.n_params)] * 3 + [(NET.n_params,)]
    assert rerun.replays == 4 * 4  # the recording is replayed for its own point too
    assert field.size == plain.size
    assert field.degree == plain.degree


def test_a_shape_is_recorded_when_it_comes_back_and_few_are_kept() -> None:
    field, rerun, _ = recorded()
    for rows in range(1, 40):
        field.velocity(torch.as_tensor(starts(rows)))
    assert rerun.made == []
    for rows in range(1, KEPT + 2):
        for _ in range(AFTER + 1):
            field.velocity(torch.as_tensor(starts(rows)))
    assert len(rerun.made) == KEPT + 1
    field.velocity(torch.as_tensor(starts(KEPT + 1)))
    assert len(rerun.made) == KEPT + 1
    for _ in range(AFTER + 1):
        field.velocity(torch.as_tensor(starts(1)))  # the oldest had given way
    assert len(rerun.made) == KEPT + 2


@pytest.mark.parametrize("method", ["dp5", "ndf", "rk4"])
def test_a_batch_of_recorded_evaluations_is_the_batch(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rerun = Rerun()
    monkeypatch.setattr(batch_module, "captured", lambda place, _: Captured(place, rerun))
    options: dict[str, Any] = {"t_end": np.array([0.5, 2.0, 4.0]), "method": method, "device": "cpu"}
    if method == "rk4":
        options["step"] = 0.02
    plain = simulate_batch(objective(), starts(3), **options)
    found = simulate_batch(objective(), starts(3), capture=True, **options)
    assert rerun.replays > 20
    assert found.ok.all()
    np.testing.assert_array_equal(found.final, plain.final)
    assert found.counts == plain.counts


def test_only_cuda_records() -> None:
    for device in (None, "cpu"):
        with pytest.raises(InvalidInput, match="pass device='cuda', or no capture"):
            simulate_batch(objective(), starts(2), t_end=1.0, device=device, capture=True)


def test_a_copy_can_be_made() -> None:
    field, _, _ = recorded()
    w = torch.as_tensor(starts(2))
    torch.testing.assert_close(copy.copy(field).velocity(w), field.velocity(w))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_device() -> None:
    plain = simulate_batch(objective(), starts(6), t_end=3.0, device="cuda")
    found = simulate_batch(objective(), starts(6), t_end=3.0, device="cuda", capture=True)
    np.testing.assert_allclose(found.final, plain.final, rtol=1e-10)
