"""einsum, rearrange, reduce, repeat: the operations of einops, each recorded as one box with its pattern.

Arguments and results are those of einops. Names may have primes (`h'`), so that a pattern can use the names of a
signature. `einsum` differs in one thing: all sizes of an axis must be equal, whereas einops and torch broadcast an axis
of size 1 silently.

Source: A. Rogozhnikov, Einops, ICLR 2022.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import einops
import torch
from torch import Tensor

from circuits import switch
from circuits.errors import CircuitError, ShapeError, SignatureError, described
from circuits.signature import plain_size
from circuits.tracebacks import hide_frames
from circuits.tracers import fx_leaf, has_proxy, without_jit_trace
from circuits.verbs.contraction import contract_in_cached_order
from circuits.verbs.plan import names_for_einops, plan_for, refuse
from circuits.verbs.verb_errors import explained, of_mixed_tensors


def einsum(*tensors_and_pattern: Any) -> Tensor:
    """Multiply tensors along axes of equal name, and sum over the axes that the result lacks.

    The pattern is the last argument: `einsum(query, key, "... y k, ... x k -> ... y x")`. An axis must have the same
    size in all tensors, and so must the axes of `...`: an axis of size 1 is not broadcast. A pattern as first
    argument, as in torch.einsum and the paper's notebook, raises SignatureError.

    Args:
        *tensors_and_pattern: The tensors, as einops.einsum takes them, then the pattern: the names of the axes of each
            tensor, separated by commas, and after `->` those of the result.

    Returns:
        The result.

    Raises:
        SignatureError: If the pattern is not the last argument, cannot be parsed, has an axis that is not a name, or
            has no output, several, or one with an axis that no input has or that it has twice.
        ShapeError: If an axis has two sizes, or there are not as many tensors or axes as in the pattern.

    >>> import torch
    >>> einsum(torch.ones(2, 3), torch.ones(3), "y k, k -> y")
    tensor([3., 3.])
    """
    *tensors, pattern = tensors_and_pattern
    try:
        if not isinstance(pattern, str):
            raise SignatureError("einsum takes its tensors first and its pattern last: einsum(x, w, 'y m, m k -> y k')")
        if has_proxy(tensors):
            return fx_leaf(einsum, tensors_and_pattern, {})
        without_jit_trace(_check_sizes, pattern, tensors)
        try:
            if len(tensors) > 2 and not switch.active and not torch.compiler.is_compiling():
                result = contract_in_cached_order(plan_for(pattern).equation, tensors)
                if result is not None:
                    return result
            named = _for_einops(pattern)[0]
            return _emit(einsum, pattern, tensors_and_pattern, {}, lambda: _einops_einsum(*tensors, named))
        except RuntimeError:
            mixed = of_mixed_tensors(pattern, tensors)
            if mixed is None:
                raise
            raise mixed from None
    except CircuitError as error:
        hide_frames(error)
        raise


_einops_einsum: Callable[..., Tensor] = einops.einsum


def rearrange(tensor: Tensor | Sequence[Tensor], pattern: str, **sizes: Any) -> Tensor:
    """Reorder, group and split axes, as einops.rearrange: `rearrange(x, "... y (h k) -> ... h y k", k=16)`.

    Args:
        tensor: The input; a sequence of tensors of equal shape is stacked along the first axis of the pattern.
        pattern: The axes of the input and of the result.
        **sizes: The sizes of axes in groups that the shape does not determine.

    Returns:
        The result, a view if possible.

    Raises:
        SignatureError: If the pattern cannot be parsed, or an axis is only on one side or has no size.
        ShapeError: If the tensor does not fit the pattern and the sizes.

    >>> import torch
    >>> rearrange(torch.ones(20, 64), "y (h k) -> h y k", k=16).shape
    torch.Size([4, 20, 16])
    """
    try:
        return _einops(rearrange, einops.rearrange, (tensor, pattern), sizes)
    except CircuitError as error:
        hide_frames(error)
        raise


def reduce(tensor: Tensor | Sequence[Tensor], pattern: str, reduction: Any, **sizes: Any) -> Tensor:
    """Reduce the axes that the result lacks, as einops.reduce: `reduce(x, "b h w -> b", "mean")`.

    Args:
        tensor: The input; a sequence of tensors of equal shape is stacked along the first axis of the pattern.
        pattern: The axes of the input and of the result.
        reduction: "sum", "mean", "max", "min", "prod", "any" or "all", or a function of a tensor and a tuple of
            dimensions.
        **sizes: The sizes of axes in groups that the shape does not determine.

    Returns:
        The result.

    Raises:
        SignatureError: If the pattern cannot be parsed, or an axis is only on one side or has no size.
        ShapeError: If the tensor does not fit the pattern and the sizes.

    >>> import torch
    >>> reduce(torch.ones(4, 6), "y x -> y", "sum")
    tensor([6., 6., 6., 6.])
    """
    try:
        return _einops(reduce, einops.reduce, (tensor, pattern, reduction), sizes)
    except CircuitError as error:
        hide_frames(error)
        raise


def repeat(tensor: Tensor | Sequence[Tensor], pattern: str, **sizes: Any) -> Tensor:
    """Repeat a tensor along new axes, as einops.repeat: `repeat(x, "k -> y k", y=5)`.

    Args:
        tensor: The input; a sequence of tensors of equal shape is stacked along the first axis of the pattern.
        pattern: The axes of the input and of the result.
        **sizes: The sizes of the new axes, and of axes in groups that the shape does not determine.

    Returns:
        The result.

    Raises:
        SignatureError: If the pattern cannot be parsed, or an axis is only on one side or has no size.
        ShapeError: If the tensor does not fit the pattern and the sizes.

    >>> import torch
    >>> repeat(torch.arange(2), "k -> y k", y=2)
    tensor([[0, 1],
            [0, 1]])
    """
    try:
        return _einops(repeat, einops.repeat, (tensor, pattern), sizes)
    except CircuitError as error:
        hide_frames(error)
        raise


def _einops(verb: Callable[..., Tensor], function: Any, args: tuple[Any, ...], sizes: dict[str, Any]) -> Tensor:
    """Run a verb by the function of einops; its arguments are the tensor, the pattern and perhaps the reduction.

    A sequence of tensors, of any class, is passed as a list, and sizes as ints: einops takes no other sequences, and
    computes with numpy's integers as they are, so that they may overflow.
    """
    tensor, pattern, *others = args
    if not isinstance(tensor, Tensor) or [size for size in sizes.values() if type(size) is not int]:
        leaf = fx_leaf(verb, args, sizes)
        if leaf is not None:
            return leaf
        if isinstance(tensor, Sequence) and not isinstance(tensor, str):
            tensor = list(tensor)
        sizes = {name: plain_size(size) for name, size in sizes.items()}
    text, named = _for_einops(pattern, sizes)
    try:
        return _emit(verb, pattern, (tensor, pattern, *others), sizes, lambda: function(tensor, text, *others, **named))
    except RuntimeError as error:
        known = explained(verb.__name__, pattern, tensor, sizes, error)
        if known is None:
            raise
        raise known from None


def _emit(
    verb: Callable[..., Any], pattern: str, args: tuple[Any, ...], sizes: dict[str, Any], run: Callable[[], Any]
) -> Any:
    """Run a verb; while this thread is recorded, pass it to the recorder with its pattern."""
    if switch.active:
        recorder = switch.current()
        if recorder is not None:
            return recorder.verb(verb, pattern, args, sizes, run)
    return run()


def _for_einops(pattern: str, sizes: Mapping[str, Any] = MappingProxyType({})) -> tuple[str, Mapping[str, Any]]:
    """Return a pattern and sizes by name for einops, whose names are ASCII or Python's, without primes.

    A keyword argument such as `**{"h'": 2}` may have primes too.
    """
    if not isinstance(pattern, str):
        raise SignatureError(f"a pattern such as 'y x -> x y' comes after the tensor, not {described(pattern)}")
    if "'" not in pattern and pattern.isascii():
        return pattern, sizes
    text, *names = names_for_einops(pattern, *sizes)
    return text, dict(zip(names, sizes.values()))  # noqa: B905  (Dynamo traces it)


def _check_sizes(pattern: str, tensors: Sequence[Tensor]) -> None:
    """Raise ShapeError unless every axis of an einsum has one size."""
    plan = plan_for(pattern)
    if len(plan.operands) != len(tensors):
        noun = "tensor" if len(plan.operands) == 1 else "tensors"
        raise ShapeError(f"einsum '{pattern}': expected {len(plan.operands)} {noun}, got {len(tensors)}")
    lead: Any = None
    for tensor, operand in zip(tensors, plan.operands):  # noqa: B905  (the lengths were just compared)
        shape = tensor.shape
        extra = len(shape) - len(operand.names)
        if extra != 0 and (extra < 0 or not operand.rest):
            refuse(pattern, tensors)
        if operand.rest:
            if lead is not None and shape[:extra] != lead:
                refuse(pattern, tensors)
            lead = shape[:extra]
    for tensor_a, dim_a, tensor_b, dim_b in plan.pairs:
        if tensors[tensor_a].shape[dim_a] != tensors[tensor_b].shape[dim_b]:
            refuse(pattern, tensors)
