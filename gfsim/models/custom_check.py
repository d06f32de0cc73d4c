"""What a user's torch function must pass before it may serve as a model.

docs/theory.md, section 1.  :class:`gfsim.models.custom.TorchModel` runs :func:`check` at construction:
everything that will be asked of the function later is tried once at a few random points.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from gfsim.errors import InvalidInput

if TYPE_CHECKING:
    import torch

    from gfsim.models.custom import TorchModel

POINTS = 6
"""Random weight vectors at which a function is tried."""

SAMPLES = 5
"""Inputs at each of them."""

SCALES = (1e-3, 0.5, 2.0)
"""Values of c in H(x; c w) = c^D H(x; w); the small one shows terms of lower degree, however small."""

RTOL = 1e-6
"""Relative mismatch above which a declared degree is refused."""

HELP = (
    "write it as pure torch arithmetic on w and X: no in-place operation on values that depend on w (x += 1, "
    "x[i] = ...; use x = x + 1, torch.where, torch.stack), no .item(), float() or numpy() of them, no Python if or "
    "loop bound that depends on their values, no torch.tensor(w) or .detach(), no random numbers"
)


def declared_degree(degree: float | None) -> float | None:
    """``degree`` as a float > 0 or None, else :class:`InvalidInput`."""
    if degree is None:
        return None
    number = isinstance(degree, (int, float, np.integer, np.floating)) and not isinstance(degree, bool)
    if not (number and math.isfinite(degree) and degree > 0):
        raise InvalidInput(
            f"degree = {degree!r}; it must be a finite number > 0, or None for a function that has no degree"
        )
    return float(degree)


def check(model: TorchModel, rng: np.random.Generator, rows: np.ndarray | None) -> None:
    """Raise :class:`InvalidInput` with a remedy unless ``model.function`` can be used as it was declared.

    ``rows`` (m, n_inputs) are the inputs to draw from; None: standard normal ones.
    """
    import torch

    shape = (SAMPLES, model.n_inputs)
    points = [torch.from_numpy(rng.standard_normal(model.n_params)) for _ in range(POINTS)]
    inputs = [
        torch.from_numpy(rng.standard_normal(shape) if rows is None else rng.choice(rows, SAMPLES)) for _ in points
    ]
    values = [_value(model, w, X) for w, X in zip(points, inputs, strict=True)]
    _check_samples(model, points[0], inputs[0], values[0])
    _check_transforms(model, points, inputs[0])
    jacobians = [model.jacobian(w, X) for w, X in zip(points, inputs, strict=True)]
    _check_gradient(model, points, inputs, jacobians, torch.from_numpy(rng.standard_normal(model.n_params)))
    if model.degree is not None:
        _check_degree(model, model.degree, points, inputs, values)
        _check_euler(model, model.degree, points, values, jacobians)


def _value(model: TorchModel, w: torch.Tensor, X: torch.Tensor) -> torch.Tensor:
    """H where it must exist and be finite."""
    import torch

    try:
        out = model.evaluate(w, X).detach()
    except InvalidInput:
        raise
    except Exception as exc:  # whatever a user's code may raise
        raise InvalidInput(
            f"{model.name} failed on w of shape {tuple(w.shape)} and X of shape {tuple(X.shape)}, both float64: "
            f"{_first_line(exc)}; it must take any such pair"
        ) from exc
    if not torch.isfinite(out).all():
        bad = float(out[~torch.isfinite(out)][0])
        size = float(torch.linalg.vector_norm(w))
        raise InvalidInput(
            f"{model.name} returned {bad} at weights of norm {size:.3g}; it must be finite at every w, 0 included: "
            "look for a division by, or a logarithm or root of, something that vanishes (inputs=... sets the inputs "
            "of this check, if only some make sense)"
        )
    return out


def _check_samples(model: TorchModel, w: torch.Tensor, X: torch.Tensor, out: torch.Tensor) -> None:
    """The same values again, and one sample at a time."""
    import torch

    if not torch.equal(_value(model, w, X), out):
        raise InvalidInput(
            f"{model.name} gave other values on a second call with the same w and X; it must be deterministic: "
            "draw random numbers once, outside of it"
        )
    alone = torch.cat([_value(model, w, X[i : i + 1]) for i in range(len(X))])
    if not torch.allclose(alone, out, rtol=1e-9, atol=1e-9 * float(abs(out).max())):
        raise InvalidInput(
            f"{model.name} gives a sample another value alone than among others; row i of the output may depend "
            "on row i of X only: use no statistic (mean, norm, maximum) over the samples"
        )


def _check_transforms(model: TorchModel, points: list[torch.Tensor], X: torch.Tensor) -> None:
    """Every torch.func transform that the model's methods use."""
    import torch

    w, v = points[:2]
    C = torch.ones((len(X), model.n_outputs), dtype=w.dtype)
    attempts: list[tuple[str, Callable[[], torch.Tensor]]] = [
        ("grad", lambda: model.pullback(w, X, C)),
        ("vmap over weight vectors", lambda: model.forward(torch.stack([w, v]), X)),
        ("jvp of grad", lambda: model.curvature_product(w, X, C, C, v)),
        ("hessian", lambda: model.curvature(w, X, C, C)),
    ]
    for what, attempt in attempts:
        try:
            out = attempt()
        except Exception as exc:  # whatever a user's code may raise
            raise InvalidInput(
                f"{model.name} gives values, but torch.func's {what} failed on it ({_first_line(exc)}); {HELP}"
            ) from exc
        if not torch.isfinite(out).all():
            raise InvalidInput(
                f"torch.func's {what} of {model.name} is not finite at a random w; look for roots or norms at 0, "
                "or torch.where with a branch that divides by 0"
            )


