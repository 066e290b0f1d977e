"""Tensor networks: the data of a LinearMap, and its evaluation by one einsum, as a tensor and as a circuit.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, section 2.4; D. Smith and J. Gray, opt_einsum, JOSS 2018, which
torch.einsum uses to choose the order of contraction of three or more tensors.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from circuits import verbs
from circuits.algebra.wires import Wire, Wires, parse_sides, unused_name
from circuits.checking import Options, checked, declare
from circuits.errors import ShapeError, SignatureError, point
from circuits.signature import Axis, Signature

Factor = tuple[Tensor, Wires]
"""A tensor, and the wire of each of its axes."""


class Network(NamedTuple):
    """Tensors on numbered wires, and which wires are the named inputs and outputs.

    A wire that is neither an input nor an output is summed over. A wire may be several inputs and outputs.

    Attributes:
        factors: The tensors, each with the wires of its axes.
        inputs: The names of the inputs.
        outputs: The names of the outputs.
        wires: The wires of the inputs, then of the outputs.
        sizes: The size and name of every wire; the name is used if the wire is neither an input nor an output.
    """

    factors: tuple[Factor, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    wires: Wires
    sizes: Mapping[int, Wire]

    @property
    def input_wires(self) -> Wires:
        """The wires of the inputs."""
        return self.wires[: len(self.inputs)]

    @property
    def output_wires(self) -> Wires:
        """The wires of the outputs."""
        return self.wires[len(self.inputs) :]

    @property
    def ends(self) -> list[tuple[str, int]]:
        """The name and the wire of every input, then of every output."""
        return list(zip((*self.inputs, *self.outputs), self.wires, strict=True))

    @property
    def signature(self) -> Signature:
        """The signature with the inputs as the axes of one tensor, and the outputs as the axes of another."""
        sides = [(tuple([Axis(name) for name in side]),) for side in (self.inputs, self.outputs)]
        return Signature(sides[0], sides[1])

    def position(self, name: str) -> int:
        """Return the position in `ends` of a name; raise SignatureError if it is missing or on both sides."""
        positions = [position for position, (each, _) in enumerate(self.ends) if each == name]
        if len(positions) != 1:
            why = "is on both sides of" if positions else "is no axis of"
            raise SignatureError(f"LinearMap: {name} {why} {self.signature}")
        return positions[0]

    def wire_names(self) -> dict[int, str]:
        """Return a unique name for each wire: that of its first end, or its own, with primes if it is taken."""
        found: dict[int, str] = {}
        for name, wire in self.ends:
            if wire not in found:
                found[wire] = unused_name(name, found)
        for wire, (_, name) in self.sizes.items():
            found.setdefault(wire, unused_name(name, found))
        return found


def network_of(tensor: Tensor, text: str) -> Network:
    """Return the network of one tensor, whose axes are the inputs, then the outputs, named in the text.

    Raises:
        SignatureError: If the text is not that of a map; see `parse_sides`.
        ShapeError: If the tensor does not have as many axes as the text.
    """
    inputs, outputs = parse_sides(text)
    if tensor.ndim != len(inputs) + len(outputs):
        raise ShapeError(
            f"LinearMap: {text} has {len(inputs) + len(outputs)} axes, the tensor has {tensor.ndim}: "
            f"{' '.join([f'{size}' for size in tensor.shape])}"
        )
    wires = tuple(range(tensor.ndim))
    ends = zip(tensor.shape, (*inputs, *outputs), strict=True)
    return Network(((tensor, wires),), inputs, outputs, wires, dict(enumerate(map(Wire._make, ends))))


def delta(inputs: tuple[str, ...], outputs: tuple[str, ...], size: int, name: str) -> Network:
    """Return a network of one wire with all these inputs and outputs: 1 where all indices are equal, else 0."""
    return Network((), inputs, outputs, (0,) * (len(inputs) + len(outputs)), {0: Wire(size, name)})


def identity_of(text: str, sizes: Mapping[str, int]) -> Network:
    """Return a network of one wire per name, with the inputs and outputs in the text; `"a b"` is `"a b -> a b"`.

    Raises:
        SignatureError: If the text is not that of a map, a name has no size, or a size has no name in the text.
    """
    inputs, outputs = parse_sides(text if "->" in text else f"{text} -> {text}")
    names = list(dict.fromkeys([*inputs, *outputs]))
    for name in [*names, *sizes]:
        if name not in sizes or name not in names:
            why = "has no size" if name in names else "is no axis"
            raise SignatureError(f"LinearMap: sizes are needed for exactly the axes {' '.join(names)}; {name} {why}")
    wires = tuple([names.index(name) for name in (*inputs, *outputs)])
    return Network((), inputs, outputs, wires, {at: Wire(sizes[name], name) for at, name in enumerate(names)})


def check(network: Network) -> None:
    """Raise SignatureError if a name is twice on one side, ShapeError if it has two sizes."""
    for side in (network.inputs, network.outputs):
        twice = next((name for name in side if side.count(name) > 1), None)
        if twice is not None:
            raise SignatureError(
                f"LinearMap: two axes of one side would be named {twice}; rename one of them first, with "
                f"named(...)\n{point(str(network.signature))}"
            )
    known: dict[str, int] = {}
    for name, wire in network.ends:
        size, other = known.setdefault(name, network.sizes[wire].size), network.sizes[wire].size
        if size != other:
            raise ShapeError(f"LinearMap: {name} has two sizes in {network.signature}, {size} and {other}")


def evaluate(
    factors: Sequence[Factor],
    wires: Wires,
    names: Mapping[int, str],
    sizes: Mapping[int, Wire],
    argument: Factor | None = None,
) -> Tensor:
    """Return the tensor with these wires as its axes, by one einsum over all factors.

    An identity matrix is added for each repetition of a wire in the result, and a vector of ones for a wire on which
    there is no tensor.

    Args:
        factors: The tensors, each with the wires of its axes.
        wires: The wires of the axes of the result.
        names: A unique name for each wire.
        sizes: The size of every wire; wires that are not in the result are summed over.
        argument: One more tensor, whose leading axes, before those on its wires, are the leading axes of the result.

    Returns:
        A tensor with the dtype and device of the first tensor, or torch's defaults if there is none.
    """
    operands = [*factors] if argument is None else [argument, *factors]
    like = operands[0][0] if operands else torch.empty(())
    names, ends = dict(names), []
    for wire in wires:
        if wire in ends:
            end = max(names) + 1
            names[end] = unused_name(f"{names[wire]}'", names)
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


def dense(network: Network) -> Tensor:
    """Return the dense tensor of a network: input axes, then output axes."""
    return evaluate(network.factors, network.wires, network.wire_names(), network.sizes)


def as_circuit(network: Network) -> Any:
    """Return the circuit `... a -> ... b c` that applies a network to a tensor.

    For a network without inputs, it is the circuit `-> b c` of no arguments that returns the dense tensor.
    """
    names = network.wire_names()

    def apply(tensor: Tensor) -> Tensor:
        argument = (tensor, network.input_wires)
        return evaluate(network.factors, network.output_wires, names, network.sizes, argument)

    text, body = f"... {' '.join(network.inputs)} -> ... {' '.join(network.outputs)}", apply
    if not network.inputs:
        text, body = str(network.signature), lambda: dense(network)
    fixed = {name: network.sizes[wire].size for name, wire in network.ends}
    return checked(declare(body, text, Options.of(None, fixed, None, None), "LinearMap", "LinearMap"))
