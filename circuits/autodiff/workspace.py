"""The bench on which a backward circuit is made: fake tensors for the values of a diagram, and a recorder of new boxes.

Every value of the diagram has a fake tensor of its sizes, free where they are free. What is done with the fakes is
recorded as `trace` records, and comes out as boxes whose values carry on the diagram's numbers and axes.
"""

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import sympy
import torch
from torch import Tensor, nn
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode

from circuits import switch
from circuits.diagram import (
    Box,
    Diagram,
    Fixed,
    Scalar,
    Value,
    Wire,
    attribute,
    evaluate,
    fill,
    operation_name,
    substitute,
)
from circuits.errors import CircuitError
from circuits.naming import AxisNode, Scope, StatedName, read_axes
from circuits.recording import Builder, Listener, TracingShapeEnv, Symbols, axis_symbol, unrecorded, recorded_by

Axes = tuple[str | None, ...]


class Bench:
    """Fakes for a diagram's values by number, and boxes made with them."""

    def __init__(self, diagram: Diagram) -> None:
        self.diagram = diagram
        self.listener = Listener(definitions=True)
        self.symbols = Symbols(TracingShapeEnv(self._inside))
        self.listener.format_size = self.symbols.text
        self.mode = FakeTensorMode(shape_env=self.symbols.env, allow_non_fake_inputs=True)
        self.fakes: dict[int, Tensor] = {}
        self.inside: Any = None
        self.copies: dict[int, nn.Module] = {}
        self._memo: dict[int, Any] = {}
        self._raw: dict[Any, Any] = {}
        self._back: dict[Any, Any] = {}
        self._hints: dict[Any, int] = {}
        self._read_symbols()
        self.builder = Builder(self.listener.record, self.symbols.size)
        self._read_values()

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Fake tensors are made and heard inside the `with`, and nobody else hears of them.

        Each call knows the autocast that it ran under, so the one around counts for nothing.
        """
        with (
            unrecorded(), _uncast(), torch.enable_grad(), torch.random.fork_rng(devices=[]), self.mode,
            enable_python_dispatcher(),
        ):  # fmt: skip
            self._read_tensors()
            with recorded_by(self.listener):
                yield

    def _inside(self) -> str:
        inside = self.listener.current_operation or self.inside
        return operation_name(inside) if inside is not None else ""

    # What the diagram has

    def _read_symbols(self) -> None:
        """A free size for each of the diagram's, known under its name there and torch's number for it there."""
        used = {symbol for value in self._values().values() for size in value.sizes for symbol in _symbols(size)}
        found = self.diagram.symbols.items()
        for axis, raw in sorted(found, key=lambda item: item[0] not in used):
            theirs = next(iter(_symbols(raw)), None)
            if theirs is None or theirs in self._raw:
                continue
            size = self.symbols.of(str(axis), int(sympy.sympify(raw) / theirs))
            mine = next(symbol for symbol, ours in self.symbols.expressions.items() if axis_symbol(ours).name == str(axis))
            self._raw[theirs], self._back[mine] = mine, theirs
            self._hints[mine] = evaluate(mine, {mine: size.node.hint}) // int(sympy.sympify(raw) / theirs)

    def _values(self) -> dict[int, Value]:
        found: dict[int, Value] = {}
        owners: dict[int, str] = {}
        for box in self.diagram.walk():
            for value in (*box.inputs, *box.outputs, *box.parameters):
                found.setdefault(value.number, value)
            if box.reverse is not None:
                owners[id(box.reverse.owner)] = box.reverse.path
        for number, (module, name) in self.diagram.state.items():
            if number not in found:
                found[number] = _held(number, owners.get(id(module), ""), attribute(module, name), name)
        return found

    def _read_values(self) -> None:
        """The recorder knows the diagram's values as its own, so that new ones get new numbers."""
        values, record = self._values(), self.listener.record
        for number in range(max(values, default=-1) + 1):
            value = values.get(number)
            if value is None:
                record.values.append(((), torch.float32, "made", "", ()))
            else:
                record.values.append((value.sizes, value.dtype, value.role, value.name, ()))
                if value.dtype is torch.bool:
                    self.builder.names.booleans.add(number)
            self.builder.names.shapes[number] = () if value is None else value.sizes

    def _read_tensors(self) -> None:
        """Fakes for what is there before the run: inputs, parameters, buffers, constants."""
        values = self._values()
        for number, (module, path) in self.diagram.state.items():
            tensor = attribute(module, path)
            self.listener.record.state[number] = (module, path)
            self.put(number, self.mode.from_tensor(tensor, static_shapes=True))
            self.known(tensor, number)
        for number, tensor in self.diagram.constants.items():
            self.listener.record.constants[number] = tensor
            self.put(number, self.mode.from_tensor(tensor, static_shapes=True))
            self.known(tensor, number)
        for value in self.diagram.inputs:
            if value.number not in self.fakes:
                self.put(value.number, self.empty(values[value.number]))

    @property
    def device(self) -> torch.device:
        """Where tensors are made that nothing says a place for: beside the first parameter."""
        held = [attribute(*where) for where in self.diagram.state.values()] or [*self.diagram.constants.values()]
        return held[0].device if held else torch.get_default_device()

    def empty(self, value: Value) -> Tensor:
        """A fake tensor like a value."""
        return torch.empty([self.size(size) for size in value.sizes], dtype=value.dtype, device=self.device)

    def size(self, size: Any) -> Any:
        """A size of the diagram, in axes that are free, as a number that torch reckons with."""
        if isinstance(size, int):
            return size
        return self.number(size.xreplace({axis_symbol(ours): axis_symbol(ours) * raw / ours for raw, ours in
                                          self.symbols.expressions.items()}))  # fmt: skip

    def scalar(self, scalar: Scalar) -> Any:
        """A recorded number of the diagram, which depends on sizes."""
        expression = scalar.expression
        return self.number(expression.xreplace(self._raw)) if isinstance(expression, sympy.Basic) else expression

    def number(self, expression: Any) -> Any:
        """An expression in torch's symbols as a number that torch reckons with."""
        env, hint = self.symbols.env, evaluate(expression, self._hints)
        if not _symbols(expression):
            return hint
        if isinstance(hint, bool):
            return env.create_symboolnode(expression)
        if isinstance(hint, int):
            return env.create_symintnode(expression, hint=hint)
        return env.create_symfloatnode(expression, hint=float(hint))

    # Tensors and numbers

    def put(self, number: int, tensor: Tensor) -> Tensor:
        """Let this fake stand for a value; one that stands for another already gets a double."""
        known = self.listener.values._wires.get(id(tensor))
        if known is not None and known[0]() is tensor and known[1].number != number:
            with self.listener.paused():
                tensor = torch.ops.aten.alias.default(tensor)
        self.fakes[number] = tensor
        self.known(tensor, number)
        return tensor

    def known(self, tensor: Tensor, number: int) -> None:
        """Whoever reads this tensor reads that value."""
        self.listener.values.bind(tensor, number)

    def wire(self, tensor: Tensor) -> int:
        """The value that a fake stands for."""
        return self.listener.values.wire(tensor).number

    def fill(self, description: Any) -> Any:
        """What a description describes, of fakes."""
        return fill(description, lambda wire: self.fakes[wire.number], self.scalar)

    def module(self, module: Any) -> Any:
        """A module that is run whole, or its method, with fakes for its parameters."""
        owner = module if isinstance(module, nn.Module) else module.__self__
        if id(owner) not in self.copies:
            with self.listener.paused(), FakeCopyMode(self.mode):
                copied = copy.deepcopy(owner, self._memo)
            numbers = {id(attribute(*where)): number for number, where in self.diagram.state.items()}
            pairs = [
                (owner.named_parameters(), copied.named_parameters()),
                (owner.named_buffers(), copied.named_buffers()),
            ]
            for (_, old), (_, new) in [pair for olds, news in pairs for pair in zip(olds, news, strict=True)]:
                if id(old) in numbers:
                    self.known(new, numbers[id(old)])
            for old, new in zip(owner.modules(), copied.modules(), strict=True):
                self.listener.record.originals[id(new)] = old
            self.copies[id(owner)] = copied
        copied = self.copies[id(owner)]
        return copied if isinstance(module, nn.Module) else getattr(copied, module.__name__)

    def owner(self, module: nn.Module, path: str) -> nn.Module:
        """A module at this path, with fakes for its parameters; what is inside it is called by its path there."""
        copied, paths = self.module(module), self.listener.record.paths
        for name, inner in copied.named_modules() if id(copied) not in paths else ():
            paths[id(inner)] = [".".join([word for word in (path, name) if word])]
        return copied

    # Boxes

    def record(self, label: str, known: Mapping[int, Axes], run: Callable[[], Any]) -> Box:
        """What `run` does as a box, its values named by what is known of those it reads."""
        self.hear(label, run)
        return self.freeze(known)

    @contextlib.contextmanager
    def silently(self, function: Any) -> Iterator[None]:
        """A function of the diagram is run; nobody hears it, and what it asks of sizes it has asked before."""
        self.inside = function
        try:
            with self.listener.paused(), switch.set_recorder(None):
                yield
        finally:
            self.inside = None

    def hear(self, label: str, run: Callable[[], Any]) -> None:
        """Note what `run` does, to be frozen or forgotten."""
        self.forget()
        self.listener.record_function(label, run, (), {})

    def forget(self) -> None:
        """Nothing was heard."""
        del self.listener.record.events[:]
        self.builder.consumed = 0

    def freeze(self, known: Mapping[int, Axes]) -> Box:
        """What was heard, as a box."""
        self.builder.names.scopes = [Scope()]
        self._name(known)
        self.builder.feed_all()
        root = self.builder.root
        if root is None:
            raise CircuitError("nothing was recorded")
        return self.builder.freeze(root, self.raw)

    def _name(self, known: Mapping[int, Axes]) -> None:
        """Say what the axes of some values are called; letters first, whose sizes tell how groups are made."""
        names = self.builder.names
        self.builder.read_new_shapes()
        matcher, letters = names.matcher(), dict[str, AxisNode]()
        cells = {number: names.fresh(names.shapes[number]) for number in known}
        named = [
            (axis, number, place)
            for number, axes in known.items()
            for place, axis in enumerate(axes[: len(cells[number])])
            if axis is not None
        ]
        for axis, number, place in sorted(named, key=lambda each: not each[0].isidentifier()):
            cell = cells[number][place]
            with contextlib.suppress(ValueError, CircuitError):
                matcher.match_input(read_axes(axis), [cell])
            if cell.label() != axis:
                cells[number][place] = letters.setdefault(axis, AxisNode(cell.size, StatedName(axis, names.scope)))
        for number, each in cells.items():
            names.put(number, each)

    def raw(self, number: Any) -> Any:
        """The expression of a new number in the symbols of the diagram."""
        found = self.symbols.raw(number)
        return found.xreplace(self._back) if isinstance(found, sympy.Basic) else found

    def fixed(self) -> tuple[Fixed, ...]:
        """Axes that did not stay free on the way back."""
        return self.symbols.fixed()

    def guards(self) -> tuple[Any, ...]:
        """The conditions on sizes that came up on the way back, with those that fix an axis."""
        free = [condition for condition in self.symbols.guards() if condition not in self.diagram.guards]
        return (
            *free,
            *[sympy.Eq(sympy.Symbol(each.axis, integer=True, positive=True), each.size) for each in self.fixed()],
        )


