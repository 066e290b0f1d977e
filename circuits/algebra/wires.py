"""The wires of linear maps: numbered axes, what they are called, and the one einsum over the tensors that lie on them.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, section 2.4; D. Smith and J. Gray, opt_einsum, JOSS 2018, which
torch.einsum asks for its path where three or more tensors meet.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from circuits import verbs
from circuits.errors import SignatureError, point
from circuits.signature import Axes, Axis, Signature

Wires = tuple[int, ...]


class Wire(NamedTuple):
    """How long an axis is, and what it is called where nobody else is."""

    size: int
    name: str


def contract(
    factors: Sequence[tuple[Tensor, Wires]],
    wires: Wires,
    names: Mapping[int, str],
    sizes: Mapping[int, Wire],
    argument: tuple[Tensor, Wires] | None = None,
) -> Tensor:
    """One einsum over all factors, and an argument with leading axes, whose result has these wires.

    A wire that ends twice there needs the identity between its ends; one on no tensor at all, ones to sum or repeat.
    """
    operands = [*factors] if argument is None else [argument, *factors]
    like = operands[0][0] if operands else torch.empty(())
    names, ends = dict(names), []
    for wire in wires:
        if wire in ends:
            end = max(names) + 1
            names[end] = fresh(f"{names[wire]}'", names)
            operands.append((torch.eye(sizes[wire].size, dtype=like.dtype, device=like.device), (wire, end)))
            wire = end
        ends.append(wire)
    present = {wire for _, each in operands for wire in each}
    for wire, (size, _) in sizes.items():
        if wire not in present:
            operands.append((torch.ones(size, dtype=like.dtype, device=like.device), (wire,)))
    if not operands:
        return torch.ones(())
    texts = [" ".join([names[wire] for wire in each]) for _, each in operands]
    result = " ".join([names[wire] for wire in ends])
    if argument is not None:
        texts[0], result = f"... {texts[0]}", f"... {result}"
    return verbs.einsum(*[tensor for tensor, _ in operands], f"{', '.join(texts)} -> {result}")


def fresh(name: str, names: Mapping[int, str]) -> str:
    """A name with as many primes as it takes to be another than these."""
    while name in names.values():
        name = f"{name}'"
    return name


def sides_of(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names on each side of a map's text: one tensor in, one out, each axis a name."""
    signature = Signature.parse(text)
    if len(signature.inputs) != 1 or len(signature.outputs) != 1:
        raise SignatureError(f"LinearMap: a linear map has one tensor in and one out\n{point(text)}")
    return _plain(signature.inputs[0], text), _plain(signature.outputs[0], text)


def _plain(axes: Axes, text: str) -> tuple[str, ...]:
    odd = next((term for term in axes if not isinstance(term, Axis)), None)
    if odd is not None:
        raise SignatureError(f"LinearMap: the axes of a linear map are names, not '{odd}'\n{point(text)}")
    return tuple([str(term) for term in axes])


__all__ = ["Wire", "Wires", "contract", "fresh", "sides_of"]
