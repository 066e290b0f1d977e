"""The multiply-adds of contractions, one formula for each ATen operation.

Most formulas are those of torch's `FlopCounterMode`, in `flop_registry`, to which a user may add some
(`torch.utils.flop_counter.register_flop_formula`). Those here are of operations that torch has no formula for (fused
attention on the CPU, LSTM layers, products with vectors), or a wrong one: it counts the gradient of the weight of a
convolution in g groups g times. None of them is registered with torch.

A contraction over k elements costs k multiply-adds, and 2k FLOPs.

Source: torch/utils/flop_counter.py of torch 2.13.
"""

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import sympy
import torch
from torch.utils.flop_counter import flop_registry

Arguments = Mapping[str, Any]
"""The arguments of an operation by name; the sizes in place of each tensor."""

Formula = Callable[[Arguments, Any], Any]
"""Returns the multiply-adds for the arguments and the sizes of the outputs."""


def formula_of(func: Any) -> Formula | None:
    """Return the formula of an ATen operation; None if there is none here."""
    return FORMULAS.get(func._schema.name.removeprefix("aten::").removesuffix("_"))


def flops_by_torch(func: Any, args: Any, kwargs: Any, output: Any) -> Any:
    """Return the FLOPs by torch's formula, for arguments with tensors; None if torch has none.

    An in-place operation, such as `baddbmm_`, has the formula of the other.
    """
    packet = getattr(func, "overloadpacket", func)
    formula = flop_registry.get(packet) or flop_registry.get(_functional(packet))
    return None if formula is None else formula(*args, **kwargs, out_val=output)


def _functional(packet: Any) -> Any:
    """Return the operation that an in-place one of ATen is named after; other operations are returned as they are."""
    name = packet._qualified_op_name if isinstance(packet, torch._ops.OpOverloadPacket) else ""
    if not name.startswith("aten::") or not name.endswith("_") or name.endswith("__"):
        return packet
    return getattr(torch.ops.aten, name.removeprefix("aten::").removesuffix("_"), packet)


# Products -------------------------------------------------------------------------------------------------------------


def _product(left: str) -> Formula:
    """Return the formula of a product whose result has one axis of this argument, the last, summed over."""
    return lambda given, out: prod(out) * given[left][-1]


def _addbmm(given: Arguments, out: Any) -> Any:
    return prod(given["batch1"]) * given["batch2"][-1]


def _grouped_product(given: Arguments, out: Any) -> Any:
    """A product of groups of rows with a matrix each, or of groups of columns; `offs` has where the groups end."""
    left, right = given.get("self", given.get("mat_a")), given.get("mat2", given.get("mat_b"))
    if len(left) == 3 and len(right) == 3:
        return prod(left) * right[-1]
    return left[-2] * left[-1] * right[-1]


def _trilinear(given: Arguments, out: Any) -> Any:
    """Two products, one after the other: of the first two tensors, and of the result with the third."""
    first, second, third = given["i1"], given["i2"], given["i3"]
    expanded = [given["expand1"], given["expand2"], given["expand3"]]
    axes = len(first) + len(expanded[0])
    each = [_with_axes(sizes, axes, missing) for sizes, missing in zip((first, second, third), expanded, strict=True)]
    sizes = [next((size[place] for size in each if size[place] is not None), 1) for place in range(axes)]
    summed_first = {place for place in given["sumdim"] if each[2][place] is None}
    pair = [place for place in range(axes) if each[0][place] is not None or each[1][place] is not None]
    rest = [place for place in range(axes) if place not in summed_first]
    return prod([sizes[place] for place in pair]) + prod([sizes[place] for place in rest])


def _with_axes(sizes: Any, axes: int, missing: Any) -> list[Any]:
    """Return the sizes with None for each axis that a tensor lacks."""
    given = iter(sizes)
    return [None if place in missing else next(given) for place in range(axes)]


def _distances(given: Arguments, out: Any) -> Any:
    """Euclidean distances by a product of the vectors, each extended by two numbers."""
    return prod(out) * (given["x1"][-1] + 2)


# Convolutions ---------------------------------------------------------------------------------------------------------


def _convolution_backward(given: Arguments, out: Any) -> Any:
    """As many as forward for each of the two gradients that are computed, that by the input and by the weight."""
    batch, places = given["input"][0], given["input" if given["transposed"] else "grad_output"][2:]
    forward = batch * prod(places) * prod(given["weight"])
    return forward * sum([bool(computed) for computed in given["output_mask"][:2]])


# Attention ------------------------------------------------------------------------------------------------------------


