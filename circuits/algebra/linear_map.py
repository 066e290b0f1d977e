"""LinearMap: a tensor read as a linear map, `"a -> b c"`, and the algebra of its wires.

A map is factors (tensors) on numbered wires, and which wires are its inputs and outputs. Composing, bending and joining
only renumbers wires: nothing is computed until a map is called or its tensor is asked for, and then by one einsum,
whose order of contraction opt_einsum chooses where three or more tensors meet. An identity, a unit or a diagonal is
wires alone.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, section 2.4, Figures 17 and 18.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from circuits.algebra.wires import Wire, Wires, contract, fresh, sides_of
from circuits.checking import Circuit, Options, checked, declare
from circuits.errors import ShapeError, SignatureError, point
from circuits.signature import Axis, Signature


@dataclass(frozen=True, eq=False, repr=False)
class LinearMap:
    """A linear map from some named axes to others; `LinearMap(tensor, "a -> b c")` has a tensor of axes a, b, c.

    Names stand once on a side. `f(x)` applies it at every index of whatever leads; it is a circuit, so `broadcast`,
    `trace` and the rest take it. `f >> g` is f, then g: outputs meet the inputs of the same name, other wires pass by.
    Gradients go to the tensors it is made of. Raises SignatureError for a text that is none of a map, and ShapeError
    where the tensor has other axes.

    Source: section 2.4, Figures 17 and 18.

    >>> f = LinearMap(torch.ones(2, 3), "a -> b")
    >>> f(torch.ones(2))
    tensor([2., 2., 2.])
    >>> f >> f.transpose()
    LinearMap('a -> a', a=2)
    """

    factors: tuple[tuple[Tensor, Wires], ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    wires: Wires
    sizes: Mapping[int, Wire]

    def __init__(self, tensor: Tensor, signature: str) -> None:
        inputs, outputs = sides_of(signature)
        if tensor.ndim != len(inputs) + len(outputs):
            raise ShapeError(
                f"LinearMap: {signature} has {len(inputs) + len(outputs)} axes, the tensor {tensor.ndim}: "
                f"{' '.join([f'{size}' for size in tensor.shape])}"
            )
        wires = tuple(range(tensor.ndim))
        ends = zip(tensor.shape, (*inputs, *outputs), strict=True)
        self._set(((tensor, wires),), inputs, outputs, wires, dict(enumerate(map(Wire._make, ends))))

    @classmethod
    def _of(
        cls,
        factors: Iterable[tuple[Tensor, Wires]],
        inputs: Iterable[str],
        outputs: Iterable[str],
        wires: Iterable[int],
        sizes: Mapping[int, Wire],
    ) -> Self:
        """A map of these parts."""
        made = cls.__new__(cls)
        made._set(tuple(factors), tuple(inputs), tuple(outputs), tuple(wires), sizes)
        return made

    def _set(self, *parts: Any) -> None:
        for name, part in zip(("factors", "inputs", "outputs", "wires", "sizes"), parts, strict=True):
            object.__setattr__(self, name, part)
        known: dict[str, int] = {}
        for side in (self.inputs, self.outputs):
            twice = next((name for name in side if side.count(name) > 1), None)
            if twice is not None:
                raise SignatureError(
                    f"LinearMap: two wires of one side would be called {twice}; give one another name first, by "
                    f"named(...)\n{point(str(self.signature))}"
                )
        for name, wire in zip((*self.inputs, *self.outputs), self.wires, strict=True):
            size, its = known.setdefault(name, self.sizes[wire].size), self.sizes[wire].size
            if size != its:
                raise ShapeError(f"LinearMap: {name} has two sizes in {self.signature}, {size} and {its}")

    # Maps that are wires alone

    @classmethod
    def identity(cls, text: str, **sizes: int) -> Self:
        """Wires that go through, `identity("a b", a=3, b=4)`; crossing too, `identity("a b -> b a", a=3, b=4)`.

        A wire that only comes in is summed over, one that only goes out repeats.

        >>> LinearMap.identity("a b -> b", a=2, b=3)(torch.ones(2, 3))
        tensor([2., 2., 2.])
        """
        inputs, outputs = sides_of(text if "->" in text else f"{text} -> {text}")
        names = list(dict.fromkeys([*inputs, *outputs]))
        _all_sizes(names, sizes)
        wires = [names.index(name) for name in (*inputs, *outputs)]
        return cls._of((), inputs, outputs, wires, {at: Wire(sizes[name], name) for at, name in enumerate(names)})

    @classmethod
    def unit(cls, name: str, size: int) -> Self:
        """The bent wire that comes from nothing, `-> b b'`: 1 where its ends have one index.

        >>> LinearMap.unit("b", 2).tensor
        tensor([[1., 0.],
                [0., 1.]])
        """
        return cls._of((), (), (name, f"{name}'"), (0, 0), {0: Wire(size, name)})

    @classmethod
    def inner_product(cls, name: str, size: int) -> Self:
        """The wire bent the other way, `b b' ->`: the sum of products."""
        return cls._of((), (name, f"{name}'"), (), (0, 0), {0: Wire(size, name)})

    @classmethod
    def diagonal(cls, name: str, size: int) -> Self:
        """Two wires read as one, `h h' -> h`: the entries where both have one index. Its transpose writes them.

        >>> LinearMap.diagonal("h", 2)(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        tensor([1., 4.])
        """
        return cls._of((), (name, f"{name}'"), (name,), (0, 0, 0), {0: Wire(size, name)})

    # What a map is

    @property
    def signature(self) -> Signature:
        """The axes of the tensor that goes in and of that which comes out."""
        sides = [(tuple([Axis(name) for name in side]),) for side in (self.inputs, self.outputs)]
        return Signature(sides[0], sides[1])

    @property
    def tensor(self) -> Tensor:
        """The dense tensor, axes in, then axes out."""
        return contract(self.factors, self.wires, self._names, self.sizes)

    def merged(self) -> Self:
        """The same map of one tensor."""
        return type(self)(self.tensor, str(self.signature))

    def __repr__(self) -> str:
        ends = zip((*self.inputs, *self.outputs), self.wires, strict=True)
        sizes = "".join([f", {name}={self.sizes[wire].size}" for name, wire in dict(ends).items()])
        return f"LinearMap({str(self.signature)!r}{sizes})"

    @property
    def _names(self) -> dict[int, str]:
        """A name for each wire: that of its end, or, inside, a fresh one."""
        found: dict[int, str] = {}
        for name, wire in zip((*self.inputs, *self.outputs), self.wires, strict=True):
            if wire not in found:
                found[wire] = fresh(name, found)
        for wire, (_, name) in self.sizes.items():
            found.setdefault(wire, fresh(name, found))
        return found

    # Calling it

    def __call__(self, *tensor: Tensor) -> Tensor:
        """The map applied to a tensor with its input axes, at every index of what leads; without inputs, its tensor."""
        return self._checked(*tensor)

    @property
    def circuit(self) -> Circuit:
        """The declaration, so that the map is a circuit: `... a -> ... b c`."""
        return self._checked.circuit

    @cached_property
    def _checked(self) -> Any:
        names, count = self._names, len(self.inputs)

        def apply(tensor: Tensor) -> Tensor:
            return contract(self.factors, self.wires[count:], names, self.sizes, (tensor, self.wires[:count]))

        text, body = f"... {' '.join(self.inputs)} -> ... {' '.join(self.outputs)}", apply
        if not count:
            text, body = str(self.signature), lambda: self.tensor
        ends = zip((*self.inputs, *self.outputs), self.wires, strict=True)
        fixed = {name: self.sizes[wire].size for name, wire in ends}
        return checked(declare(body, text, Options.of(None, fixed, None, None), "LinearMap", "LinearMap"))

    # The algebra of wires

    def __rshift__(self, other: "LinearMap") -> Self:
        """This, then `other`; wires that do not meet pass by."""
        if not isinstance(other, LinearMap):
            return NotImplemented
        meet = [name for name in self.outputs if name in other.inputs]
        if not meet and self.outputs and other.inputs:
            raise SignatureError(
                f"LinearMap: nothing meets in {self.signature} >> {other.signature}; "
                "side by side they are f.outer(g), and f.named(...) gives wires other names"
            )
        other = other._apart(self)
        mine, its = dict(zip(self.outputs, self._out, strict=True)), dict(zip(other.inputs, other._in, strict=True))
        for name in meet:
            _same_size(self, name, self.sizes[mine[name]].size, other, name, other.sizes[its[name]].size)
        at = self.outputs.index(meet[0]) if meet else len(self.outputs)
        before = [name for name in self.outputs[:at] if name not in meet]
        after = [name for name in self.outputs[at:] if name not in meet]
        more = [name for name in other.inputs if name not in meet]
        both = self._of(
            (*self.factors, *other.factors),
            (),
            (),
            (),
            {**self.sizes, **other.sizes},
        )
        wires = [
            *self._in,
            *[its[name] for name in more],
            *[mine[name] for name in before],
            *other._out,
            *[mine[name] for name in after],
        ]
        joined, wires = both._joined([(mine[name], its[name]) for name in meet], wires)
        return self._of(joined.factors, (*self.inputs, *more), (*before, *other.outputs, *after), wires, joined.sizes)

    def outer(self, other: "LinearMap") -> Self:
        """Both side by side: the wires of this, then those of `other`. Names on one side must differ."""
        other = other._apart(self)
        return self._of(
            (*self.factors, *other.factors),
            (*self.inputs, *other.inputs),
            (*self.outputs, *other.outputs),
            (*self._in, *other._in, *self._out, *other._out),
            {**self.sizes, **other.sizes},
        )

    def inner(self, other: "LinearMap") -> Self:
        """The inner product: outputs of one name meet and are summed over; what is left passes by."""
        meet = [name for name in self.outputs if name in other.outputs]
        return self >> other.transpose(*meet)

    def transpose(self, *names: str) -> Self:
        """These wires bent to the other side, where they come first; without names, every wire.

        >>> LinearMap(torch.ones(2, 3, 4), "a -> b c").transpose("b")
        LinearMap('b a -> c', b=3, a=2, c=4)
        """
        if not names:
            return self._of(self.factors, self.outputs, self.inputs, (*self._out, *self._in), self.sizes)
        for name in names:
            self._end(name)
        ends = [list(zip(*side, strict=True)) for side in ((self.inputs, self._in), (self.outputs, self._out))]
        kept = [[end for end in side if end[0] not in names] for side in ends]
        bent = [[end for name in names for end in side if end[0] == name] for side in ends]
        inputs, outputs = [*bent[1], *kept[0]], [*bent[0], *kept[1]]
        return self._of(
            self.factors,
            [name for name, _ in inputs],
            [name for name, _ in outputs],
            [wire for _, wire in (*inputs, *outputs)],
            self.sizes,
        )

    def adjoint(self) -> Self:
        """The transpose of the complex conjugate."""
        turned = self.transpose()
        factors = [(tensor.conj(), wires) for tensor, wires in turned.factors]
        return self._of(factors, turned.inputs, turned.outputs, turned.wires, turned.sizes)

    def contract(self, name: str, other: str | None = None) -> Self:
        """Two wires of this map joined and summed over; of one name, its input and its output (the trace).

        >>> LinearMap(torch.eye(3), "a -> a").contract("a").tensor
        tensor(3.)
        """
        if other is None:
            if name not in self.inputs or name not in self.outputs:
                raise SignatureError(f"LinearMap: {name} is not on both sides of {self.signature}")
            places = [self.inputs.index(name), len(self.inputs) + self.outputs.index(name)]
        else:
            places = [self._end(name), self._end(other)]
        first, second = [self.wires[place] for place in places]
        _same_size(self, name, self.sizes[first].size, self, other or name, self.sizes[second].size)
        left = [place for place in range(len(self.wires)) if place not in places]
        joined, wires = self._joined([(first, second)], [self.wires[place] for place in left])
        every = (*self.inputs, *self.outputs)
        count = len(self.inputs)
        return self._of(
            joined.factors,
            [every[place] for place in left if place < count],
            [every[place] for place in left if place >= count],
            wires,
            joined.sizes,
        )

    def named(self, text: str) -> Self:
        """The same wires by other names, in the order they stand: `f.named("a -> b' c")`."""
        inputs, outputs = sides_of(text)
        if (len(inputs), len(outputs)) != (len(self.inputs), len(self.outputs)):
            raise SignatureError(f"LinearMap: {text} has not the wires of {self.signature}")
        called = {
            wire: Wire(self.sizes[wire].size, name) for name, wire in zip((*inputs, *outputs), self.wires, strict=True)
        }
        return self._of(self.factors, inputs, outputs, self.wires, {**self.sizes, **called})

    def ordered(self, text: str) -> Self:
        """The same map with the wires of each side in another order: `f.ordered("a -> c b")`."""
        inputs, outputs = sides_of(text)
        if sorted(inputs) != sorted(self.inputs) or sorted(outputs) != sorted(self.outputs):
            raise SignatureError(f"LinearMap: {text} has not the axes of {self.signature}")
        wires = [self._in[self.inputs.index(name)] for name in inputs]
        wires += [self._out[self.outputs.index(name)] for name in outputs]
        return self._of(self.factors, inputs, outputs, wires, self.sizes)

    def allclose(self, other: "LinearMap", rtol: float = 1e-5, atol: float = 1e-8) -> bool:
        """Whether both are one map, up to the order of axes and to rounding, as torch.allclose has it."""
        mine, its = self._beside(other)
        return mine is not None and torch.allclose(mine, its, rtol, atol)

    def __eq__(self, other: object) -> bool:
        """Whether both are one map, number for number, up to the order of axes."""
        if not isinstance(other, LinearMap):
            return NotImplemented
        mine, its = self._beside(other)
        return mine is not None and torch.equal(mine, its)

    __hash__ = object.__hash__

    # Wires

    def _beside(self, other: "LinearMap") -> tuple[Any, Any]:
        """Both tensors in one order; None where the axes or their sizes differ."""
        if (sorted(self.inputs), sorted(self.outputs)) != (sorted(other.inputs), sorted(other.outputs)):
            return None, None
        mine, its = self.tensor, other.ordered(str(self.signature)).tensor
        return (mine, its) if mine.shape == its.shape else (None, None)

    @property
    def _in(self) -> Wires:
        return self.wires[: len(self.inputs)]

    @property
    def _out(self) -> Wires:
        return self.wires[len(self.inputs) :]

    def _end(self, name: str) -> int:
        """Where the one wire of this name ends; SignatureError where there is none, or one on each side."""
        places = [place for place, each in enumerate((*self.inputs, *self.outputs)) if each == name]
        if len(places) != 1:
            why = "is on both sides of" if places else "is no wire of"
            raise SignatureError(f"LinearMap: {name} {why} {self.signature}")
        return places[0]

    def _apart(self, other: "LinearMap") -> Self:
        """The same map on wires whose numbers `other` does not use."""
        start = max(other.sizes, default=-1) + 1
        factors = [(tensor, tuple([wire + start for wire in wires])) for tensor, wires in self.factors]
        wires = [wire + start for wire in self.wires]
        sizes = {wire + start: size for wire, size in self.sizes.items()}
        return self._of(factors, self.inputs, self.outputs, wires, sizes)

    def _joined(self, pairs: Sequence[tuple[int, int]], ends: Iterable[int]) -> tuple[Self, list[int]]:
        """Each pair of wires made one; the ends, renumbered with them. Without inputs or outputs."""
        same: dict[int, int] = {wire: wire for wire in self.sizes}
        for one, two in pairs:
            here, there = same[one], same[two]
            same = {wire: here if at == there else at for wire, at in same.items()}
        factors = [(tensor, tuple([same[wire] for wire in wires])) for tensor, wires in self.factors]
        sizes = {wire: size for wire, size in self.sizes.items() if same[wire] == wire}
        return self._of(factors, (), (), (), sizes), [same[wire] for wire in ends]


def _all_sizes(names: Sequence[str], sizes: Mapping[str, int]) -> None:
    """SignatureError unless exactly these names have a size."""
    wrong = [name for name in names if name not in sizes] + [name for name in sizes if name not in names]
    if wrong:
        raise SignatureError(f"LinearMap: sizes are for {' '.join(names)}; {wrong[0]} is one too few or too many")


def _same_size(one: LinearMap, name: str, size: int, two: LinearMap, other: str, its: int) -> None:
    if size != its:
        where = f"{one.signature}" if one is two else f"{one.signature} and {two.signature}"
        raise ShapeError(f"LinearMap: {name} is {size} and {other} is {its} in {where}; they cannot meet")


__all__ = ["LinearMap"]
