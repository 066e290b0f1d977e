"""as_linear: a circuit that is a linear map, as one; and whether a function is linear at all.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, section 2.4.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from circuits.checking import find_circuit
from circuits.errors import CircuitError, SignatureError
from circuits.linear import LinearMap
from circuits.signature import Rest, Signature
from circuits.wiring import sides_of


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


def nonlinearity(f: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> str:
    """In what `f` is not linear, by its values at x and y; nothing, if it may be.

    >>> nonlinearity(lambda x: x + 1, torch.ones(2), torch.ones(2))
    'it takes zero to 1.0'
    """
    with torch.no_grad():
        here, there = f(x), f(y)
        scale = 1 + max(_largest(here), _largest(there))
        near = 1e3 * torch.finfo(here.dtype).eps
        nothing = _largest(f(torch.zeros_like(x)))
        if nothing > near * scale:
            return f"it takes zero to {nothing:.4}"
        for a, b in ((1.0, 1.0), (-1.0, 1.0), (64.0, -0.5)):
            off = _largest(f(a * x + b * y) - (a * here + b * there))
            if off > near * scale * max(abs(a), abs(b)):
                return f"f({a:g} x + {b:g} y) is not {a:g} f(x) + {b:g} f(y), by {off:.4}"
    return ""


def _largest(tensor: Tensor) -> float:
    return tensor.abs().max().item() if tensor.numel() else 0.0


__all__ = ["as_linear", "nonlinearity"]
