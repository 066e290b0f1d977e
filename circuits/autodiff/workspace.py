"""The workspace in which a backward circuit is made: fake tensors for the values of a diagram, and a box recorder.

The fake tensors have the sizes of the values, symbolic where these are free. Operations on them are recorded as `trace`
records them, and become boxes whose values continue the diagram's numbers and axis names.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch._dispatch.python import enable_python_dispatcher

from circuits import switch
from circuits.autodiff.free_sizes import FreeSizes, free_symbols
from circuits.autodiff.module_copies import ModuleCopies
from circuits.autodiff.repeated_runs import RepeatedRuns
from circuits.diagram import Box, Call, Diagram, Value, attribute, fill, operation_name, without_autocast
from circuits.errors import CircuitError
from circuits.naming import AxisNode, Scope, StatedName, read_axes
from circuits.recording import Builder, FakeMode, FreeFunctions, Listener, recorded_by, unrecorded

Axes = tuple[str | None, ...]


class Workspace:
    """Fake tensors for the values of a diagram, by number in `fakes`, and boxes recorded with them.

    `sizes` translates sizes; `modules` has fake copies of the modules that the diagram calls as a whole.
    """

    def __init__(self, diagram: Diagram) -> None:
        self.diagram = diagram
        self.listener: Listener = Listener(definitions=True)
        self.values: dict[int, Value] = _values(diagram)
        used = {symbol for value in self.values.values() for size in value.sizes for symbol in free_symbols(size)}
        self.sizes: FreeSizes = FreeSizes(diagram, used, self, Workspace._running)
        self.listener.format_size = self.sizes.symbols.text
        self.mode: FakeMode = FakeMode(shape_env=self.sizes.symbols.env, allow_non_fake_inputs=True)
        self.modules: ModuleCopies = ModuleCopies(diagram, self.listener, self.mode)
        self.runs: RepeatedRuns = RepeatedRuns()
        self.fakes: dict[int, Tensor] = {}
        self._unrecorded_function: Any = None
        self.builder: Builder = Builder(self.listener.record, self.sizes.symbols.size)
        self._register_values()

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Make fake tensors and record operations inside the `with`; outer recorders are not notified of them.

        Autocast is off inside: each call of the diagram has the autocast state that it was recorded under.
        """
        with (
            unrecorded(), without_autocast(), torch.enable_grad(), self.mode, enable_python_dispatcher(),
            FreeFunctions(sizes_only=False),
        ):  # fmt: skip
            self._make_fakes()
            try:
                with recorded_by(self.listener):
                    yield
            finally:
                self.runs.end()

    def _running(self) -> str:
        """Return the name of the operation that is running, recorded or not; "" if none is."""
        function = self.listener.current_operation or self._unrecorded_function
        return operation_name(function) if function is not None else ""

    # The values of the diagram

    def _register_values(self) -> None:
        """Add the diagram's values to the record, so that new values are numbered after them."""
        record = self.listener.record
        for number in range(max(self.values, default=-1) + 1):
            value = self.values.get(number)
            if value is None:
                record.values.append(((), torch.float32, "made", "", (), None, False, 0))
            else:
                about = value.device, value.requires_grad, 0
                record.values.append((value.sizes, value.dtype, value.role, value.name, (), *about))
                if value.dtype is torch.bool:
                    self.builder.names.booleans.add(number)
            self.builder.names.shapes[number] = () if value is None else value.sizes

    def _make_fakes(self) -> None:
        """Make the fakes of all values that exist before the run: inputs, parameters, buffers, constants."""
        for number, (module, path) in self.diagram.state.items():
            tensor = attribute(module, path)
            self.listener.record.state[number] = (module, path)
            self.assign_fake(number, self.mode.from_tensor(tensor, static_shapes=True))
            self.bind(tensor, number)
        for number, tensor in self.diagram.constants.items():
            self.listener.record.constants[number] = tensor
            self.assign_fake(number, self.mode.from_tensor(tensor, static_shapes=True))
            self.bind(tensor, number)
        for value in self.diagram.inputs:
            if value.number not in self.fakes:
                self.assign_fake(value.number, self.empty(self.values[value.number]))

    @property
    def device(self) -> torch.device:
        """The device of new tensors, unless a call specifies one: that of the first parameter, buffer or constant."""
        held = [attribute(*where) for where in self.diagram.state.values()] or [*self.diagram.constants.values()]
        return held[0].device if held else torch.get_default_device()

    # Fake tensors

    def empty(self, value: Value) -> Tensor:
        """Return a new fake tensor of the sizes and dtype of a value."""
        sizes = [self.sizes.size(size) for size in value.sizes]
        return torch.empty(sizes, dtype=value.dtype, device=self.device)

    def assign_fake(self, number: int, tensor: Tensor) -> Tensor:
        """Make `tensor` the fake of value `number` and return it; a tensor bound to another value is aliased first."""
        known = self.listener.values._wires.get(id(tensor))
        if known is not None and known[0]() is tensor and known[1].number != number:
            with self.listener.paused():
                tensor = torch.ops.aten.alias.default(tensor)
        self.fakes[number] = tensor
        self.bind(tensor, number)
        return tensor

    def bind(self, tensor: Tensor, number: int) -> None:
        """Record every later read of `tensor` as a read of value `number`."""
        self.listener.values.bind(tensor, number)

    def number_of(self, tensor: Tensor) -> int:
        """Return the number of the value that a tensor is bound to."""
        return self.listener.values.wire(tensor).number

    def fill(self, description: Any) -> Any:
        """Return the value of a description, with the fake of each wire and the number of each scalar."""
        return fill(description, lambda wire: self.fakes[wire.number], self.sizes.scalar)

    def function(self, box: Box, call: Call) -> Any:
        """Return the function that the call of a box runs; for a module of the diagram, its copy with fake parameters.

        The function of a box that contains others, whose code is not torch's, can run again from the same state.
        """
        function = call.function
        if isinstance(function, str):
            function = self.modules.of(self.diagram.modules[function])
        return self.runs.repeatable(function) if box.boxes or isinstance(call.function, str) else function

    # Recorded boxes

    def record_box(self, label: str, axes: Mapping[int, Axes], run: Callable[[], Any]) -> Box:
        """Run `run` and return its operations as a box; `axes` names axes of values that it reads or makes."""
        self.record(label, run)
        return self.freeze(axes)

    def record(self, label: str, run: Callable[[], Any]) -> None:
        """Run `run` and record its operations, for `freeze` or `discard_events`."""
        self.discard_events()
        self.listener.record_function(label, run, (), {})

    @contextlib.contextmanager
    def unrecorded(self, function: Any) -> Iterator[None]:
        """Record nothing inside the `with`, in which `function`, a call of the diagram, is run.

        Of the conditions on sizes that arise inside `function`, only equalities become guards, as in a recorded call.
        """
        self._unrecorded_function = function
        try:
            with self.listener.paused(), switch.set_recorder(None):
                yield
        finally:
            self._unrecorded_function = None

    def discard_events(self) -> None:
        """Delete the events recorded since the last box."""
        del self.listener.record.events[:]
        self.builder.consumed = 0

    def freeze(self, axes: Mapping[int, Axes]) -> Box:
        """Return the recorded events as a box; `axes` names axes of some values, the others are derived from these."""
        self.builder.names.scopes = [Scope()]
        _name_axes(self.builder, axes)
        self.builder.feed_all()
        root = self.builder.root
        if root is None:
            raise CircuitError("nothing was recorded")
        return self.builder.freeze(root, self.sizes.expression)


