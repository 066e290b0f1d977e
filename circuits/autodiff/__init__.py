"""Backward circuits: the gradient of a diagram is a diagram.

May use `printing`, `recording` and below. The files in the order to read them, each with its helpers:

1. `backward` and `forward_backward`, two of the public functions, return forward and reverse pass as one diagram or
   two.
2. `joint` records a circuit and makes its joint graph: the boxes of the forward pass followed by those of the reverse
   pass.
3. `workspace` has the fake tensors and the recorder with which boxes are made; `free_sizes` the symbolic sizes of these
   tensors, `module_copies` modules with fake parameters.
4. `functionalize` makes the forward pass and writes the `tape`, the list of calls that the reverse pass reads.
   `lower_call` runs a call as functional ATen operations, in the dispatch mode of `lowering`; `aten` has properties of
   such operations. `aliases` recomputes views of overwritten tensors; `current_values` and `renumbering` replace value
   numbers after in-place writes.
5. `reverse_pass` reads the tape and reverses each operation by its rule (`rules`), by a custom backward
   (`custom_rules`), or by torch (`opaque`).
6. `ports` computes the inputs and outputs of the boxes; `tensors` has helpers that several of these files use.
7. `recompute` partitions the joint graph into values that are saved and values that are recomputed. `candidates` has
   the boxes that can be recomputed, `recompute_names` those that names stand for; `softmax_statistic` recomputes a
   softmax from the logsumexp of its rows.
8. `rewrites` has the steps of `simplify`, a public function. `jacobian`, another public function, returns linear maps.

`circuits.cost` runs a diagram on fake tensors too: it uses `Workspace` and `as_recorded`; and it chooses what to
recompute with `Candidates` and `schedule`.
"""

from circuits.autodiff.backward import backward
from circuits.autodiff.candidates import Candidates, results
from circuits.autodiff.forward_backward import Halves, Recompute, forward_backward
from circuits.autodiff.jacobian import jacobian
from circuits.autodiff.lower_call import as_recorded
from circuits.autodiff.recompute import Schedule, schedule
from circuits.autodiff.rewrites.simplify import simplify
from circuits.autodiff.softmax_statistic import from_statistic
from circuits.autodiff.workspace import Workspace

__all__ = [
    "Candidates",
    "Halves",
    "Recompute",
    "Schedule",
    "Workspace",
    "as_recorded",
    "backward",
    "forward_backward",
    "from_statistic",
    "jacobian",
    "results",
    "schedule",
    "simplify",
]
