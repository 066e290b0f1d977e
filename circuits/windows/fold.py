"""Read tensors through windows, and add windows up again: `unfold` and its transpose, `fold`.

Both are verbs, as einsum and rearrange are: their pattern names every axis, and whoever records sees them as one box.
`unfold` copies nothing but padding. A convolution is `unfold`, then an einsum over channels and places; read from right
to left, with `transposed` patterns, it is the transposed convolution, and the gradient by the image.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, section 3.3.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from circuits import switch
from circuits.errors import ShapeError, SignatureError, point
from circuits.signature import Axis, Rest, Signature, show_axes
from circuits.windows.window import Window


def unfold(tensor: Tensor, pattern: str, *windows: Window) -> Tensor:
    """What every window sees: `unfold(image, "... c h w -> ... c h' w' i j", rows, columns)`.

    The axes of the windows go, and their windows and places come, where the pattern puts them; the others stay. Without
    padding the result is a view of the tensor, but not in compiled code. Raises SignatureError where the pattern and
    the windows disagree, and ShapeError for a tensor that is not as the pattern says, or shorter than a window.

    >>> window = Window.parse("h -> h' i<3: 2*h' + i - 1")
    >>> unfold(torch.arange(1, 6), "h -> h' i", window)
    tensor([[0, 1, 2],
            [2, 3, 4],
            [4, 5, 0]])
    """
    return _tell(unfold, pattern, tensor, windows, {}, lambda: _unfolded(tensor, pattern, windows))


def fold(tensor: Tensor, pattern: str, *windows: Window, **sizes: int) -> Tensor:
    """Add up what windows write: `fold(seen, "... c h' w' i j -> ... c h w", rows, columns, h=16)`.

    The transpose of `unfold` with the same windows. An axis without a size is the shortest that has so many windows.
    Padding takes what it gave: what is written on zeros is dropped, on a copied place it is added to that place.
    CUDA adds in no fixed order, unless torch.use_deterministic_algorithms asks for one. Raises SignatureError as
    `unfold` does, and ShapeError for a size that has another number of windows.

    >>> window = Window.parse("h -> h' i<3: 2*h' + i - 1")
    >>> fold(torch.ones(3, 3), "h' i -> h", window)
    tensor([1., 2., 1., 2., 1.])
    """
    return _tell(fold, pattern, tensor, windows, sizes, lambda: _folded(tensor, pattern, windows, sizes))


def transposed(pattern: str) -> str:
    """The pattern of the transpose of what is linear in its first tensor: that tensor and the result change places.

    >>> transposed("... c h' i, k c i -> ... k h'")
    "... k h', k c i -> ... c h' i"
    """
    signature = Signature.parse(pattern)
    if len(signature.outputs) != 1:
        raise SignatureError(f"a transpose is of a map to one tensor\n{point(pattern)}")
    (first, *others), result = signature.inputs, signature.outputs[0]
    return str(Signature((result, *others), (first,)))


def _tell(
    verb: Callable[..., Tensor],
    pattern: str,
    tensor: Tensor,
    windows: tuple[Window, ...],
    sizes: dict[str, int],
    run: Callable[[], Tensor],
) -> Tensor:
    """Run a verb, and let whoever records this thread know of it, and of the windows' maps."""
    if switch.active:
        recorder = switch.current()
        if recorder is not None:
            said = f"{pattern}: {', '.join([window.map for window in windows])}"
            return recorder.verb(verb, said, (tensor, pattern, *windows), sizes, run)
    return run()


# Patterns


@dataclass(frozen=True)
class Plan:
    """Where the axes of a pattern stand, counted without `...`.

    `whole` are the axes of the tensor that windows look at, `parts` those of what they see. `places` has the place in
    `whole` of each window's axis. `order` makes `parts` of `whole`, windows in place, with the places of the windows
    behind; `apart` makes of `parts` the other axes, then windows, then places; `back` makes `whole` of the other axes
    and then those of the windows.
    """

    rest: bool
    whole: tuple[str, ...]
    parts: tuple[str, ...]
    places: tuple[int, ...]
    order: tuple[int, ...]
    apart: tuple[int, ...]
    back: tuple[int, ...]


_plans: dict[tuple[str, ...], Plan] = {}


