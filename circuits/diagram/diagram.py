"""A diagram: one recorded run as frozen data, which can be read, printed and run again.

The boxes are `boxes.Box`; how they are recorded is `tracing`'s business, how they are laid out as a table `table`'s.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, sections 2.2 to 2.4.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

import sympy
from torch import Tensor, nn

from circuits.diagram import codegen, interpreter, table
from circuits.diagram.boxes import Box, Call, Fixed, Value
from circuits.diagram.structure import arguments, attribute, bind
from circuits.errors import CircuitError
from circuits.signature import Signature

_NOTHING: Mapping[Any, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Diagram:
    """One recorded run: the outermost box, and all that running it again takes.

    `symbols` gives for each free axis the expression that torch knows it by (`16*s` where h must divide by 16);
    `guards` are the conditions under which the run takes the same path; `fixed` tells which axes did not stay free,
    and why. `state` says where each parameter and buffer lives, `constants` holds the other tensors that were there
    before, `modules` what is run as a whole. A run that `failed` can be read, not run.

    Called like what it records, a diagram computes what that computes, at the recorded sizes or, where axes are
    free, at all that keep the guards. It changes what the original would change: the statistics of a BatchNorm in
    train mode, say.
    """

    box: Box
    arguments: Any = field(repr=False)
    result: Any = field(repr=False)
    symbols: Mapping[sympy.Symbol, sympy.Expr] = field(default_factory=dict, repr=False)
    guards: tuple[Any, ...] = ()
    fixed: tuple[Fixed, ...] = ()
    failed: bool = False
    state: Mapping[int, tuple[nn.Module, str]] = field(default_factory=dict, repr=False, compare=False)
    constants: Mapping[int, Tensor] = field(default_factory=dict, repr=False, compare=False)
    modules: Mapping[str, Callable[..., Any]] = field(default_factory=dict, repr=False, compare=False)
    binder: inspect.Signature | None = field(default=None, repr=False, compare=False)

    @property
    def name(self) -> str:
        """What was recorded: a circuit's or a class's name."""
        return self.box.label

    @property
    def signature(self) -> Signature | None:
        """The signature of what was recorded, if it has one."""
        return self.box.signature

    @property
    def inputs(self) -> tuple[Value, ...]:
        """The tensors that go in, in the order of the arguments."""
        return self.box.inputs

    @property
    def outputs(self) -> tuple[Value, ...]:
        """The tensors that come out, in order."""
        return self.box.outputs

    @property
    def boxes(self) -> tuple[Box, ...]:
        """The boxes directly inside."""
        return self.box.boxes

    @property
    def parameters(self) -> tuple[Value, ...]:
        """Every learned tensor, once."""
        return self.box.parameters

    @property
    def opaque(self) -> tuple[Box, ...]:
        """The boxes of a backward circuit that have no rule, and ask torch for the vector-Jacobian product."""
        return tuple(
            [box for box in self.walk() if box.call is not None and getattr(box.call.function, "opaque", False)]
        )

    def walk(self) -> Iterator[Box]:
        """Every box, outermost first, in the order of the run."""
        return self.box.walk()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the recorded circuit gives for these arguments; ShapeError where the sizes cannot be its."""
        return self.run(args, kwargs)

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any], parameters: Mapping[str, Tensor] = _NOTHING) -> Any:
        """The same, with some parameters and buffers replaced by dotted name, as `torch.func.functional_call` does."""
        if self.failed:
            raise CircuitError(f"{self.name}: the recorded run failed, so its diagram can be read but not run")
        if parameters:
            self._know(parameters)
        tensors: dict[Any, Any] = {}
        bind(self.arguments, arguments(args, kwargs, self.binder), tensors, f"{self.name}: ")
        numbers = interpreter.read_sizes(self.name, self.inputs, tensors, self.guards)
        for symbol, expression in self.symbols.items():
            if symbol in numbers:
                numbers.update([interpreter.solve(expression, numbers[symbol]) or (symbol, numbers[symbol])])
        tensors.update(self.constants)
        for number, (module, name) in self.state.items():
            full = self._names.get(number, name)
            tensors[number] = parameters[full] if full in parameters else attribute(module, name)
        for call, spent in self._program:
            interpreter.step(call, tensors, numbers, self.modules)
            for number in spent:
                tensors.pop(number, None)
        return interpreter.fill(self.result, tensors, numbers)

    def function(self) -> Callable[..., Any]:
        """A plain function that does the same, written out line by line; its text is its docstring.

        It takes the tensors in their order and asks nothing of their sizes. `torch.compile` takes it whole.

        >>> from circuits import trace
        >>> from torch import ones
        >>> halved = trace(lambda x: x / 2.0, ones(3)).function()
        >>> halved(ones(3))
        tensor([0.5000, 0.5000, 0.5000])
        """
        if self.failed:
            raise CircuitError(f"{self.name}: the recorded run failed, so its diagram can be read but not run")
        return codegen.function_of(
            self.name, self.arguments, self.result, self.inputs, self._program, self.state, self.constants,
            self.modules, self.symbols,
        )  # fmt: skip

    def _know(self, names: Iterable[str]) -> None:
        """CircuitError if one of these is no parameter or buffer of what was recorded."""
        known = set(self._names.values())
        roots = [module for number, (module, name) in self.state.items() if self._names.get(number) == name]
        for root in {id(module): module for module in roots}.values():
            known |= {name for name, _ in (*root.named_parameters(), *root.named_buffers())}
        unknown = [name for name in names if name not in known]
        if unknown:
            raise CircuitError(f"{self.name} has no parameter or buffer {', '.join(unknown)}")

    @cached_property
    def _names(self) -> dict[int, str]:
        """The name of each parameter and buffer that the run read."""
        values = [value for box in self.walk() for value in box.inputs]
        return {value.number: value.name for value in values if value.number in self.state}

    @cached_property
    def _program(self) -> tuple[tuple[Call, tuple[int, ...]], ...]:
        return interpreter.schedule(list(self.box.calls()), self.result, self.state)

    def __str__(self) -> str:
        return self.table()

    def table(self, depth: int | None = None) -> str:
        """The tracker table as text: one row a box, `depth` levels of boxes inside boxes (all, if None)."""
        return table.text(self.box, self.fixed, depth)

    def to_markdown(self, depth: int | None = None) -> str:
        """The table in GitHub's Markdown."""
        return table.markdown(self.box, self.fixed, depth)

    def _repr_html_(self) -> str:
        return table.html(self.box, self.fixed, None)

    def to_dict(self) -> dict[str, Any]:
        """The diagram as plain data, ready for JSON: boxes nested, values by number, sizes as numbers or text."""
        return table.plain(self.box, self.fixed, self.guards)
