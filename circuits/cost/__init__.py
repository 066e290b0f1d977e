"""Cost: what a diagram costs, as formulas in its free axes.

May use `autodiff` and below. Start with `count`, the public function, and `Cost`, what it returns, whose rows are
`BoxCost`s. `measure` runs a diagram on tensors without data, under the dispatch mode of `meter`: `contractions` has the
multiply-adds of an ATen operation, `elementwise` what the others do, and `memory` which tensors are live. `sizes` adds
and compares formulas, `groups` adds rows up, `report` writes them as text, CSV, LaTeX and plain data.

Source: torch/utils/flop_counter.py of torch 2.13, for what is a FLOP.
"""

from circuits.cost.cost import Cost
from circuits.cost.count import count

__all__ = ["Cost", "count"]
