"""Forms of torch functions that keep a size free where torch itself needs it as a number: `x[n // 2]`, `torch.gru`.

They compute the fake result of a call; the call itself is recorded, and is what a diagram runs. Most of the forms are
made of operations that compute the same. `torch.gru` and `torch.linspace` have forms whose results have only the right
sizes, dtype and device; a backward circuit, which is made of the operations inside a call, does not use these.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import SymBool, SymFloat, SymInt, Tensor
from torch.overrides import TorchFunctionMode

from circuits.diagram import TRACED_INTO

_SYMBOLIC = (SymInt, SymFloat, SymBool)


class FreeFunctions(TorchFunctionMode):
    """A function mode in which calls with symbolic numbers, or on axes of free sizes, run the forms of this module.

    Args:
        sizes_only: Whether to use also the forms whose results have only the right sizes.
    """

    def __init__(self, sizes_only: bool) -> None:
        super().__init__()
        self.forms: dict[Any, Form] = _EQUAL | (_SIZES_ONLY if sizes_only else _IN_RUNS_AGAIN)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        form = self.forms.get(func)
        found = NotImplemented if form is None else form(*args, **kwargs or {})
        return func(*args, **kwargs or {}) if found is NotImplemented else found


def _is_free(*sizes: Any) -> bool:
    """Return whether one of these numbers is symbolic, and not fixed to a number."""
    return any(isinstance(size, _SYMBOLIC) and not size.node.expr.is_number for size in sizes)


# Equal forms ----------------------------------------------------------------------------------------------------------


def _index(x: Tensor, index: Any) -> Any:
    """`x[:, n // 2]` as a slice of one element without its axis; other indices than numbers, slices and `...` stay."""
    parts = index if isinstance(index, tuple) else (index,)
    places = [place for place, part in enumerate(parts) if isinstance(part, SymInt) and _is_free(part)]
    if not places or any(type(part) not in (int, slice, SymInt, type(...)) for part in parts):
        return NotImplemented
    rest = x.ndim - len(parts) + 1
    axes = [place if ... not in parts[:place] else place + rest - 1 for place in range(len(parts))]
    for place in places:
        # The axis stays, with one element, so that the later axes keep their numbers.
        x = x.select(axes[place], parts[place]).unsqueeze(axes[place])
    return x[tuple([0 if place in places else part for place, part in enumerate(parts)])]


def _set_index(x: Tensor, index: Any, value: Any) -> Any:
    """`x[:, n // 2] = value` by writing to that view."""
    target = _index(x, index)
    if target is NotImplemented:
        return NotImplemented
    target[...] = value
    return None


def _tensor(data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, **_: Any) -> Any:
    """`torch.tensor([n, 2])` as a stack of scalars."""
    if not _has_free(data):
        return NotImplemented
    stacked = _stacked(data, dtype or _dtype(data), device)
    return stacked.requires_grad_() if requires_grad else stacked


def _as_tensor(data: Any, dtype: Any = None, device: Any = None, **options: Any) -> Any:
    return _tensor(data, dtype=dtype, device=device, **options)


def _new_tensor(x: Tensor, data: Any, *, dtype: Any = None, device: Any = None, **options: Any) -> Any:
    return _tensor(data, dtype=dtype or x.dtype, device=device or x.device, **options)


def _has_free(data: Any) -> bool:
    return any(map(_has_free, data)) if isinstance(data, (list, tuple)) else _is_free(data)


def _dtype(data: Any) -> torch.dtype:
    """Return the dtype that `torch.tensor` infers for nested lists of numbers."""
    if isinstance(data, (list, tuple)):
        return torch.result_type(*[torch.empty((), dtype=_dtype(part)) for part in (data * 2)[:2]])
    kinds = {
        bool: torch.bool,
        SymBool: torch.bool,
        float: torch.get_default_dtype(),
        SymFloat: torch.get_default_dtype(),
    }
    return kinds.get(type(data), torch.int64)


def _stacked(data: Any, dtype: torch.dtype, device: Any) -> Tensor:
    if isinstance(data, (list, tuple)):
        return torch.stack([_stacked(part, dtype, device) for part in data])
    return torch.scalar_tensor(data, dtype=dtype, device=device)


def _max_pool1d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:  # fmt: skip
    """`max_pool1d` as `max_pool2d` over a second axis of size 1."""
    if not _is_free(*input.shape):
        return NotImplemented
    each = [_one(part) for part in (kernel_size, stride or kernel_size, padding, dilation)]
    pairs = [(other, size) for other, size in zip((1, 1, 0, 1), each, strict=True)]
    pool = F.max_pool2d_with_indices if return_indices else F.max_pool2d
    found: Any = pool(input.unsqueeze(-2), *pairs, ceil_mode=ceil_mode)
    return tuple([part.squeeze(-2) for part in found]) if return_indices else found.squeeze(-2)


def _max_pool1d_with_indices(*args: Any, **options: Any) -> Any:
    return _max_pool1d(*args, **{**options, "return_indices": True})


def _one(size: Any) -> Any:
    """Return the number in a tuple of one number, or the number itself."""
    return size[0] if isinstance(size, (tuple, list)) else size


def _one_hot(tensor: Tensor, num_classes: Any = -1) -> Any:
    """`one_hot` of a free number of classes as a comparison."""
    if not _is_free(num_classes):
        return NotImplemented
    return (tensor.unsqueeze(-1) == torch.arange(num_classes, device=tensor.device)).long()


def _cov(input: Tensor, *, correction: int = 1, fweights: Any = None, aweights: Any = None) -> Tensor:
    """`cov` without its warning, for which torch reads whether there are enough observations."""
    x = input if input.ndim > 1 else input.view(1, -1)
    given = [each for each in (fweights, aweights) if each is not None]
    weights = given[0] * given[-1] if len(given) == 2 else given[0] if given else None
    total: Any = torch.scalar_tensor(x.shape[1], dtype=torch.long) if weights is None else weights.sum()
    lost: Any = correction
    if weights is not None and aweights is not None and correction != 0:
        lost = correction * (weights * aweights).sum() / total
    weighted = x if weights is None else x * weights
    x = x - (weighted.sum(1) / total).unsqueeze(1)
    weighted = x if weights is None else x * weights
    return (x @ weighted.t().conj() / (total - lost).clamp(min=0)).squeeze()


def _corrcoef(input: Tensor) -> Tensor:
    """`corrcoef` with this form of `cov`."""
    found = _cov(input)
    if found.ndim == 0:
        return found / found
    deviation = (found.diagonal().real if found.is_complex() else found.diagonal()).sqrt()
    found = found / deviation.unsqueeze(1) / deviation.unsqueeze(0)
    if found.is_complex():
        return torch.complex(found.real.clamp(-1, 1), found.imag.clamp(-1, 1))
    return found.clamp(-1, 1)


def _kron(input: Tensor, other: Tensor) -> Any:
    """`kron` as a product of tensors in which each axis has an axis of size 1 behind it, or before it."""
    if not _is_free(*input.shape, *other.shape):
        return NotImplemented
    axes = max(input.ndim, other.ndim)
    x, y = [each.reshape((1,) * (axes - each.ndim) + tuple(each.shape)) for each in (input, other)]
    sizes = [a * b for a, b in zip(x.shape, y.shape, strict=True)]
    product = x.reshape([part for size in x.shape for part in (size, 1)])
    product = product * y.reshape([part for size in y.shape for part in (1, size)])
    return product.reshape(sizes)


# Forms of the right sizes ---------------------------------------------------------------------------------------------


def _spaced(start: Any, end: Any, steps: Any, **options: Any) -> Any:
    """`linspace` and `logspace` with a free number of steps, or between free numbers."""
    if options.get("out") is not None or any(isinstance(each, Tensor) for each in (start, end)):
        return NotImplemented
    return _empty(steps, **options) if _is_free(start, end, steps) else NotImplemented


def _window(window_length: Any, *_: Any, **options: Any) -> Any:
    """`hann_window`, and the other windows, of a free length."""
    return _empty(window_length, **options) if _is_free(window_length) else NotImplemented


def _frequencies(n: Any, d: float = 1.0, **options: Any) -> Any:
    return _empty(n, **options) if _is_free(n) else NotImplemented


def _half_frequencies(n: Any, d: float = 1.0, **options: Any) -> Any:
    return _empty(n // 2 + 1, **options) if _is_free(n) else NotImplemented


def _empty(size: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, **_: Any) -> Tensor:
    return torch.empty(size, dtype=dtype or torch.get_default_dtype(), device=device, requires_grad=requires_grad)


def _affine_grid(theta: Tensor, size: Any, align_corners: bool | None = None) -> Any:
    if not _is_free(*size):
        return NotImplemented
    return theta.new_empty((size[0], *size[2:], len(size) - 2)) + theta.sum() * 0


def _fractional_max_pool3d(
    input: Tensor, kernel_size: Any, output_size: Any = None, output_ratio: Any = None, return_indices: bool = False,
    _random_samples: Any = None,
) -> Any:  # fmt: skip
    """`fractional_max_pool3d` of a free number of images or channels."""
    if not _is_free(*input.shape):
        return NotImplemented
    ratio = output_ratio if isinstance(output_ratio, (tuple, list)) else (output_ratio,) * 3
    size = output_size if isinstance(output_size, (tuple, list)) else (output_size,) * 3
    if output_size is None:
        size = [int(old * part) for old, part in zip(input.shape[-3:], ratio, strict=True)]
    # Adding the sum of the inputs gives the result a gradient.
    found = input.new_empty((*input.shape[:-3], *size)) + input.sum() * 0
    return (found, found.long()) if return_indices else found


def _recurrent(x: Tensor, state: Any, parameters: Any, *options: Any, batch_first: bool = False) -> Any:
    """`lstm`, `gru`, `rnn_tanh` and `rnn_relu` of a free length: the last layer's output, and the last state."""
    if len(options) != 6 or isinstance(options[0], (list, tuple)) or not _is_free(*x.shape):
        return NotImplemented  # Packed sequences have another signature: x, batch_sizes, state, parameters, ...
    states = (state,) if isinstance(state, Tensor) else tuple(state)
    *_, is_bidirectional, is_batch_first = options
    size = states[0].shape[-1] * (2 if is_bidirectional else 1)
    # Adding all inputs gives the results their dtype, and a gradient.
    total: Any = sum([each.sum() for each in (x, *states, *parameters)]) * 0
    sizes = (x.shape[1], x.shape[0]) if is_batch_first else (x.shape[0], x.shape[1])
    output = total.expand(*sizes, size).clone()
    return output.transpose(0, 1) if is_batch_first else output, *[each + total for each in states]


