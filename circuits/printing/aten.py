"""The text of what torch's `make_fx` sees of a call: ATen operations, kernels and transforms as they run.

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
from circuits.printing.functional import Call, made_inputs
from circuits.printing.words import another, argument_text, given_text, letters, opening, type_text


def graph_text(
    f: Any, inputs: tuple[Any, ...], sizes: Mapping[str, int] | None, axes: str | None, kwargs: Mapping[str, Any]
) -> str:
    """The ATen operations of a call, in the words of a listing."""
    call = Call.of(f, made_inputs(f, inputs, sizes, axes, kwargs), kwargs)
    graph = make_fx(call, tracing_mode="fake", _allow_non_fake_inputs=True)(*call.tensors)
    return "\n".join(_Graph(graph, call.names, call.weights).lines())


class _Graph:
    """The lines of one graph, whose first placeholders are the weights."""

    def __init__(self, module: GraphModule, names: tuple[str, ...], weights: int) -> None:
        self.module = module
        self.nodes = list(module.graph.nodes)
        self.numbers = {node: number for number, node in enumerate(self.nodes)}
        self.given = [node for node in self.nodes if node.op == "placeholder"]
        self.weights = weights
        self.names: dict[int, str] = {}
        pairs = list(zip(self.given, names, strict=True))
        for node, name in pairs[weights:] + pairs[:weights]:
            if not name.isdigit():
                self.names[self.numbers[node]] = another(name, self.names.values())
        self._name_all()

    def _name_all(self) -> None:
        """A number that the code writes out is its text; the rest has letters in the order of the run."""
        fresh = letters(self.names.values())
        for node in self.nodes:
            if node.op == "get_attr" and _is_number(held := self._held(node)):
                self.names[self.numbers[node]] = repr(held.item())
            elif self.numbers[node] not in self.names and (
                node.op != "call_function" or (node.users and not _parts(node))
            ):
                self.names[self.numbers[node]] = next(fresh)

    def lines(self) -> Iterator[str]:
        """The whole text, line by line."""
        given = [self._typed(node, node.meta["val"]) for node in self.given]
        held = [node for node in self.nodes if node.op == "get_attr" and not _is_number(self._held(node))]
        fixed = given[: self.weights] + [self._typed(node, self._held(node)) for node in held]
        yield from opening("", fixed, given[self.weights :])
        for node in self.nodes:
            if node.op == "call_function" and node.target is not operator.getitem:
                words = given_text(self._wired(node.args), self._wired(node.kwargs), self.names, {})
                yield f"  {self._makes(node)} = {_called(node.target)}{words}"
        yield f"  in {argument_text(self._wired(self.nodes[-1].args[0]), self.names, {})} }}"

    def _makes(self, node: Node) -> str:
        """What comes out of an operation; parts of a tuple that nobody takes are `_`."""
        made = node.meta.get("val")
        if not isinstance(made, (tuple, list)):
            return self._typed(node, made)
        taken = {part.args[1]: part for part in _parts(node)}
        return " ".join([self._typed(taken.get(place), each) for place, each in enumerate(made)]) or "_"

    def _typed(self, node: Node | None, made: Any) -> str:
        name = "_" if node is None else self.names.get(self.numbers[node], "_")
        if not isinstance(made, Tensor):
            return name
        return f"{name}:{type_text(made.dtype, (None,) * made.ndim, tuple(made.shape), 0, {})}"

    def _wired(self, argument: Any) -> Any:
        return map_arg(argument, lambda node: Wire(self.numbers[node]))

    def _held(self, node: Node) -> Any:
        return operator.attrgetter(str(node.target))(self.module)


def _is_number(held: Any) -> bool:
    return isinstance(held, Tensor) and held.ndim == 0 and type(held) in (Tensor, torch.nn.Parameter)


def _parts(node: Node) -> list[Node]:
    """The nodes that take one of what a node makes, where it makes several."""
    several = isinstance(node.meta.get("val"), (tuple, list))
    return [user for user in node.users if user.target is operator.getitem] if several else []


def _called(target: Any) -> str:
    """`log` for aten.log.default, `mul.Tensor` for aten.mul.Tensor; what is not ATen's says whose it is."""
    name = (
        f"{target}" if isinstance(target, torch._ops.OpOverload) else getattr(target, "__name__", type(target).__name__)
    )
    return name.removeprefix("aten.").removesuffix(".default")


__all__ = ["graph_text"]
