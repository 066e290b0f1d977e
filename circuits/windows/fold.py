"""Unfold a tensor into its windows, and the transpose: fold windows into a tensor, adding where they overlap.

As in einops, both have a pattern that names every axis; each is one box in a recorded diagram. `unfold` copies only if
there is padding. A convolution is an `unfold` and then an einsum over channels and positions. The transposed
convolution, which is also the gradient with respect to the image, has the transposes of these steps in reverse order;
`transposed` returns the pattern of a transpose.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, section 3.3.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from circuits import switch
from circuits.errors import ShapeError, SignatureError, entry_point, point
from circuits.signature import Signature
from circuits.windows.plan import plan_for
from circuits.windows.window import Window


@entry_point
def unfold(tensor: Tensor, pattern: str, *windows: Window) -> Tensor:
    """Return all windows of a tensor: `unfold(image, "... c h w -> ... c h' w' i j", rows, columns)`.

    Each axis that has a window is replaced by the axis of its windows and that of the positions in them; the pattern
    orders the axes. Without padding the result is a view of the tensor, except under torch.compile.

    Args:
        tensor: The input, of any dtype.
        pattern: The axes of the input and of the output; both may begin with `...`.
        *windows: One window for each axis that is unfolded.

    Returns:
        The windows, with the dtype of the input; padded positions have the values of the window's `mode`.

    Raises:
        SignatureError: If the pattern does not fit the windows.
        ShapeError: If the tensor does not have the axes of the pattern, or an axis is shorter than a window.

    >>> window = Window.parse("h -> h' i<3: 2*h' + i - 1")
    >>> unfold(torch.arange(1, 6), "h -> h' i", window)
    tensor([[0, 1, 2],
            [2, 3, 4],
            [4, 5, 0]])
    """
    return _emit(unfold, pattern, tensor, windows, {}, lambda: _unfold(tensor, pattern, windows))


@entry_point
def fold(tensor: Tensor, pattern: str, *windows: Window, **sizes: int) -> Tensor:
    """Sum windows into a tensor: `fold(windows, "... c h' w' i j -> ... c h w", rows, columns, h=16)`.

    This is the transpose of `unfold` with the same windows: each element of the output is the sum of the input elements
    at all positions to which `unfold` would copy it. Input elements at padding of zeros are dropped; those at any other
    padding are added to the position that the padding copies. On CUDA the order of the additions is not fixed, unless
    torch.use_deterministic_algorithms is set.

    Args:
        tensor: The windows, of any dtype.
        pattern: The axes of the input and of the output; both may begin with `...`.
        *windows: One window for each axis that is folded.
        **sizes: The sizes of these axes in the output, by name; by default the smallest that have as many windows.

    Returns:
        The sums, with the dtype of the input.

    Raises:
        SignatureError: If the pattern does not fit the windows, or a size is not that of an axis with a window.
        ShapeError: If the tensor does not have the axes of the pattern, a window does not have its size, or an axis of
            the given size has another number of windows.

    >>> window = Window.parse("h -> h' i<3: 2*h' + i - 1")
    >>> fold(torch.ones(3, 3), "h' i -> h", window)
    tensor([1., 2., 1., 2., 1.])
    """
    return _emit(fold, pattern, tensor, windows, sizes, lambda: _fold(tensor, pattern, windows, sizes))


@entry_point
def transposed(pattern: str) -> str:
    """Return the pattern of the transpose of an operation that is linear in its first tensor.

    The first tensor and the result are exchanged; the other tensors stay in place.

    Args:
        pattern: The pattern of an operation with one output.

    Raises:
        SignatureError: If the pattern cannot be parsed, or has several outputs.

    >>> transposed("... c h' i, k c i -> ... k h'")
    "... k h', k c i -> ... c h' i"
    """
    signature = Signature.parse(pattern)
    if len(signature.outputs) != 1:
        raise SignatureError(f"a pattern with several outputs has no transpose\n{point(pattern)}")
    (first, *others), result = signature.inputs, signature.outputs[0]
    return str(Signature((result, *others), (first,)))


def _emit(
    verb: Callable[..., Tensor],
    pattern: str,
    tensor: Tensor,
    windows: tuple[Window, ...],
    sizes: dict[str, int],
    run: Callable[[], Tensor],
) -> Tensor:
    """Run `unfold` or `fold`; while this thread is recorded, pass it to the recorder, labelled with its pattern."""
    if switch.active:
        recorder = switch.current()
        if recorder is not None:
            label = f"{pattern}: {', '.join([window.map for window in windows])}"
            return recorder.verb(verb, label, (tensor, pattern, *windows), sizes, run)
    return run()


# Unfold


def _unfold(tensor: Tensor, pattern: str, windows: tuple[Window, ...]) -> Tensor:
    """Return all windows of a tensor: pad, unfold one axis after another, permute."""
    plan, lead = plan_for(tensor, pattern, windows, unfolds=True)
    dims = [lead + dim for dim in plan.dims]
    for window, dim in zip(windows, dims):  # noqa: B905  (the plan has one for each window)
        window.count(tensor.shape[dim])
    tensor = _pad(tensor, dims, windows)
    for window, dim in zip(windows, dims):  # noqa: B905
        tensor = _unfold_axis(tensor, dim, window)
    unfolded = tensor.permute(*range(lead), *[lead + dim for dim in plan.to_unfolded])
    # In torch 2.13 a compiled graph whose output is an overlapping view of an intermediate has a wrong gradient.
    return unfolded.clone() if torch.compiler.is_compiling() else unfolded


def _unfold_axis(tensor: Tensor, dim: int, window: Window) -> Tensor:
    """Return the windows of one axis, with positions as the last axis: a view, unless the window size is symbolic."""
    if not isinstance(window.reach, int):
        count = (tensor.shape[dim] - window.reach) // window.stride + 1
        unfolded = tensor.index_select(dim, _padded_positions(window, count, tensor.device).flatten())
        return unfolded.unflatten(dim, (count, window.size)).movedim(dim + 1, -1)
    unfolded = tensor.unfold(dim, window.reach, window.stride)
    return unfolded[..., :: window.dilation] if window.dilation > 1 else unfolded


def _padded_positions(window: Window, count: int, device: torch.device) -> Tensor:
    """Return each window's positions on the padded axis: a long tensor of shape (windows, positions)."""
    starts = window.stride * torch.arange(count, device=device)
    return starts[:, None] + window.dilation * torch.arange(window.size, device=device)


