"""Certify a sparse saddle: that it is critical, what its Hessian is, and why it is no minimum.

docs/theory.md, section 4.  For K > 2 the Hessian vanishes on w_z, so no eigenvalue can show the way
down: the saddle is degenerate, and the proof that it is one is a direction u with N(u) > 0 along which

    L(w + eps u) = L(w) - eps^K N(u) + higher order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from gfsim.ncf.kkt import Correlation, KKTPoint
from gfsim.ncf.origin import OriginNCF
from gfsim.ncf.origin import maximise as maximise_at_origin
from gfsim.ncf.saddle import SaddleNCF
from gfsim.saddles.find import STATIONARY, rounding_level
from gfsim.saddles.saddle import SparseSaddle

Verdict = Literal["saddle", "no escape found", "not critical", "active part is no minimum"]


def saddle_ncf(saddle: SparseSaddle) -> Correlation:
    """The NCF that governs the escape: of the whole net at the origin, else the one-neuron sum."""
    return OriginNCF(saddle.objective) if saddle.active.origin else SaddleNCF(saddle)


@dataclass(frozen=True)
class SaddleCertificate:
    """Evidence about a sparse saddle.

    Attributes
    ----------
    gradient : float
        |grad L| of the wide net.
    rounding : float
        The rounding error of that gradient; critical to machine precision means a small multiple.
    leak : float
        Largest |dL/dw_z| at random w_n with w_z = 0, relative to |dL/dw_n|: zero, since w_z is a
        zero-preserving subset (Lemma 16).
    active_spectrum, spectrum : arrays, increasing
        Hessian eigenvalues of the active block and of the whole net.
    flat : float
        Eigenvalues below ``flat`` in absolute value are rounding.
    small_block : float
        Largest entry of the w_z block of the Hessian plus Hess N(0): zero for every K.
    cross_block : float
        Largest entry of the Hessian between w_n and w_z: zero.
    escape : KKTPoint or None
        The best direction out of the saddle, on w_z coordinates; None when N <= 0 everywhere tried.
    predicted_drop, measured_drop : float
        eps^K N(u) and L(w) - L(w + eps u), for the eps at which they were compared.
    """

    gradient: float
    rounding: float
    leak: float
    active_spectrum: np.ndarray = field(repr=False)
    spectrum: np.ndarray = field(repr=False)
    flat: float
    small_block: float
    cross_block: float
    escape: KKTPoint | None
    predicted_drop: float
    measured_drop: float

    @property
    def inertia(self) -> tuple[int, int, int]:
        """(negative, zero, positive) eigenvalues of the whole Hessian."""
        e = self.spectrum
        return int((e < -self.flat).sum()), int((abs(e) <= self.flat).sum()), int((e > self.flat).sum())

    @property
    def verdict(self) -> Verdict:
        if self.gradient > STATIONARY * max(self.rounding, 1e-300):
            return "not critical"
        if self.active_spectrum.size and self.active_spectrum[0] < -self.flat:
            return "active part is no minimum"
        if self.escape is None or self.measured_drop <= 0:
            return "no escape found"
        return "saddle"

    def summary(self) -> str:
        negative, zero, positive = self.inertia
        units = self.gradient / max(self.rounding, 1e-300)
        lines = [
            f"{self.verdict}: |grad L| = {self.gradient:.2e} ({units:.1f} rounding units)",
            f"  Hessian inertia: {negative} negative, {zero} zero, {positive} positive; "
            f"largest {self.spectrum[-1]:.4g}",
            f"  zero-preserving: relative leak into w_z {self.leak:.1e}; cross block {self.cross_block:.1e}",
        ]
        if self.escape is not None:
            lines.append(
                f"  escape: N = {self.escape.value:.6g}, KKT residual {self.escape.residual:.1e}; "
                f"loss drop {self.measured_drop:.4e} where {self.predicted_drop:.4e} was predicted"
            )
        return "\n".join(lines)


def certify(saddle: SparseSaddle, *, rng: np.random.Generator, starts: int = 64) -> SaddleCertificate:
    """Collect the float64 evidence that ``saddle`` is what it claims to be; a proof is :mod:`gfsim.rigor`'s.

    Parameters
    ----------
    saddle : SparseSaddle
    rng : numpy Generator
        Of the searches below.
    starts : int
        Random starts a layer that look for the way out, a maximum of the NCF.
    """
    o, w = saddle.objective, saddle.w
    n, z = saddle.index_n, saddle.index_z
    H = o.hessian(w)
    spectrum = np.linalg.eigvalsh(H)
    active = np.linalg.eigvalsh(H[np.ix_(n, n)]) if n.size else np.zeros(0)
    top = float(np.abs(spectrum).max(initial=0.0))
    ncf = saddle_ncf(saddle)
    escape = _best(saddle, ncf, starts, rng)
    predicted = measured = 0.0
    if escape is not None:
        predicted, measured = _drop(saddle, ncf, escape)
    return SaddleCertificate(
        gradient=float(np.linalg.norm(o.gradient(w))),
        rounding=rounding_level(saddle.active_objective, saddle.w_n) if n.size else rounding_level(o, w),
        leak=_leak(saddle, rng),
        active_spectrum=active,
        spectrum=spectrum,
        flat=max(1e-9 * top, 1e-300),
        small_block=float(np.abs(H[np.ix_(z, z)] + ncf.hessian(np.zeros(z.size))).max(initial=0.0)),
        cross_block=float(np.abs(H[np.ix_(n, z)]).max(initial=0.0)),
        escape=escape,
        predicted_drop=predicted,
        measured_drop=measured,
    )


def _best(saddle: SparseSaddle, ncf: Correlation, starts: int, rng: np.random.Generator) -> KKTPoint | None:
    if isinstance(ncf, SaddleNCF):
        found = ncf.neuron_maxima(starts=starts, rng=rng)
        if not found:
            return None
        best = found[0]
        u = ncf.embed(best, saddle.active.inactive(saddle.model)[best.layer - 1][0])
        return KKTPoint(u, best.point.value, best.point.residual, best.point.gap, best.point.hits)
    points = maximise_at_origin(OriginNCF(saddle.objective), starts=starts, rng=rng)
    return points[0] if points and points[0].value > 0 else None


def _drop(saddle: SparseSaddle, ncf: Correlation, escape: KKTPoint) -> tuple[float, float]:
    """Predicted and measured loss drop along the escape at the eps where they agree best.

    A small eps drowns the drop in rounding, a large one leaves the expansion: the search over eps is
    for the place to look, the comparison itself has no free parameter.
    """
    loss = saddle.loss
    scale = max(1.0, float(np.linalg.norm(saddle.w)))
    best = (np.inf, 0.0, 0.0)
    for eps in scale * np.logspace(-4, 0, 41):
        w = saddle.w.copy()
        w[saddle.index_z] += eps * escape.u
        predicted = float(eps**ncf.degree) * escape.value
        measured = loss - float(saddle.objective.value(w))
        best = min(best, (abs(measured / predicted - 1.0), predicted, measured))
    return best[1], best[2]


def _leak(saddle: SparseSaddle, rng: np.random.Generator) -> float:
    if saddle.index_n.size == 0:
        return float(np.abs(saddle.objective.gradient(saddle.w)).max())
    worst = 0.0
    for _ in range(4):
        w = np.zeros_like(saddle.w)
        w[saddle.index_n] = rng.standard_normal(saddle.index_n.size)
        g = saddle.objective.gradient(w)
        worst = max(worst, float(np.abs(g[saddle.index_z]).max(initial=0.0) / max(np.linalg.norm(g), 1e-300)))
    return worst