def pairs(given: Arguments) -> tuple[Any, Any]:
    """Return the number of pairs of a query and a key, and of those that a causal mask leaves: the live ones.

    The first query attends to the first key, whatever their numbers, as the kernels have it.
    """
    y, x = sympy.sympify(given["query"][-2]), sympy.sympify(given["key"][-2])
    if not given.get("is_causal"):
        return y * x, y * x
    short: Any = sympy.sympify(y) if y == x else sympy.Min(y, x)  # of sympy, so that a half is exact
    return y * x, short * (short + 1) / 2 + (y - short) * x


def _attention(given: Arguments, out: Any) -> Any:
    """Scores, and the mixture of the values by them."""
    query, value = given["query"], given["value"]
    return prod(query[:-2]) * pairs(given)[0] * (query[-1] + value[-1])


def _attention_backward(given: Arguments, out: Any) -> Any:
    """Scores again; the gradients of the weights and the values; and those of the queries and the keys."""
    query, value = given["query"], given["value"]
    return prod(query[:-2]) * pairs(given)[0] * (3 * query[-1] + 2 * value[-1])


_KERNELS = ("flash_attention_for_cpu", "flash_attention", "efficient_attention", "cudnn_attention")
_ATTENTION: dict[str, Formula] = {f"_scaled_dot_product_{name}": _attention for name in _KERNELS}
_ATTENTION |= {f"_scaled_dot_product_{name}_backward": _attention_backward for name in _KERNELS}
_ATTENTION |= {
    "_scaled_dot_product_fused_attention_overrideable": _attention,
    "_scaled_dot_product_fused_attention_overrideable_backward": _attention_backward,
    "_scaled_dot_product_attention_math_for_mps": _attention,
}


def _encoder_layer(given: Arguments, out: Any) -> Any:
    """A whole encoder layer in eval mode: projections, attention and feed-forward."""
    weights = ("qkv_weight", "proj_weight", "ffn_weight_1", "ffn_weight_2")
    b, x, m = given["src"]
    return b * x * sum([prod(given[name]) for name in weights]) + 2 * b * x * x * m


def _multi_head_attention(given: Arguments, out: Any) -> Any:
    (b, y, m), x = given["query"], given["key"][1]
    rows = b * y * m * m + 2 * b * x * m * m
    return rows + b * y * prod(given["proj_weight"]) + 2 * b * y * x * m


# Recurrent layers -----------------------------------------------------------------------------------------------------


def _recurrent_layer(given: Arguments, out: Any) -> Any:
    """One layer over all steps: the input's weights and the state's."""
    steps, batch = given["input"][:2]
    return steps * batch * (prod(given["weight0" if "weight0" in given else "weight1"]) + prod(_state_weight(given)))


def _state_weight(given: Arguments) -> Any:
    return given["weight1"] if "weight0" in given else given["weight2"]


def _recurrent_layer_backward(given: Arguments, out: Any) -> Any:
    return 2 * _recurrent_layer(given, out)


FORMULAS: dict[str, Formula] = {
    **_ATTENTION,
    "mv": lambda given, out: prod(given["self"]),
    "addmv": lambda given, out: prod(given["mat"]),
    "dot": lambda given, out: prod(given["self"]),
    "vdot": lambda given, out: prod(given["self"]),
    "addbmm": _addbmm,
    "conv_tbc": lambda given, out: prod(out) * prod(given["weight"][:2]),
    "_int_mm": _product("self"),
    "_scaled_mm_v2": _product("self"),
    "_weight_int8pack_mm": _product("self"),
    "_weight_int4pack_mm": _product("self"),
    "_weight_int4pack_mm_for_cpu": _product("self"),
    "_grouped_mm": _grouped_product,
    "_scaled_grouped_mm": _grouped_product,
    "_scaled_grouped_mm_v2": _grouped_product,
    "_addmm_activation": lambda given, out: prod(given["mat1"]) * given["mat2"][-1],
    "_trilinear": _trilinear,
    "_euclidean_dist": _distances,
    "convolution_backward": _convolution_backward,
    "_transformer_encoder_layer_fwd": _encoder_layer,
    "_native_multi_head_attention": _multi_head_attention,
    "mkldnn_rnn_layer": _recurrent_layer,
    "mkldnn_rnn_layer_backward": _recurrent_layer_backward,
}
"""The formula of each operation that torch has none for, or a wrong one, by its name in ATen without `_` at its end."""

__all__ = ["Arguments", "flops_by_torch", "formula_of", "pairs"]
