"""Measure a diagram: run its calls once on tensors without data, and add up what each costs.

The tensors have the sizes of the diagram's values, symbolic where these are free, so all costs are formulas in its
axes. The run frees a value after its last use. The inputs of a circuit or module live until it returns, because its
caller holds them.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from circuits.autodiff import Workspace, as_recorded
from circuits.cost.boundary import Boundary
from circuits.cost.distances import distance_guards
from circuits.cost.memory import Memory, key, storage_bytes
from circuits.cost.meter import Meter, Tally
from circuits.cost.recurrent import recurrent_form
from circuits.cost.sizes import Largest
from circuits.diagram import Box, Call, Diagram, Fixed, Size, Struct, Value, schedule, size_text, store, wires
from circuits.errors import CircuitError

Place = tuple[int, ...]
"""Where a box is: its number among the boxes beside it, after those of the boxes around it; () is the outermost."""


class Measurement:
    """What each box of a diagram costs, by place: `tallies` of the boxes that are run by a call; of all boxes `peaks`,
    and in `crossing` the bytes that cross the boundary.

    Args:
        diagram: The diagram.
        saved: The numbers of the values whose bytes are saved for backward once `saved_at` has run.
        saved_at: The place of the box after which they are.
    """

    def __init__(self, diagram: Diagram, saved: Iterable[int] = (), saved_at: Place | None = None) -> None:
        self.diagram = diagram
        self.saved, self.saved_at = list(saved), saved_at
        self.tallies: dict[Place, Tally] = {}
        self.peaks: dict[Place, Largest] = {}
        self.crossing: dict[Place, Size] = {}
        self.workspace = Workspace(diagram)
        self.memory = Memory(self._size)
        self.meter = Meter(self._size, self.memory)
        self.guards: list[Any] = []
        self._makers: dict[int, Place] = {}
        self._inputs: dict[int, Tensor] = {}
        self._unused = iter([unused for _, unused in schedule([*diagram.box.calls()], diagram.result, diagram.state)])

    def _size(self, size: Any) -> Any:
        return size if type(size) is int else self.workspace.sizes.symbols.size(size)

    def run(self) -> None:
        """Run the diagram."""
        in_sizes = [getattr(size, "free_symbols", ()) for value in self.diagram.inputs for size in value.sizes]
        free = {str(axis) for axes in in_sizes for axis in axes}
        self._refuse([each for each in self.diagram.fixed if each.axis in free])
        workspace, fakes = self.workspace, self.workspace.fakes
        with workspace.open(), torch.no_grad():
            for number, place, name in self.diagram.held:
                fakes[number] = workspace.mode.from_tensor(place.tensor(name), static_shapes=True)
            inputs = {value.number for value in self.diagram.inputs}
            before = set(fakes) - (inputs - self.diagram.state.keys())
            self.memory.exclude([fakes[number] for number in before])
            self.memory.note([fakes[number] for number in inputs])
            self._inputs = {number: fakes[number] for number in inputs}
            try:
                self._walk(self.diagram.box, ())
            finally:
                self.memory.end()
                fakes.clear()
                self._inputs.clear()
        self._refuse(workspace.sizes.fixed())

    def _refuse(self, fixed: Iterable[Fixed]) -> None:
        """Raise CircuitError if an operation needed a free size as a number: its cost would be of that number."""
        for each in fixed:
            by = f"{each.by} needs" if each.by else "an operation needs"
            raise CircuitError(
                f"count: {by} the size of {each.axis} as a number, so there is no formula in it: give it a size, "
                f"sizes={{'{each.axis}': {size_text(each.size)}}}"
            )

    def _walk(self, box: Box, place: Place) -> None:
        """Run a box and the boxes inside it."""
        self.peaks[place] = self.memory.open()
        self.meter.boundaries.append(Boundary())
        if box.call is not None:
            self.tallies[place] = self.meter.tally = Tally()
            self._call(box, box.call, place)
        else:
            fakes = self.workspace.fakes
            inputs = () if _is_reverse(box) else box.inputs
            held = [fakes[value.number] for value in inputs if value.number in fakes]
            for number, inner in enumerate(box.boxes):
                self._walk(inner, (*place, number))
            del held
            results = [value.number for value in box.outputs] if place else wires(self.diagram.result)
            self.crossing[place] = self.meter.close([fakes[number] for number in results if number in fakes])
        self.memory.close()
        if place == self.saved_at:
            self._note_saved()

    def _call(self, box: Box, call: Call, place: Place) -> None:
        """Run one call."""
        fakes = self.workspace.fakes
        given = {key(fakes[number]) for part in (call.args, call.kwargs) for number in wires(part) if number in fakes}
        made: dict[Any, Tensor] = {}
        try:
            self._run(box, call, made)
        except CircuitError:
            raise
        except Exception as error:
            if self.meter.failure is error:
                raise
            self._without_run(box, call, place, made, error)
        seen = set(given)
        for number, tensor in made.items():
            if key(tensor) not in seen:
                seen.add(key(tensor))
                self._makers[key(tensor)] = place
                self.meter.tally.activations.add(storage_bytes(tensor, self._size))
            fakes[number] = tensor
        unused = next(self._unused)
        self.crossing[place] = self.meter.close([tensor for number, tensor in made.items() if number not in unused])
        made.clear()
        for number in unused:
            fakes.pop(number, None)

    def _run(self, box: Box, call: Call, made: dict[Any, Tensor]) -> None:
        workspace, numbers = self.workspace, dict[Any, Any]()
        function = workspace.function(box, call)
        with workspace.unrecorded(call.function), as_recorded(call), self.meter:
            args, kwargs = workspace.fill(Struct(tuple, (), (call.args, call.kwargs)))
            form = recurrent_form(call.function, args, kwargs, self.meter)
            output = function(*args, **kwargs) if form is None else form()
            if call.function is torch.cdist:
                self.guards += distance_guards(self._size, *args, **kwargs)
        store(call.result, output, made, numbers)
        workspace.sizes.read(numbers)

    def _without_run(self, box: Box, call: Call, place: Place, made: dict[Any, Tensor], error: Exception) -> None:
        """Take the results of a call that cannot run without data from the diagram, and name it as not counted."""
        sizes = ", ".join([value.shape or "()" for value in box.inputs])
        self.tallies[place] = self.meter.tally = Tally()
        self.meter.tally.unknown[f"{box.label} {sizes}".strip()] += 1
        values: Mapping[int, Value] = {value.number: value for value in box.outputs}
        for number in wires(call.result):
            if number in self.workspace.fakes and number not in values:
                continue
            if number not in values:
                raise error
            made[number] = self.workspace.empty(values[number])
        for tensor in self.memory.note(made.values()):
            for boundary in self.meter.boundaries:
                boundary.make(key(tensor), written=False)

    def _note_saved(self) -> None:
        """Add the bytes of what is saved for backward to the boxes that made it, each storage once."""
        fakes, seen = self.workspace.fakes, set()
        for number in self.saved:
            tensor = fakes[number] if number in fakes else self._inputs[number]
            if key(tensor) in seen:
                continue
            seen.add(key(tensor))
            maker = self._makers.get(key(tensor), self.saved_at)
            tally = self.tallies.setdefault(maker, Tally())  # type: ignore[arg-type]
            tally.saved.add(storage_bytes(tensor, self._size))


def _is_reverse(box: Box) -> bool:
    """Return whether a box is of a reverse pass, whose inputs are what was saved: it is freed as it is used."""
    return (box.name or box.label).startswith("∂")


__all__ = ["Measurement", "Place"]
