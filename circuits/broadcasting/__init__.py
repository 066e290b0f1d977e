"""`broadcast`: run a circuit at every index of further axes, planned from two signatures.

May use `checking`, `signature` and `errors`. Start with `broadcast`, the public function. Then: `plan` (two signatures
become positions of axes), `layout` (the dimension of each lifted axis in the tensors of one call), `lifted` (the call),
`refusals` (errors for operations and modules that torch.vmap cannot map).
"""

from circuits.broadcasting.broadcast import (
    _lift as _lift,  # files pickled when `circuits.broadcasting` was a single module refer to it here
)
from circuits.broadcasting.broadcast import broadcast

__all__ = [
    "broadcast",
]
