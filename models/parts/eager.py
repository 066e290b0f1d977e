"""Whether a call runs eagerly, so that its steps may depend on the numbers in its tensors."""

import math

import torch
from torch import Tensor, nn
from torch._C import _functorch as functorch  # pyright: ignore[reportAttributeAccessIssue]


def is_eager(*tensors: Tensor) -> bool:
    """Return whether the numbers in these tensors can be read: not where a call is compiled, mapped or recorded.

    Such a call takes the same steps for all numbers. On meta there are none.

    >>> is_eager(torch.zeros(2))
    True
    """
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return False
    if torch._C._len_torch_function_stack() or torch._C._len_torch_dispatch_stack():
        return False
    plain = all(type(each) in (Tensor, nn.Parameter) and not each.is_meta for each in tensors)
    return plain and not any(functorch.is_functorch_wrapped_tensor(each) for each in tensors)


def can_read(*tensors: Tensor) -> bool:
    """Return whether a call may depend on the numbers in these tensors: on a CPU, where reading costs little."""
    return all(each.device.type == "cpu" for each in tensors) and is_eager(*tensors)


def all_finite(*tensors: Tensor) -> bool:
    """Return whether all numbers are finite; a sum that overflows counts as not."""
    return math.isfinite(sum(each.detach().sum().item() for each in tensors))
