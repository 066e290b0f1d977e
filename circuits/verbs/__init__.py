"""einops' verbs with named axes: `einsum`, `rearrange`, `reduce`, `repeat`, which a recorder sees with their patterns.

May use `signature`, `errors` and `switch`. Start with `verbs`; `contraction` chooses the order in which an einsum of
many tensors is computed.
"""

from circuits.verbs.contraction import equation
from circuits.verbs.verbs import einsum, rearrange, reduce, repeat

__all__ = [
    "einsum",
    "equation",
    "rearrange",
    "reduce",
    "repeat",
]
