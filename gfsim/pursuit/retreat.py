"""Back to the best network when what was added since does not help."""

from __future__ import annotations

from dataclasses import dataclass

from gfsim.arrays import whole_number
from gfsim.pursuit.candidates import Candidates, Paths


@dataclass(frozen=True)
class Retreat:
    """When ``after`` additions did not better the validation loss, growth goes on from the best network instead.

    The additions since then followed noise, or were parts of something that needs more of them; the search for
    directions may have missed the one that counts, as in many dimensions few starts lie on its hill.  So the first
    search there has ``wider`` times the starts.  Once for each best network; patience counts on.

    Parameters
    ----------
    after : int
    wider : int
    """

    after: int = 4
    wider: int = 8

    def __post_init__(self) -> None:
        whole_number(self.after, "after")
        whole_number(self.wider, "wider")

    def search(self, candidates: Candidates) -> Candidates:
        """The wider search; another kind of candidates than paths is asked again as it is."""
        return candidates.with_starts(self.wider) if isinstance(candidates, Paths) else candidates
