"""The diagrammatic IO model: what a diagram moves between a slow memory and a fast one when its axes are tiled.

May use what `cost` may use. The files in order: `steps` (the operations of a diagram in one row, with axis names that
hold everywhere; `fused` replaces fused attention by its definition), `reads` (how an operation reads its axes;
`readers` has one rule a family), `checks` (which axes may be grouped or streamed), `schedule` (what is moved, and the
columns of live values), `optimum` (the best group sizes as formulas), `search` (and as whole numbers).

Source: V. Abbott and G. Zardini, FlashAttention on a Napkin, TMLR 2025, arXiv 2412.03317.
"""

from circuits.cost.io import readers
from circuits.cost.io.checks import Accumulator
from circuits.cost.io.fused import unfused
from circuits.cost.io.optimum import best, exponent_of
from circuits.cost.io.schedule import Moved, Tiles, checked, columns, moved
from circuits.cost.io.search import Tiling, best_tiling
from circuits.cost.io.steps import Program, program_of

RULES = readers
"""The module of the rules, which registers them."""

__all__ = [
    "RULES",
    "Accumulator",
    "Moved",
    "Program",
    "Tiles",
    "Tiling",
    "best",
    "best_tiling",
    "checked",
    "columns",
    "exponent_of",
    "moved",
    "program_of",
    "unfused",
]
