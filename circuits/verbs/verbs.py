"""einsum, rearrange, reduce, repeat: einops' own verbs, seen by the recorder.

They take what einops takes and give what einops gives. Primes are allowed in names (`h'`), so that a pattern can use
the names of a signature. `einsum` differs in one thing: sizes must agree, where einops and torch stretch a size of 1
over any other without a word.

Source: A. Rogozhnikov, Einops, ICLR 2022.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import einops
import torch
from torch import Tensor

from circuits import switch
from circuits.errors import ShapeError, SignatureError, point
from circuits.signature import Axis, Group, Rest, Signature, show_axes
from circuits.verbs.contraction import contracted, equation


def einsum(*tensors_and_pattern: Any) -> Tensor:
    """Multiply tensors, meeting along axes of one name and summing over those the result lacks.

    The last argument is the pattern: `einsum(query, key, "... y k, ... x k -> ... y x")`. Each axis has one size
    wherever it stands, `...` too; ShapeError names the one that has two. SignatureError if the pattern cannot be
    read. (The notebook's order, pattern first, is torch.einsum's and is refused with a word about it.)

    >>> import torch
    >>> einsum(torch.ones(2, 3), torch.ones(3), "y k, k -> y")
    tensor([3., 3.])
    """
    *tensors, pattern = tensors_and_pattern
    if not isinstance(pattern, str):
        raise SignatureError("einsum takes its tensors first and its pattern last: einsum(x, w, 'y m, m k -> y k')")
    _agree(pattern, tensors)
    if len(tensors) > 2 and not switch.active and not torch.compiler.is_compiling():
        found = contracted(_plan(pattern).equation, tensors)
        if found is not None:
            return found
    return _tell(einsum, pattern, tensors_and_pattern, {}, lambda: _einops_einsum(*tensors, _plain(pattern)))


_einops_einsum: Callable[..., Tensor] = einops.einsum


def rearrange(tensor: Tensor | Sequence[Tensor], pattern: str, **sizes: Any) -> Tensor:
    """Reorder, group and split axes: `rearrange(x, "... y (h k) -> ... h y k", k=16)`; `einops.rearrange`.

    >>> import torch
    >>> rearrange(torch.ones(20, 64), "y (h k) -> h y k", k=16).shape
    torch.Size([4, 20, 16])
    """
    run = lambda: einops.rearrange(tensor, _plain(pattern), **_named(sizes))  # noqa: E731
    return _tell(rearrange, pattern, (tensor, pattern), sizes, run)


def reduce(tensor: Tensor | Sequence[Tensor], pattern: str, reduction: Any, **sizes: Any) -> Tensor:
    """Sum, average, or take the extreme (`"sum"`, `"mean"`, `"max"`, `"min"`, `"prod"`) over axes; `einops.reduce`.

    >>> import torch
    >>> reduce(torch.ones(4, 6), "y x -> y", "sum")
    tensor([6., 6., 6., 6.])
    """
    run = lambda: einops.reduce(tensor, _plain(pattern), reduction, **_named(sizes))  # noqa: E731
    return _tell(reduce, pattern, (tensor, pattern, reduction), sizes, run)


def repeat(tensor: Tensor | Sequence[Tensor], pattern: str, **sizes: Any) -> Tensor:
    """Copy along new axes: `repeat(x, "k -> y k", y=5)`; `einops.repeat`.

    >>> import torch
    >>> repeat(torch.arange(2), "k -> y k", y=2)
    tensor([[0, 1],
            [0, 1]])
    """
    run = lambda: einops.repeat(tensor, _plain(pattern), **_named(sizes))  # noqa: E731
    return _tell(repeat, pattern, (tensor, pattern), sizes, run)


def _tell(
    verb: Callable[..., Any], pattern: str, args: tuple[Any, ...], sizes: dict[str, Any], run: Callable[[], Any]
) -> Any:
    """Run a verb, and let whoever records this thread know of it."""
    if switch.active:
        recorder = switch.current()
        if recorder is not None:
            return recorder.verb(verb, pattern, args, sizes, run)
    return run()


def _plain(pattern: str) -> str:
    """The pattern in einops' spelling, which has no primes."""
    return pattern.replace("'", "Prime") if "'" in pattern else pattern


def _named(sizes: dict[str, Any]) -> dict[str, Any]:
    """Sizes by the same names: `**{"h'": 2}`."""
    return {_plain(name): size for name, size in sizes.items()}


