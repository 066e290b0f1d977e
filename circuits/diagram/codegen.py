"""Code generation: a diagram as one plain Python function, one line for each call, which torch.compile accepts.

The interpreter looks up sizes, values and their last uses on every run; the generated code has local variables and
`del` statements for them. Constant arguments that are not an int, bool, str or None are globals of the function.

The parameters have the names of the arguments of the diagram. No generated name (`v0`, `n0`, `t0`, `global0`) equals
one of them: if an argument has a name of this form, all generated names begin with an underscore.
"""

import keyword
import operator
import re
import unicodedata
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import sympy
from torch import nn

from circuits.diagram.boxes import Call, Value
from circuits.diagram.changes import Change, Place
from circuits.diagram.containers import rebuild
from circuits.diagram.formulas import PYTHON_GLOBALS, python_code
from circuits.diagram.interpreter import refuse_unrecorded
from circuits.diagram.settings import SETTINGS, Setting, with_gradients
from circuits.diagram.structure import Scalar, Struct, Wire, fill, leaves, wires

Program = Iterable[tuple[Call, tuple[int, ...]]]
"""Calls in order, each with the numbers of the values that are unused after it."""


class Source:
    """The source of a function under construction: its lines, and the globals that they use.

    `symbol_names` has a Python name for each symbol; `known` are the symbols that the lines so far assign. `prefix`
    begins every name that is generated, so that none of them is one of `parameters`.
    """

    def __init__(self, parameters: Iterable[str] = ()) -> None:
        self.parameters: tuple[str, ...] = tuple(parameters)
        self.prefix: str = unused_prefix(self.parameters)
        self.lines: list[str] = []
        self.globals: dict[str, Any] = {**PYTHON_GLOBALS, "rebuild": rebuild}
        self.symbol_names: dict[sympy.Symbol, str] = {}
        self.known: set[sympy.Symbol] = set()

    def compiled(self, name: str) -> Callable[..., Any]:
        """Compile the lines and return the function, with its source as docstring."""
        body = "\n".join([f"    {line}" for line in self.lines])
        code = f"def function({', '.join(self.parameters)}):\n{body}\n"
        exec(compile(code, f"<the diagram of {name}>", "exec"), self.globals)
        function = self.globals.pop("function")
        function.__name__ = function.__qualname__ = name if name.isidentifier() else "diagram"
        function.__doc__ = code
        return function

    # Expressions

    def add_global(self, value: Any) -> str:
        """Make a global of a value that has no literal, and return its name."""
        name = f"{self.prefix}global{len(self.globals)}"
        self.globals[name] = value
        return name

    def variable(self, number: int) -> str:
        """Return the name of the variable of a value, by its number."""
        return f"{self.prefix}v{number}"

    def expression(self, description: Any) -> str:
        """Return the Python expression for the value that a description describes."""
        if isinstance(description, Wire):
            return self.variable(description.number)
        if isinstance(description, Scalar):
            return self.number_expression(description.expression)
        if isinstance(description, Struct) and any(True for _ in leaves(description)):
            return self.container_expression(description)
        if isinstance(description, Struct):
            description = fill(description, operator.itemgetter(0), operator.itemgetter(0))
        if isinstance(description, (bool, int, str, type(None))) and type(description) in (bool, int, str, type(None)):
            return repr(description)
        return self.add_global(description)

    def container_expression(self, struct: Struct) -> str:
        """Return the Python expression for a container."""
        parts = [self.expression(part) for part in struct.parts]
        if struct.kind is slice:
            return f"slice({', '.join(parts)})"
        if struct.kind is list:
            return f"[{', '.join(parts)}]"
        if struct.kind is tuple:
            return f"({''.join([f'{part}, ' for part in parts])})"
        if struct.kind is dict:
            pairs = zip(struct.keys, parts, strict=True)
            return f"{{{', '.join([f'{self.expression(key)}: {part}' for key, part in pairs])}}}"
        kind, keys = self.add_global(struct.kind), self.add_global(struct.keys)
        return f"rebuild({kind}, {keys}, ({''.join([f'{part}, ' for part in parts])}))"

    def number_expression(self, expression: Any) -> str:
        """Return the Python expression for a number that depends on sizes."""
        if not isinstance(expression, sympy.Basic):
            return repr(expression)
        names = {symbol: self.symbol_name(symbol) for symbol in sorted(expression.free_symbols, key=str)}
        return f"({python_code(expression, names)})"

    def symbol_name(self, symbol: Any) -> str:
        """Return the name `n0`, `n1`, ... that the code uses for a symbol of the diagram."""
        return self.symbol_names.setdefault(symbol, f"{self.prefix}n{len(self.symbol_names)}")

    # Statements

    def assign(self, description: Any, expression: str) -> None:
        """Add the lines that assign the value of `expression` to the variables of the wires and symbols in it.

        `description` describes that value. If it has no wires and symbols, no variable is assigned.
        """
        if isinstance(description, Wire):
            self.lines.append(f"{self.variable(description.number)} = {expression}")
        elif isinstance(description, Scalar) and isinstance(description.expression, sympy.Symbol):
            self.lines.append(f"{self.symbol_name(description.expression)} = {expression}")
        elif isinstance(description, Struct) and any(True for _ in leaves(description)):
            name = f"{self.prefix}t{len(self.lines)}"
            self.lines.append(f"{name} = {expression}")
            for place, part in enumerate(description.parts):
                if any(True for _ in leaves(part)):
                    self.assign(part, self.part_expression(name, description, place))
        else:
            self.lines.append(expression)

    def part_expression(self, name: str, struct: Struct, place: int) -> str:
        """Return the Python expression for one part of the container called `name`."""
        if not struct.keys or struct.kind is deque:
            return f"{name}[{place}]"
        if issubclass(struct.kind, Mapping):
            return f"{name}[{self.expression(struct.keys[place])}]"
        return f"{name}.{struct.keys[place]}"

    def apply(self, changes: Sequence[Change], given: Iterable[str]) -> None:
        """Add the lines that make changes, in objects that are found first; `given` are the names of the arguments."""
        pairs = zip(given, self.parameters, strict=True)
        named = f"{{{', '.join([f'{name!r}: {parameter}' for name, parameter in pairs])}}}"
        owners = [f"{self.prefix}t{len(self.lines) + place}" for place in range(len(changes))]
        for change, owner in zip(changes, owners, strict=True):
            self.lines.append(f"{owner} = {self.add_global(change.place.find)}({named})")
        for change, owner in zip(changes, owners, strict=True):
            self.lines.append(f"{self.add_global(change.apply)}({owner}, {self.expression(change.after)})")

    def read_sizes(self, inputs: Iterable[Value], symbols: Mapping[Any, Any]) -> None:
        """Add the lines that compute each symbolic size from the shapes of the inputs, then each of torch's symbols."""
        pairs: list[tuple[Any, str]] = [(size, f"{self.variable(value.number)}.shape[{place - value.mapped}]")
                 for value in inputs for place, size in enumerate(value.sizes) if place >= value.mapped]  # fmt: skip
        known = -1
        while known < len(self.known):
            known = len(self.known)
            for size, actual in pairs:
                self.solve_size(size, actual)
        for symbol, expression in symbols.items():
            if symbol in self.known:
                self.solve_size(expression, self.symbol_name(symbol))

    def solve_size(self, size: Any, actual: str) -> None:
        """Add the line that computes k from `actual`, the code of the size `h*k`, if h is known and k is not.

        No line is added if the number of unknown symbols is not 1, or if `size` is not a multiple of the unknown one.
        """
        unknown = [symbol for symbol in getattr(size, "free_symbols", ()) if symbol not in self.known]
        factor = size.as_coefficient(unknown[0]) if len(unknown) == 1 else None
        if factor is not None:
            numerator, denominator = factor.as_numer_denom()
            times = "" if denominator == 1 else f" * {self.number_expression(denominator)}"
            over = "" if numerator == 1 else f" // {self.number_expression(numerator)}"
            self.known.add(unknown[0])
            self.lines.append(f"{self.symbol_name(unknown[0])} = {actual}{times}{over}")

    def setting(self, setting: Setting) -> str:
        """Return the line that begins the `with` block in which a setting has a value."""
        name, value = setting
        if name == "gradients":
            return f"with torch.{'enable_grad' if value else 'no_grad'}():"
        return f"with {self.add_global(SETTINGS[name])}({self.expression(value)}):"

    def run_call(self, call: Call, modules: Mapping[str, Any]) -> None:
        """Add the lines of one call, inside a `with` block for autocast and for each setting that the code changed."""
        function = modules[call.function] if isinstance(call.function, str) else call.function
        args, kwargs = call.args, call.kwargs
        arguments = [self.expression(each) for each in (args.parts if isinstance(args, Struct) else args)]
        named = zip(kwargs.keys, kwargs.parts, strict=True) if isinstance(kwargs, Struct) else kwargs.items()
        arguments += [f"{name}={self.expression(each)}" for name, each in named]
        start = len(self.lines)
        self.assign(call.result, f"{self.add_global(function)}({', '.join(arguments)})")
        contexts = [f"with torch.autocast({call.autocast[0]!r}, dtype={call.autocast[1]}):"] if call.autocast else []
        contexts += [self.setting(each) for each in with_gradients(call.settings, call.gradient)]
        for line in contexts:
            self.lines[start:] = [line, *[f"    {inner}" for inner in self.lines[start:]]]


