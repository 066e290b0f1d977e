"""The operations of a diagram in one row, each with its tensors, whose axes have the same name everywhere.

Inside the box of a circuit an axis has the name that the circuit's signature gives it. Here every axis has the name
that the outermost box gives it; an axis that exists inside a circuit only keeps its name, with a prime if it is taken.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import sympy

from circuits.diagram import Box, Diagram, Struct, Value, size_text, wires
from circuits.errors import CircuitError

_NAME = re.compile(r"[^\W\d]\w*'*")
_GROUP = re.compile(rf"\(({_NAME.pattern}(?: {_NAME.pattern})+)\)")


@dataclass(frozen=True)
class Tensor:
    """A tensor as an operation reads or makes it.

    Attributes:
        number: Identifies it.
        axes: The names of each axis: one, several for `(h k)`, none for an axis without a name. A name that is derived
            from others, such as `h/2`, is one word here.
        sizes: The size of each axis, a number or an expression of sympy.
        mapped: The number of leading axes that `torch.vmap` hides from the operation.
        name: What a reader calls it: its name and its axes.
        slow: Whether it exists before the run, in slow memory.
    """

    number: int
    axes: tuple[tuple[str, ...], ...]
    sizes: tuple[Any, ...]
    mapped: int = 0
    name: str = ""
    slow: bool = False

    @property
    def names(self) -> frozenset[str]:
        """The names of all axes."""
        return frozenset([name for axis in self.axes for name in axis])


@dataclass(frozen=True)
class Step:
    """One operation: its box, and its tensors in the order of the call; `inputs` has one that is passed twice twice."""

    box: Box
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def __str__(self) -> str:
        at = f" at {self.box.where}" if self.box.where else ""
        return f"{self.box.name} {self.box.label}".strip() + at

    @property
    def names(self) -> frozenset[str]:
        """The names of all axes of the tensors."""
        return frozenset().union(*[each.names for each in (*self.inputs, *self.outputs)])


@dataclass(frozen=True)
class Program:
    """A diagram as steps.

    Attributes:
        steps: The operations in the order of the run.
        results: The numbers of the tensors that the diagram returns.
        sizes: The size of each named axis.
    """

    steps: tuple[Step, ...]
    results: tuple[int, ...]
    sizes: Mapping[str, Any]


def program_of(diagram: Diagram) -> Program:
    """Return the steps of a diagram.

    Raises:
        CircuitError: If the recorded run failed.
    """
    if diagram.failed:
        raise CircuitError(f"{diagram.name}: the recorded run failed, so what it would move is unknown")
    flattening = _Flattening()
    root = {name: name for value in _values(diagram.box) for name in _words(value)}
    steps = tuple(flattening.steps(diagram.box, _Names(root, set(root))))
    results = [flattening.number(value.number) for value in diagram.outputs]
    return Program(steps, tuple(results), _axis_sizes(steps))


@dataclass
class _Names:
    """The global name of each name inside a box; `taken` are the global names, which are shared by all boxes."""

    outer: dict[str, str]
    taken: set[str]

    def of(self, word: str) -> str:
        """Return the global name of a name; a new one keeps its name, or gets primes."""
        if word not in self.outer:
            name = word
            while name in self.taken:
                name += "'"
            self.taken.add(name)
            self.outer[word] = name
        return self.outer[word]

    def axis(self, text: str | None) -> tuple[str, ...]:
        """Return the global names of an axis."""
        if text is None:
            return ()
        if text in self.outer:
            return split_names(self.outer[text])
        words = split_names(text)
        if len(words) > 1:
            return tuple([part for word in words for part in self.axis(word)])
        if _NAME.fullmatch(text):
            return (self.of(text),)
        return (_NAME.sub(lambda found: self.of(found[0]), text),)


def split_names(text: str) -> tuple[str, ...]:
    """Return the names in the text of an axis: those of a group, otherwise the text itself.

    >>> split_names("(h k)"), split_names("h/2")
    (('h', 'k'), ('h/2',))
    """
    found = _GROUP.fullmatch(text)
    return tuple(found[1].split()) if found else (text,)


def positive(size: Any) -> Any:
    """Return a size with symbols that are known to be positive."""
    size = sympy.sympify(size)
    return size.xreplace({symbol: sympy.Symbol(symbol.name, positive=True) for symbol in size.free_symbols})


def names_within(word: str) -> frozenset[str]:
    """Return the names in a word that is derived from others, such as `h/2`; none if it is a name itself."""
    return frozenset() if _NAME.fullmatch(word) else frozenset(_NAME.findall(word))


@dataclass
class _Flattening:
    """`same` maps the number of a tensor inside a transform to that of the tensor outside that it wraps."""

    same: dict[int, int] = field(default_factory=dict)
    known: dict[int, Tensor] = field(default_factory=dict)

    def number(self, number: int) -> int:
        """Return the number of the outermost tensor that this one is."""
        while number in self.same:
            number = self.same[number]
        return number

    def steps(self, box: Box, names: _Names) -> Iterator[Step]:
        """Yield the steps of a box whose inner names are `names`."""
        if box.kind == "transform":
            self.same |= {inside: outside for inside, outside, _ in box.lifted if inside != outside}
            pairs = zip(box.inside, box.outputs, strict=True)
            self.same |= {here.number: there.number for here, there in pairs if here.number != there.number}
        for value in (*box.inputs, *box.outputs):
            self._tensor(value, names)
        if box.boxes:
            for inner in box.boxes:
                below = _inside(inner, names) if inner.signature is not None else names
                yield from self._inner(inner, names, below)
        elif box.call is not None:
            yield self._step(box, names)

    def _inner(self, box: Box, around: _Names, below: _Names) -> Iterator[Step]:
        for value in (*box.inputs, *box.outputs):
            self._tensor(value, around)
        if below is around:
            yield from self.steps(box, around)
        else:
            yield from self.steps(replace(box, inputs=(), outputs=()), below)

    def _step(self, box: Box, names: _Names) -> Step:
        call: Any = box.call
        values = {value.number: value for value in box.inputs}
        order = [number for number in wires(Struct(tuple, (), (call.args, call.kwargs))) if number in values]
        order += [number for number in values if number not in order]
        inputs = [self._tensor(values[number], names) for number in order]
        return Step(box, tuple(inputs), tuple([self._tensor(value, names) for value in box.outputs]))

    def _tensor(self, value: Value, names: _Names) -> Tensor:
        axes = tuple(
            [names.axis(text) if size != 1 else () for text, size in zip(value.axes, value.sizes, strict=True)]
        )
        number = self.number(value.number)
        slow = self.known[number].slow if number in self.known else value.role != "made"
        sizes = tuple(map(positive, value.sizes))
        shown = [" ".join(each) or size_text(size) for each, size in zip(axes, value.sizes, strict=True)]
        title = f"{value.name or value.role}: {' '.join(shown) or 'one number'}"
        tensor = Tensor(number, axes, sizes, value.mapped, title, slow)
        self.known.setdefault(number, tensor)
        return tensor


def _inside(box: Box, names: _Names) -> _Names:
    """Return the names inside the box of a circuit, by the tensors that are read or returned by it."""
    outside = {value.number: value for value in (*box.inputs, *box.outputs)}
    inner: dict[str, str] = {}
    for value in [value for each in box.boxes for value in (*each.inputs, *each.outputs)]:
        for here, there in zip(value.axes, outside[value.number].axes if value.number in outside else (), strict=False):
            if here is not None and there is not None:
                found = names.axis(there)
                inner.setdefault(here, found[0] if len(found) == 1 else f"({' '.join(found)})")
    return _Names(inner, names.taken)


def _values(box: Box) -> Iterator[Value]:
    yield from (*box.inputs, *box.outputs)
    for inner in box.boxes:
        yield from (*inner.inputs, *inner.outputs)
        if inner.signature is None:
            yield from _values(inner)


def _words(value: Value) -> list[str]:
    return [name for text in value.axes if text for name in _NAME.findall(text)]


def _axis_sizes(steps: tuple[Step, ...]) -> dict[str, Any]:
    """Return the size of each name, those in groups by the sizes of the others."""
    tensors = [tensor for step in steps for tensor in (*step.inputs, *step.outputs)]
    axes = [pair for tensor in tensors for pair in zip(tensor.axes, tensor.sizes, strict=True)]
    sizes: dict[str, Any] = {}
    for names, size in axes:
        if len(names) == 1:
            sizes.setdefault(names[0], size)
    for names, size in axes:
        unknown = [name for name in names if name not in sizes]
        if len(unknown) == 1 and len(names) > 1:
            rest = sympy.Mul(*[sizes[name] for name in names if name != unknown[0]])
            sizes[unknown[0]] = sympy.cancel(size / rest)
    return sizes
