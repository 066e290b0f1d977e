"""`Diagram`: one recorded run as frozen data, which can be read, printed and run again.

Its boxes are `boxes.Box`. `circuits.recording` builds diagrams; `interpreter` runs them, `codegen` generates Python
functions, and `tables` shows them as text, Markdown, HTML and data for JSON.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, sections 2.2 to 2.4.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

import sympy
from torch import Tensor, nn

from circuits.diagram import codegen, interpreter
from circuits.diagram.boxes import Box, Call, Fixed, Value
from circuits.diagram.call_arguments import arguments
from circuits.diagram.changes import Change, Place, apply_changes
from circuits.diagram.property_guards import with_guards
from circuits.diagram.run_state import check_names, tensors_before_the_run, with_parameters
from circuits.diagram.structure import Struct, bind, wires
from circuits.diagram.tables import Tables
from circuits.errors import CircuitError, entry_points
from circuits.signature import Signature

_NOTHING: Mapping[Any, Any] = MappingProxyType({})


@entry_points("__call__", "run", "function")
@dataclass(frozen=True)
class Diagram(Tables):
    """One recorded run of a circuit, module or function, with all that is needed to run it again.

    A diagram is called like the original and computes the same: at the recorded sizes or, where sizes are symbolic,
    at all sizes that satisfy the guards. It has the same side effects: it updates the running statistics of BatchNorm
    in train mode, and assigns what the code assigns (`self.mean = x`). `print(diagram)` prints its table.

    Attributes:
        box: The outermost box.
        arguments: The description of the arguments: nested data with a wire for each tensor.
        result: The description of the result.
        symbols: For each symbolic axis, its size in the symbols of torch, such as `16*s` if 16 has to divide it.
        guards: The conditions on sizes under which the run takes the same path through the code.
        fixed: The axes whose sizes did not stay symbolic, and why.
        failed: Whether the recorded run raised an error; such a diagram can be read but not run.
        refusal: Why the diagram can be read but not run, although the run did not fail; empty if it can be run.
        state: The module and dotted name of each parameter and buffer that the run reads, by value number.
        constants: The other tensors that existed before the run, by value number.
        modules: The modules and methods that are run as a whole, by dotted path.
        binder: The Python signature of the original, which matches arguments with parameters; None if unknown.
        changes: What the run assigned in objects that existed before it.
        held: The value number, the object and the key of each tensor that the run read from such an object.
        property_guards: The properties of tensors and modes that the code read, as calls of a `PropertyGuard`.
        buffers: The buffers of the recorded modules, whether the run reads them or not.
    """

    box: Box
    arguments: Any = field(repr=False)
    result: Any = field(repr=False)
    symbols: Mapping[sympy.Symbol, sympy.Expr] = field(default_factory=dict, repr=False)
    guards: tuple[Any, ...] = ()
    fixed: tuple[Fixed, ...] = ()
    failed: bool = False
    refusal: str = ""
    state: Mapping[int, tuple[nn.Module, str]] = field(default_factory=dict, repr=False, compare=False)
    constants: Mapping[int, Tensor] = field(default_factory=dict, repr=False, compare=False)
    modules: Mapping[str, Callable[..., Any]] = field(default_factory=dict, repr=False, compare=False)
    binder: inspect.Signature | None = field(default=None, repr=False, compare=False)
    changes: tuple[Change, ...] = field(default=(), repr=False, compare=False)
    held: tuple[tuple[int, Place, Any], ...] = field(default=(), repr=False, compare=False)
    property_guards: tuple[Call, ...] = field(default=(), repr=False, compare=False)
    buffers: tuple[Value, ...] = field(default=(), repr=False, compare=False)

    def __repr__(self) -> str:
        """Return what was recorded, in one line; `print(diagram)` prints the table."""
        return f"Diagram({self.box.brief})"

    @property
    def name(self) -> str:
        """The name of the recorded circuit, function or class."""
        return self.box.label

    @property
    def signature(self) -> Signature | None:
        """The signature of the recorded circuit; None for an undecorated module or function."""
        return self.box.signature

    @property
    def inputs(self) -> tuple[Value, ...]:
        """The input tensors, in the order of the arguments."""
        return self.box.inputs

    @property
    def outputs(self) -> tuple[Value, ...]:
        """The output tensors, in order."""
        return self.box.outputs

    @property
    def boxes(self) -> tuple[Box, ...]:
        """The boxes directly inside the outermost one, in the order of the run."""
        return self.box.boxes

    @property
    def parameters(self) -> tuple[Value, ...]:
        """The learned parameters, each once."""
        return self.box.parameters

    @property
    def opaque(self) -> tuple[Box, ...]:
        """The boxes that compute a vector-Jacobian product by torch, because an operation has no reverse rule."""
        return tuple([box for box in self.walk() if box.call and getattr(box.call.function, "opaque", False)])

    def walk(self) -> Iterator[Box]:
        """Yield every box in the order of the run, each before the boxes inside it."""
        return self.box.walk()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the result of the recorded circuit for these arguments.

        Args:
            args: Positional arguments, as the original takes them.
            kwargs: Keyword arguments, as the original takes them.

        Raises:
            ShapeError: If the sizes are not the recorded ones, contradict each other, or do not satisfy the guards, or
                if a result has another size than its box states.
            CircuitError: The diagram would not compute what the original does: the run failed, there is a `refusal`, or
                a number of the data, a property of a tensor or an argument that is no tensor is not the recorded one.
            TypeError: If the arguments do not fit the parameters of the original.
        """
        return self.run(args, kwargs)

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any], parameters: Mapping[str, Tensor] = _NOTHING) -> Any:
        """Return the result of a call, with some parameters and buffers replaced, like `torch.func.functional_call`.

        Args:
            args: Positional arguments, as the original takes them.
            kwargs: Keyword arguments, as the original takes them.
            parameters: Tensors to use in place of parameters and buffers, by dotted name.

        Raises:
            ShapeError, TypeError, CircuitError: As for a call, and for an unknown name in `parameters`.
        """
        self._check_runnable()
        check_names(self, self._state_names, parameters)
        tensors: dict[Any, Any] = {}
        named = arguments(args, kwargs, self.binder)
        bind(self.arguments, named, tensors, f"{self.name}: ")
        for change in self.changes:
            change.check()
        sizes = interpreter.read_sizes(self.name, self.inputs, tensors, self.guards)
        tensors.update(tensors_before_the_run(self, self._state_names, parameters))
        modules = with_parameters(self, self._state_names, parameters)
        check = bool(sizes) and tuple(sizes.values()) not in self._checked_sizes
        numbers = interpreter.run(self.box, self._program, tensors, sizes, self.symbols, modules, check)
        self._checked_sizes.add(tuple(sizes.values()))
        result, after = interpreter.load(self._result_and_changes, tensors, numbers)
        apply_changes(self.changes, named, after)
        return result

    def function(self) -> Callable[..., Any]:
        """Return a generated Python function that computes the same, one line a call; its source is its docstring.

        The function takes those arguments of the diagram that hold tensors, in their order, and does not check their
        sizes. `torch.compile` compiles it without a graph break.

        >>> from circuits import trace
        >>> from torch import ones
        >>> halved = trace(lambda x: x / 2.0, ones(3)).function()
        >>> halved(ones(3))
        tensor([0.5000, 0.5000, 0.5000])

        Raises:
            CircuitError: If the diagram can only be read: the recorded run failed, or there is a `refusal`.
        """
        self._check_runnable()
        return codegen.generate_function(
            self.name, self.arguments, self.result, self.inputs, self._program, self.state, self.constants,
            self.modules, self.symbols, self.changes, self.held,
        )  # fmt: skip

    def _check_runnable(self) -> None:
        """Raise CircuitError if the diagram can only be read."""
        reason = "the recorded run failed" if self.failed else self.refusal
        if reason:
            raise CircuitError(f"{self.name}: {reason}, so its diagram can be read but not run")

    @cached_property
    def _state_names(self) -> dict[int, str]:
        """The dotted name of each parameter and buffer that the run read, by value number."""
        return {each.number: each.name for box in self.walk() for each in box.inputs if each.number in self.state}

    @cached_property
    def _checked_sizes(self) -> set[tuple[int, ...]]:
        """The sizes of the symbolic axes at which a run had the sizes that the boxes state."""
        return set()

    @cached_property
    def _program(self) -> interpreter.Program:
        """The calls in order, each with the numbers of the values that are unused after it."""
        there = wires(self.arguments), self.state, self.constants, [number for number, *_ in self.held]
        calls = with_guards(self.box.calls(), self.property_guards, *there)
        return interpreter.schedule(calls, self._result_and_changes, self.state)

    @cached_property
    def _result_and_changes(self) -> Struct:
        """The description of what a run computes: the result, and the values of each change."""
        return Struct(tuple, (), (self.result, Struct(tuple, (), tuple([change.after for change in self.changes]))))
