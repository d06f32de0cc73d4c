"""The figures, in the order in which they are run and listed.

Titles stand here and not in the modules so that listing them imports nothing.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gfsim.errors import unknown_name
from paper_repro.figure import Context, Outcome

BEYOND = "Kumar and Haupt, JMLR 26(269), 2025"
PURSUIT = "Kumar and Haupt, arXiv 2509.12154, 2025"


@dataclass(frozen=True)
class Entry:
    """A figure: its command-line name, its module, a title, and where in the papers it comes from.

    ``seconds`` is about what the quick form takes.  While no earlier run tells, it decides which figures begin first
    when several run at a time, and how long the rest is said to take.
    """

    name: str
    module: str
    title: str
    source: str
    seconds: float = 5.0

    @property
    def available(self) -> bool:
        """Whether its module is installed (it is not imported)."""
        return importlib.util.find_spec(self.module) is not None

    def load(self) -> Callable[[Context], Outcome]:
        run: Callable[[Context], Outcome] = importlib.import_module(self.module).run
        return run


FIGURES: tuple[Entry, ...] = (
    Entry("toy", "paper_repro.toy", "Closed-form escape from the origin", f"{BEYOND}, Figure 2 and Example 1"),
    Entry(
        "first_saddle",
        "paper_repro.first_saddle",
        "Two-layer square net from the origin to its first saddles",
        f"{BEYOND}, Figures 1 and 14",
    ),
    Entry(
        "three_layer_square",
        "paper_repro.three_layer_square",
        "Three-layer square net, with the NCF ascent and without",
        f"{BEYOND}, Figures 4 and 15",
    ),
    Entry(
        "two_layer_relu", "paper_repro.two_layer_relu", "Two-layer ReLU net to its first saddle", f"{BEYOND}, Figure 5"
    ),
    Entry(
        "three_layer_relu",
        "paper_repro.three_layer_relu",
        "Three-layer ReLU net to its first saddle",
        f"{BEYOND}, Figure 6",
    ),
    Entry(
        "four_layer_relu",
        "paper_repro.four_layer_relu",
        "Four-layer ReLU net to its first saddle",
        f"{BEYOND}, Figure 7",
    ),
    Entry(
        "four_layer_digits",
        "paper_repro.four_layer_digits",
        "Four-layer ReLU net on the digits 0 and 1",
        f"{BEYOND}, Figures 8, 16 and 17",
    ),
    Entry(
        "two_layer_tanh", "paper_repro.two_layer_tanh", "Two-layer tanh net to its first saddle", f"{BEYOND}, Figure 9"
    ),
    Entry(
        "three_layer_tanh",
        "paper_repro.three_layer_tanh",
        "Three-layer tanh net to its first saddle",
        f"{BEYOND}, Figure 10",
    ),
    Entry(
        "four_layer_tanh",
        "paper_repro.four_layer_tanh",
        "Four-layer tanh net to its first saddle",
        f"{BEYOND}, Figure 11",
    ),
    Entry(
        "two_layer_gelu", "paper_repro.two_layer_gelu", "Two-layer GELU net out of the origin", f"{BEYOND}, Figure 12"
    ),
    Entry(
        "three_layer_gelu",
        "paper_repro.three_layer_gelu",
        "Three-layer GELU net out of the origin",
        f"{BEYOND}, Figure 13",
    ),
    Entry(
        "saddle_directions",
        "paper_repro.saddle_directions",
        "Directions of the small weights near a sparse saddle",
        f"{PURSUIT}, Theorem 7 (our reading; set-up ours)",
    ),
    Entry(
        "after_saddle",
        "paper_repro.after_saddle",
        "From one sparse saddle to the next",
        f"{PURSUIT}, the dynamics after the saddle (our reading; set-up ours)",
    ),
    Entry(
        "pursuit",
        "paper_repro.pursuit",
        "Neuron Pursuit recovers a sparse network",
        f"{PURSUIT}, the author's public example",
        seconds=22.0,
    ),
    # near sparse saddles, and Neuron Pursuit against fixed widths
    Entry(
        "basins",
        "paper_repro.basins",
        "Which KKT point attracts which start",
        f"{PURSUIT}, Theorem 7 (our reading; set-up ours)",
        seconds=25.0,
    ),
    Entry(
        "escape_times",
        "paper_repro.escape_times",
        "Escape times from a sparse saddle for K = 2, 3, 4",
        f"{PURSUIT}, Theorem 7 (our reading; set-up ours)",
        seconds=28.0,
    ),
    Entry(
        "staircase",
        "paper_repro.staircase",
        "From saddle to saddle, with the sequence that Neuron Pursuit predicts",
        f"{PURSUIT}, the dynamics after the saddle (our reading; set-up ours)",
        seconds=28.0,
    ),
    Entry(
        "beyond_theorem",
        "paper_repro.beyond_theorem",
        "What differs for ReLU, for GELU, and where w_n is not at a minimum",
        f"{PURSUIT}, the hypotheses of Theorem 7 (our reading; set-up ours)",
        seconds=15.0,
    ),
    Entry(
        "pursuit_versus_fixed",
        "paper_repro.pursuit_versus_fixed",
        "Neuron Pursuit against networks of fixed width",
        f"{PURSUIT}, the claim that it beats fixed architectures (set-up ours)",
        seconds=60.0,
    ),
)


def select(names: Sequence[str], figures: Sequence[Entry] | None = None) -> list[Entry]:
    """The named figures in registry order, all of them when ``names`` is empty; each once.

    Raises :class:`gfsim.errors.UnknownName` with the nearest right name.
    """
    known = FIGURES if figures is None else figures
    for name in names:
        if name not in [entry.name for entry in known]:
            raise unknown_name("figure", name, [entry.name for entry in known])
    return [entry for entry in known if not names or entry.name in names]