def _name_axes(builder: Builder, axes: Mapping[int, Axes]) -> None:
    """Name the axes of some values; identifiers first, since a group is split by their sizes."""
    names = builder.names
    builder.read_new_shapes()
    matcher, letters = names.matcher(), dict[str, AxisNode]()
    nodes = {number: names.fresh(names.shapes[number]) for number in axes}
    named = [
        (axis, number, place)
        for number, each in axes.items()
        for place, axis in enumerate(each[: len(nodes[number])])
        if axis is not None
    ]
    for axis, number, place in sorted(named, key=lambda each: not each[0].isidentifier()):
        node = nodes[number][place]
        with contextlib.suppress(ValueError, CircuitError):
            matcher.match_input(read_axes(axis), [node])
        if node.label() != axis:
            nodes[number][place] = letters.setdefault(axis, AxisNode(node.size, StatedName(axis, names.scope)))
    for number, each in nodes.items():
        names.put(number, each)


def _values(diagram: Diagram) -> dict[int, Value]:
    """Return the values of a diagram by number, with the parameters and buffers that no box reads."""
    found: dict[int, Value] = {}
    owners: dict[int, str] = {}
    for box in diagram.walk():
        for value in (*box.inputs, *box.outputs, *box.parameters):
            found.setdefault(value.number, value)
        if box.reverse is not None:
            owners[id(box.reverse.owner)] = box.reverse.path
    for number, (module, name) in diagram.state.items():
        if number not in found:
            found[number] = _state_value(number, owners.get(id(module), ""), attribute(module, name), name)
    return found


def _state_value(number: int, path: str, tensor: Tensor, name: str) -> Value:
    """Return the value of a parameter or buffer that no box reads, but that a custom backward may read."""
    role = "parameter" if isinstance(tensor, nn.Parameter) else "buffer"
    full = f"{path}.{name}" if path else name
    return Value(number, (None,) * tensor.ndim, tuple(tensor.shape), tensor.dtype, role, full)
