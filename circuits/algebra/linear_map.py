"""LinearMap: a tensor as a linear map, `"a -> b c"`, with composition, transposes and contractions by axis name.

A map is a lazy tensor network: factors (tensors) on numbered wires, some of which are inputs and outputs. Operations
only renumber wires. A map is evaluated by one einsum when it is called or its tensor is read; for three or more
tensors, opt_einsum chooses the order of contraction. An identity, a unit or a diagonal has wires and no factors.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, section 2.4, Figures 17 and 18.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from circuits.algebra import operations
from circuits.algebra.network import Factor, Network, as_circuit, check, delta, dense, identity_of, network_of
from circuits.algebra.wires import Wire, Wires
from circuits.checking import Circuit
from circuits.errors import entry_points
from circuits.signature import Signature


@dataclass(frozen=True, eq=False, repr=False)
class _NetworkData:
    """The data of a LinearMap: the fields of its Network, and a constructor from a Network."""

    factors: tuple[Factor, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    wires: Wires
    sizes: Mapping[int, Wire]

    @classmethod
    def _of(cls, network: Network) -> Self:
        """Return a map with the data of a network, after `check`."""
        made = cls.__new__(cls)
        made._fill(network)
        return made

    def _fill(self, network: Network) -> None:
        check(network)
        for name, value in network._asdict().items():
            object.__setattr__(self, name, value)

    def __getstate__(self) -> dict[str, Any]:
        """Return the fields, which are all that a copy or a pickle has: what is cached belongs to one map's tensors."""
        return self._network._asdict()

    @property
    def _network(self) -> Network:
        return Network(self.factors, self.inputs, self.outputs, self.wires, self.sizes)


