"""`broadcast` runs a circuit at every index of further axes; the signatures without and with them say which.

May use `checking`, `signature` and `errors`. Start with `broadcast`, the public function. Then: `plan` (two signatures
become positions of axes), `layout` (the dimension of each lifted axis in the tensors of one call), `lifted` (calls the
circuit), `refusals` (errors for operations and modules that torch.vmap cannot map).
"""

from circuits.broadcasting.broadcast import (
    _lift as _lift,  # files pickled when `circuits.broadcasting` was a single module refer to it here
)
from circuits.broadcasting.broadcast import broadcast

__all__ = [
    "broadcast",
]
