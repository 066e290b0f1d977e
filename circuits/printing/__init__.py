"""`listing`: a diagram, or torch's own trace of a call, as lines of text with the type of every tensor.

May use `recording`, `diagram` and below. Start with `listing`, the public function; `value_names` names the values,
`box_queries` computes the parts of a line from a box, and `words` formats types and arguments. `aten` lists the graphs
of torch's `make_fx`, and `functional` converts a call to a pure function of all its tensors.
"""

from circuits.printing.functional import FunctionalCall
from circuits.printing.listing import listing
from circuits.printing.words import letters, unique_name

__all__ = [
    "FunctionalCall",
    "letters",
    "listing",
    "unique_name",
]
