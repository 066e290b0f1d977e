"""einops' operations, the verbs: `einsum`, `rearrange`, `reduce`, `repeat`, which a recorder sees with their patterns.

May use `signature`, `errors` and `switch`. Start with `verbs`. `plan` says which sizes of an einsum must be equal;
`contraction` caches the order in which an einsum of three or more tensors is computed.
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