def _held(number: int, path: str, tensor: Tensor, name: str) -> Value:
    """A parameter or buffer that no box reads, and a backward circuit by hand may."""
    role = "parameter" if isinstance(tensor, nn.Parameter) else "buffer"
    full = f"{path}.{name}" if path else name
    return Value(number, (None,) * tensor.ndim, tuple(tensor.shape), tensor.dtype, role, full)


def _uncast() -> contextlib.ExitStack:
    """Without any autocast inside the `with`."""
    stack = contextlib.ExitStack()
    for device in ("cpu", "cuda", "mps", "xpu"):
        if torch.is_autocast_enabled(device):
            stack.enter_context(torch.autocast(device, enabled=False))
    return stack


def _symbols(size: Any) -> Iterable[Any]:
    return getattr(size, "free_symbols", ())


def renumbered(box: Box, numbers: Mapping[int, int]) -> Box:
    """A box in which some values bear other numbers."""
    if not numbers:
        return box

    def wire(old: Wire) -> Wire:
        return Wire(numbers.get(old.number, old.number))

    def moved(values: tuple[Value, ...]) -> tuple[Value, ...]:
        return tuple([replace(value, number=numbers.get(value.number, value.number)) for value in values])

    def described(description: Any) -> Any:
        return substitute(description, wire, lambda scalar: scalar)

    def renewed(call: Any) -> Any:
        if call is None:
            return None
        return replace(call, args=described(call.args), kwargs=described(call.kwargs), result=described(call.result))

    return replace(
        box,
        inputs=moved(box.inputs),
        outputs=moved(box.outputs),
        given=described(box.given),
        inside=moved(box.inside),
        boxes=tuple([renumbered(inner, numbers) for inner in box.boxes]),
        call=renewed(box.call),
        reverse=renewed(box.reverse),
        mutates=tuple([numbers.get(number, number) for number in box.mutates]),
    )
