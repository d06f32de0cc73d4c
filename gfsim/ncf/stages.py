"""A training flow told saddle by saddle: what each plateau is near, and where the small weights turn.

docs/theory.md, section 5.  For every plateau of a computed flow this collects the exact saddle behind it,
the KKT points of the NCF there (by ascent from random starts, and by the NCF flow from the flow's own state),
and the cosine of the small weights to each of them, from the end of the stage before to its own end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from gfsim.arrays import generator, whole_number
from gfsim.errors import GfsimError, InvalidInput
from gfsim.flow.field import Descent
from gfsim.flow.result import FlowResult
from gfsim.models.activation import HomogeneousActivation
from gfsim.models.feedforward import FeedForward
from gfsim.ncf.directions import cosine
from gfsim.ncf.kkt import Correlation, KKTPoint
from gfsim.ncf.origin import OriginNCF, canonical
from gfsim.ncf.origin import maximise as maximise_at_origin
from gfsim.ncf.phi import limit
from gfsim.ncf.saddle import NeuronDirection, SaddleNCF
from gfsim.objective import Objective
from gfsim.saddles.find import nearby_saddle
from gfsim.saddles.neurons import ActiveNeurons
from gfsim.saddles.plateaus import Plateau, find_plateaus
from gfsim.saddles.saddle import SparseSaddle, origin

MOST_ROWS = 1000
"""Rows of a stage at which cosines are computed; of a longer one equally spaced rows."""

SMALL = 0.1
"""A plateau is near the origin when every neuron there is below this part of the largest of the whole flow."""

LARGEST_POLISH = 400
"""Active weights above which the Newton steps to the exact saddle take too long for a summary."""

WORK = 1e7
"""Samples times weights times starts that the search for KKT points of one stage may cost: a few seconds."""

FLOOR = 1e-20
"""A loss below this part of the loss at the origin is rounding, and so is the NCF that its residual makes."""

SAME = 0.999
"""Cosine from which two neurons count as the same KKT point."""


@dataclass(frozen=True, eq=False)
class Target:
    """A KKT point of a stage's NCF, and how well the small weights point at it.

    Attributes
    ----------
    layer, unit : int
        The inactive neuron it is placed on, layers from 1 and units from 0: of all the placements that
        symmetry offers, the one nearest to the flow when it leaves.  Both 0 at the origin, where it has a
        part in every layer.
    value, gap : float
        N and the second-order gap (:class:`gfsim.ncf.kkt.KKTPoint`).
    hits : int
        Starts that found it; 0 for closed forms and for one that only the flow's own state leads to.
    predicted : bool
        Whether the NCF flow from the flow's own state (row ``Stage.predicted_from``) ends here.
    cosine : (number of ``Stage.rows``,)
        Of all the small weights w_z with it; at the origin up to permutations and signs of neurons.
    """

    layer: int
    unit: int
    value: float
    gap: float
    hits: int
    predicted: bool
    cosine: np.ndarray = field(repr=False)


@dataclass(frozen=True, eq=False)
class Stage:
    """One plateau and the way to the next.

    Attributes
    ----------
    plateau : Plateau
    active : ActiveNeurons
        As on the plateau, or none where the plateau is at the origin.
    begin, end : int
        First and last row; the stages of a flow follow each other without a gap.
    rows : (k,) of int
        Rows at which the cosines are known.
    predicted_from : int
        The row from which the NCF flow was started.
    saddle : SparseSaddle or None
    distance : float
        |w - saddle| at the slowest row; NaN without a saddle.
    targets : list of Target
        Best N first; empty where there is none, or where none could be looked for.
    remarks : list of str
        Why something is missing.
    """

    plateau: Plateau
    active: ActiveNeurons
    begin: int
    end: int
    rows: np.ndarray = field(repr=False)
    predicted_from: int = 0
    saddle: SparseSaddle | None = field(default=None, repr=False)
    distance: float = np.nan
    targets: list[Target] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def find_stages(result: FlowResult, *, rng: np.random.Generator, most_targets: int = 8) -> list[Stage]:
    """The stages of the training flow of a feed-forward net, in the order of time.

    A part that cannot be had (a saddle that the polish does not reach, an NCF that does not exist for this
    activation, a search that would take long) is left out, and the stage's remarks say why.

    Parameters
    ----------
    result : FlowResult
    rng : numpy Generator
        Starts of the search for KKT points.
    most_targets : int >= 1
        KKT points kept for a stage, the best ones; the predicted one is always among them.

    Raises
    ------
    InvalidInput
        For the flow of another model, and for one with fewer than three rows.
    """
    generator(rng)
    whole_number(most_targets, "most_targets", least=1)
    plateaus = find_plateaus(result)
    field_ = result.field
    if not isinstance(field_, Descent) or not isinstance(field_.objective.model, FeedForward):
        raise InvalidInput("stages are read off the training flow of a feed-forward net; this is another flow")
    model = field_.objective.model
    norms = model.neuron_norms(result.w)
    largest = max((float(values.max()) for values in norms), default=0.0)
    ends = [*(plateau.first for plateau in plateaus[1:]), len(result.t) - 1][: len(plateaus)]
    out: list[Stage] = []
    for plateau, end in zip(plateaus, ends, strict=True):
        begin = out[-1].end if out else 0
        rows = np.unique(np.linspace(begin, end, min(MOST_ROWS, end - begin + 1)).round().astype(int))
        here = max((float(values[plateau.slowest].max()) for values in norms), default=0.0)
        units: tuple[tuple[int, ...], ...] = tuple(() for _ in model.hidden_widths)
        active = ActiveNeurons(units) if here < SMALL * largest else plateau.active
        out.append(_stage(result, field_.objective, plateau, active, (begin, end), rows, rng, most_targets))
    return out


def _stage(
    result: FlowResult,
    objective: Objective,
    plateau: Plateau,
    active: ActiveNeurons,
    span: tuple[int, int],
    rows: np.ndarray,
    rng: np.random.Generator,
    most: int,
) -> Stage:
    stage = Stage(plateau, active, *span, rows)
    try:
        saddle = _saddle(objective, plateau, active)
        distance = float(np.linalg.norm(plateau.w - saddle.w))
        at_start = float(np.linalg.norm(result.w[0] - saddle.w))
        first = 0 if span[0] == 0 and at_start <= 10 * distance else plateau.slowest
        stage = Stage(plateau, active, *span, rows, first, saddle, distance)
        stage.targets.extend(_targets(result, stage, saddle, rng, most))
        if not stage.targets:
            stage.remarks.append("no KKT point with N > 0 was found: to first order nothing pulls a neuron away")
    except GfsimError as exc:
        stage.remarks.append(" ".join(str(exc).split()))
    return stage


def _saddle(objective: Objective, plateau: Plateau, active: ActiveNeurons) -> SparseSaddle:
    if active.origin:
        return origin(objective)
    if not all(active.units):
        raise InvalidInput(
            f"the neurons that are not small, {active.units}, leave a hidden layer empty: the plateau is between "
            "saddles; look at a later one"
        )
    size = sum(
        into * out for into, out in pairwise([objective.model.n_inputs, *active.widths, objective.model.n_outputs])
    )
    if size > LARGEST_POLISH:
        raise InvalidInput(
            f"the exact saddle of {size} active weights was not looked for (at most {LARGEST_POLISH} here); "
            "gfsim.saddles.plateaus.saddle_behind finds it"
        )
    return nearby_saddle(objective, plateau.w, active)


def _targets(
    result: FlowResult, stage: Stage, saddle: SparseSaddle, rng: np.random.Generator, most: int
) -> list[Target]:
    if not saddle.index_z.size:
        raise InvalidInput("every neuron is active, so no small weights are left that could turn anywhere")
    if saddle.loss <= FLOOR * float(saddle.objective.value(np.zeros_like(saddle.w))):
        raise InvalidInput("the loss is zero to rounding, and with it the NCF: a minimum, from which no way leads down")
    starts = _starts(saddle.objective)
    activation = saddle.model.activation
    smooth = isinstance(activation, HomogeneousActivation) and activation.smooth
    small = result.w[:, saddle.index_z]
    here, now = small[stage.rows], small[stage.predicted_from]
    leaving = int(np.searchsorted(stage.rows, stage.plateau.last))
    if saddle.active.origin:
        at_origin = OriginNCF(saddle.objective)
        points = maximise_at_origin(at_origin, starts=starts, rng=rng)
        ahead = _ahead(at_origin, now) if smooth else None
        return _at_origin(saddle.model, here, points, ahead, most)
    ncf = SaddleNCF(saddle)
    maxima = ncf.neuron_maxima(starts=starts, rng=rng)
    return _at_saddle(ncf, here, min(leaving, len(here) - 1), maxima, _ahead(ncf, now) if smooth else None, most)


def _starts(objective: Objective) -> int:
    """Random starts of the search, fewer for large problems."""
    work = objective.n_samples * objective.model.n_params
    if 4 * work > WORK:
        raise InvalidInput(
            f"the KKT points were not looked for: {objective.n_samples} samples times {objective.model.n_params} "
            "weights are too many for a summary; gfsim.ncf finds them"
        )
    return int(min(64, WORK / work))


def _ahead(ncf: Correlation, now: np.ndarray) -> KKTPoint | None:
    """Where the NCF flow from the small weights ``now`` ends; None unless it escapes."""
    size = float(np.linalg.norm(now))
    return limit(ncf, now / size).point if size > 0 else None


def _at_origin(
    model: FeedForward, w: np.ndarray, points: Sequence[KKTPoint], ahead: KKTPoint | None, most: int
) -> list[Target]:
    sorted_w = np.stack([canonical(model, row) for row in w])
    out: list[Target] = []
    for point in points[:most]:
        same = ahead is not None and float(canonical(model, ahead.u) @ point.u) >= SAME
        track = cosine(w, ahead.u) if same and ahead is not None else cosine(sorted_w, point.u)
        out.append(Target(0, 0, point.value, point.gap, point.hits, same, track))
    if ahead is not None and not any(target.predicted for target in out):
        out = [*out[: most - 1], Target(0, 0, ahead.value, ahead.gap, 0, True, cosine(w, ahead.u))]
    return sorted(out, key=lambda target: -target.value)


def _at_saddle(
    ncf: SaddleNCF,
    w_z: np.ndarray,
    leaving: int,
    maxima: Sequence[NeuronDirection],
    ahead: KKTPoint | None,
    most: int,
) -> list[Target]:
    layer, unit = ncf.neuron_of(ahead.u) if ahead is not None else (0, 0)
    out: list[Target] = []
    for direction in maxima[:most]:
        place, twins = ncf.places[direction.layer - 1], _twins(ncf, direction)
        same = False
        if ahead is not None and direction.layer == layer:
            same = max(float(ahead.u[_row(ncf, layer, unit)] @ u) for u in twins) >= SAME
        if same and ahead is not None:
            track, on = cosine(w_z, ahead.u), unit
        else:
            track, row = _nearest(w_z, place, twins, leaving)
            on = _units(ncf, direction.layer)[row]
        out.append(Target(direction.layer, on, direction.value, direction.point.gap, direction.point.hits, same, track))
    if ahead is not None and not any(target.predicted for target in out):
        out = [*out[: most - 1], Target(layer, unit, ahead.value, ahead.gap, 0, True, cosine(w_z, ahead.u))]
    return sorted(out, key=lambda target: -target.value)


def _twins(ncf: SaddleNCF, direction: NeuronDirection) -> list[np.ndarray]:
    """The neuron (a, b), and its mirror image where the activation has one."""
    flip = ncf.saddle.model.activation.flips_sign
    mirror = [np.concatenate([-direction.a, flip * direction.b])] if flip else []
    return [direction.point.u, *mirror]


def _units(ncf: SaddleNCF, layer: int) -> tuple[int, ...]:
    return ncf.saddle.active.inactive(ncf.saddle.model)[layer - 1]


def _row(ncf: SaddleNCF, layer: int, unit: int) -> np.ndarray:
    return ncf.places[layer - 1][_units(ncf, layer).index(unit)]


def _nearest(w_z: np.ndarray, place: np.ndarray, twins: Sequence[np.ndarray], leaving: int) -> tuple[np.ndarray, int]:
    """Cosines (rows,) with the copy of a neuron that is nearest to row ``leaving``, and its place in the layer."""
    size = np.linalg.norm(w_z, axis=-1)
    tracks = [(w_z[:, place] @ u) / size[:, None] for u in twins]
    best = max(tracks, key=lambda track: float(track[leaving].max()))
    row = int(best[leaving].argmax())
    return best[:, row], row
