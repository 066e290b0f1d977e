"""The boxes of a forward pass that the reverse pass can recompute, and what recomputing them takes.

Source: T. Dao et al., FlashAttention, NeurIPS 2022, appendix B, for a softmax that is computed from a statistic.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from math import prod
from typing import Any

from circuits.autodiff.lower_call import as_recorded
from circuits.autodiff.ports import flow
from circuits.autodiff.rewrites.purity import CONSTANT_TENSORS, is_pure, written_values
from circuits.autodiff.rewrites.row_sums import RowSum, leaf_boxes, row_sums
from circuits.autodiff.softmax_statistic import is_softmax
from circuits.autodiff.tensors import storage_of
from circuits.autodiff.workspace import Workspace
from circuits.diagram import Box, Diagram, Struct, Value, operation_name, store, wires
from circuits.errors import CircuitError

_VIEWS = frozenset(
    ["permute", "transpose", "swapaxes", "mT", "T", "t", "numpy_T", "unsqueeze", "squeeze", "expand", "view", "alias"]
)
"""Operations that return a view, which costs nothing to recompute."""


class Candidates:
    """What the reverse pass can recompute of the forward pass.

    `boxes` are the leaf boxes of the forward pass in order, `values` all values by number, `maker` the number of the
    leaf box that makes a value. `available` are the values that exist in the reverse pass without being saved:
    parameters, buffers, constants, cotangents.

    Args:
        diagram: A diagram as `backward` returns it, or the one that was differentiated, for its parameters and buffers.
        forward: The forward pass.
        reverse: The boxes of the reverse pass.
        available: Further values that exist in the reverse pass.
        storage: Returns the storage of a value of the forward pass, as a number; None if it is unknown.
        first_number: A value number from which on none is used.
    """

    def __init__(
        self,
        diagram: Diagram,
        forward: Box,
        reverse: Sequence[Box],
        available: Iterable[int],
        storage: Callable[[int], int | None],
        first_number: int,
    ) -> None:
        self.name: str = forward.label
        self.forward, self.reverse = forward, reverse
        self.available: set[int] = {*diagram.state, *available}
        self.boxes: list[Box] = list(leaf_boxes([forward]))
        self.values: dict[int, Value] = {
            number: value for box in (forward, *reverse) for number, value in _values(box).items()
        }
        self.maker: dict[int, int] = {number: i for i, box in enumerate(self.boxes) for number in results(box)}
        self._places = {id(box): place for place, box in enumerate(self.boxes)}
        self._storage = storage
        writes = [(number, place) for place, box in enumerate(self.boxes) for number in written_values(box)]
        self._last_write = {storage(number): place for number, place in writes}
        self._numbers = itertools.count(first_number)

    @classmethod
    def of_diagram(cls, diagram: Diagram) -> "Candidates":
        """Return the candidates of a diagram that `backward` returned.

        Raises:
            CircuitError: The diagram is not one of these.
        """
        forward, *reverse = diagram.boxes or (diagram.box,)
        if not diagram.name.startswith("∂") or forward.label != diagram.name[1:]:
            raise CircuitError(
                f"expected a forward pass and its reverse pass in one diagram, got {diagram.name}: call "
                f"backward({diagram.name})"
            )
        own = {value.number for value in forward.inputs} | set(flow([forward]).read)
        cotangents = [value.number for value in diagram.inputs if value.number not in own]
        available = [*diagram.constants, *cotangents]
        first_number = 1 + max([*own, *available, *flow(diagram.boxes).made])
        return cls(diagram, forward, reverse, available, _storages(diagram, forward).get, first_number)

    def new_number(self) -> int:
        """Return a value number that is not used yet."""
        return next(self._numbers)

    def reads(self, boxes: Iterable[Box]) -> set[int]:
        """Return the values that some boxes read and that have to be saved or recomputed."""
        return {number for number in flow(boxes).read if number not in self.available}

    def place(self, box: Box) -> int | None:
        """Return the number of a leaf box of the forward pass; None for another box."""
        return self._places.get(id(box))

    def is_free(self, box: Box) -> bool:
        """Return whether a box is a view of a whole tensor, or makes a constant tensor and reads none."""
        name, read = operation_name(box.call.function), len(flow([box]).read)  # type: ignore[union-attr]
        is_free = (_is_view(box) and read == 1) or (name in CONSTANT_TENSORS and read == 0)
        return is_free and self.is_repeatable(box)

    def is_repeatable(self, box: Box) -> bool:
        """Return whether a box has the same result when it is run in the reverse pass."""
        return is_pure(box) and not self.is_overwritten(box)

    def is_overwritten(self, box: Box) -> bool:
        """Return whether an input of a box is overwritten after it, so that the box cannot be run again."""
        if not self._last_write:
            return False
        storages = {self._storage(number) for number in flow([box]).read} - {None}
        return max([self._last_write.get(each, -1) for each in storages], default=-1) > self._places[id(box)]

    def scores(self, softmax: Box) -> frozenset[int] | None:
        """Return the values that have to be recomputed for a softmax to be computed from its statistic.

        These are its scores, and the tensors of their sizes from which they are computed. None if the box is no
        softmax, or one of them cannot be recomputed.
        """
        if not is_softmax(softmax):
            return None
        left, seen = list(self.reads([softmax])), set[int]()
        while left:
            number = left.pop()
            if number in seen:
                continue
            seen.add(number)
            box = self.boxes[self.maker[number]] if number in self.maker else None
            if box is None or not (self.is_repeatable(box) or self.is_free(box)):
                return None  # it has to be saved
            left += [each for each in self.reads([box]) if self._has_same_elements(box, each, softmax.outputs[0])]
        return frozenset(seen) or None

    def _has_same_elements(self, box: Box, number: int, weight: Value) -> bool:
        """Return whether an input of a box has the sizes of a softmax's weights, or is viewed with these sizes."""
        sizes = self.values[number].sizes
        return sizes == weight.sizes or (_is_view(box) and prod(sizes) == prod(weight.sizes))

    @cached_property
    def row_sums(self) -> list[RowSum]:
        """The sums of the reverse pass that can be computed from the result of an earlier contraction."""
        reverse = list(leaf_boxes(self.reverse))
        return list(row_sums([*self.boxes, *reverse], self.values))


