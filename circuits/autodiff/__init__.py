"""Backward circuits: the gradient of a diagram is a diagram.

May use `printing`, `recording` and below. The files in the order to read them, each with its helpers:

1. `backward` and `forward_backward`, two of the public functions, return the joint graph as one diagram or as two.
2. `joint` makes the joint graph: it records a circuit and runs the forward pass (3, 4) and the reverse pass (5).
3. `workspace` has the fake tensors and the recorder with which boxes are made; `free_sizes` the symbolic sizes of these
   tensors, `module_copies` modules with fake parameters.
4. `functionalize` makes the forward pass and writes the `tape`. `lower_call` runs a call as functional ATen operations,
   in the dispatch mode of `lowering`; `aten` has properties of such operations. `aliases` recomputes views of
   overwritten tensors; `current_values` and `renumbering` replace value numbers after in-place writes.
5. `reverse_pass` reads the tape and reverses each operation by its rule (`rules`), by a custom backward
   (`custom_rules`), or by torch (`opaque`).
6. `ports` computes the inputs and outputs of the boxes; `tensors` has helpers that several of these files use.
7. `recompute` partitions the joint graph into values that are saved and values that are recomputed;
   `softmax_statistic` recomputes a softmax from the logsumexp of its rows.
8. `rewrites` are the parts of `simplify`, a public function; the last one, `jacobian`, returns linear maps.
"""

from circuits.autodiff.backward import backward
from circuits.autodiff.forward_backward import Halves, forward_backward
from circuits.autodiff.jacobian import jacobian
from circuits.autodiff.rewrites.simplify import simplify

__all__ = [
    "Halves",
    "backward",
    "forward_backward",
    "jacobian",
    "simplify",
]
