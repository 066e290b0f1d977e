"""`listing`: a diagram, or torch's own trace of a call, as lines of typed text.

May use `recording`, `diagram` and below. Start with `listing`, the public function; `words` writes values and
arguments, `aten` writes torch's graphs, `functional` traces `torch.func` transforms.
"""

from circuits.printing.functional import Call
from circuits.printing.listing import listing
from circuits.printing.words import another, letters

__all__ = [
    "Call",
    "another",
    "letters",
    "listing",
]