@torch.compiler.assume_constant_result
def _plan(pattern: str, inward: bool, names: tuple[str, ...]) -> Plan:
    """The plan of a pattern for windows with these names, three each; read once, then remembered."""
    key = (pattern, f"{inward}", *names)
    if key not in _plans:
        signature = Signature.parse(pattern)
        if not len(signature.inputs) == len(signature.outputs) == 1:
            raise SignatureError(f"a pattern goes from one tensor to another\n{point(pattern)}")
        sides = (signature.inputs[0], signature.outputs[0])
        whole, parts = sides if inward else sides[::-1]
        _plans[key] = _read(pattern, whole, parts, names)
    return _plans[key]


def _read(pattern: str, whole: Any, parts: Any, names: tuple[str, ...]) -> Plan:
    rests = [any(isinstance(term, Rest) for term in side) for side in (whole, parts)]
    sides = [tuple([f"{term}" for term in side if not isinstance(term, Rest)]) for side in (whole, parts)]
    plain = all(isinstance(term, Axis | Rest) for term in (*whole, *parts))
    axes, windows, places = names[0::3], names[1::3], names[2::3]
    swapped = dict(zip(axes, windows, strict=True))
    seen = (*[swapped.get(name, name) for name in sides[0]], *places)
    twice = any(len({*side}) < len(side) for side in (*sides, seen))
    if not names:
        raise SignatureError(f"no window was given\n{point(pattern)}")
    lost = [name for name in axes if name not in sides[0]]
    if lost:
        there = f"there {'are' if len(sides[0]) > 1 else 'is'} {' '.join(sides[0])}" if sides[0] else "there are none"
        raise SignatureError(f"a window looks at axis {lost[0]}; {there}\n{point(pattern)}")
    if rests[0] != rests[1] or not plain or twice or {*seen} != {*sides[1]}:
        there = show_axes(whole) or "nothing"
        wanted = f"{'... ' if rests[0] else ''}{' '.join(seen)}"
        raise SignatureError(f"windows make of {there} the axes {wanted}, in any order, each once\n{point(pattern)}")
    others = tuple([name for name in sides[0] if name not in axes])
    return Plan(
        rest=rests[0],
        whole=sides[0],
        parts=sides[1],
        places=tuple([sides[0].index(name) for name in axes]),
        order=tuple([seen.index(name) for name in sides[1]]),
        apart=tuple([sides[1].index(name) for name in (*others, *windows, *places)]),
        back=tuple([(*others, *axes).index(name) for name in sides[0]]),
    )


def _planned(tensor: Tensor, pattern: str, windows: tuple[Window, ...], inward: bool) -> tuple[Plan, int]:
    """The plan, and how many axes `...` stands for; ShapeError where the tensor has too few or too many."""
    names: tuple[str, ...] = ()
    for window in windows:
        names = (*names, window.axis, window.window, window.place)
    plan = _plan(pattern, inward, names)
    axes = plan.whole if inward else plan.parts
    lead = tensor.ndim - len(axes)
    if lead < 0 or (lead > 0 and not plan.rest):
        more = " or more" if plan.rest else ""
        raise ShapeError(f"'{pattern}' begins with {len(axes)} axes{more}; the tensor has {tensor.ndim}")
    return plan, lead


# What windows see


def _unfolded(tensor: Tensor, pattern: str, windows: tuple[Window, ...]) -> Tensor:
    """Pad, look through one window after another, put the axes in order."""
    plan, lead = _planned(tensor, pattern, windows, True)
    dims = [lead + place for place in plan.places]
    for window, dim in zip(windows, dims):  # noqa: B905  (as many, by the plan)
        window.count(tensor.shape[dim])
    tensor = pad(tensor, dims, windows)
    for window, dim in zip(windows, dims):  # noqa: B905
        tensor = _seen(tensor, dim, window)
    seen = tensor.permute(*range(lead), *[lead + place for place in plan.order])
    # A compiled graph that ends in an overlapping view of what it made has a wrong gradient, in torch 2.13.
    return seen.clone() if torch.compiler.is_compiling() else seen


def _seen(tensor: Tensor, dim: int, window: Window) -> Tensor:
    """One axis through its windows, whose places come last: a view, unless their number is a symbol."""
    if not isinstance(window.reach, int):
        count = (tensor.shape[dim] - window.reach) // window.stride + 1
        seen = tensor.index_select(dim, _starting(window, count, tensor.device).flatten())
        return seen.unflatten(dim, (count, window.size)).movedim(dim + 1, -1)
    seen = tensor.unfold(dim, window.reach, window.stride)
    return seen[..., :: window.dilation] if window.dilation > 1 else seen


def _starting(window: Window, count: int, device: torch.device) -> Tensor:
    """Which place of the padded axis each place of each window is."""
    starts = window.stride * torch.arange(count, device=device)
    return starts[:, None] + window.dilation * torch.arange(window.size, device=device)


