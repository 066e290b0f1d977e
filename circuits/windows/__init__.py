"""Windows on an axis: which positions of `x` an output position reads, as affine text, and unfold and fold by them.

May use `signature`, `errors` and `switch`. Start with `affine` (`2*y + w - 1` as data), then `window` (sizes and
strides), then `fold` (`unfold`, `fold`, `transposed`: circuits on tensors).
"""

from circuits.windows.fold import fold, transposed, unfold
from circuits.windows.window import Window

__all__ = [
    "Window",
    "fold",
    "transposed",
    "unfold",
]
