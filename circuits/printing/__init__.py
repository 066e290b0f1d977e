"""`listing`: a diagram, or torch's own trace of a call, as lines of typed text.

May use `recording`, `diagram` and below. Start with `listing`, the public function; `value_names` names the values,
`box_queries` finds what a line shows of a box, and `words` writes types and arguments. `aten` lists the graphs of
torch's `make_fx`, and `functional` makes a call a pure function of all its tensors.
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
