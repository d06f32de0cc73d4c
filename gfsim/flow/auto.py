"""``method="auto"``: every row explicit while its flow is not stiff, implicit where it is, and back, by the rule of
:mod:`gfsim.flow.switching`.

The rows are shared out between two integrators, an explicit pair and backward differences.  A row that changes leaves
the one (``keep``) and joins the other (``join``).  What was used when is kept for each row as
:class:`gfsim.flow.result.Phase` records.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gfsim.arrays import Array
from gfsim.flow.integrator import COSTS, Attempt
from gfsim.flow.ndf import NDF
from gfsim.flow.newton import kind_for
from gfsim.flow.result import Phase
from gfsim.flow.rows import RowField, row_numbers
from gfsim.flow.runge_kutta import ExplicitPair
from gfsim.flow.switching import HISTORY, Trail, Verdict, explicit_tableau


@dataclass
class _Part:
    """Some of the rows and their integrator; ``order`` are their numbers, which increase."""

    integrator: ExplicitPair | NDF
    order: Array


class Auto:
    """Rows w (B, P), each by the method that suits it; satisfies :class:`gfsim.flow.integrator.Integrator`.

    Parameters
    ----------
    rows : RowField
    w : (B, P)
    rtol, atol
        As for :class:`gfsim.flow.runge_kutta.ExplicitPair`.
    """

    def __init__(self, rows: RowField, w: Array, *, rtol: float, atol: Array) -> None:
        self.rows, self.rtol, self.atol = rows, rtol, atol + 0.0 * w
        self.tableau = explicit_tableau(rows.field, rtol)
        self.newton = kind_for(w)
        self.trails = [Trail(self.tableau, 0.0) for _ in range(len(w))]
        pair = ExplicitPair(rows, w, self.tableau, rtol=rtol, atol=self.atol)
        self._explicit: _Part | None = _Part(pair, row_numbers(w))
        self._implicit: _Part | None = None
        self._sort()

    @property
    def phases(self) -> list[list[Phase]]:
        """What was used when, a list for each row."""
        return [trail.phases for trail in self.trails]

    # -- the rows together -------------------------------------------------------------------------

    def _sort(self) -> None:
        self._parts = [part for part in (self._explicit, self._implicit) if part is not None]
        orders = [part.order for part in self._parts]
        order = orders[0] if len(orders) == 1 else self.rows.xp.concatenate(orders)
        self._place = order.argsort()
        """Where each row is among the rows of the parts, one part after the other."""
        self._whole = len(orders) == 1

    def _together(self, values: list[Array]) -> Array:
        """The parts' values in the order of the rows."""
        return values[0] if self._whole else self.rows.xp.concatenate(values)[self._place]

    @property
    def s(self) -> Array:
        return self._together([part.integrator.s for part in self._parts])

    @property
    def w(self) -> Array:
        return self._together([part.integrator.w for part in self._parts])

    @property
    def h(self) -> Array:
        return self._together([part.integrator.h for part in self._parts])

    @property
    def stiffness(self) -> Array:
        return self._together([part.integrator.stiffness for part in self._parts])

    @property
    def counts(self) -> dict[str, Array]:
        """The costs of each row, by whichever method."""
        counts = [part.integrator.counts for part in self._parts]
        return counts[0] if self._whole else {name: self._together([c[name] for c in counts]) for name in COSTS}

    # -- one attempt -------------------------------------------------------------------------------

    def attempt(self) -> Attempt:
        parts, place, whole = self._parts, self._place, self._whole
        attempts = [part.integrator.attempt() for part in parts]
        moves = [self._judge(part, attempt) for part, attempt in zip(parts, attempts, strict=True)]
        if any(move.any for move in moves):
            attempts = [self._taken_back(*each) for each in zip(parts, attempts, moves, strict=True)]
            self._move(parts, attempts, moves)
        if whole:
            return attempts[0]
        accepted, stuck, start, end, w_start, w_end = (
            self.rows.xp.concatenate([attempt[k] for attempt in attempts])[place] for k in range(6)
        )
        return Attempt(accepted, stuck, start, end, w_start, w_end, _Joint(attempts, place))

    def _judge(self, part: _Part, attempt: Attempt) -> _Moves:
        """Which rows of the part change the method, by the rule for each."""
        integrator, moves = part.integrator, _Moves([], [], [])
        start, end = attempt.start.tolist(), attempt.end.tolist()
        stiffness, rejected = integrator.stiffness.tolist(), integrator.counts["rejected"].tolist()
        untried = []
        for k, (row, took) in enumerate(zip(part.order.tolist(), attempt.accepted.tolist(), strict=True)):
            trail = self.trails[row]
            if took:
                verdict = trail.judge(start=start[k], end=end[k], stiffness=stiffness[k], rejected=rejected[k])
                if verdict is Verdict.HAND_OVER:
                    moves.over.append(k)
                elif verdict is Verdict.REDO:
                    moves.redo.append(k)
            elif trail.untried:
                untried.append(k)
        if untried and isinstance(integrator, ExplicitPair):
            index = self._index(untried)
            fastest = integrator.h[index] * integrator.fastest(index)
            for k, x in zip(untried, fastest.tolist(), strict=True):
                if self.trails[int(part.order[k])].hopeless(x):
                    moves.afresh.append(k)
        return moves

    def _taken_back(self, part: _Part, attempt: Attempt, moves: _Moves) -> Attempt:
        """The attempt without the steps that the other method does again."""
        if not moves.redo:
            return attempt
        index, counts = self._index(moves.redo), part.integrator.counts
        counts["accepted"][index] -= 1
        counts["rejected"][index] += 1
        accepted, end, w_end = attempt.accepted | False, 1.0 * attempt.end, 1.0 * attempt.w_end
        accepted[index], end[index], w_end[index] = False, attempt.start[index], attempt.w_start[index]
        return attempt._replace(accepted=accepted, end=end, w_end=w_end)

    # -- from one method to the other --------------------------------------------------------------

    def _move(self, parts: list[_Part], attempts: list[Attempt], moves: list[_Moves]) -> None:
        arriving = []
        for part, attempt, move in zip(parts, attempts, moves, strict=True):
            for places, successor in ((move.over, self._handed_over), (move.redo + move.afresh, self._afresh)):
                if places:
                    index = self._index(places)
                    new = successor(part, attempt, index)
                    for name in COSTS:
                        new.counts[name] += part.integrator.counts[name][index]
                    arriving.append(_Part(new, part.order[index]))
        for part, move in zip(parts, moves, strict=True):
            gone = {*move.over, *move.redo, *move.afresh}
            self._only(part, [k for k in range(len(part.order)) if k not in gone])
        for new_part in arriving:
            self._join(new_part)
        self._sort()

    def _handed_over(self, part: _Part, attempt: Attempt, index: Array) -> ExplicitPair | NDF:
        """The other method from the ends of the last steps of the part's rows ``index``."""
        old, atol = part.integrator, self.atol[part.order[index]]
        w, s = 1.0 * attempt.w_end[index], attempt.end[index]
        if isinstance(old, NDF):
            return ExplicitPair(self.rows, w, self.tableau, rtol=self.rtol, atol=atol, s=s, h=old.h[index])
        h = (s - attempt.start[index]) / (HISTORY - 1)
        past = attempt.at(index, s[:, None] - h[:, None] * self.rows.const(np.arange(float(HISTORY)), w))
        past[:, 0] = w
        ndf = NDF(self.rows, w, rtol=self.rtol, atol=atol, s=s, h=h, newton=self.newton)
        ndf.start_from(past, h)
        return ndf

    def _afresh(self, part: _Part, attempt: Attempt, index: Array) -> ExplicitPair | NDF:
        """The implicit method from where the part's rows ``index`` are."""
        w, s, atol = 1.0 * attempt.w_end[index], attempt.end[index], self.atol[part.order[index]]
        return NDF(self.rows, w, rtol=self.rtol, atol=atol, s=s, newton=self.newton)

    def _only(self, part: _Part, places: list[int]) -> None:
        """Keep the part's rows at ``places``."""
        if not places and part is self._explicit:
            self._explicit = None
        elif not places:
            self._implicit = None
        elif len(places) < len(part.order):
            index = self._index(places)
            part.integrator.keep(index)
            part.order = part.order[index]

    def _join(self, new: _Part) -> None:
        if isinstance(new.integrator, ExplicitPair):
            old, self._explicit = self._explicit, self._explicit or new
        else:
            old, self._implicit = self._implicit, self._implicit or new
        if old is not None:
            old.integrator.join(new.integrator)  # type: ignore[arg-type]
            old.order = self.rows.xp.concatenate([old.order, new.order])
            _put_in_order(old)

    def keep(self, index: Array) -> None:
        number = {row: k for k, row in enumerate(index.tolist())}
        for part in self._parts:
            rows = part.order.tolist()
            self._only(part, [k for k, row in enumerate(rows) if row in number])
            part.order = self._index([number[row] for row in rows if row in number])
            _put_in_order(part)
        self.trails, self.atol = [self.trails[row] for row in index.tolist()], self.atol[index]
        self._sort()

    def _index(self, places: list[int]) -> Array:
        if self.rows.xp is np:
            return np.array(places, dtype=int)
        return self.rows.xp.as_tensor(places, dtype=self.rows.xp.long, device=self.atol.device)


def _put_in_order(part: _Part) -> None:
    if bool((part.order[1:] < part.order[:-1]).any()):
        by = part.order.argsort()
        part.integrator.keep(by)
        part.order = part.order[by]


class _Moves(NamedTuple):
    """Rows of a part, as places in it, that the other method takes over: from the end of their step, from its
    beginning, or from where they stand."""

    over: list[int]
    redo: list[int]
    afresh: list[int]

    @property
    def any(self) -> bool:
        return bool(self.over or self.redo or self.afresh)


class _Joint:
    """The interpolants of the parts as one for all rows."""

    def __init__(self, attempts: list[Attempt], place: Array) -> None:
        self.attempts, self.place = attempts, place

    def __call__(self, rows: Array, s: Array, part: Array | None = None) -> Array:
        place, first, out = self.place[rows], 0, None
        for attempt in self.attempts:
            mine = (place >= first) & (place < first + len(attempt.start))
            if bool(mine.all()):
                return attempt.at(place - first, s, part)
            if bool(mine.any()):
                values = attempt.at(place[mine] - first, s[mine], part)
                if out is None:
                    out = values.sum() * 0.0 + s[:, :, None] * (0.0 * values[:1, :1])
                out[mine] = values
            first += len(attempt.start)
        return out
