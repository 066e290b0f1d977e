"""listing: a traced circuit as text, one line an operation, with the axes of every tensor where they are known.

It is the counterpart of a jaxpr: the inputs, each operation with its results and arguments, the outputs.

Source: J. Bradbury et al., JAX, 2018, whose `make_jaxpr` prints functions in this form.
"""

import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import torch

from circuits.diagram import Box, Diagram, Value, wires, without_defaults
from circuits.errors import CircuitError, entry_point
from circuits.printing.aten import graph_text
from circuits.printing.box_queries import (
    box_text,
    call_arguments,
    failure_text,
    has_failed,
    is_leaf,
    is_one_operation,
    mapped_inputs,
    operation_text,
    result_numbers,
)
from circuits.printing.value_names import ValueNames
from circuits.printing.words import argument_text, arguments_text, header_lines, type_text
from circuits.recording import refuse_target, trace

Inside = Literal["nested", "inline", "closed"]
"""How boxes inside a box are shown: in braces below the line of the box, in place of that line, or not at all."""


@entry_point
def listing(
    f: Any,
    /,
    *inputs: Any,
    sizes: Mapping[str, int] | None = None,
    axes: str | None = None,
    level: Literal["torch", "aten"] = "torch",
    inside: Inside = "nested",
    **kwargs: Any,
) -> str:
    """Return a circuit, a module, a function of tensors or a diagram as text, one line an operation.

    The text begins with the parameters, by dotted name, and, after a semicolon, the inputs. Each further line has the
    results of one operation and its arguments in the order of the code; the last line has the outputs.

    - An axis is shown with its size where it occurs first, `y=20`; an axis without a name is shown as its size.
    - A value has the same name inside a box and outside. Inside torch.vmap a mapped argument `x` is named `x'`, and a
      mapped axis has a star.
    - `_` is an unused result. `?` is a value whose computation was not recorded, or a result that does not exist
      because the run failed.
    - An operation whose name ends in `_` overwrites its first argument.
    - A box with boxes inside is shown with the arguments of its call, without those that have their default value. A
      module that consists of one operation is shown as that operation.
    - The reverse pass of torch.func's grad and vjp is one line, `grad`.

    The circuit is traced with tensors that have no data, so nothing is computed.

    Args:
        f: A circuit, module, function or diagram.
        inputs: Example inputs, as for `trace`. A diagram takes none at level "torch".
        sizes: The sizes of axes, as for `trace`; not for a diagram, nor together with inputs at level "aten".
        axes: The axes of the inputs, as for `trace`; allowed where `sizes` are.
        level: "torch" lists the torch operations of the code. "aten" lists the ATen operations that torch's `make_fx`
            records: kernels as they run, and the computations of torch.func's grad, vjp, jacrev and vmap, to any order.
        inside: How boxes inside a box are shown: "nested" in braces below the line of the box, "inline" in place of
            that line, "closed" not at all.
        kwargs: Keyword arguments of `f`; a diagram takes none at level "torch".

    Raises:
        CircuitError: If `level` or `inside` is not one of the above, if inputs or sizes are given where they are not
            allowed, or if an axis has no size and `level` is "aten".

    >>> print(listing(lambda x: torch.log(x) / torch.log(torch.tensor(2.0)), torch.ones(())))
    { x:f32[] .
      a:f32[] = log x
      b:f32[] = log 2.0
      c:f32[] = div a b
      in c }
    """
    refuse_target("listing", f)
    if level not in ("torch", "aten") or inside not in ("nested", "inline", "closed"):
        raise CircuitError(
            "listing: expected level 'torch' or 'aten' and inside 'nested', 'inline' or 'closed', "
            f"got {level!r} and {inside!r}"
        )
    if level == "aten":
        return graph_text(f, inputs, sizes, axes, kwargs)
    if not isinstance(f, Diagram):
        f = trace(f, *inputs, sizes=sizes, axes=axes, **kwargs)
    elif inputs or kwargs or sizes or axes:
        raise CircuitError(f"{f.name} is a diagram: it was recorded with its inputs and sizes, and takes no others")
    return "\n".join(_Listing(f, inside).lines())


