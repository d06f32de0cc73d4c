"""Small-step methods with a fixed step: Euler (gradient descent), Heun and RK4, on NumPy or torch.

Euler with step eta on dw/dt = -grad L is gradient descent: iteration k sits at time t = eta k, in the
objective's convention (sum or mean).  With ``device`` the whole loop runs on torch tensors there
("cpu", "cuda"), and the weights come back only at recorded times.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gfsim.arrays import Array, taken
from gfsim.errors import InvalidInput
from gfsim.flow.field import Descent, Field
from gfsim.flow.result import Counts, Status
from gfsim.flow.stepper import Inside, Segment, StepFailure

Rule = Callable[[Callable[[Array], Array], Array, Array, float], Array]


def _euler(f: Callable[[Array], Array], w: Array, k1: Array, h: float) -> Array:
    del f
    return w + h * k1


def _heun(f: Callable[[Array], Array], w: Array, k1: Array, h: float) -> Array:
    return w + (0.5 * h) * (k1 + f(w + h * k1))


def _rk4(f: Callable[[Array], Array], w: Array, k1: Array, h: float) -> Array:
    k2 = f(w + (0.5 * h) * k1)
    k3 = f(w + (0.5 * h) * k2)
    k4 = f(w + h * k3)
    return w + (h / 6.0) * (k1 + 2.0 * (k2 + k3) + k4)


RULES: dict[str, tuple[Rule, int]] = {"euler": (_euler, 1), "heun": (_heun, 2), "rk4": (_rk4, 4)}
"""Name -> (step rule, velocity evaluations a step)."""

CHUNK = 1000
"""Steps between two looks up: an overflow, Ctrl-C or the progress line waits no longer than this."""


class FixedStepper:
    """``step`` is in physical time; the last step before ``t_end`` is not shortened."""

    def __init__(
        self, method: str, field: Field, w0: np.ndarray, *, step: float, counts: Counts, device: str | None = None
    ) -> None:
        self._rule, self._cost = RULES[method]
        self.name, self.rtol = method, None
        self._linear = method == "euler"
        self.s, self.w = 0.0, w0.copy()
        self._h, self._k, self.counts = step, 0, counts
        y: Array = w0.copy()
        if device is not None:
            field, y = on_device(field, w0, device)
        self._f = field.velocity
        self._y = y
        self._v = self._f(y)
        counts.velocity += 1

    def advance(self, limit: float) -> Segment:
        f, rule, h = self._f, self._rule, self._h
        y, v, k = self._y, self._v, self._k
        last_y, last_v = y, v
        with np.errstate(over="ignore", invalid="ignore"):
            while True:
                last_y, last_v = y, v
                y = rule(f, y, v, h)
                v = f(y)
                k += 1
                if k * h >= limit or k == self._k + CHUNK:
                    break
        self.counts.velocity += (k - self._k) * self._cost
        self.counts.accepted += k - self._k
        w, v1 = _to_numpy(y), _to_numpy(v)
        if not (np.isfinite(w).all() and np.isfinite(v1).all()):
            raise StepFailure(
                Status.OVERFLOW, f"overflow between t = {self.s:.6g} and t = {k * h:.6g} with the fixed step {h:g}"
            )
        start, end = (k - 1) * h, k * h
        w0, v0 = _to_numpy(last_y), _to_numpy(last_v)
        self._y, self._v, self._k = y, v, k
        self.s, self.w = end, w
        return Segment(start, end, w0, w, _hermite(start, h, w0, v0, w, v1, linear=self._linear))


def _to_numpy(a: Array) -> np.ndarray:
    return a if isinstance(a, np.ndarray) else a.detach().cpu().numpy().astype(np.float64)


def _hermite(
    start: float, h: float, w0: np.ndarray, v0: np.ndarray, w1: np.ndarray, v1: np.ndarray, *, linear: bool
) -> Inside:
    """Cubic Hermite interpolant of one step; the chord for Euler, whose order it matches."""

    def at(s: np.ndarray, part: np.ndarray | None = None) -> np.ndarray:
        x = ((np.atleast_1d(s) - start) / h)[:, None]
        chord = (1 - x) * w0 + x * w1
        if linear:
            return taken(chord, part)
        slope0, slope1 = h * v0 - (w1 - w0), (w1 - w0) - h * v1
        return taken(chord + x * (1 - x) * ((1 - x) * slope0 + x * slope1), part)

    return at


def on_device(field: Field, w0: np.ndarray, device: str) -> tuple[Field, Array]:
    if not isinstance(field, Descent):
        raise InvalidInput("device=... runs training flows only; leave it out for an NCF flow")
    import torch

    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InvalidInput(f"device = {device!r} and torch sees no CUDA device here; use device='cpu' or leave it out")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as exc:
        reason = str(exc).splitlines()[0]
        raise InvalidInput(
            f"device = {device!r} is refused by torch ({reason}); use 'cpu', 'cuda' or 'cuda:0'"
        ) from None
    return Descent(field.objective.to_torch(device)), torch.as_tensor(w0, dtype=torch.float64, device=device)
