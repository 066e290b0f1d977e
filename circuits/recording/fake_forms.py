"""A fake mode with fake forms that torch lacks: the sizes and dtype of an operation's result, computed without data.

torch 2.13 computes the result of a grouped matrix product only for bfloat16, although its kernel multiplies float32 and
float16 too. It derives the sizes of a view from the sizes before, by splitting and joining axes, so that 4 becomes
`(b*n)//((b*n)//4)`; here they are those that the code asks for.

Source: `_view_unbacked_meta`, by which torch.export views tensors of unknown sizes.
"""

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import SymInt, Tensor
from torch._higher_order_ops.utils import registered_hop_fake_fns
from torch._ops import HigherOrderOperator
from torch._subclasses.fake_impls import _view_unbacked_meta
from torch._subclasses.fake_tensor import FakeTensorMode

from circuits.errors import CircuitError
from circuits.recording.user_frames import user_line


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


def _never_left_aligned(*_: Any) -> bool:
    """Return False: that `nn.TransformerEncoder` is not to take its fused path, which needs the data of the mask.

    Its box runs as a whole, so a run of the diagram takes the path that the data asks for.
    """
    return False


_FORMS: dict[Any, tuple[Callable[..., Any], tuple[torch.dtype, ...]]] = {
    torch.ops.aten._nested_tensor_from_mask_left_aligned.default: (
        _never_left_aligned,
        (torch.float32, torch.float64, torch.float16, torch.bfloat16),
    ),
    torch.ops.aten._grouped_mm.default: (_grouped_mm, (torch.float32, torch.float16)),
}
"""The fake form of each operation, and the dtypes of the first operand for which it is used instead of torch's."""

_aten = torch.ops.aten
_VIEWS = (_aten.view.default, _aten._unsafe_view.default)
_PARTS = {
    _aten.unbind.int: 1,
    _aten.split.Tensor: 2,
    _aten.unsafe_split.Tensor: 2,
}
"""The operations that return as many tensors as an axis has parts; the position of the axis among their arguments."""
_SPLITTING = ("unbind", "split", "unsafe_split")


class FakeMode(FakeTensorMode):
    """A fake mode that knows the fake forms of this file.

    It refuses to split a free axis into parts of a given size, as an iteration does: the number of the results would be
    that of one example size. Operators that take functions (`torch.cond`) have fake forms for torch's own class only;
    they call a mode of another class if it has `supports_higher_order_operators`.

    Attributes:
        format_size: Returns the text of a size for a message.
    """

    supports_higher_order_operators = True
    format_size: Callable[[Any], str] = str

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if isinstance(func, HigherOrderOperator) and func not in registered_hop_fake_fns:
            return func.python_key_table[FakeTensorMode](self, *args, **(kwargs or {}))
        form, dtypes = _FORMS.get(func, (None, ()))
        if form is not None and args[0].dtype in dtypes:
            return form(*args, **(kwargs or {}))
        return super().__torch_dispatch__(func, types, args, kwargs)

    def dispatch(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _PARTS:
            self._refuse_parts_of_free_axis(func, args, kwargs or {})
        if func in _VIEWS and any(isinstance(size, SymInt) for size in (*args[0].shape, *args[1])):
            try:
                with self:
                    return _view_unbacked_meta(*args)
            except ValueError:
                pass  # Torch's own message follows.
        return super().dispatch(func, types, args, kwargs or {})

    def _refuse_parts_of_free_axis(self, func: Any, args: Any, kwargs: Any) -> None:
        """Raise CircuitError for a split that the code asks for, of an axis of free size into parts of a fixed size."""
        operation = self.shape_env.operation() if self.shape_env is not None else ""  # type: ignore[attr-defined]
        place = _PARTS[func]
        dim = args[place] if len(args) > place else kwargs.get("dim", 0)
        size = args[0].shape[dim]
        is_free = isinstance(size, SymInt) and not size.node.expr.is_number
        if is_free and operation in _SPLITTING and (place == 1 or isinstance(args[1], int)):
            axis = self.format_size(size)
            parts = "one tensor for each element" if place == 1 or args[1] == 1 else f"parts of {args[1]} elements"
            sizes = ", ".join([f'"{name}": …' for name in re.findall(r"[^\W\d]\w*'*", axis)])
            raise CircuitError(
                f"{operation} at {user_line()} makes {parts} of the axis {axis}, whose size is free, so the number of "
                f"tensors is unknown: give the axis a size, trace(..., sizes={{{sizes}}}), or split it into a number "
                "of parts (chunk)"
            )