def pad(tensor: Tensor, dims: list[int], windows: tuple[Window, ...], value: float = 0.0) -> Tensor:
    """The tensor with the padding of each window at its axis; where a window pads zeros, `value` stands for them."""
    border = [0] * (2 * tensor.ndim)
    for window, dim in zip(windows, dims):  # noqa: B905
        if window.mode == "zeros":
            border[-2 * dim - 2], border[-2 * dim - 1] = window.before, window.after
        elif window.before > 0 or window.after > 0:
            size = tensor.shape[dim]
            place = torch.arange(-window.before, size + window.after, device=tensor.device)
            tensor = tensor.index_select(dim, _inside(place, size, window.mode))
    return F.pad(tensor, border, value=value) if any(border) else tensor


def _inside(place: Tensor, size: int, mode: str) -> Tensor:
    """The place on the axis that a place beyond its ends is a copy of."""
    if mode == "circular":
        return place % size
    if mode == "reflect":
        return size - 1 - (size - 1 - place.abs()).abs()
    return place.clamp(0, size - 1)


# What windows write


def _folded(tensor: Tensor, pattern: str, windows: tuple[Window, ...], sizes: dict[str, int]) -> Tensor:
    """Add every number at the place it is of, all axes of the windows laid out as one; then cut the padding off."""
    plan, lead = _planned(tensor, pattern, windows, False)
    tensor = tensor.permute(*range(lead), *[lead + place for place in plan.apart])
    first = tensor.ndim - 2 * len(windows)
    other, counts = tensor.shape[:first], tensor.shape[first : first + len(windows)]
    ends = _ends(tensor, pattern, windows, sizes)
    lengths = [
        end + window.before + window.after if window.mode == "zeros" else end
        for window, end in zip(windows, ends)  # noqa: B905
    ]
    index = _index(windows, counts, ends, lengths, tensor.device)
    total = 1
    for length in lengths:
        total = total * length
    added = tensor.new_zeros(*other, total).index_add(first, index, tensor.flatten(first))
    added = added.reshape(*other, *lengths)
    for dim, (window, end) in enumerate(zip(windows, ends), first):  # noqa: B905
        if window.mode == "zeros" and (window.before > 0 or window.after > 0):
            added = added.narrow(dim, window.before, end)
    return added.permute(*range(lead), *[lead + place for place in plan.back])


def _ends(tensor: Tensor, pattern: str, windows: tuple[Window, ...], sizes: dict[str, int]) -> list[int]:
    """The size of each axis that windows write on: as asked, else the least; raises where something does not fit."""
    many = len(windows)
    names = [window.axis for window in windows]
    for name in sizes:
        if name not in names:
            raise SignatureError(f"{name} is no axis of a window, so its size is not to be chosen\n{point(pattern)}")
    ends: list[int] = []
    for window, count, size in zip(windows, tensor.shape[-2 * many : -many], tensor.shape[-many:]):  # noqa: B905
        if size != window.size:
            shown = switch.show(size)
            raise ShapeError(f"{window.place} is {shown} here, but windows {window.window} have {window.size} places")
        end = window.least(count) if window.axis not in sizes else sizes[window.axis]
        if end < 0 or window.count(end) != count:
            has = switch.show(window.count(end)) if end >= 0 else "no"
            raise ShapeError(
                f"{window.axis} is {switch.show(end)} here, which has {has} windows"
                f" {window.window}; there are {switch.show(count)}: {window.axis} may be {_choice(window, count)}"
            )
        ends.append(end)
    return ends


def _choice(window: Window, count: int) -> str:
    """The sizes that have so many windows, in words."""
    least = window.least(count)
    if least < 0:
        return f"0 to {switch.show(least + window.stride - 1)}"
    last = f" to {switch.show(least + window.stride - 1)}" if window.stride > 1 else ""
    return f"{switch.show(least)}{last}"


def _index(windows: tuple[Window, ...], counts: Any, ends: list[int], lengths: list[int], device: Any) -> Tensor:
    """Where each number goes, in a row: windows of all axes, then their places, the last the fastest."""
    many = len(windows)
    index = torch.zeros((), dtype=torch.long, device=device)
    for number, window in enumerate(windows):
        place = _starting(window, counts[number], device)
        if window.mode != "zeros":
            place = _inside(place - window.before, ends[number], window.mode)
        view = [1] * (2 * many)
        view[number], view[many + number] = counts[number], window.size
        index = index * lengths[number] + place.reshape(view)
    return index.flatten()
