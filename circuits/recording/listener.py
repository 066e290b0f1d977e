"""The recorder of a run: it emits an event for each torch call and einops verb, and for each box that opens or closes.

`Listener` is a `TorchFunctionMode`, so torch passes every torch call to it. Module calls, `vmap` and
`autograd.Function.apply` are passed on by `interception` and recorded by `intercepted_calls`. Tensors are held by weak
references, so that recording keeps no tensor alive. `builder` makes a diagram from the events.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch._C import _functorch as functorch  # pyright: ignore[reportAttributeAccessIssue]
from torch.overrides import TorchFunctionMode

from circuits import switch
from circuits.diagram import (
    ACTIONS,
    OPERATORS,
    READ,
    RECORD,
    SKIP,
    Struct,
    Wire,
    action_for,
    describe,
    describe_all,
    is_opaque,
    opaque_call,
    operation_name,
)
from circuits.recording.data_sizes import DataSizes
from circuits.recording.events import Call, Enter, Event, Leave, Record
from circuits.recording.generators import Generators
from circuits.recording.module_paths import register_circuit
from circuits.recording.open_boxes import OpenBoxes
from circuits.recording.property_reads import PropertyReads
from circuits.recording.recorded_calls import (
    circuit_tensors,
    is_recorded,
    refusal_of_text,
    refuse_reading_memory,
    without_modes,
)
from circuits.recording.settings import Settings
from circuits.recording.special_calls import run_otherwise
from circuits.recording.thread_modes import in_function_mode
from circuits.recording.user_frames import user_line
from circuits.recording.values import Values


class Listener(TorchFunctionMode):
    """The recorder of every run of `target`; a run is one call of `target` that is not inside another run.

    Args:
        target: The module or `Circuit` whose calls are recorded; None: any module or circuit.
        definitions: Whether a circuit with a kernel runs its definition.
        lines: Whether each event stores the line of user code that made the call.

    Attributes:
        is_kept, on_start: Returns whether a diagram may be made of the run (see `Record`); called where it begins.
        on_event: Called with each event of the run, and with the result of the call or box, or None.
        on_finish: Called at the end of each run; boxes are still open if an interrupt has kept them from being closed.
        substitute_module: Called with a module that has no path in the record yet; returns the module to run instead.
        format_size: Returns the text of a size for a message.
        record, stack, values: The events, the open boxes and the wires of tensors of the current run.
        data_sizes, settings, property_reads, generators: What the code measures, sets, reads and draws numbers from.
        is_paused: Whether the recording of torch calls is paused.
        current_operation: The function of the recorded call that is running, or None.
    """

    def __init__(self, target: Any = None, definitions: bool = False, lines: bool = False) -> None:
        super().__init__()
        self.target, self.definitions, self.lines = target, definitions, lines
        self.is_kept: Callable[[], bool] = lambda: True
        self.on_start: Callable[[], None] = lambda: None
        self.on_event: Callable[[Event, Any], None] | None = None
        self.on_finish: Callable[[], None] | None = None
        self.substitute_module: Callable[[nn.Module], nn.Module] | None = None
        self.format_size: Callable[[Any], str] = str
        self.begin()

    @property
    def outer(self) -> Any:
        """The recorder of this thread that was set before this one, which records the same calls, or None."""
        return switch.outer(self)

    def begin(self) -> None:
        """Start a new, empty record."""
        self.record: Record = Record(self.is_kept)
        self.stack: OpenBoxes = OpenBoxes()
        self.values: Values = Values(self.record, self.stack, self.emit)
        self.data_sizes: DataSizes = DataSizes(self.values, self.emit, not self.definitions)
        self.property_reads: PropertyReads = PropertyReads(self.values)
        self.generators: Generators = Generators(self.record)
        self.is_paused, self.current_operation = False, None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Pause the recording of torch calls inside the `with`."""
        before, self.is_paused = self.is_paused, True
        try:
            yield
        finally:
            self.is_paused: bool = before

    def emit(self, event: Event, result: Any = None) -> None:
        """Append an event to the record and call `on_event`."""
        self.record.events.append(event)
        if self.on_event is not None:
            self.on_event(event, result)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        action = ACTIONS.get(func)
        if action is None:
            action = action_for(func)
        if action == SKIP or not self.stack or self.is_paused or (func is _REQUIRES_GRAD and _is_wrapped(args[0])):
            return func(*args, **kwargs)
        if action in (RECORD, READ):
            return self.record_call(func, args, kwargs, "", lambda: func(*args, **kwargs))
        return run_otherwise(self, action, func, args, kwargs, sys._getframe(1))

    def record_call(
        self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], pattern: str, run: Callable[[], Any]
    ) -> Any:
        """Record `run()` as one call of `function`, if it `is_recorded`, and return its result."""
        wire = self.values.wire
        self.stack.error_noted = False
        event = Call(
            function,
            describe_all(args, wire),
            {name: describe(arg, wire) for name, arg in kwargs.items()} if kwargs else kwargs,
            pattern,
            user_line() if self.lines else "",
        )
        if self.definitions:
            refuse_reading_memory(function)
        event.settings = self.settings.current()
        run = self.generators.watching(kwargs, run) if kwargs else run
        before, self.current_operation = self.current_operation, function
        try:
            result = run()
        except BaseException as error:
            if self.stack.note_error(event, error, operation_name(function)):
                self.emit(event)
            raise
        finally:
            self.current_operation = before
        event.result = describe(result, self.values.define)
        if (type(event.result) is not Wire or type(function) in OPERATORS) and not is_recorded(
            event, args, kwargs, result, self.values.define, self.definitions
        ):
            self.record.refusal = self.record.refusal or (refusal_of_text(event) if self.definitions else "")
            return result
        self.stack.mark_whole(functorch.maybe_current_level())
        if event.result is not None:
            self.data_sizes.note(event, args, kwargs)
            if type(event.result) is Struct and is_opaque(function):
                event.function = opaque_call(event.function, result, event.where or user_line())
        self.emit(event, result)
        return result

    def verb(
        self, function: Any, pattern: str, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]
    ) -> Any:
        """Record an einops verb as one call and return its result; the torch calls inside it are not recorded."""
        if self.outer is not None:
            run = partial(self.outer.verb, function, pattern, args, kwargs, run)
        if not self.stack:
            return run()
        return self.record_call(function, args, kwargs, pattern, partial(without_modes, run))

    def circuit(
        self, circuit: Any, owner: Any, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[bool], Any]
    ) -> Any:
        """Record a circuit call and return its result; see `switch.Recorder.circuit` for the arguments.

        The circuit becomes a box. If it is the `forward` of a module whose box has just opened, it is set on that box.
        """
        if self.outer is not None:
            outer, inner = self.outer, run
            run = lambda _: outer.circuit(circuit, owner, args, kwargs, inner)  # noqa: E731
        if not self.stack and not (self.target is None or self.target is circuit):
            return run(self.definitions)
        if _set_on_open_box(self, circuit, owner, args, kwargs):
            return run(self.definitions)
        module = owner if isinstance(owner, nn.Module) else None
        register_circuit(self.record, circuit, module, bool(self.stack))
        path = self.record.paths[id(module)][0] if module is not None else ""
        box = Enter("circuit", circuit.name, path, module, user_line() if self.lines else "")
        box.circuit, box.owner = circuit, owner
        return self.record_box(box, args, kwargs, lambda: run(self.definitions))

    def record_function(
        self, label: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Record a call of a function that is not a circuit, as the outermost box, and return its result."""
        box = Enter("function", label, "", None, user_line() if self.lines else "")
        box.function = function
        self.record.add_code(function, label)
        return self.record_box(box, args, kwargs, lambda: function(*args, **kwargs))

    def record_box(self, box: Enter, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]) -> Any:
        """Record `run()` as a box and return its result; this function mode is active inside the outermost box."""
        if self.stack:
            return self._run_in_box(box, args, kwargs, run)
        self.settings: Settings = Settings(is_kept := self.is_kept())
        if is_kept:
            self.generators.start()
            self.on_start()
        try:
            return in_function_mode(self, lambda: self._run_in_box(box, args, kwargs, run))
        finally:
            if self.on_finish is not None:
                self.on_finish()

    def _run_in_box(self, box: Enter, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]) -> Any:
        """Emit the event that opens a box, call `run()`, emit the event that closes the box, and return the result."""
        self.stack.error_noted = False
        box.args, box.kwargs = self.values.arguments(args, kwargs)
        if box.circuit is not None:
            box.tensors = circuit_tensors(box.circuit, args, kwargs, self.values.wire)
        box.settings = self.settings.current()
        self.stack.append(box)
        try:
            self.emit(box)
            result = run()
            leave = Leave(self.values.result(result))
            self.data_sizes.leave(box, leave.result)
        except BaseException as error:
            self.stack.note_error(box, error)
            self._close_box(Leave(None, failed=True), None)
            raise
        self._close_box(leave, result)
        return result

    def _close_box(self, event: Leave, result: Any) -> None:
        """Emit the event that closes the innermost box; the box is closed even if this fails."""
        if len(self.stack) == 1 and self.is_kept():
            self.record.refusal = self.record.refusal or _left_changed(self)
        try:
            self.emit(event, result)
        finally:
            self.stack.pop()
            if not self.stack and not self.definitions:
                self.values.end(result)

    def show(self, size: Any) -> str:
        """Return the text of a size for a message."""
        return self.format_size(size)


def _set_on_open_box(
    listener: Listener, circuit: Any, owner: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> bool:
    """Set a circuit on the box that has just opened, if it is the `forward` of its module; return whether it is."""
    box = listener.stack[-1] if listener.stack else None
    if box is None or box.module is not owner or owner is None or box.circuit or listener.record.events[-1] is not box:
        return False
    box.circuit, box.owner = circuit, owner
    box.tensors = circuit_tensors(circuit, args, kwargs, listener.values.wire)
    if listener.on_event is not None:
        listener.on_event(box, None)
    return True


_REQUIRES_GRAD = Tensor.requires_grad_
"""torch itself calls it on tensors that torch.func's grad wraps."""
_is_wrapped = functorch.is_gradtrackingtensor


@contextmanager
def unrecorded() -> Iterator[None]:
    """Record nothing inside the `with`: all recorders of this thread are paused, and the thread has no recorder."""
    paused: list[tuple[Listener, bool]] = []
    listener: Any = switch.current()
    while isinstance(listener, Listener):
        paused.append((listener, listener.is_paused))
        listener = listener.outer
    try:
        for each, _ in paused:
            each.is_paused = True
        with switch.set_recorder(None):
            yield
    finally:
        for each, before in paused:
            each.is_paused = before


def _left_changed(recorder: Listener) -> str:
    """Return what the run has changed, or drawn from, and a diagram does not; empty if nothing."""
    return recorder.settings.left_changed() or recorder.record.left_changed() or recorder.generators.unrecorded()
