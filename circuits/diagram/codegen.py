"""A diagram as one plain Python function: line by line what it does, and nothing else, which torch.compile takes.

What a diagram looks up on every call (its sizes, where its values are, when they go) is written out. What is no number
and no word stands in the function's globals.
"""

import keyword
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import sympy
import torch
from torch import nn
from torch.utils._sympy.printers import PythonPrinter

from circuits.diagram.boxes import Call, Value
from circuits.diagram.structure import Scalar, Struct, Wire, change, leaves, rebuild, wires

Program = Iterable[tuple[Call, tuple[int, ...]]]
"""Calls in order, each with the values that nobody reads after it."""


class Source:
    """The lines of a function, and the globals that they name."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.globals: dict[str, Any] = {"torch": torch, "math": math, "rebuild": rebuild}
        self.symbols: dict[sympy.Symbol, sympy.Symbol] = {}
        self.known: set[sympy.Symbol] = set()

    def made(self, name: str, parameters: Iterable[str]) -> Callable[..., Any]:
        """The function."""
        body = "\n".join([f"    {line}" for line in self.lines])
        code = f"def function({', '.join(parameters)}):\n{body}\n"
        exec(compile(code, f"<the diagram of {name}>", "exec"), self.globals)
        found = self.globals.pop("function")
        found.__name__ = found.__qualname__ = name if name.isidentifier() else "diagram"
        found.__doc__ = code
        return found

    # Expressions

    def held(self, value: Any) -> str:
        """A value that the code cannot write out, by the name of a global."""
        name = f"held{len(self.globals)}"
        self.globals[name] = value
        return name

    def text(self, description: Any) -> str:
        """What gives the value that a description describes."""
        if isinstance(description, Wire):
            return f"v{description.number}"
        if isinstance(description, Scalar):
            return self.number(description.expression)
        if isinstance(description, Struct) and any(True for _ in leaves(description)):
            return self.container(description)
        if isinstance(description, Struct):
            description = change(description, operator.itemgetter(0), operator.itemgetter(0))
        if isinstance(description, (bool, int, str, type(None))) and type(description) in (bool, int, str, type(None)):
            return repr(description)
        return self.held(description)

    def container(self, struct: Struct) -> str:
        """A container of what its parts give."""
        parts = [self.text(part) for part in struct.parts]
        if struct.kind is slice:
            return f"slice({', '.join(parts)})"
        if struct.kind is list:
            return f"[{', '.join(parts)}]"
        if struct.kind is tuple:
            return f"({''.join([f'{part}, ' for part in parts])})"
        if struct.kind is dict:
            pairs = zip(struct.keys, parts, strict=True)
            return f"{{{', '.join([f'{self.text(key)}: {part}' for key, part in pairs])}}}"
        return f"rebuild({self.held(struct.kind)}, {self.held(struct.keys)}, ({''.join([f'{p}, ' for p in parts])}))"

    def number(self, expression: Any) -> str:
        """A number that depends on sizes, in Python's arithmetic."""
        if not isinstance(expression, sympy.Basic):
            return repr(expression)
        clean = {symbol: self.symbol(symbol) for symbol in expression.free_symbols}
        return f"({PythonPrinter().doprint(expression.xreplace(clean))})"

    def symbol(self, symbol: Any) -> sympy.Symbol:
        """A symbol under a name that Python takes."""
        return self.symbols.setdefault(
            symbol, sympy.Symbol(f"n{len(self.symbols)}", integer=symbol.is_integer, positive=symbol.is_positive)
        )

    # Statements

    def assign(self, description: Any, expression: str) -> None:
        """Give names to what comes out of an expression."""
        if isinstance(description, Wire):
            self.lines.append(f"v{description.number} = {expression}")
        elif isinstance(description, Scalar) and isinstance(description.expression, sympy.Symbol):
            self.lines.append(f"{self.symbol(description.expression)} = {expression}")
        elif isinstance(description, Struct) and any(True for _ in leaves(description)):
            name = f"t{len(self.lines)}"
            self.lines.append(f"{name} = {expression}")
            for place, part in enumerate(description.parts):
                if any(True for _ in leaves(part)):
                    self.assign(part, self.part(name, description, place))
        else:
            self.lines.append(expression)

    def part(self, name: str, struct: Struct, place: int) -> str:
        """What gives one part of a container."""
        if not struct.keys:
            return f"{name}[{place}]"
        if issubclass(struct.kind, Mapping):
            return f"{name}[{self.text(struct.keys[place])}]"
        return f"{name}.{struct.keys[place]}"

    def sizes(self, inputs: Iterable[Value], raw: Mapping[Any, Any]) -> None:
        """The size of each free axis, off the inputs; then the symbols that torch knows them by."""
        pairs: list[tuple[Any, str]] = [(size, f"v{value.number}.shape[{place - value.mapped}]")
                 for value in inputs for place, size in enumerate(value.sizes) if place >= value.mapped]  # fmt: skip
        known = -1
        while known < len(self.known):
            known = len(self.known)
            for size, actual in pairs:
                self.solve(size, actual)
        for symbol, expression in raw.items():
            if symbol in self.known:
                self.solve(expression, f"{self.symbol(symbol)}")

    def solve(self, size: Any, actual: str) -> None:
        """Write out the one symbol of a size that is not known yet, if the size is a multiple of it: k of h k."""
        unknown = [symbol for symbol in getattr(size, "free_symbols", ()) if symbol not in self.known]
        factor = size.as_coefficient(unknown[0]) if len(unknown) == 1 else None
        if factor is not None:
            over, under = factor.as_numer_denom()
            times = "" if under == 1 else f" * {self.number(under)}"
            by = "" if over == 1 else f" // {self.number(over)}"
            self.known.add(unknown[0])
            self.lines.append(f"{self.symbol(unknown[0])} = {actual}{times}{by}")

    def call(self, call: Call, modules: Mapping[str, Any]) -> None:
        """Run one call as it was recorded: in the same autocast, watched by autograd or not."""
        function = modules[call.function] if isinstance(call.function, str) else call.function
        args, kwargs = call.args, call.kwargs
        given = [self.text(each) for each in (args.parts if isinstance(args, Struct) else args)]
        named = zip(kwargs.keys, kwargs.parts, strict=True) if isinstance(kwargs, Struct) else kwargs.items()
        given += [f"{name}={self.text(each)}" for name, each in named]
        start = len(self.lines)
        self.assign(call.result, f"{self.held(function)}({', '.join(given)})")
        around = [f"with torch.autocast({call.autocast[0]!r}, dtype={call.autocast[1]}):"] if call.autocast else []
        around += [] if call.gradient else ["with torch.no_grad():"]
        for line in around:
            self.lines[start:] = [line, *[f"    {inner}" for inner in self.lines[start:]]]


