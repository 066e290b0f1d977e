"""Listings at level "aten": the ATen operations that torch's `make_fx` records of a call, those of kernels included.

Source: torch.fx.experimental.proxy_tensor, which traces through the transforms of torch.func.
"""

import operator
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg

from circuits.diagram import Wire
from circuits.printing.functional import FunctionalCall, example_inputs
from circuits.printing.words import argument_text, arguments_text, header_lines, letters, type_text, unique_name


def graph_text(
    f: Any, inputs: tuple[Any, ...], sizes: Mapping[str, int] | None, axes: str | None, kwargs: Mapping[str, Any]
) -> str:
    """Return the ATen operations of a call as a listing; the arguments are those of `listing`."""
    call = FunctionalCall.of(f, example_inputs(f, inputs, sizes, axes, kwargs), kwargs)
    graph = make_fx(call, tracing_mode="fake", _allow_non_fake_inputs=True)(*call.tensors)
    return "\n".join(_Graph(graph, call.names, call.weights).lines())


class _Graph:
    """The lines of one graph, whose first `weights` placeholders are parameters and buffers.

    `numbers` has a value number for each node, `names` the name of each value, and `inputs` are the placeholders.
    """

    def __init__(self, module: GraphModule, names: tuple[str, ...], weights: int) -> None:
        self.module = module
        self.nodes = list(module.graph.nodes)
        self.numbers = {node: number for number, node in enumerate(self.nodes)}
        self.inputs = [node for node in self.nodes if node.op == "placeholder"]
        self.weights = weights
        self.names: dict[int, str] = {}
        pairs = list(zip(self.inputs, names, strict=True))
        for node, name in pairs[weights:] + pairs[:weights]:
            if not name.isdigit():
                self.names[self.numbers[node]] = unique_name(name, self.names.values())
        self._name_others()

    def _name_others(self) -> None:
        """Name a constant number by its text, and every other value without a name by a letter, in order."""
        fresh = letters(self.names.values())
        for node in self.nodes:
            if node.op == "get_attr" and _is_number(constant := self._constant(node)):
                self.names[self.numbers[node]] = repr(constant.item())
            elif self.numbers[node] not in self.names and (
                node.op != "call_function" or (node.users and not _getitem_nodes(node))
            ):
                self.names[self.numbers[node]] = next(fresh)

    def lines(self) -> Iterator[str]:
        """Yield the whole text, line by line."""
        inputs = [self._typed(node, node.meta["val"]) for node in self.inputs]
        constants = [node for node in self.nodes if node.op == "get_attr" and not _is_number(self._constant(node))]
        fixed = inputs[: self.weights] + [self._typed(node, self._constant(node)) for node in constants]
        yield from header_lines("", fixed, inputs[self.weights :])
        for node in self.nodes:
            if node.op == "call_function" and node.target is not operator.getitem:
                arguments = arguments_text(self._described(node.args), self._described(node.kwargs), self.names, {})
                yield f"  {self._results(node)} = {_operation_text(node.target)}{arguments}"
        yield f"  in {argument_text(self._described(self.nodes[-1].args[0]), self.names, {})} }}"

    def _results(self, node: Node) -> str:
        """Return the results of an operation with their types; an unused part of a tuple is `_`."""
        result = node.meta.get("val")
        if not isinstance(result, (tuple, list)):
            return self._typed(node, result)
        used = {part.args[1]: part for part in _getitem_nodes(node)}
        return " ".join([self._typed(used.get(place), each) for place, each in enumerate(result)]) or "_"

    def _typed(self, node: Node | None, value: Any) -> str:
        """Return the name of a node (`_` if it is unused) and, if its value is a tensor, the type of the tensor."""
        name = "_" if node is None else self.names.get(self.numbers[node], "_")
        if not isinstance(value, Tensor):
            return name
        return f"{name}:{type_text(value.dtype, (None,) * value.ndim, tuple(value.shape), 0, {})}"

    def _described(self, argument: Any) -> Any:
        """Return an argument with a wire in place of each node."""
        return map_arg(argument, lambda node: Wire(self.numbers[node]))

    def _constant(self, node: Node) -> Any:
        """Return the tensor that a `get_attr` node reads."""
        return operator.attrgetter(str(node.target))(self.module)


def _is_number(constant: Any) -> bool:
    """Return whether a constant is a plain tensor without axes, which is shown as a number."""
    return isinstance(constant, Tensor) and constant.ndim == 0 and type(constant) in (Tensor, torch.nn.Parameter)


def _getitem_nodes(node: Node) -> list[Node]:
    """Return the `getitem` nodes that unpack the results of a node; an empty list for a node with one result."""
    several = isinstance(node.meta.get("val"), (tuple, list))
    return [user for user in node.users if user.target is operator.getitem] if several else []


def _operation_text(target: Any) -> str:
    """Return `log` for aten.log.default and `mul.Tensor` for aten.mul.Tensor; other operators keep their namespace."""
    name = (
        f"{target}" if isinstance(target, torch._ops.OpOverload) else getattr(target, "__name__", type(target).__name__)
    )
    return name.removeprefix("aten.").removesuffix(".default")


__all__ = ["graph_text"]
