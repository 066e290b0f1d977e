"""The rotation of rotary positions, and its cosines and sines, which all layers of one decoding step share."""

from typing import Any

import torch
from torch import Tensor, nn
from torch._C import _functorch as functorch  # pyright: ignore[reportAttributeAccessIssue]


def rotate(input: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Return vectors with entries (i, i + r/2) rotated, for the r/2 columns of `cosine` and `sine`; others stay."""
    r, k = 2 * cosine.shape[-1], input.shape[-1]
    first, second = (input if r == k else input[..., :r]).to(cosine.dtype).chunk(2, -1)
    rotated = torch.cat((first * cosine - second * sine, second * cosine + first * sine), -1).to(input.dtype)
    return rotated if r == k else torch.cat((rotated, input[..., r:]), -1)


def is_eager(input: Tensor) -> bool:
    """Return whether a call on a CPU is not compiled, exported, recorded, or transformed by torch.func."""
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return False
    if torch._C._len_torch_function_stack() or torch._C._len_torch_dispatch_stack():
        return False
    plain = type(input) in (Tensor, nn.Parameter) and input.device.type == "cpu"
    return plain and not functorch.is_functorch_wrapped_tensor(input)


class LastWaves:
    """The cosines and sines of the last call, for the next one at the same positions; copies and pickles are empty."""

    def __init__(self) -> None:
        self.last: tuple[Any, tuple[Tensor, Tensor]] | None = None

    def __reduce__(self) -> Any:
        return LastWaves, ()
