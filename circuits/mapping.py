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

from circuits.declaring import Circuit
from circuits.errors import CircuitError
from circuits.lifting import Move, Plan

Randomness = Literal["error", "different", "same"]


class Lift:
    """Runs a plan. A level is one lifted axis of a call: first those that `...` stands for, then those with names."""

    def __init__(self, circuit: Circuit, plan: Plan, chunk_size: int | None, randomness: Randomness) -> None:
        self.circuit = circuit
        self.plan = plan
        self.chunk_size = chunk_size
        self.randomness: Randomness = randomness
        self.front = plan.front and randomness != "same"
        self.moves = (*plan.inputs, *plan.optional.values())
        self.places = [_place(circuit, name) for name in (*circuit.inputs, *plan.optional)]
        self.leader = next((at for at, move in enumerate(plan.inputs) if move.rest and plan.leads), None)

    def __call__(self, f: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The answer of `f` at every index."""

        def run(*tensors: Any) -> Any:
            new_args, new_kwargs = list(args), dict(kwargs)
            for place, tensor in zip(self.places, tensors, strict=True):
                if isinstance(place, str):
                    new_kwargs[place] = tensor
                else:
                    new_args[place] = tensor
            return f(*new_args, **new_kwargs)

        given = [kwargs[place] if isinstance(place, str) else args[place] for place in self.places]
        tensors = [self.ordered(each, move) for each, move in zip(given, self.moves, strict=True)]
        stands = self.stands(tensors)
        sizes = _sizes(tensors, stands)
        if not sizes:
            answer = run(*tensors)
        elif self.front:
            answer = self.at_the_front(run, tensors, stands, sizes)
        else:
            answer = self.mapped(run, tensors, stands, sizes)
        return self.back(answer)

    def ordered(self, tensor: Any, move: Move) -> Any:
        """A tensor in normal order, where it has to be; what is none as it is."""
        if not isinstance(tensor, Tensor) or (move.keeps and not self.front):
            return tensor
        order = move.order(tensor.ndim, self.plan.leads)
        return tensor if order == tuple(range(tensor.ndim)) else tensor.permute(order)

    def stands(self, tensors: Sequence[Any]) -> list[list[int | None]]:
        """Where each level stands on each tensor, None where it lacks it and is shared."""
        count = 0
        if self.leader is not None:
            count = tensors[self.leader].ndim - self.moves[self.leader].named
        found = []
        for tensor, move in zip(tensors, self.moves, strict=True):
            if not isinstance(tensor, Tensor):
                found.append([None] * (count + len(move.lifted)))
                continue
            rest = tensor.ndim - move.named if move.rest and self.leader is not None else 0
            stand: list[int | None] = [None] * (count - rest) + list(range(rest))
            for place in move.lifted:
                here = place is not None and (tensor.ndim + place if move.keeps and not self.front else rest)
                rest += place is not None
                stand.append(None if place is None else here)
            found.append(stand)
        return found

    def at_the_front(
        self, run: Callable[..., Any], tensors: Sequence[Any], stands: list[list[int | None]], sizes: list[Any]
    ) -> Any:
        """One run over all indexes, which the circuit's own `...` takes; or one for each chunk."""
        if self.chunk_size is None:
            return run(*self.filled(tensors, stands, sizes))
        answers = []
        for start in range(0, max(1, sizes[0]), self.chunk_size):
            length = min(self.chunk_size, sizes[0] - start)
            now = [
                each if stand[0] is None or each.shape[0] != sizes[0] else each.narrow(0, start, length)
                for each, stand in zip(tensors, stands, strict=True)
            ]
            answers.append(run(*self.filled(now, stands, [length, *sizes[1:]])))
        leaves = zip(*[_pytree.tree_leaves(answer) for answer in answers], strict=True)
        return _pytree.tree_unflatten([torch.cat(each) for each in leaves], _pytree.tree_structure(answers[0]))

    def filled(self, tensors: Sequence[Any], stands: list[list[int | None]], sizes: list[Any]) -> list[Any]:
        """Every tensor whose `...` takes the levels given those that it lacks, without a copy.

        An optional tensor is given a 1, since it only has to broadcast.
        """
        found = []
        for at, (tensor, move, stand) in enumerate(zip(tensors, self.moves, stands, strict=True)):
            whole = at < len(self.plan.inputs)
            if not move.loose or tensor is None or None not in stand or not (whole or tensor.ndim > len(move.own)):
                found.append(tensor)
                continue
            own = tensor.shape[tensor.ndim - len(move.own) :]
            for level, place in enumerate(stand):
                tensor = tensor.unsqueeze(level) if place is None else tensor
            found.append(tensor.expand(*sizes, *own) if whole else tensor)
        return found

    def mapped(
        self, run: Callable[..., Any], tensors: Sequence[Any], stands: list[list[int | None]], sizes: list[Any]
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
        self, run: Callable[..., Any], tensors: Sequence[Any], stands: list[list[int | None]], sizes: list[Any]
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
            return _restored(answer, self.plan.outputs[0], self.plan.leads)
        leaves, structure = _pytree.tree_flatten(answer)
        if len(leaves) == len(self.plan.outputs):
            moved = zip(leaves, self.plan.outputs, strict=True)
            leaves = [_restored(each, move, self.plan.leads) for each, move in moved]
        return _pytree.tree_unflatten(leaves, structure)


def _place(circuit: Circuit, name: str) -> int | str:
    """Where a call has this tensor: its position, or its keyword. `tensors[0]` is the first of `*tensors`."""
    stem, _, number = name.partition("[")
    if number:
        return len(circuit.parameters) + int(number.removesuffix("]"))
    return circuit.parameters.index(stem) if stem in circuit.parameters else stem


def _sizes(tensors: Sequence[Any], stands: list[list[int | None]]) -> list[Any]:
    """How long each level is, read off the first tensor that has it."""
    found = []
    for level in range(len(stands[0]) if stands else 0):
        at = next(at for at, stand in enumerate(stands) if stand[level] is not None)
        found.append(tensors[at].shape[stands[at][level]])
    return found


def _stretched(tensor: Any, stand: list[int | None], sizes: list[Any]) -> Any:
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


def _restored(tensor: Tensor, move: Move, leads: bool) -> Tensor:
    """A tensor in normal order as the lifted signature has it."""
    order = move.order(tensor.ndim, leads)
    if order == tuple(range(tensor.ndim)):
        return tensor
    return tensor.permute([order.index(place) for place in range(tensor.ndim)])


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
