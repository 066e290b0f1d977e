"""as_linear: a circuit that is a linear map, as one; and whether a function is linear at all.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, section 2.4.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from circuits.algebra.linear_map import LinearMap
from circuits.algebra.wires import sides_of
from circuits.checking import find_circuit
from circuits.errors import CircuitError, SignatureError
from circuits.signature import Rest, Signature


def as_linear(f: Callable[..., Tensor], **sizes: int) -> LinearMap:
    """The linear map that a circuit of one tensor is: its Jacobian at zero, for these sizes of its axes.

    `...` stands for no axes here. Where autograd is on, gradients go on to what `f` is made of. Raises CircuitError,
    with the numbers, where `f` is not linear: zero must go to zero, sums to sums, multiples to multiples.

    >>> from circuits import circuit
    >>> as_linear(circuit("a -> ")(lambda x: x.sum()), a=3).tensor
    tensor([1., 1., 1.])
    """
    circuit = find_circuit(f)
    if circuit is None:
        raise SignatureError(
            f"as_linear takes a circuit, and {f!r} has no signature; give it one, circuit('a -> b')(f)"
        )
    sides = [
        tuple([axes[1:] if axes[:1] == (Rest(),) else axes for axes in side])
        for side in (circuit.signature.inputs, circuit.signature.outputs)
    ]
    text = str(Signature(sides[0], sides[1]))
    inputs, _ = sides_of(text)
    known = {name: size for name, size in circuit.fixed.items() if isinstance(size, int)} | sizes
    if isinstance(f, torch.nn.Module):
        known |= {name: f.__dict__[by] for name, by in circuit.fixed.items() if isinstance(by, str)}
    missing = [name for name in inputs if name not in known]
    if missing:
        raise CircuitError(f"as_linear: {circuit.name} needs the size of {missing[0]}: as_linear(f, {missing[0]}=3)")
    like = next(iter(f.parameters()), None) if isinstance(f, torch.nn.Module) else None
    like = torch.empty(()) if like is None else like
    zero = torch.zeros([known[name] for name in inputs], dtype=like.dtype, device=like.device)
    wrong = nonlinearity(f, torch.randn_like(zero), torch.randn_like(zero))
    if wrong:
        raise CircuitError(f"as_linear: {circuit.title} is not linear: {wrong}")
    grown: Any = torch.autograd.functional.jacobian(f, zero, create_graph=torch.is_grad_enabled())
    count = grown.ndim - len(inputs)
    return LinearMap(grown.permute(*range(count, grown.ndim), *range(count)), text)


COMBINATIONS = ((0.0, 0.0), (1.0, 1.0), (-1.0, 1.0), (64.0, -0.5))
"""Numbers a, b for which a linear f takes a x + b y to a f(x) + b f(y)."""


class Combined(NamedTuple):
    """What f makes of a x + b y, and what it makes of both by themselves, combined: one and the same for a linear f."""

    a: float
    b: float
    found: list[Tensor]
    expected: list[Tensor]


def combined(f: Callable[[Tensor], Sequence[Tensor]], x: Tensor, y: Tensor) -> Iterator[Combined]:
    """The two sides of linearity, for one pair of numbers after another; where both are 0, zero must go to zero.

    >>> [[both.found[0].item(), both.expected[0].item()] for both in combined(lambda x: [x + 1], *torch.ones(2))]
    [[1.0, 0.0], [3.0, 4.0], [1.0, 0.0], [64.5, 127.0]]
    """
    here, there = f(x), f(y)
    for a, b in COMBINATIONS:
        both = [a * mine + b * its for mine, its in zip(here, there, strict=True)]
        yield Combined(a, b, list(f(a * x + b * y)), both)


def nonlinearity(f: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> str:
    """In what `f` is not linear, by its values at x and y; nothing, if it may be.

    >>> nonlinearity(lambda x: x + 1, torch.ones(2), torch.ones(2))
    'it takes zero to 1.0'
    """
    with torch.no_grad():
        scale = 1 + max(_largest(f(x)), _largest(f(y)))
        for a, b, (found,), (expected,) in combined(lambda value: [f(value)], x, y):
            off = _largest(found - expected)
            if off > 1e3 * torch.finfo(found.dtype).eps * scale * max(1.0, abs(a)):
                what = f"f({a:g} x + {b:g} y) is not {a:g} f(x) + {b:g} f(y), by {off:.4}"
                return what if a else f"it takes zero to {off:.4}"
    return ""


def _largest(tensor: Tensor) -> float:
    return tensor.abs().max().item() if tensor.numel() else 0.0


__all__ = ["as_linear", "combined", "nonlinearity"]
