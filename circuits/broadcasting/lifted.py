"""Run a lift: tensors into normal order, the circuit over all the lifted axes, the answers back.

The circuit's own `...` takes the lifted axes where it can (one run, its fast kernels with it); else torch.vmap maps it
over one axis after another, always from and to the front, since non-strict torch.export fails on other `out_dims`.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, section 2.3.2; torch.func.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils import _pytree

from circuits.broadcasting.layout import Gap, Ranks, Stand, Standing, restoring, standing
from circuits.broadcasting.plan import Plan
from circuits.checking import Circuit
from circuits.errors import CircuitError

Randomness = Literal["error", "different", "same"]


class Lift:
    """Runs a plan. How the tensors of a call stand is worked out once for their numbers of axes, then remembered."""

    def __init__(self, circuit: Circuit, plan: Plan, chunk_size: int | None, randomness: Randomness) -> None:
        self.circuit = circuit
        self.plan = plan
        self.chunk_size = chunk_size
        self.randomness: Randomness = randomness
        self.front = plan.front and randomness != "same"
        self.places = tuple([_place(circuit, name) for name in (*circuit.inputs, *plan.optional)])
        self.first = self.places == tuple(range(len(self.places)))
        self.known: dict[Ranks, Standing] = {}
        self.ways_back: dict[tuple[int, int], tuple[int, ...] | None] = {}

    def __call__(self, f: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The answer of `f` at every index."""

        def run(*tensors: Any) -> Any:
            if self.first:
                return f(*tensors, *args[len(tensors) :], **kwargs)
            new_args, new_kwargs = list(args), dict(kwargs)
            for place, tensor in zip(self.places, tensors):  # noqa: B905  (as many: they were read off these places)
                if isinstance(place, str):
                    new_kwargs[place] = tensor
                else:
                    new_args[place] = tensor
            return f(*new_args, **new_kwargs)

        tensors = [kwargs[place] if isinstance(place, str) else args[place] for place in self.places]
        stands = self.standing(tuple([each.ndim if isinstance(each, Tensor) else None for each in tensors]))
        for at, order in enumerate(stands.orders):
            if order is not None:
                tensors[at] = tensors[at].permute(order)
        sizes = [tensors[at].shape[place] for at, place in stands.sizes]
        if not sizes:
            answer = run(*tensors)
        elif self.front:
            answer = self.at_the_front(run, tensors, stands, sizes)
        else:
            answer = self.mapped(run, tensors, stands.stands, sizes)
        return self.back(answer)

    def standing(self, ranks: Ranks) -> Standing:
        """How tensors of these ranks stand; torch.compile and torch.export see it worked out, not remembered."""
        if torch.compiler.is_compiling():
            return standing(self.plan, self.front, ranks)
        if ranks not in self.known:
            self.known[ranks] = standing(self.plan, self.front, ranks)
        return self.known[ranks]

    def at_the_front(self, run: Callable[..., Any], tensors: Sequence[Any], stands: Standing, sizes: list[Any]) -> Any:
        """One run over all indexes, which the circuit's own `...` takes; or one for each chunk."""
        if self.chunk_size is None:
            return run(*_filled(tensors, stands.gaps, sizes))
        answers = []
        for start in range(0, max(1, sizes[0]), self.chunk_size):
            length = min(self.chunk_size, sizes[0] - start)
            now = [
                each if stand[0] is None or each.shape[0] != sizes[0] else each.narrow(0, start, length)
                for each, stand in zip(tensors, stands.stands, strict=True)
            ]
            answers.append(run(*_filled(now, stands.gaps, [length, *sizes[1:]])))
        leaves = zip(*[_pytree.tree_leaves(answer) for answer in answers], strict=True)
        return _pytree.tree_unflatten([torch.cat(each) for each in leaves], _pytree.tree_structure(answers[0]))

    def mapped(
        self, run: Callable[..., Any], tensors: Sequence[Any], stands: tuple[Stand, ...], sizes: list[Any]
    ) -> Any:
        """torch.vmap over one level after another, the first the outermost."""
        if 0 in sizes:
            return self.of_nothing(run, tensors, stands, sizes)
        count = len(self.plan.inputs)
        optional = zip(tensors[count:], stands[count:], strict=True)
        tensors = [*tensors[:count], *[_stretched(each, stand, sizes) for each, stand in optional]]
        left = [[*stand] for stand in stands]
        names = (*["..."] * (len(sizes) - len(self.plan.names)), *self.plan.names)
        dims = [tuple([_taken(stand) for stand in left]) for _ in sizes]
        for level in reversed(range(len(sizes))):
            run.__name__ = f"over {names[level]}"
            run = torch.vmap(run, dims[level], 0, self.randomness, chunk_size=None if level else self.chunk_size)
        try:
            return run(*tensors)
        except RuntimeError as error:
            refuse_operation(self.circuit.name, error)
            raise

    def of_nothing(
        self, run: Callable[..., Any], tensors: Sequence[Any], stands: tuple[Stand, ...], sizes: list[Any]
    ) -> Any:
        """The answer where a level is empty: that at a single index, with no index left of it.

        The single index is made by summing over none, so that gradients still go to the inputs.
        """
        single = []
        for tensor, stand in zip(tensors, stands, strict=True):
            empty = [place for place, size in zip(stand, sizes, strict=True) if place is not None and size == 0]
            single.append(tensor.sum(empty, keepdim=True).to(tensor.dtype) if empty else tensor)
        answer = self.mapped(run, single, stands, [size or 1 for size in sizes])
        return _pytree.tree_map(lambda each: each[tuple([slice(size) for size in sizes])], answer)

    def back(self, answer: Any) -> Any:
        """The answers with their axes where the lifted signature has them."""
        if isinstance(answer, Tensor):
            return self.restored(0, answer)
        leaves, structure = _pytree.tree_flatten(answer)
        if len(leaves) == len(self.plan.outputs):
            leaves = [self.restored(number, each) for number, each in enumerate(leaves)]
        return _pytree.tree_unflatten(leaves, structure)

    def restored(self, number: int, tensor: Tensor) -> Tensor:
        """An output in normal order as the lifted signature has it."""
        which = (number, tensor.ndim)
        if torch.compiler.is_compiling():
            way = restoring(self.plan.outputs[number], tensor.ndim, self.plan.leads)
        elif which in self.ways_back:
            way = self.ways_back[which]
        else:
            way = self.ways_back[which] = restoring(self.plan.outputs[number], tensor.ndim, self.plan.leads)
        return tensor if way is None else tensor.permute(way)


