"""Windows along an axis, as affine maps of positions, and the operations `unfold` and `fold` on tensors.

May use `signature`, `errors` and `switch`. Start with `window` (the map as data: sizes, strides, padding; its text is
parsed by `affine`), then `fold` (`unfold`, `fold` and `transposed`; their patterns are checked by `plan`).
"""

from circuits.windows.fold import fold, transposed, unfold
from circuits.windows.window import Window

__all__ = [
    "Window",
    "fold",
    "transposed",
    "unfold",
]
