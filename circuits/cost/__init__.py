"""Cost: what a diagram costs, as formulas in its free axes.

May use `autodiff` and below. Start with one of these functions, of which the first three are public:

- `count` returns a `Cost`, whose rows are `BoxCost`s. `measure` runs a diagram on tensors without data, under the
  dispatch mode of `meter`: `contractions` has the multiply-adds of an ATen operation, `elementwise` what the others do,
  `recurrent` runs one step for all, `memory` knows what tensors are live, `boundary` what crosses the bounds of a box,
  and `distances` when torch.cdist takes another way. `sizes` adds formulas, `groups` adds rows up,
  `quantities` has the name and text of each quantity; `tables` shows them by the table of a diagram, to which `columns`
  are handed as data, and `report` writes CSV, LaTeX and data.
- `fit` chooses what the reverse pass recomputes, and returns a `Recomputation`. `recompute_problem` puts the choice in
  numbers, `recompute_graph` has its decisions as a graph, in which `least_cost` finds the cheapest path.
- `transfers` returns the elements that a diagram moves between a slow memory and a fast one; its parts are in `io`.
- `timeline` returns the operations of a forward and a reverse pass in order, with what is in memory meanwhile; the
  estimates of `circuits.sharding` are computed from it.

`machine` has a machine's rates, and a lower bound on the time of an operation; `bound` has that of every box.

Source: torch/utils/flop_counter.py of torch 2.13, for what is a FLOP.
"""

from circuits.cost.bound import Bound
from circuits.cost.columns import CostColumn
from circuits.cost.cost import Cost
from circuits.cost.count import count
from circuits.cost.fit import fit
from circuits.cost.machine import MACHINES, Machine, Rate, lower_bound
from circuits.cost.recomputation import Recomputation
from circuits.cost.texts import duration
from circuits.cost.timeline import Operation, Timeline, timeline
from circuits.cost.transfers import Transfers, transfers

__all__ = [
    "MACHINES",
    "Bound",
    "Cost",
    "CostColumn",
    "Machine",
    "Operation",
    "Rate",
    "Recomputation",
    "Timeline",
    "Transfers",
    "count",
    "duration",
    "fit",
    "lower_bound",
    "timeline",
    "transfers",
]