def results(box: Box) -> tuple[int, ...]:
    """Return the numbers of the values that a box with a call makes."""
    return wires(box.call.result) if box.call is not None else ()


def _is_view(box: Box) -> bool:
    """Return whether the output of a box is a view that has all elements of its input."""
    call: Any = box.call
    if operation_name(call.function) != "index":
        return operation_name(call.function) in _VIEWS
    places = call.args.parts[1]
    return all(place in (None, ..., slice(None)) for place in (places if isinstance(places, tuple) else (places,)))


def _values(box: Box) -> Mapping[int, Value]:
    """Return every value of a box and of those inside it, with the axis names of the innermost box that has it."""
    return {value.number: value for each in box.walk() for value in (*each.inputs, *each.outputs)}


def _storages(diagram: Diagram, forward: Box) -> dict[int, int]:
    """Return the storage of each value of a forward pass, from a run on tensors without data; {} if it writes none."""
    boxes = list(leaf_boxes([forward]))
    if not any(written_values(box) for box in boxes):
        return {}
    workspace = Workspace(diagram)
    fakes, sizes = workspace.fakes, dict[Any, Any]()
    with workspace.open():
        for number, place, name in diagram.held:
            fakes[number] = workspace.mode.from_tensor(place.tensor(name), static_shapes=True)
        for box in boxes:
            call: Any = box.call
            with workspace.unrecorded(call.function), as_recorded(call):
                args, kwargs = workspace.fill(Struct(tuple, (), (call.args, call.kwargs)))
                store(call.result, workspace.function(box, call)(*args, **kwargs), fakes, sizes)
            workspace.sizes.read(sizes)
        return {number: storage_of(fake) for number, fake in fakes.items()}
