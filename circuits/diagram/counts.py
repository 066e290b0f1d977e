"""What each box of a diagram counts: parameters, each counted in one box alone, and the memory of what it computes.

A parameter is counted in the first operation that reads it, and one that no operation reads in the innermost module
around it. So the numbers of the boxes inside a box, with its own, add up to its number, and those of all boxes to the
total. A tensor that has the memory of another (a view, a tensor changed in place) takes no memory of its own.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

from torch import nn

from circuits.diagram.boxes import Box, Size, Value
from circuits.diagram.structure import attribute


@dataclass(eq=False)
class Node:
    """A box with what is counted in it and not in the boxes inside it.

    Attributes:
        box: The box.
        place: The place of the box: that of each box around it, and its own, among the boxes beside it.
        inside: The nodes of the boxes inside it, in order.
        first: The parameters that this operation is the first to read.
        again: The parameters that it reads and that an operation before it counts.
        unread: The parameters of this module that no operation reads.
        made: The tensors that this operation computes, views left out.
    """

    box: Box
    place: tuple[int, ...] = ()
    inside: list["Node"] = field(default_factory=list)
    first: list[Value] = field(default_factory=list)
    again: list[Value] = field(default_factory=list)
    unread: list[Value] = field(default_factory=list)
    made: list[Value] = field(default_factory=list)

    def walk(self) -> Iterator["Node"]:
        """Yield this node and all inside it, each before those inside it."""
        yield self
        for node in self.inside:
            yield from node.walk()

    @cached_property
    def counted(self) -> list[Value]:
        """The parameters that are counted in this box and in those inside it."""
        return [*self.first, *self.unread, *[value for node in self.inside for value in node.counted]]

    @cached_property
    def unused(self) -> list[Value]:
        """The parameters counted here that no operation reads."""
        return [*self.unread, *[value for node in self.inside for value in node.unused]]

    @cached_property
    def shared(self) -> list[Value]:
        """The parameters that operations here read and that are counted elsewhere, each once."""
        here = {value.name for value in self.counted}
        found = [*self.again, *[value for node in self.inside for value in node.shared]]
        return [*{value.name: value for value in found if value.name not in here}.values()]

    @cached_property
    def parameters(self) -> int:
        """The number of elements of the parameters counted here."""
        return elements(self.counted)

    @cached_property
    def memory(self) -> Size:
        """The bytes of the tensors that this box and those inside it compute, or a formula in axes."""
        return size_in_bytes(self.made) + sum([node.memory for node in self.inside])

    @cached_property
    def numbers(self) -> Size:
        """The number of elements of these tensors."""
        return sum([prod(value.sizes) for value in self.made]) + sum([node.numbers for node in self.inside])


@dataclass(frozen=True)
class Totals:
    """What the table of a diagram says at its end; sizes that depend on free axes are formulas.

    Attributes:
        parameters: The number of elements of all learned parameters, each counted once.
        parameter_bytes: Their size in bytes.
        trained: How many of these elements require gradients.
        frozen: How many do not.
        unused: How many belong to parameters that no operation of this run reads.
        buffers: The number of elements of all buffers of the recorded modules.
        buffer_bytes: Their size in bytes.
        activations: The number of elements of all tensors that operations of this run compute, views left out.
        activation_bytes: Their size in bytes.
    """

    parameters: int
    parameter_bytes: int
    trained: int
    frozen: int
    unused: int
    buffers: int
    buffer_bytes: int
    activations: Size
    activation_bytes: Size


def tree(box: Box) -> Node:
    """Return the node of the outermost box."""
    root = _node(box, (), set(), set())
    read = {value.name for node in root.walk() for value in node.first}
    modules = [node for node in root.walk() if node.box.kind in ("module", "circuit") and node.box.path]
    for value in box.parameters:
        if value.name not in read:
            around = [node for node in modules if value.name.startswith(f"{node.box.path}.")]
            max(around, key=lambda node: len(node.box.path), default=root).unread.append(value)
    return root


def _node(box: Box, place: tuple[int, ...], read: set[str], made: set[int]) -> Node:
    """Return the node of a box; `read` and `made` are the parameters and values that are counted already."""
    node = Node(box, place)
    if box.boxes:
        node.inside = [_node(inner, (*place, step), read, made) for step, inner in enumerate(box.boxes)]
        return node
    for value in {value.name: value for value in box.parameters}.values():
        (node.again if value.name in read else node.first).append(value)
        read.add(value.name)
    fresh = {value.number: value for value in box.outputs if value.role == "made" and value.number not in made}
    node.made = [value for number, value in fresh.items() if number not in box.views]
    made |= {*fresh}
    return node


def totals(root: Node, buffers: Sequence[Value], frozen: Collection[str]) -> Totals:
    """Return the totals of a diagram.

    Args:
        root: The node of its outermost box.
        buffers: The buffers of its modules.
        frozen: The names of the parameters that are not trained.
    """
    counted = root.counted
    still = elements([value for value in counted if value.name in frozen])
    return Totals(
        root.parameters, size_in_bytes(counted), root.parameters - still, still, elements(root.unused),
        elements(buffers), size_in_bytes(buffers), root.numbers, root.memory,
    )  # fmt: skip


def elements(values: Sequence[Value]) -> int:
    """Return the number of elements of parameters or buffers."""
    return sum([prod([int(size) for size in value.sizes]) for value in values])


def size_in_bytes(values: Sequence[Value]) -> Any:
    """Return the size of tensors in bytes, a formula where sizes are."""
    return sum([prod(value.sizes) * value.dtype.itemsize for value in values])


def buffers_of(box: Box, known: Sequence[Value]) -> list[Value]:
    """Return the buffers of a diagram: those of its modules, or else those that its boxes read."""
    read = [value for inner in box.walk() for value in inner.inputs if value.role == "buffer"]
    return [*{value.name: value for value in [*read, *known]}.values()]


def frozen_names(box: Box, state: Mapping[int, tuple[nn.Module, str]]) -> set[str]:
    """Return the names of the parameters that are not trained now, or were not in the run if their module is unknown.

    Args:
        box: The outermost box.
        state: The module and dotted name of each parameter that the run reads, by value number.
    """
    roots = {id(module): module for module, _ in state.values()}
    now = {name: each.requires_grad for root in roots.values() for name, each in root.named_parameters()}
    now |= {
        value.name: attribute(*state[value.number]).requires_grad for value in box.parameters if value.number in state
    }
    return {
        value.name for value in box.parameters if not now.get(value.name, value.requires_grad or value.device is None)
    }


__all__ = ["Node", "Totals", "buffers_of", "elements", "frozen_names", "size_in_bytes", "totals", "tree"]
