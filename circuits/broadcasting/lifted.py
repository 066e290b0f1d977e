"""The lifted call: inputs are permuted into normal order, the circuit runs over all lifted axes, outputs are permuted.

If the circuit's own `...` can match the lifted axes, the circuit runs once. Otherwise torch.vmap maps it over one axis
after another. Mapped outputs always have the axis in front, since non-strict torch.export fails on other `out_dims`.

Source: V. Abbott, Neural Circuit Diagrams, TMLR 2024, section 2.3.2; torch.func.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils import _pytree

from circuits.broadcasting.layout import Dims, Layout, MissingDims, Ranks, compute_layout, output_permutation
from circuits.broadcasting.plan import Plan
from circuits.broadcasting.refusals import refuse_operation
from circuits.checking import Circuit

Randomness = Literal["error", "different", "same"]


class LiftedCircuit:
    """Runs a circuit by the plan of its lift. The layout of a call is computed once per tuple of ranks and cached."""

    def __init__(self, circuit: Circuit, plan: Plan, chunk_size: int | None, randomness: Randomness) -> None:
        self.circuit = circuit
        self.plan = plan
        self.chunk_size = chunk_size
        self.randomness: Randomness = randomness
        self.batched: bool = plan.batched and randomness != "same"
        self.arguments: tuple[int | str, ...] = tuple(
            [_argument(circuit, name) for name in (*circuit.inputs, *plan.optional)]
        )
        self.tensors_first: bool = self.arguments == tuple(range(len(self.arguments)))
        self.layouts: dict[Ranks, Layout] = {}
        self.output_permutations: dict[tuple[int, int], tuple[int, ...] | None] = {}

    def __call__(self, f: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the result of `f` at every index of the lifted axes."""

        def run(*tensors: Any) -> Any:
            if self.tensors_first:
                return f(*tensors, *args[len(tensors) :], **kwargs)
            new_args, new_kwargs = list(args), dict(kwargs)
            for argument, tensor in zip(self.arguments, tensors):  # noqa: B905  (of equal length)
                if isinstance(argument, str):
                    new_kwargs[argument] = tensor
                else:
                    new_args[argument] = tensor
            return f(*new_args, **new_kwargs)

        tensors = [kwargs[each] if isinstance(each, str) else args[each] for each in self.arguments]
        layout = self._layout(tuple([each.ndim if isinstance(each, Tensor) else None for each in tensors]))
        for at, permutation in enumerate(layout.permutations):
            if permutation is not None:
                tensors[at] = tensors[at].permute(permutation)
        sizes = [tensors[at].shape[dim] for at, dim in layout.size_sources]
        if not sizes:
            result = run(*tensors)
        elif self.batched:
            result = self._run_batched(run, tensors, layout, sizes)
        else:
            result = self._run_mapped(run, tensors, layout.dims, sizes)
        return self._permute_outputs(result)

    def _layout(self, ranks: Ranks) -> Layout:
        """Return the layout of tensors with these ranks; torch.compile and torch.export trace its computation."""
        if torch.compiler.is_compiling():
            return compute_layout(self.plan, self.batched, ranks)
        if ranks not in self.layouts:
            self.layouts[ranks] = compute_layout(self.plan, self.batched, ranks)
        return self.layouts[ranks]

    def _run_batched(self, run: Callable[..., Any], tensors: Sequence[Any], layout: Layout, sizes: list[Any]) -> Any:
        """Run the circuit, whose own `...` matches the levels: once, or once for each chunk of the first level."""
        if self.chunk_size is None:
            return run(*_with_missing_dims(tensors, layout.missing, sizes))
        results = []
        for start in range(0, max(1, sizes[0]), self.chunk_size):
            length = min(self.chunk_size, sizes[0] - start)
            chunk = [
                each if dims[0] is None or each.shape[0] != sizes[0] else each.narrow(0, start, length)
                for each, dims in zip(tensors, layout.dims, strict=True)
            ]
            results.append(run(*_with_missing_dims(chunk, layout.missing, [length, *sizes[1:]])))
        leaves = zip(*[_pytree.tree_leaves(result) for result in results], strict=True)
        return _pytree.tree_unflatten([torch.cat(each) for each in leaves], _pytree.tree_structure(results[0]))

    def _run_mapped(
        self, run: Callable[..., Any], tensors: Sequence[Any], dims: tuple[Dims, ...], sizes: list[Any]
    ) -> Any:
        """Map by torch.vmap over one level after another, the first outermost."""
        if 0 in sizes:
            return self._run_on_empty(run, tensors, dims, sizes)
        count = len(self.plan.inputs)
        optional = zip(tensors[count:], dims[count:], strict=True)
        tensors = [*tensors[:count], *[_expanded(each, tensor_dims, sizes) for each, tensor_dims in optional]]
        remaining = [[*each] for each in dims]
        names = (*["..."] * (len(sizes) - len(self.plan.names)), *self.plan.names)
        in_dims = [tuple([_take_first(each) for each in remaining]) for _ in sizes]
        for level in reversed(range(len(sizes))):
            run.__name__ = f"over {names[level]}"
            run = torch.vmap(run, in_dims[level], 0, self.randomness, chunk_size=None if level else self.chunk_size)
        try:
            return run(*tensors)
        except RuntimeError as error:
            refuse_operation(self.circuit.name, error)
            raise

    def _run_on_empty(
        self, run: Callable[..., Any], tensors: Sequence[Any], dims: tuple[Dims, ...], sizes: list[Any]
    ) -> Any:
        """Return the result if a level has size 0: it is computed with size 1, then sliced to size 0.

        An input with this level is summed over it to get size 1, so that gradients still flow to the input.
        """
        single = []
        for tensor, tensor_dims in zip(tensors, dims, strict=True):
            empty = [dim for dim, size in zip(tensor_dims, sizes, strict=True) if dim is not None and size == 0]
            single.append(tensor.sum(empty, keepdim=True).to(tensor.dtype) if empty else tensor)
        result = self._run_mapped(run, single, dims, [size or 1 for size in sizes])
        return _pytree.tree_map(lambda each: each[tuple([slice(size) for size in sizes])], result)

    def _permute_outputs(self, result: Any) -> Any:
        """Return the result with the axes of each output in the order of the lifted signature."""
        if isinstance(result, Tensor):
            return self._permute_output(0, result)
        leaves, structure = _pytree.tree_flatten(result)
        if len(leaves) == len(self.plan.outputs):
            leaves = [self._permute_output(number, each) for number, each in enumerate(leaves)]
        return _pytree.tree_unflatten(leaves, structure)

    def _permute_output(self, number: int, tensor: Tensor) -> Tensor:
        """Return an output permuted from normal order to the order of the lifted signature."""
        key = (number, tensor.ndim)
        if torch.compiler.is_compiling():
            permutation = output_permutation(self.plan.outputs[number], tensor.ndim, self.plan.lifts_rest)
        elif key in self.output_permutations:
            permutation = self.output_permutations[key]
        else:
            permutation = output_permutation(self.plan.outputs[number], tensor.ndim, self.plan.lifts_rest)
            self.output_permutations[key] = permutation
        return tensor if permutation is None else tensor.permute(permutation)


