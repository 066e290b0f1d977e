"""`Meter`: a dispatch mode that adds up what the ATen operations of a run cost, on tensors without data.

It sees operations below autograd. A composite one is decomposed first, unless it has a formula of its own.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from circuits.cost.boundary import Boundary
from circuits.cost.contractions import flops_by_torch, formula_of, pairs
from circuits.cost.elementwise import computes, is_of_lists, looks_up, name_of, only_overwrites, writes_nothing
from circuits.cost.memory import Memory, key
from circuits.cost.sizes import Sum, simplified
from circuits.diagram import Size, size_text


class Tally:
    """What the operations of one box cost.

    `live` has the live multiply-adds by the dtype in which they are computed; `unknown` counts the operations without a
    formula, by name and sizes.
    """

    def __init__(self) -> None:
        self.multiply_adds, self.elementwise = Sum(), Sum()
        self.live: dict[torch.dtype, Sum] = {}
        self.read, self.written, self.activations, self.saved = Sum(), Sum(), Sum(), Sum()
        self.unknown: Counter[str] = Counter()


class Meter(TorchDispatchMode):
    """Adds the cost of each operation to `tally`, its storages to `memory`, and what it moves to open `boundaries`.

    `size` converts torch's symbolic numbers to formulas in axes. `failure` is an error of the meter itself, not of the
    operations.
    """

    supports_higher_order_operators = True

    def __init__(self, size: Callable[[Any], Size], memory: Memory) -> None:
        super().__init__()
        self.size = size
        self.memory = memory
        self.tally = Tally()
        self.boundaries: list[Boundary] = []
        self.failure: Exception | None = None
        self._overlapping = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        is_operation = isinstance(func, torch._ops.OpOverload) and func.namespace != "prim"
        if is_operation and formula_of(func) is None and _is_composite(func):
            with self:
                output = func.decompose(*args, **kwargs)
            if output is not NotImplemented:
                return output
        output = func(*args, **kwargs)
        made = _tensors(output)
        if made and getattr(func, "namespace", "") != "prim":
            try:
                self._count(func, args, kwargs, output, made)
            except Exception as error:
                self.failure = error
                raise
        return output

    def _count(self, func: Any, args: Any, kwargs: Any, output: Any, made: list[Tensor]) -> None:
        """Add the cost of one operation."""
        given = _distinct(_tensors((args, kwargs)))
        storages = {key(tensor) for tensor in given}
        self.memory.note([tensor for tensor in made if key(tensor) not in storages])
        fresh = _distinct([tensor for tensor in made if key(tensor) not in storages])
        is_operation = isinstance(func, torch._ops.OpOverload)
        changed = _written(func, args, kwargs) if is_operation else []
        if not fresh and not changed:
            if is_operation and (name_of(func) in _WINDOWS or any(each in self._overlapping for each in given)):
                self._overlapping.update(dict.fromkeys(made))
            return  # a view
        known = self._contraction(func, args, kwargs, output, given)
        if not known:
            known = is_operation and self._elements(func, given, changed or fresh)
        if not known:
            sizes = ", ".join([" ".join([size_text(each) for each in self._sizes(tensor)]) or "()" for tensor in given])
            self.tally.unknown[f"{name_of(func) if is_operation else func.name()} {sizes}".strip()] += 1
        self._bytes(func, given, changed, fresh, is_operation)

    # Arithmetic

    def _contraction(self, func: Any, args: Any, kwargs: Any, output: Any, tensors: list[Tensor]) -> bool:
        """Add the multiply-adds of a contraction; return whether the operation is one."""
        formula = formula_of(func) if isinstance(func, torch._ops.OpOverload) else None
        if formula is None:
            flops = flops_by_torch(func, args, kwargs, output)
            if flops is None:
                return False
            found = simplified(self.size(flops) / 2) if not isinstance(flops, int) else flops // 2
            live = found
        else:
            given = {name: self._in_sizes(value) for name, value in _named(func, args, kwargs).items()}
            found = simplified(formula(given, self._in_sizes(output)))
            live = found
            if given.get("is_causal"):
                every, left = pairs(given)
                live = simplified(formula({**given, "is_causal": False}, None) * left / every)
        self.tally.multiply_adds.add(found)
        self.tally.live.setdefault(_computed_in(tensors), Sum()).add(live)
        return True

    def _elements(self, func: Any, given: list[Tensor], results: list[Tensor]) -> bool:
        """Add the elements that an operation computes with; return whether it is known."""
        which = computes(func)
        if which:
            counted = results if which == "written" or not given else given
            for tensor in counted if is_of_lists(func) else counted[:1]:
                self.tally.elementwise.add(self._numel(tensor))
        return which is not None

    # Bytes

    def _bytes(self, func: Any, given: list[Tensor], changed: list[Tensor], fresh: list[Tensor], known: bool) -> None:
        """Add the bytes that an operation reads and writes."""
        writes = not (known and writes_nothing(func))
        read = given if writes else []
        if known and changed and only_overwrites(func):
            read = [tensor for tensor in read if all(tensor is not each for each in changed)]
        if known and looks_up(func) and fresh and read:
            source, read = read[0], read[1:]
            self.tally.read.add(self._numel(fresh[0]) * source.dtype.itemsize)
        for tensor in read:
            self.tally.read.add(self._bytes_of(tensor))
        for tensor in _distinct([*changed, *(fresh if writes else [])]):
            self.tally.written.add(self._bytes_of(tensor))
        for boundary in self.boundaries:
            for tensor in read:
                boundary.read(key(tensor), self._distinct_bytes(tensor))
            for tensor in changed:
                boundary.change(key(tensor), self._distinct_bytes(tensor))
            for tensor in fresh:
                boundary.make(key(tensor), writes)

    def close(self, results: Iterable[Tensor]) -> Size:
        """Close the boundary that was opened last; return the bytes that cross it."""
        return self.boundaries.pop().close([(key(tensor), self._distinct_bytes(tensor)) for tensor in results])

    def _distinct_bytes(self, tensor: Tensor) -> Size:
        """Return the bytes of the elements of a tensor; none if it has some of them several times."""
        return 0 if tensor in self._overlapping else self._bytes_of(tensor)

    def _bytes_of(self, tensor: Tensor) -> Size:
        """Return the bytes of the elements of a tensor; those that an expanded axis repeats are read once."""
        sizes = self._sizes(tensor)
        if tensor.layout is torch.strided:
            strides = tensor.stride()
            sizes = [
                size for size, stride in zip(sizes, strides, strict=True) if type(stride) is not int or stride != 0
            ]
        return simplified(prod(sizes) * tensor.dtype.itemsize)

    def _numel(self, tensor: Tensor) -> Size:
        return simplified(prod(self._sizes(tensor)))

    def _sizes(self, tensor: Tensor) -> list[Any]:
        return [self.size(size) for size in tensor.shape]

    def _in_sizes(self, value: Any) -> Any:
        """Return arguments with the sizes in place of each tensor, and formulas in place of symbolic numbers."""
        if isinstance(value, Tensor):
            return self._sizes(value)
        if isinstance(value, (list, tuple)):
            return [self._in_sizes(each) for each in value]
        return self.size(value) if isinstance(value, torch.SymInt) else value


def _is_composite(func: Any) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


_WINDOWS = ("unfold", "as_strided")
"""The views that may have an element several times, beside expanded ones."""


def _computed_in(tensors: list[Tensor]) -> torch.dtype:
    """Return the dtype in which a contraction computes: of its floating inputs, that with the fewest bytes.

    Scales and a bias may have more than the factors, and factors that are whole numbers are converted.
    """
    floating = [tensor.dtype for tensor in tensors if tensor.dtype.is_floating_point]
    return min(floating or [tensors[0].dtype], key=lambda dtype: dtype.itemsize)


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in _pytree.tree_leaves(value) if isinstance(leaf, Tensor)]


def _distinct(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Return tensors, each object once."""
    return list({id(tensor): tensor for tensor in tensors}.values())


def _named(func: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """Return the arguments of an ATen operation by name, with defaults."""
    places = enumerate(func._schema.arguments)
    return {
        each.name: args[place]
        if place < len(args) and not each.kwarg_only
        else kwargs.get(each.name, each.default_value if each.has_default_value() else None)
        for place, each in places
    }


def _written(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """Return the tensors among the arguments that an ATen operation writes to; `transpose_` changes no element."""
    if torch.Tag.inplace_view in func.tags:
        return []
    named = _named(func, args, kwargs)
    places = [each for each in func._schema.arguments if each.alias_info is not None and each.alias_info.is_write]
    return _distinct(_tensors([named[each.name] for each in places]))


__all__ = ["Meter", "Tally"]