def _check_gradient(
    model: TorchModel,
    points: list[torch.Tensor],
    inputs: list[torch.Tensor],
    jacobians: list[torch.Tensor],
    v: torch.Tensor,
) -> None:
    """Derivatives against central differences of values: shows .detach() and values that bypass torch.

    A kink may spoil single points, hence the median.
    """
    step, found = 1e-5, []
    for w, X, J in zip(points, inputs, jacobians, strict=True):
        slope = (J @ v).flatten()
        difference = ((_value(model, w + step * v, X) - _value(model, w - step * v, X)) / (2 * step)).flatten()
        # values H are rounded at 1e-16 |H|, their difference quotient at 1e-11 |H|: far below 1e-4 of this floor
        floor = 1e-6 * float(abs(model.evaluate(w, X)).max())
        scale = max(float(abs(slope).max()), float(abs(difference).max()), floor, 1e-300)
        k = int(abs(slope - difference).argmax())
        found.append((float(abs(slope - difference)[k]) / scale, float(slope[k]), float(difference[k])))
    error, got, wanted = sorted(found)[len(found) // 2]
    if error > 1e-4:
        raise InvalidInput(
            f"a directional derivative of {model.name} by torch.func is {got:.6g}, but differences of its values give "
            f"{wanted:.6g}; something cuts the gradient (.detach(), .data, a rounding, a value that passes through "
            f"numpy): {HELP}"
        )


def _check_degree(
    model: TorchModel, degree: float, points: list[torch.Tensor], inputs: list[torch.Tensor], values: list[torch.Tensor]
) -> None:
    """H(x; c w) = c^D H(x; w) at c = 0 and c in SCALES."""
    if all(float(abs(out).max()) == 0.0 for out in values):
        raise InvalidInput(
            f"{model.name} is 0 at all {POINTS} random weight vectors, so degree = {degree:g} cannot be checked, "
            "and no flow would move; is w used at all?"
        )
    at_zero = max(float(abs(_value(model, 0.0 * w, X)).max()) for w, X in zip(points, inputs, strict=True))
    if at_zero > 0:
        raise InvalidInput(
            f"{model.name} was declared with degree = {degree:g}, but |H| = {at_zero:.6g} at w = 0, where every "
            "homogeneous function vanishes: take biases and constants out, or make them inputs with weights of their "
            "own; degree=None simulates it without the theory"
        )
    measured, mismatches = [], [(0.0, 1.0)]
    for w, X, out in zip(points, inputs, values, strict=True):
        for c in SCALES:
            scaled = _value(model, c * w, X)
            before, after = float(abs(out).max()), float(abs(scaled).max())
            if before > 0.0 and after > 0.0:
                measured.append((math.log(after) - math.log(before)) / math.log(c))
            if degree * abs(math.log(c)) > 600:  # c^D is outside the range of floats
                continue
            wanted = c**degree * out
            scale = max(after, float(abs(wanted).max()), 1e-300)
            mismatches.append((float(abs(scaled - wanted).max()) / scale, c))
    mismatch, c = max(mismatches)
    if mismatch <= RTOL:
        return
    low, high = min(measured, default=math.nan), max(measured, default=math.nan)
    shown = round(0.5 * (low + high), 3)
    if not high - low < 1e-3:
        verdict = (
            f"its values measure degrees from {low:.3f} to {high:.3f}, so no single degree fits: pass degree=None, "
            "or take out the terms of another degree"
        )
    elif abs(shown - degree) > 1e-3:
        verdict = f"its values measure degree {shown:g}: pass degree={shown:g}"
    else:
        verdict = f"its largest values scale so, others do not (relative mismatch {mismatch:.1e}): pass degree=None"
    raise InvalidInput(
        f"{model.name} was declared with degree = {degree:g}, but H(x; c w) is not c^{degree:g} H(x; w) at c = {c:g}; "
        f"{verdict}"
    )


def _check_euler(
    model: TorchModel,
    degree: float,
    points: list[torch.Tensor],
    values: list[torch.Tensor],
    jacobians: list[torch.Tensor],
) -> None:
    """<w, grad H> = D H: the values are homogeneous by now, so this tests the derivatives."""
    for w, out, J in zip(points, values, jacobians, strict=True):
        radial, wanted = (J @ w).flatten(), degree * out.flatten()
        scale = float((abs(J) @ abs(w)).max()) + float(abs(wanted).max())
        k = int(abs(radial - wanted).argmax())
        if float(abs(radial - wanted)[k]) > RTOL * max(scale, 1e-300):
            raise InvalidInput(
                f"{model.name}: its values have degree {degree:g}, but Euler's identity <w, grad H> = D H reads "
                f"{float(radial[k]):.6g} = {float(wanted[k]):.6g} with torch.func's gradient; something changes the "
                f"gradient on the way (a custom backward, .detach()): {HELP}"
            )


def _first_line(exc: BaseException) -> str:
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return f"{type(exc).__name__}: {lines[0][:200]}" if lines else type(exc).__name__
