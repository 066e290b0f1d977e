"""LinearMap: a tensor as a linear map, `"a -> b c"`, with composition, transposes and contractions by axis name.

A map is a lazy tensor network: factors (tensors) on numbered wires, and which wires are its inputs and outputs.
Operations only renumber wires. A map is evaluated when it is called or its tensor is read, by one einsum, whose order
of contraction opt_einsum chooses for three or more tensors. An identity, a unit or a diagonal has wires and no factors.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, section 2.4, Figures 17 and 18.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from circuits.algebra import operations
from circuits.algebra.network import Factor, Network, check, delta, evaluate, identity_of, network_of
from circuits.algebra.wires import Wire, Wires
from circuits.checking import Circuit, Options, checked, declare
from circuits.signature import Signature


@dataclass(frozen=True, eq=False, repr=False)
class LinearMap:
    """A linear map from some named axes to others; `LinearMap(tensor, "a -> b c")` for a tensor with axes a, b, c.

    A name occurs once on a side. `f(x)` applies the map at every index of the leading axes of `x`; it is a circuit and
    can be passed to `broadcast`, `trace` and the like. `f >> g` is f, then g: outputs are contracted with the inputs of
    the same name, other axes are kept. Gradients flow to the tensors that the map is made of.

    Args:
        tensor: The input axes, then the output axes.
        signature: The names of both, `"a -> b c"`: one tensor on each side, no `...`.

    Raises:
        SignatureError: If the signature is not that of a map.
        ShapeError: If the tensor has another number of axes, or two sizes for one name.

    Source: section 2.4, Figures 17 and 18.

    >>> f = LinearMap(torch.ones(2, 3), "a -> b")
    >>> f(torch.ones(2))
    tensor([2., 2., 2.])
    >>> f >> f.transpose()
    LinearMap('a -> a', a=2)
    """

    factors: tuple[Factor, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    wires: Wires
    sizes: Mapping[int, Wire]

    def __init__(self, tensor: Tensor, signature: str) -> None:
        self._fill(network_of(tensor, signature))

    @classmethod
    def _of(cls, network: Network) -> Self:
        made = cls.__new__(cls)
        made._fill(network)
        return made

    def _fill(self, network: Network) -> None:
        check(network)
        for name, value in network._asdict().items():
            object.__setattr__(self, name, value)

    @property
    def _network(self) -> Network:
        return Network(self.factors, self.inputs, self.outputs, self.wires, self.sizes)

    # Maps without factors

    @classmethod
    def identity(cls, text: str, **sizes: int) -> Self:
        """Return the identity, `identity("a b", a=3, b=4)`, or a permutation, `identity("a b -> b a", a=3, b=4)`.

        An axis only among the inputs is summed over; along one only among the outputs, values are repeated. Raises
        SignatureError unless `sizes` has exactly the axes in `text`.

        >>> LinearMap.identity("a b -> b", a=2, b=3)(torch.ones(2, 3))
        tensor([2., 2., 2.])
        """
        return cls._of(identity_of(text, sizes))

    @classmethod
    def unit(cls, name: str, size: int) -> Self:
        """Return the unit (cup) `-> b b'` of an axis of this name and size: the identity matrix, without inputs.

        >>> LinearMap.unit("b", 2).tensor
        tensor([[1., 0.],
                [0., 1.]])
        """
        return cls._of(delta((), (name, f"{name}'"), size, name))

    @classmethod
    def inner_product(cls, name: str, size: int) -> Self:
        """Return the inner product (cap) `b b' ->` over such an axis, the sum of products; it is `unit` transposed."""
        return cls._of(delta((name, f"{name}'"), (), size, name))

    @classmethod
    def diagonal(cls, name: str, size: int) -> Self:
        """Return the map `h h' -> h` that reads the diagonal of a matrix of this size; its transpose writes one.

        >>> LinearMap.diagonal("h", 2)(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        tensor([1., 4.])
        """
        return cls._of(delta((name, f"{name}'"), (name,), size, name))

    # Its tensor and signature

    @property
    def signature(self) -> Signature:
        """The axes of the input tensor and of the output tensor."""
        return self._network.signature

    @property
    def tensor(self) -> Tensor:
        """The dense tensor: input axes, then output axes."""
        return evaluate(self.factors, self.wires, self._network.wire_names(), self.sizes)

    def merged(self) -> Self:
        """Return the same map, evaluated: its dense tensor is its only factor."""
        return type(self)(self.tensor, str(self.signature))

    def __repr__(self) -> str:
        sizes = "".join([f", {name}={self.sizes[wire].size}" for name, wire in dict(self._network.ends).items()])
        return f"LinearMap({str(self.signature)!r}{sizes})"

    def __call__(self, *tensor: Tensor) -> Tensor:
        """Return the map applied to a tensor `... a`, as `... b c`; of a map without inputs, its tensor.

        Raises ShapeError if the last axes of the tensor do not have the sizes of the inputs.
        """
        return self._checked(*tensor)

    @property
    def circuit(self) -> Circuit:
        """The declaration of the map as a circuit, `... a -> ... b c`."""
        return self._checked.circuit

    @cached_property
    def _checked(self) -> Any:
        return _as_circuit(self)

    # Operations

    def __rshift__(self, other: "LinearMap") -> Self:
        """Return this map, then `other`: outputs are contracted with the inputs of the same name, other axes are kept.

        Raises SignatureError if this map has outputs and `other` has inputs but they share no name, or if two axes of
        one side would have one name; ShapeError if the sizes of a shared name differ.
        """
        if not isinstance(other, LinearMap):
            return NotImplemented
        return self._of(operations.compose(self._network, other._network))

    def outer(self, other: "LinearMap") -> Self:
        """Return the outer product: on each side the axes of this map, then those of `other`.

        Raises SignatureError if two axes of one side have one name.
        """
        return self._of(operations.outer(self._network, other._network))

    def inner(self, other: "LinearMap") -> Self:
        """Return the inner product: outputs of the same name are contracted, all other axes stay on their side."""
        return self >> other.transpose(*[name for name in self.outputs if name in other.outputs])

    def transpose(self, *names: str) -> Self:
        """Return the map with these axes moved to the front of the other side; without names, with the sides swapped.

        Raises SignatureError if a name is no axis of the map, or is on both sides.

        >>> LinearMap(torch.ones(2, 3, 4), "a -> b c").transpose("b")
        LinearMap('b a -> c', b=3, a=2, c=4)
        """
        return self._of(operations.transpose(self._network, names))

    def adjoint(self) -> Self:
        """Return the transpose of the complex conjugate."""
        factors = tuple([(tensor.conj(), wires) for tensor, wires in self.factors])
        return self._of(operations.transpose(self._network._replace(factors=factors), ()))

    def contract(self, name: str, other: str | None = None) -> Self:
        """Return the map with two axes contracted: `name` and `other`, or the input and the output `name` (the trace).

        Raises SignatureError if there are no such axes, ShapeError if their sizes differ.

        >>> LinearMap(torch.eye(3), "a -> a").contract("a").tensor
        tensor(3.)
        """
        return self._of(operations.contract(self._network, name, other))

    def named(self, text: str) -> Self:
        """Return the map with other names for its axes, in their order: `f.named("a -> b' c")`.

        Raises SignatureError if `text` does not have as many names on each side, ShapeError if two axes of different
        sizes get one name.
        """
        return self._of(operations.rename(self._network, text))

    def ordered(self, text: str) -> Self:
        """Return the map with the axes of each side in another order: `f.ordered("a -> c b")`.

        Raises SignatureError if `text` does not have the same names on each side.
        """
        return self._of(operations.reorder(self._network, text))

    def allclose(self, other: "LinearMap", rtol: float = 1e-5, atol: float = 1e-8) -> bool:
        """Return whether both maps are equal up to the order of axes, within the tolerances of torch.allclose."""
        pair = _aligned(self, other)
        return pair is not None and torch.allclose(*pair, rtol, atol)

    def __eq__(self, other: object) -> bool:
        """Return whether both maps have equal tensors, up to the order of axes."""
        if not isinstance(other, LinearMap):
            return NotImplemented
        pair = _aligned(self, other)
        return pair is not None and torch.equal(*pair)

    __hash__ = object.__hash__


def _as_circuit(f: LinearMap) -> Any:
    """Return the circuit that applies a map to a tensor with leading axes; without inputs, that returns its tensor."""
    network, count = f._network, len(f.inputs)
    names = network.wire_names()

    def apply(tensor: Tensor) -> Tensor:
        return evaluate(f.factors, f.wires[count:], names, f.sizes, (tensor, f.wires[:count]))

    text, body = f"... {' '.join(f.inputs)} -> ... {' '.join(f.outputs)}", apply
    if not count:
        text, body = str(f.signature), lambda: f.tensor
    fixed = {name: f.sizes[wire].size for name, wire in network.ends}
    return checked(declare(body, text, Options.of(None, fixed, None, None), "LinearMap", "LinearMap"))


def _aligned(one: LinearMap, two: LinearMap) -> tuple[Tensor, Tensor] | None:
    """Return the tensors of two maps with their axes in one order; None if their axes or sizes differ."""
    if (sorted(one.inputs), sorted(one.outputs)) != (sorted(two.inputs), sorted(two.outputs)):
        return None
    tensors = one.tensor, two.ordered(str(one.signature)).tensor
    return tensors if tensors[0].shape == tensors[1].shape else None


__all__ = ["LinearMap"]