@entry_points(
    "__init__",
    "__call__",
    "__rshift__",
    "identity",
    "unit",
    "inner_product",
    "diagonal",
    "outer",
    "inner",
    "transpose",
    "contract",
    "named",
    "ordered",
)
@dataclass(frozen=True, eq=False, repr=False)
class LinearMap(_NetworkData):
    """A linear map from named axes to named axes; `LinearMap(tensor, "a -> b c")` for a tensor with axes a, b, c.

    The names of the inputs are unique, as are those of the outputs. A map is a circuit: `f(x)` applies it at every
    index of the leading axes of `x`, and it can be passed to functions of circuits, such as `broadcast` and `trace`.
    `f >> g` is f followed by g: outputs of f are contracted with the inputs of g of the same name. Gradients flow to
    the tensors that the map is made of.

    Args:
        tensor: A tensor with the input axes, followed by the output axes.
        signature: The names of the axes, `"a -> b c"`: one tensor on each side, no `...`.

    Raises:
        SignatureError: If the signature is not that of a map, or a name is twice on one side.
        ShapeError: If the tensor does not have as many axes as the signature, or an axis on both sides has two sizes.

    >>> f = LinearMap(torch.ones(2, 3), "a -> b")
    >>> f(torch.ones(2))
    tensor([2., 2., 2.])
    >>> f >> f.transpose()
    LinearMap('a -> a', a=2)
    """

    def __init__(self, tensor: Tensor, signature: str) -> None:
        self._fill(network_of(tensor, signature))

    @classmethod
    def identity(cls, text: str, **sizes: int) -> Self:
        """Return the identity, `identity("a b", a=3, b=4)`, or a permutation, `identity("a b -> b a", a=3, b=4)`.

        Args:
            text: The axes, or the inputs and the outputs. An axis that is only an input is summed over; values are
                repeated along an axis that is only an output.
            sizes: The size of every axis in `text`.

        Raises:
            SignatureError: If `text` is not that of a map, or `sizes` does not have exactly its axes.

        >>> LinearMap.identity("a b -> b", a=2, b=3)(torch.ones(2, 3))
        tensor([2., 2., 2.])
        """
        return cls._of(identity_of(text, sizes))

    @classmethod
    def unit(cls, name: str, size: int) -> Self:
        """Return the unit (cup) `-> b b'` of an axis with this name and size, an identity matrix without inputs.

        >>> LinearMap.unit("b", 2).tensor
        tensor([[1., 0.],
                [0., 1.]])
        """
        return cls._of(delta((), (name, f"{name}'"), size, name))

    @classmethod
    def inner_product(cls, name: str, size: int) -> Self:
        """Return the inner product (cap) `b b' ->` of an axis with this name and size: the transpose of `unit`."""
        return cls._of(delta((name, f"{name}'"), (), size, name))

    @classmethod
    def diagonal(cls, name: str, size: int) -> Self:
        """Return the map `h h' -> h` from a square matrix to its diagonal, for an axis with this name and size.

        >>> LinearMap.diagonal("h", 2)(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        tensor([1., 4.])
        """
        return cls._of(delta((name, f"{name}'"), (name,), size, name))

    @property
    def signature(self) -> Signature:
        """The signature of the map, without `...`: the input axes and the output axes."""
        return self._network.signature

    @property
    def tensor(self) -> Tensor:
        """The dense tensor, with the input axes followed by the output axes; computed each time it is read."""
        return dense(self._network)

    def merged(self) -> Self:
        """Return the same map evaluated, with its dense tensor as the only factor."""
        return type(self)(self.tensor, str(self.signature))

    def __repr__(self) -> str:
        sizes = "".join([f", {name}={self.sizes[wire].size}" for name, wire in dict(self._network.ends).items()])
        return f"LinearMap({str(self.signature)!r}{sizes})"

    def __call__(self, *tensor: Tensor) -> Tensor:
        """Apply the map to a tensor.

        Args:
            tensor: One tensor `... a`, whose last axes are the inputs; no argument if the map has no inputs.

        Returns:
            A tensor `... b c`, with the outputs as its last axes; the dense tensor if the map has no inputs.

        Raises:
            ShapeError: If the last axes of the tensor do not have the sizes of the inputs.
        """
        return self._checked(*tensor)

    @property
    def circuit(self) -> Circuit:
        """The declaration of the map as a circuit, `... a -> ... b c`."""
        return self._checked.circuit

    @cached_property
    def _checked(self) -> Any:
        return as_circuit(self._network)

    def __rshift__(self, other: "LinearMap") -> Self:
        """Return this map followed by `other`: outputs are contracted with the inputs of the same name.

        Other axes are kept. The outputs of `other` take the place of the first contracted output.

        Raises:
            SignatureError: If this map has outputs and `other` has inputs, but they have no name in common; or if a
                name would be twice on one side.
            ShapeError: If an output and the input of the same name differ in size.
        """
        if not isinstance(other, LinearMap):
            return NotImplemented
        return self._of(operations.compose(self._network, other._network))

    def outer(self, other: "LinearMap") -> Self:
        """Return the outer product: on each side the axes of this map, then those of `other`.

        Raises:
            SignatureError: If a name would be twice on one side.
            ShapeError: If a name on both sides would have two sizes.
        """
        return self._of(operations.outer(self._network, other._network))

    def inner(self, other: "LinearMap") -> Self:
        """Return the inner product: this map followed by `other` with the outputs of the same name transposed.

        Raises:
            SignatureError: If both maps have outputs, but none in common; if an output in common is also an input of
                `other`; or if a name would be twice on one side.
            ShapeError: If two outputs of the same name differ in size.
        """
        return self._of(operations.inner(self._network, other._network))

    def transpose(self, *names: str) -> Self:
        """Return the map with these axes moved to the front of the other side; without names, with the sides swapped.

        Raises:
            SignatureError: If a name is not an axis of the map, or is on both sides.

        >>> LinearMap(torch.ones(2, 3, 4), "a -> b c").transpose("b")
        LinearMap('b a -> c', b=3, a=2, c=4)
        """
        return self._of(operations.transpose(self._network, names))

    def adjoint(self) -> Self:
        """Return the transpose of the complex conjugate."""
        return self._of(operations.adjoint(self._network))

    def contract(self, name: str, other: str | None = None) -> Self:
        """Return the map with two axes contracted: `name` and `other`, or the input and the output `name` (the trace).

        Raises:
            SignatureError: If there are no such axes; or, with two names, if one is on both sides or they are equal.
            ShapeError: If the axes differ in size.

        >>> LinearMap(torch.eye(3), "a -> a").contract("a").tensor
        tensor(3.)
        """
        return self._of(operations.contract(self._network, name, other))

    def named(self, text: str) -> Self:
        """Return the map with its axes renamed, in order, to the names in `text`: `f.named("a -> b' c")`.

        Raises:
            SignatureError: If `text` does not have as many names on each side, or has one twice on a side.
            ShapeError: If an input and an output of different sizes are given one name.
        """
        return self._of(operations.rename(self._network, text))

    def ordered(self, text: str) -> Self:
        """Return the map with the axes of each side in the order of `text`: `f.ordered("a -> c b")`.

        Raises:
            SignatureError: If `text` does not have the same names on each side.
        """
        return self._of(operations.reorder(self._network, text))

    def allclose(self, other: "LinearMap", rtol: float = 1e-5, atol: float = 1e-8) -> bool:
        """Return whether both maps have the same axes and, up to their order, close tensors; see torch.allclose."""
        pair = operations.aligned(self._network, other._network)
        return pair is not None and torch.allclose(*pair, rtol, atol)

    def __eq__(self, other: object) -> bool:
        """Return whether both maps have the same axes and, up to their order, equal tensors."""
        if not isinstance(other, LinearMap):
            return NotImplemented
        pair = operations.aligned(self._network, other._network)
        return pair is not None and torch.equal(*pair)

    __hash__ = object.__hash__


__all__ = ["LinearMap"]
