"""as_linear: convert a linear circuit to a LinearMap; and a numerical test of linearity.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, section 2.4.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from circuits.algebra.linear_map import LinearMap
from circuits.algebra.wires import parse_sides
from circuits.checking import find_circuit
from circuits.errors import CircuitError, SignatureError, described, entry_point
from circuits.signature import Rest, Signature


@entry_point
def as_linear(f: Callable[..., Tensor], **sizes: int) -> LinearMap:
    """Convert a linear circuit to a LinearMap: its Jacobian at zero, for these sizes of its axes.

    Linearity is tested numerically, at random inputs: f(0) = 0, and f(a x + b y) = a f(x) + b f(y). If autograd is
    enabled, gradients flow to the parameters and other tensors in `f`.

    Args:
        f: A circuit with one input tensor and one output tensor. It is evaluated in the dtype and on the device of its
            first parameter if it is a module with parameters, else in torch's defaults.
        sizes: The size of every input axis that `f` does not fix. `...` in the signature matches no axes.

    Returns:
        The map from the input axes to the output axes of `f`.

    Raises:
        SignatureError: If `f` has no signature, or several input or output tensors.
        CircuitError: If a size is missing, or if `f` is not linear; the message has the equation that does not hold and
            the largest difference of its sides.

    >>> from circuits import circuit
    >>> as_linear(circuit("a -> ")(lambda x: x.sum()), a=3).tensor
    tensor([1., 1., 1.])
    """
    circuit = find_circuit(f)
    if circuit is None:
        raise SignatureError(
            f"as_linear takes a circuit, and {described(f)} has no signature; give it one, circuit('a -> b')(f)"
        )
    sides = [
        tuple([axes[1:] if axes[:1] == (Rest(),) else axes for axes in side])
        for side in (circuit.signature.inputs, circuit.signature.outputs)
    ]
    text = str(Signature(sides[0], sides[1]))
    inputs, _ = parse_sides(text)
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
    jacobian: Any = torch.autograd.functional.jacobian(f, zero, create_graph=torch.is_grad_enabled())
    count = jacobian.ndim - len(inputs)
    return LinearMap(jacobian.permute(*range(count, jacobian.ndim), *range(count)), text)


COMBINATIONS = ((0.0, 0.0), (1.0, 1.0), (-1.0, 1.0), (64.0, -0.5))
"""The pairs a, b for which f(a x + b y) is compared with a f(x) + b f(y)."""


class LinearSum(NamedTuple):
    """The outputs f(a x + b y) in `found`, and a f(x) + b f(y) in `expected`; they are equal if f is linear."""

    a: float
    b: float
    found: list[Tensor]
    expected: list[Tensor]


def linear_sums(f: Callable[[Tensor], Sequence[Tensor]], x: Tensor, y: Tensor) -> Iterator[LinearSum]:
    """Yield f(a x + b y) and a f(x) + b f(y) for each pair a, b in COMBINATIONS, the first of which is 0, 0.

    >>> [[both.found[0].item(), both.expected[0].item()] for both in linear_sums(lambda x: [x + 1], *torch.ones(2))]
    [[1.0, 0.0], [3.0, 4.0], [1.0, 0.0], [64.5, 127.0]]
    """
    at_x, at_y = f(x), f(y)
    for a, b in COMBINATIONS:
        expected = [a * one + b * two for one, two in zip(at_x, at_y, strict=True)]
        yield LinearSum(a, b, list(f(a * x + b * y)), expected)


def nonlinearity(f: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> str:
    """Return a message about the first violation of linearity that is found with x and y; empty if there is none.

    >>> nonlinearity(lambda x: x + 1, torch.ones(2), torch.ones(2))
    'it takes zero to 1.0'
    """
    with torch.no_grad():
        scale = 1 + max(_largest(f(x)), _largest(f(y)))
        for a, b, (found,), (expected,) in linear_sums(lambda value: [f(value)], x, y):
            off = _largest(found - expected)
            if off > 1e3 * torch.finfo(found.dtype).eps * scale * max(1.0, abs(a)):
                text = f"f({a:g} x + {b:g} y) is not {a:g} f(x) + {b:g} f(y), by {off:.4}"
                return text if a else f"it takes zero to {off:.4}"
    return ""


def _largest(tensor: Tensor) -> float:
    """Return the largest absolute value; 0 for an empty tensor."""
    return tensor.abs().max().item() if tensor.numel() else 0.0


__all__ = ["as_linear", "linear_sums", "nonlinearity"]