USED_NAMES = (*PYTHON_GLOBALS, "rebuild", "getattr", "slice", "abs", "max", "min", "round", "float", "int")
"""The names that the code refers to besides its own: the modules and functions of `Source.globals`, and builtins."""


def parameter_names(names: Iterable[str]) -> list[str]:
    """Return a valid and unique parameter name for each argument name: `rest_0` for `rest.0`.

    >>> parameter_names(["rest.0", "rest_0", "math", "class"])
    ['rest_0', 'input_1', 'input_2', 'input_3']
    """
    words = [unicodedata.normalize("NFKC", name.replace(".", "_")) for name in names]
    found: list[str] = []
    for place, word in enumerate(words):
        if not word.isidentifier() or keyword.iskeyword(word) or word in (*found, *USED_NAMES):
            word = f"input_{place}"
            while word in (*found, *words):
                word += "_"
        found.append(word)
    return found


def unused_prefix(parameters: Iterable[str]) -> str:
    """Return the shortest string of underscores with which no generated name is one of the parameters.

    >>> unused_prefix(["x", "v"]), unused_prefix(["v1", "_t0"])
    ('', '__')
    """
    generated = [match[1] for name in parameters if (match := re.fullmatch(r"(_*)(v|n|t|global)\d+", name))]
    return "_" * (1 + max(map(len, generated))) if generated else ""


