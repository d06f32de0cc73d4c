"""Other ways for a growth that has explained nearly everything and then goes astray."""

from __future__ import annotations

from dataclasses import dataclass

from gfsim.arrays import positive, whole_number
from gfsim.pursuit.candidates import Candidates, Paths, SingleNeurons

NEARLY = 0.05
"""A network that leaves less than this part of a constant's loss on validation data explains nearly all of them."""


@dataclass(frozen=True)
class Restart:
    """Growths that are probably in a local minimum are set aside, and others begin.

    Where a network explains nearly all of the validation data, what is left is a wrong turn more often than it is
    noise: a neuron where none belongs, which those that follow only mend.  Growths that arrive do so in a few additions
    of which nearly each validates better, and those that do not go on for long.  So such a growth is set aside when a
    few additions have not validated better.  The other penalties have their turn up to the same point, then some new
    growths, with the penalties that came furthest: in turn with single neurons only and with paths, and always with
    few starts, so that they take other ways.  If none arrives, those of the grid, and before them a new one that is
    ahead of them all, go on from where they were: nothing is lost but time.  Targets with more noise than ``below``
    never come here.

    Parameters
    ----------
    below : float
        Part of a constant's loss below which the validation loss of some growth must be.
    after, again : int
        Additions without a better validation loss after which a growth is set aside: one of the grid, a new one.
    most : int
        New growths.
    fewer : int
        They search with so many times fewer starts.
    """

    below: float = NEARLY
    after: int = 2
    again: int = 1
    most: int = 6
    fewer: int = 8

    def __post_init__(self) -> None:
        positive(self.below, "below")
        whole_number(self.after, "after")
        whole_number(self.again, "again")
        whole_number(self.most, "most", least=0)
        whole_number(self.fewer, "fewer")

    def strays(self, left: float, waited: int, new: bool) -> bool:
        """Whether a growth, a new one perhaps, is set aside; ``left`` is the smallest part that any has left
        unexplained."""
        return left < self.below and waited >= (self.again if new else self.after)

    def searches(self, candidates: Candidates) -> list[Candidates]:
        """Of new growths, in turn; other kinds of candidates than paths are asked again as they are."""
        if not isinstance(candidates, Paths):
            return [candidates]
        few = candidates.with_starts(1.0 / self.fewer)
        if type(candidates) is not Paths:
            return [few]
        return [SingleNeurons(starts=few.starts, keep=few.keep, ascents=few.ascents), few]