Form = Callable[..., Any]
_EQUAL: dict[Any, Form] = {
    Tensor.__getitem__: _index,
    Tensor.__setitem__: _set_index,
    torch.tensor: _tensor,
    torch.as_tensor: _as_tensor,
    torch.asarray: _as_tensor,
    Tensor.new_tensor: _new_tensor,
    F.max_pool1d: _max_pool1d,
    F.max_pool1d_with_indices: _max_pool1d_with_indices,
    torch.max_pool1d: _max_pool1d,
    F.one_hot: _one_hot,
    torch.cov: _cov,
    Tensor.cov: _cov,
    torch.corrcoef: _corrcoef,
    torch.kron: _kron,
    Tensor.kron: _kron,
    Tensor.corrcoef: _corrcoef,
}
_IN_RUNS_AGAIN: dict[Any, Form] = {Tensor.__deepcopy__: TRACED_INTO[Tensor.__deepcopy__]}
"""Functions that torch cannot run on fake tensors; while a recording is active, the recorder runs these forms."""
_SIZES_ONLY: dict[Any, Form] = {
    torch.linspace: _spaced,
    torch.logspace: _spaced,
    **dict.fromkeys(
        (torch.hann_window, torch.hamming_window, torch.blackman_window, torch.bartlett_window, torch.kaiser_window),
        _window,
    ),
    torch.fft.fftfreq: _frequencies,
    torch.fft.rfftfreq: _half_frequencies,
    F.affine_grid: _affine_grid,
    F.fractional_max_pool3d: _fractional_max_pool3d,
    F.fractional_max_pool3d_with_indices: partial(_fractional_max_pool3d, return_indices=True),
    torch.lstm: _recurrent,
    torch.gru: _recurrent,
    torch.rnn_tanh: _recurrent,
    torch.rnn_relu: _recurrent,
}