@dataclass(frozen=True)
class Operand:
    """What an einsum pattern asks of one tensor: its axes as text, how many are named, and whether `...` leads."""

    text: str
    names: tuple[str, ...]
    rest: bool


@dataclass(frozen=True)
class Plan:
    """What must agree in an einsum: each tensor's axes, and pairs of places (tensor, place, tensor, place).

    Places count from the right, so that `...` moves none. `equation` is the pattern as torch.einsum has it.
    """

    operands: tuple[Operand, ...]
    pairs: tuple[tuple[int, int, int, int], ...]
    equation: str


_plans: dict[str, Plan] = {}


@torch.compiler.assume_constant_result
def _plan(pattern: str) -> Plan:
    """The plan of a pattern; read once, then remembered."""
    if pattern not in _plans:
        _plans[pattern] = _read(pattern)
    return _plans[pattern]


def _read(pattern: str) -> Plan:
    first: dict[str, tuple[int, int]] = {}
    pairs: list[tuple[int, int, int, int]] = []
    operands = []
    signature = Signature.parse(pattern)
    for tensor, axes in enumerate(signature.inputs):
        named = axes[1:] if axes and isinstance(axes[0], Rest) else axes
        for place, term in enumerate(reversed(named), start=1):
            if not isinstance(term, Axis):
                what = "rearrange first" if isinstance(term, Group) else "it is no name"
                raise SignatureError(f"einsum takes axes by name alone, not '{term}' ({what})\n{point(pattern)}")
            before = first.setdefault(term.name, (tensor, -place))
            if before != (tensor, -place):
                pairs.append((*before, tensor, -place))
        operands.append(Operand(show_axes(axes), tuple([str(term) for term in named]), len(named) < len(axes)))
    return Plan(tuple(operands), tuple(pairs), equation(signature))


def _agree(pattern: str, tensors: Sequence[Tensor]) -> None:
    """Raise ShapeError unless every axis of the pattern has one size."""
    plan = _plan(pattern)
    if len(plan.operands) != len(tensors):
        raise ShapeError(f"einsum '{pattern}' takes {len(plan.operands)} tensors, {len(tensors)} came")
    lead: Any = None
    for tensor, operand in zip(tensors, plan.operands):  # noqa: B905  (the lengths were just compared)
        shape = tensor.shape
        extra = len(shape) - len(operand.names)
        if extra != 0 and (extra < 0 or not operand.rest):
            _refuse(pattern, tensors)
        if operand.rest:
            if lead is not None and shape[:extra] != lead:
                _refuse(pattern, tensors)
            lead = shape[:extra]
    for tensor_a, place_a, tensor_b, place_b in plan.pairs:
        if tensors[tensor_a].shape[place_a] != tensors[tensor_b].shape[place_b]:
            _refuse(pattern, tensors)


def _refuse(pattern: str, tensors: Sequence[Tensor]) -> NoReturn:
    """Say which axis of an einsum has two sizes, over all its tensors. Plain f-strings: Dynamo traces this."""
    text = f"einsum: {pattern}"
    sizes: dict[str, Any] = {}
    whose: dict[str, int] = {}
    lead: Any = None
    for number, (tensor, operand) in enumerate(zip(tensors, _plan(pattern).operands)):  # noqa: B905
        shape = tensor.shape
        line = f"  tensor {number} [{operand.text}] "
        for size in shape:
            line = f"{line} {switch.show(size)}"
        extra = len(shape) - len(operand.names)
        if extra < 0 or (extra > 0 and not operand.rest):
            more = " or more" if operand.rest else ""
            axes = "axis" if len(shape) == 1 else "axes"
            text = f"{text}\n{line}    has {len(shape)} {axes}, {len(operand.names)}{more} belong here"
            continue
        if operand.rest:
            if lead is not None and shape[:extra] != lead:
                line = f"{line}    ... differs from the tensors before"
            lead = shape[:extra]
        for name, size in zip(operand.names, shape[extra:]):  # noqa: B905
            if name not in sizes:
                sizes[name], whose[name] = size, number
            elif sizes[name] != size:
                other = switch.show(sizes[name])
                line = f"{line}    {name} is {switch.show(size)} here, but {other} in tensor {whose[name]}"
        text = f"{text}\n{line}"
    raise ShapeError(text)


__all__ = ["einsum", "rearrange", "reduce", "repeat"]