def parameters(names: Iterable[str]) -> list[str]:
    """Names of arguments as those of parameters: `rest_0` for `rest.0`."""
    found: list[str] = []
    for name in names:
        word = name.replace(".", "_")
        fit = word.isidentifier() and not keyword.iskeyword(word) and word not in (*found, "torch", "math", "rebuild")
        found.append(word if fit else f"input_{len(found)}")
    return found


def tensor_of(source: Source, module: nn.Module, path: str) -> str:
    """What reads a parameter or buffer off its module."""
    *way, name = path.split(".")
    owner = operator.attrgetter(".".join(way))(module) if way else module
    return f"getattr({source.held(owner)}, {name!r})"


def spent_line(numbers: Iterable[int], made: set[int]) -> list[str]:
    """What lets values go that nobody reads any more."""
    gone = [f"v{number}" for number in numbers if number in made]
    return [f"del {', '.join(gone)}"] if gone else []


def function_of(
    name: str, arguments: Struct, result: Any, inputs: Iterable[Value], program: Program,
    state: Mapping[int, tuple[nn.Module, str]], constants: Mapping[int, Any], modules: Mapping[str, Any],
    raw: Mapping[Any, Any],
) -> Callable[..., Any]:  # fmt: skip
    """The function of a diagram that has these parts."""
    source = Source()
    given = {key: part for key, part in zip(arguments.keys, arguments.parts, strict=True) if wires(part)}
    names = parameters(given)
    for word, part in zip(names, given.values(), strict=True):
        source.assign(part, word)
    source.sizes(inputs, raw)
    for number, (module, path) in state.items():
        source.lines.append(f"v{number} = {tensor_of(source, module, path)}")
    for number, tensor in constants.items():
        source.lines.append(f"v{number} = {source.held(tensor)}")
    made = {*[number for part in given.values() for number in wires(part)], *state, *constants}
    for call, spent in program:
        source.call(call, modules)
        made |= set(wires(call.result))
        source.lines += spent_line(spent, made)
    source.lines.append(f"return {source.text(result)}")
    return source.made(name, names)


__all__ = ["function_of"]