def _pad(tensor: Tensor, dims: list[int], windows: tuple[Window, ...]) -> Tensor:
    """Return the tensor with the padding of each window on its axis."""
    border = [0] * (2 * tensor.ndim)
    for window, dim in zip(windows, dims):  # noqa: B905
        if window.mode == "zeros":
            border[-2 * dim - 2], border[-2 * dim - 1] = window.before, window.after
        elif window.before > 0 or window.after > 0:
            size = tensor.shape[dim]
            positions = torch.arange(-window.before, size + window.after, device=tensor.device)
            tensor = tensor.index_select(dim, _source(positions, size, window.mode))
    return F.pad(tensor, border) if any(border) else tensor


def _source(positions: Tensor, size: int, mode: str) -> Tensor:
    """Return the position of the axis that each position of the padded axis is a copy of.

    Both are counted from the first position of the axis, so those in the padding before it are negative.
    """
    if mode == "circular":
        return positions % size
    if mode == "reflect":
        return size - 1 - (size - 1 - positions.abs()).abs()
    return positions.clamp(0, size - 1)


# Fold


def _fold(tensor: Tensor, pattern: str, windows: tuple[Window, ...], sizes: dict[str, int]) -> Tensor:
    """Return the sum of the windows: one index_add over all windowed axes, flattened, then a slice without padding."""
    plan, lead = plan_for(tensor, pattern, windows, unfolds=False)
    tensor = tensor.permute(*range(lead), *[lead + dim for dim in plan.to_scatter])
    first = tensor.ndim - 2 * len(windows)
    other, counts = tensor.shape[:first], tensor.shape[first : first + len(windows)]
    folded_sizes = _folded_sizes(tensor, pattern, windows, sizes)
    padded_sizes = [
        size + window.before + window.after if window.mode == "zeros" else size
        for window, size in zip(windows, folded_sizes)  # noqa: B905
    ]
    index = _scatter_index(windows, counts, folded_sizes, padded_sizes, tensor.device)
    total = 1
    for size in padded_sizes:
        total = total * size
    folded = tensor.new_zeros(*other, total).index_add(first, index, tensor.flatten(first))
    folded = folded.reshape(*other, *padded_sizes)
    for dim, (window, size) in enumerate(zip(windows, folded_sizes), first):  # noqa: B905
        if window.mode == "zeros" and (window.before > 0 or window.after > 0):
            folded = folded.narrow(dim, window.before, size)
    return folded.permute(*range(lead), *[lead + dim for dim in plan.to_folded])


def _folded_sizes(tensor: Tensor, pattern: str, windows: tuple[Window, ...], sizes: dict[str, int]) -> list[int]:
    """Return the size of each folded axis: the given one, or else the smallest.

    Raises SignatureError if a size is given for another axis, and ShapeError if sizes do not fit the windows.
    """
    many = len(windows)
    names = [window.axis for window in windows]
    for name in sizes:
        if name not in names:
            raise SignatureError(f"{name} is not the axis of a window, so its size cannot be given\n{point(pattern)}")
    folded_sizes: list[int] = []
    for window, count, size in zip(windows, tensor.shape[-2 * many : -many], tensor.shape[-many:]):  # noqa: B905
        if size != window.size:
            shown = switch.show(size)
            raise ShapeError(f"{window.place} is {shown} here, but windows {window.window} have size {window.size}")
        folded = window.least(count) if window.axis not in sizes else sizes[window.axis]
        if folded < 0 or window.count(folded) != count:
            has = switch.show(window.count(folded)) if folded >= 0 else "no"
            raise ShapeError(
                f"{window.axis} is {switch.show(folded)} here, which has {has} windows"
                f" {window.window}, but the input has {switch.show(count)}: {window.axis} may be"
                f" {_valid_sizes(window, count)}"
            )
        folded_sizes.append(folded)
    return folded_sizes


def _valid_sizes(window: Window, count: int) -> str:
    """Return the text of the range of sizes that have `count` windows."""
    least = window.least(count)
    if least < 0:
        return f"0 to {switch.show(least + window.stride - 1)}"
    last = f" to {switch.show(least + window.stride - 1)}" if window.stride > 1 else ""
    return f"{switch.show(least)}{last}"


def _scatter_index(
    windows: tuple[Window, ...], counts: Any, folded_sizes: list[int], padded_sizes: list[int], device: Any
) -> Tensor:
    """Return the target of each unfolded number in the flattened padded axes, as index_add takes it.

    The numbers are ordered by the windows of all axes, then by the positions in them, the last axis fastest.
    """
    many = len(windows)
    index = torch.zeros((), dtype=torch.long, device=device)
    for number, window in enumerate(windows):
        positions = _padded_positions(window, counts[number], device)
        if window.mode != "zeros":
            positions = _source(positions - window.before, folded_sizes[number], window.mode)
        view = [1] * (2 * many)
        view[number], view[many + number] = counts[number], window.size
        index = index * padded_sizes[number] + positions.reshape(view)
    return index.flatten()
