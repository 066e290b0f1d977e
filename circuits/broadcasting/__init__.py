"""`broadcast`: run a circuit at every index of further axes, planned from two signatures.

May use `checking`, `signature` and `errors`. In order: `plan` (two signatures become moves of axes), `layout` (the
dimension of each new axis in the tensors of one call), `lifted` (the call), `broadcast` (the public function).
"""

from circuits.broadcasting.broadcast import Broadcast, broadcast
from circuits.broadcasting.broadcast import (
    _lift as _lift,  # files pickled when `circuits.broadcasting` was one module name it here
)

__all__ = [
    "Broadcast",
    "broadcast",
]
