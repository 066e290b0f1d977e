"""The pattern of an `unfold` or a `fold`, checked against its windows and turned into dimensions and permutations.

A plan is computed once for a pattern and the names of its windows, and cached; torch.compile sees it as a constant.
"""

from dataclasses import dataclass

from torch import Tensor

from circuits.errors import ShapeError, SignatureError, point
from circuits.signature import Axes, Axis, Rest, Signature, show_axes
from circuits.tracers import constant_when_compiled
from circuits.windows.window import Window


@dataclass(frozen=True)
class Plan:
    """The axes of a pattern, as data; dimensions are counted without those of `...`.

    Attributes:
        has_rest: Whether both sides begin with `...`.
        folded: The axes of the folded tensor: the input of `unfold`, the output of `fold`.
        unfolded: The axes of the unfolded tensor.
        dims: For each window, the dimension of its axis in the folded tensor.
        to_unfolded: The permutation to `unfolded` from the axes of the folded tensor, where each windowed axis is
            replaced by its window axis, followed by all position axes.
        to_scatter: The permutation from `unfolded` to the other axes, then the window axes, then the position axes.
        to_folded: The permutation to `folded` from the other axes, then the windowed axes.
    """

    has_rest: bool
    folded: tuple[str, ...]
    unfolded: tuple[str, ...]
    dims: tuple[int, ...]
    to_unfolded: tuple[int, ...]
    to_scatter: tuple[int, ...]
    to_folded: tuple[int, ...]


_plans: dict[tuple[str, ...], Plan] = {}


@constant_when_compiled
def _plan(pattern: str, unfolds: bool, names: tuple[str, ...]) -> Plan:
    """Return the plan of a pattern for windows with these names, three each; it is computed once and cached."""
    key = (pattern, f"{unfolds}", *names)
    if key not in _plans:
        signature = Signature.parse(pattern)
        if not len(signature.inputs) == len(signature.outputs) == 1:
            raise SignatureError(f"a pattern has one input and one output\n{point(pattern)}")
        sides = (signature.inputs[0], signature.outputs[0])
        folded, unfolded = sides if unfolds else sides[::-1]
        _plans[key] = _make_plan(pattern, folded, unfolded, names)
    return _plans[key]


def _make_plan(pattern: str, folded: Axes, unfolded: Axes, names: tuple[str, ...]) -> Plan:
    """Return the plan for both sides of a pattern; SignatureError if they do not fit the windows."""
    has_rest, unfolded_has_rest = (any(isinstance(term, Rest) for term in side) for side in (folded, unfolded))
    before, after = (tuple([f"{term}" for term in side if not isinstance(term, Rest)]) for side in (folded, unfolded))
    are_names = all(isinstance(term, Axis | Rest) for term in (*folded, *unfolded))
    axes, windows, places = names[0::3], names[1::3], names[2::3]
    replaced = dict(zip(axes, windows, strict=True))
    expected = (*[replaced.get(name, name) for name in before], *places)
    repeats = any(len({*side}) < len(side) for side in (before, after, expected))
    if not names:
        raise SignatureError(f"no window was given\n{point(pattern)}")
    missing = [name for name in axes if name not in before]
    if missing:
        shown = f"the axes are {' '.join(before)}" if before else "there are no axes"
        raise SignatureError(f"a window is on axis {missing[0]}, but {shown}\n{point(pattern)}")
    if has_rest != unfolded_has_rest or not are_names or repeats or {*expected} != {*after}:
        shown = f"{'... ' if has_rest else ''}{' '.join(expected)}"
        fault = f"with these windows the axes {show_axes(folded)} unfold to {shown}, in any order, each once"
        raise SignatureError(f"{fault}\n{point(pattern)}")
    others = tuple([name for name in before if name not in axes])
    return Plan(
        has_rest=has_rest,
        folded=before,
        unfolded=after,
        dims=tuple([before.index(name) for name in axes]),
        to_unfolded=tuple([expected.index(name) for name in after]),
        to_scatter=tuple([after.index(name) for name in (*others, *windows, *places)]),
        to_folded=tuple([(*others, *axes).index(name) for name in before]),
    )


def plan_for(tensor: Tensor, pattern: str, windows: tuple[Window, ...], unfolds: bool) -> tuple[Plan, int]:
    """Return the plan of a pattern, and the number of axes of the tensor that `...` stands for.

    Args:
        tensor: The input.
        pattern: The pattern of `unfold` or `fold`.
        windows: The windows.
        unfolds: Whether the pattern is that of `unfold`: its input is the folded tensor.

    Raises:
        SignatureError: If the pattern does not fit the windows.
        ShapeError: If the tensor has too few or too many axes.
    """
    names: tuple[str, ...] = ()
    for window in windows:
        names = (*names, window.axis, window.window, window.place)
    plan = _plan(pattern, unfolds, names)
    axes = plan.folded if unfolds else plan.unfolded
    lead = tensor.ndim - len(axes)
    if lead < 0 or (lead > 0 and not plan.has_rest):
        more = " or more" if plan.has_rest else ""
        raise ShapeError(f"'{pattern}': expected an input with {len(axes)} axes{more}, got {tensor.ndim}")
    return plan, lead
