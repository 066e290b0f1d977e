"""A fake mode with fake forms that torch lacks: the sizes and dtype of an operation's result, computed without data.

torch 2.13 computes the result of a grouped matrix product only for bfloat16, although its kernel multiplies float32 and
float16 too.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode


def _grouped_mm(mat_a: Tensor, mat_b: Tensor, offs: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
    """Return the result of `torch._grouped_mm`; an operand with two axes has one group between each two of `offs`."""
    groups = [matrix.shape[0] for matrix in (mat_a, mat_b) if matrix.dim() == 3]
    if (offs is None) != (len(groups) == 2):
        raise RuntimeError("grouped_mm takes offs if and only if an operand has two axes")
    if groups and mat_a.shape[-1] != mat_b.shape[-2]:
        raise RuntimeError("contraction dimension of mat_a and mat_b must match")
    if len(groups) == 1:
        return mat_a.new_empty([mat_a.shape[-2], mat_b.shape[-1]])
    first = groups[0] if offs is None else offs.shape[0]
    return mat_a.new_empty([first, mat_a.shape[-2], mat_b.shape[-1]])


_FORMS: dict[Any, tuple[Callable[..., Tensor], tuple[torch.dtype, ...]]] = {
    torch.ops.aten._grouped_mm.default: (_grouped_mm, (torch.float32, torch.float16)),
}
"""The fake form of each operation, and the dtypes of the first operand for which it is used instead of torch's."""


class FakeMode(FakeTensorMode):
    """A fake mode that knows the fake forms of this file."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        form, dtypes = _FORMS.get(func, (None, ()))
        if form is not None and args[0].dtype in dtypes:
            return form(*args, **(kwargs or {}))
        return super().__torch_dispatch__(func, types, args, kwargs)