def state_expression(source: Source, module: nn.Module, path: str) -> str:
    """Return the Python expression for a parameter or buffer, read from its module."""
    *parents, name = path.split(".")
    owner = operator.attrgetter(".".join(parents))(module) if parents else module
    return f"getattr({source.add_global(owner)}, {name!r})"


def del_lines(source: Source, numbers: Iterable[int], assigned: set[int]) -> list[str]:
    """Return the `del` statement for those of these values that the function has assigned, if any."""
    unused = [source.variable(number) for number in numbers if number in assigned]
    return [f"del {', '.join(unused)}"] if unused else []


def generate_function(
    name: str, arguments: Struct, result: Any, inputs: Iterable[Value], program: Program,
    state: Mapping[int, tuple[nn.Module, str]], constants: Mapping[int, Any], modules: Mapping[str, Any],
    symbols: Mapping[Any, Any], changes: Sequence[Change], held: Iterable[tuple[int, Place, Any]],
) -> Callable[..., Any]:  # fmt: skip
    """Return a Python function that computes the same as the diagram with these parts; its docstring is its source.

    Args:
        name: The name of the function; "diagram" is used if it is not a valid name.
        arguments: The description of the arguments of the diagram, by name; those without tensors are not parameters.
        result: The description of the result.
        inputs: The input values, whose shapes give the symbolic sizes.
        program: The calls in order, each with the values that are unused after it.
        state: The module and dotted name of each parameter and buffer, by value number.
        constants: The other tensors that existed before the run, by value number.
        modules: The modules and methods that calls refer to by dotted path.
        symbols: The expression in torch's symbols of each symbolic axis.
        changes: What the function assigns in objects that exist before it is called.
        held: The value number, the object and the key of each tensor that the function reads from such an object.
    """
    changed = {change.place.path[0] for change in changes if change.place.owner is None}
    every = zip(arguments.keys, arguments.parts, strict=True)
    given = {key: part for key, part in every if wires(part) or key in changed}
    source = Source(parameter_names(given))
    source.lines += [f"{source.add_global(change.check)}()" for change in changes if change.place.owner is not None]
    for word, part in zip(source.parameters, given.values(), strict=True):
        source.assign(part, word)
    source.read_sizes(inputs, symbols)
    for number, (module, path) in state.items():
        source.lines.append(f"{source.variable(number)} = {state_expression(source, module, path)}")
    for number, tensor in constants.items():
        source.lines.append(f"{source.variable(number)} = {source.add_global(tensor)}")
    for number, place, key in held:
        source.lines.append(f"{source.variable(number)} = {source.add_global(place.tensor)}({source.expression(key)})")
    assigned = {*[number for part in given.values() for number in wires(part)], *state, *constants}
    assigned |= {number for number, *_ in held}
    for call, unused in program:
        refuse_unrecorded({*wires(call.args), *wires(call.kwargs)} - assigned)
        source.run_call(call, modules)
        assigned |= set(wires(call.result))
        source.lines += del_lines(source, unused, assigned)
    refuse_unrecorded(set(wires(result)) - assigned)
    source.apply(changes, given)
    source.lines.append(f"return {source.expression(result)}")
    return source.compiled(name)


__all__ = ["generate_function"]
