"""The einops operations (verbs) `einsum`, `rearrange`, `reduce`, `repeat`, each recorded as one box with its pattern.

May use `signature`, `errors` and `switch`. Start with `verbs`. `plan` lists which sizes of an einsum must be equal;
`contraction` caches the order in which an einsum of three or more tensors is computed; `look_alikes` warns of misspelt
axes, and `verb_errors` says what an error of einops or torch means.
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