def _argument(circuit: Circuit, name: str) -> int | str:
    """Return the position or the keyword at which a call passes a tensor; `tensors[0]` is the first of `*tensors`."""
    stem, _, number = name.partition("[")
    if number:
        return len(circuit.parameters) + int(number.removesuffix("]"))
    return circuit.parameters.index(stem) if stem in circuit.parameters else stem


def _with_missing_dims(tensors: Sequence[Any], missing: tuple[MissingDims | None, ...], sizes: list[Any]) -> list[Any]:
    """Return the tensors with a dimension inserted for each level that their `...` lacks, as views without a copy."""
    found = [*tensors]
    for at, each in enumerate(missing):
        if each is None:
            continue
        tensor = found[at]
        own = tensor.shape[tensor.ndim - each.own :]
        for level in each.levels:
            tensor = tensor.unsqueeze(level)
        found[at] = tensor.expand(*sizes, *own) if each.expand else tensor
    return found


def _expanded(tensor: Any, dims: Dims, sizes: list[Any]) -> Any:
    """Return an optional tensor, whose `...` need only broadcast, expanded to the sizes of the levels that it has."""
    if not isinstance(tensor, Tensor):
        return tensor
    shape = list(tensor.shape)
    for dim, size in zip(dims, sizes, strict=True):
        if dim is not None:
            shape[dim] = size
    return tensor.expand(shape)


def _take_first(dims: list[int | None]) -> int | None:
    """Remove the first level and return its dimension; greater dimensions decrease by one, as inside torch.vmap."""
    first = dims.pop(0)
    if first is not None:
        dims[:] = [each - (each > first) if each is not None else None for each in dims]
    return first