def _place(circuit: Circuit, name: str) -> int | str:
    """Where a call has this tensor: its position, or its keyword. `tensors[0]` is the first of `*tensors`."""
    stem, _, number = name.partition("[")
    if number:
        return len(circuit.parameters) + int(number.removesuffix("]"))
    return circuit.parameters.index(stem) if stem in circuit.parameters else stem


def _filled(tensors: Sequence[Any], gaps: tuple[Gap | None, ...], sizes: list[Any]) -> list[Any]:
    """Every tensor whose `...` takes the levels given those that it lacks, without a copy."""
    found = [*tensors]
    for place, gap in enumerate(gaps):
        if gap is None:
            continue
        tensor = found[place]
        own = tensor.shape[tensor.ndim - gap.own :]
        for level in gap.at:
            tensor = tensor.unsqueeze(level)
        found[place] = tensor.expand(*sizes, *own) if gap.whole else tensor
    return found


def _stretched(tensor: Any, stand: Stand, sizes: list[Any]) -> Any:
    """An optional tensor whose `...` only has to broadcast, as long as the level it stands for."""
    if not isinstance(tensor, Tensor):
        return tensor
    shape = list(tensor.shape)
    for place, size in zip(stand, sizes, strict=True):
        if place is not None:
            shape[place] = size
    return tensor.expand(shape)


def _taken(stand: list[int | None]) -> int | None:
    """Where the first level stands, which is taken off; the others move up."""
    place = stand.pop(0)
    if place is not None:
        stand[:] = [each - (each > place) if each is not None else None for each in stand]
    return place


def refuse_operation(name: str, error: RuntimeError) -> None:
    """CircuitError, by name, where torch says that an operation cannot be mapped."""
    words = f"{error}"
    missing = re.search(r"Batching rule not implemented for aten::(\w+)", words)
    if missing:
        raise CircuitError(f"broadcast: {name} uses {missing[1]}, which torch.vmap cannot map") from error
    if words.startswith("Batch norm got a batched tensor"):
        raise CircuitError(f"broadcast: a batch norm in {name} {_NORM}") from error


def refuse_module(module: nn.Module) -> None:
    """CircuitError, by name, where a module is or has what torch.vmap cannot map."""
    for path, part in module.named_modules():
        kind = type(part).__name__
        name = f"the {kind} at {path!r} of {type(module).__name__}" if path else kind
        if isinstance(part, nn.RNNBase):
            raise CircuitError(f"broadcast: torch.vmap cannot map {name}; lift it over the batch axis it has itself")
        if isinstance(part, _NormBase) and part.training and part.running_mean is not None:
            raise CircuitError(f"broadcast: {name} {_NORM}")


_NORM = (
    "is in train mode and keeps running statistics, which each index would change in its own way; "
    "call .eval() on it, or make it with track_running_stats=False"
)