class _Listing:
    """The lines of one diagram. `symbols` maps each symbol of torch to an expression in axis names."""

    def __init__(self, diagram: Diagram, inside: Inside) -> None:
        self.diagram = diagram
        self.inside = inside
        self.symbols = dict(_torch_symbols(diagram))
        self.values = ValueNames(diagram)
        self.names = self.values.names

    def lines(self) -> Iterator[str]:
        """Yield the whole text, line by line."""
        shown: dict[str, str] = {}
        fixed = [self._typed(value, shown) for value in self.values.fixed]
        yield from header_lines("", fixed, [self._typed(value, shown) for value in self.values.inputs])
        root = self.diagram.box
        yield from self._leaf_line(root, "  ", shown) if is_leaf(root) else self._body_lines(root, "  ", shown)
        out = "?" if self.diagram.failed else argument_text(self.diagram.result, self.names, self.symbols)
        yield f"  in {out} }}"

    def _body_lines(self, box: Box, indent: str, shown: dict[str, str]) -> Iterator[str]:
        """Yield the lines of the boxes inside a box; `shown` has the sizes of axes shown so far, and is extended."""
        for inner in box.boxes:
            if is_leaf(inner):
                yield from self._leaf_line(inner, indent, shown)
            elif is_one_operation(inner) or (self.inside == "inline" and inner.kind != "transform"):
                yield from self._body_lines(inner, indent, shown)
            else:
                yield from self._box_lines(inner, indent, shown)

    def _leaf_line(self, box: Box, indent: str, shown: dict[str, str]) -> Iterator[str]:
        """Yield the line of an operation, or no line if its results are shown as numbers where they are used."""
        if box.outputs and all(value.number in self.values.literals for value in box.outputs):
            return
        if box.call is None:
            arguments = self._names_of(box.inputs)
        else:
            args, kwargs = call_arguments(box.call)
            if box.call.function in _WITHOUT_DEFAULTS:
                args, kwargs = without_defaults(_WITHOUT_DEFAULTS[box.call.function], args, kwargs)
            arguments = arguments_text(args, kwargs, self.names, self.symbols)
        yield f"{indent}{self._results(box, shown)} = {operation_text(box)}{arguments}{failure_text(box)}"

    def _box_lines(self, box: Box, indent: str, shown: dict[str, str]) -> Iterator[str]:
        """Yield the line of a box with boxes inside and, unless `inside` is "closed", their lines in braces."""
        inputs = [value for value in box.inputs if value.role not in ("parameter", "buffer")]
        arguments = self._names_of(inputs) if box.given is None else self._call_text(box.given)
        yield f"{indent}{self._results(box, shown)} = {box_text(box)}{arguments}{failure_text(box)}"
        if self.inside == "closed":
            return
        shown, indent = dict(shown), f"{indent}  "
        inputs = list(mapped_inputs(box)) if box.kind == "transform" else inputs
        yield from header_lines(indent, [], [self._typed(value, shown) for value in inputs])
        yield from self._body_lines(box, f"{indent}  ", shown)
        outputs = box.inside if box.kind == "transform" else box.outputs
        names = [self.names.get(value.number, "_") for value in outputs]
        result = "?" if has_failed(box) else names[0] if len(names) == 1 else f"({', '.join(names)})"
        yield f"{indent}  in {result} }}"

    def _results(self, box: Box, shown: dict[str, str]) -> str:
        """Return the results of a box with their types, `_` for one that is no tensor, `?` if the box failed."""
        if has_failed(box):
            return "?"
        values = {value.number: value for value in box.outputs}
        numbers = list(values) if box.call is None or box.boxes else list(result_numbers(box.call.result))
        return " ".join([self._typed(values[each], shown) if each in values else "_" for each in numbers]) or "_"

    def _typed(self, value: Value, shown: dict[str, str]) -> str:
        """Return the name and type of a value: `a:f32[y=20 k]`."""
        text = type_text(value.dtype, value.axes, value.sizes, value.mapped, shown)
        return f"{self.names.get(value.number, '_')}:{text}"

    def _call_text(self, given: Any) -> str:
        """Return the arguments of the call of a box as text; a tensor that no box of the diagram uses is `_`."""
        args, kwargs = given.parts
        names = {number: self.names.get(number, "_") for number in wires(given)}
        return arguments_text(args.parts, dict(zip(kwargs.keys, kwargs.parts, strict=True)), names, self.symbols)

    def _names_of(self, values: Iterable[Value]) -> str:
        return "".join([f" {self.names.get(value.number, '_')}" for value in values])


_WITHOUT_DEFAULTS: dict[Any, tuple[inspect.Parameter, ...]] = {
    torch.autograd.grad: tuple(inspect.signature(torch.autograd.grad).parameters.values())
}
"""The parameters of each operation whose arguments are shown without defaults: torch.func passes all of them."""


def _torch_symbols(diagram: Diagram) -> Iterator[tuple[Any, Any]]:
    """Yield each symbol of torch with its value in axis names: s with `h/16` if the size of h is `16*s` in torch."""
    for axis, expression in diagram.symbols.items():
        for symbol in getattr(expression, "free_symbols", ()):
            yield symbol, axis * symbol / expression


__all__ = ["listing"]
